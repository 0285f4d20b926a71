"""Faces cut out of pictures, as recognisers want them: square, of one size, with some of what is around."""

import cv2
import numpy as np
from PIL import Image

from idia_core.face_detection import Box
from idia_core.reduced_pictures import Found, box_in_reduced


def crop_face(picture: Image.Image, box: Box, margin: float = 0.2, side: int = 224) -> Image.Image:
    """A square [side, side] around the box's centre, as long as the box's longer side and `margin` of it.

    Where it leaves the picture, the picture's edge is repeated. `picture` is the upright one that the box is of.
    """
    wide = max(round(max(box.width, box.height) * (1 + margin)), 1)
    left, top = round(box.x + (box.width - wide) / 2), round(box.y + (box.height - wide) / 2)
    right, bottom = left + wide, top + wide
    inside = max(left, 0), max(top, 0), min(right, picture.width), min(bottom, picture.height)
    pixels = np.asarray(picture.crop(inside))
    around = inside[1] - top, bottom - inside[3], inside[0] - left, right - inside[2]
    if any(around):
        pixels = cv2.copyMakeBorder(pixels, *around, cv2.BORDER_REPLICATE)
    # Pillow's filter grows with the reduction: a large face does not alias.
    return Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR)


def crops_of(found: Found, margin: float = 0.2, side: int = 224) -> list[Image.Image]:
    """The crops of all faces that were found in a picture, from what was decoded of it."""
    picture = found.reduced.picture
    if picture is None:
        return []
    return [crop_face(picture, box_in_reduced(found.reduced, face.box), margin, side) for face in found.faces]
