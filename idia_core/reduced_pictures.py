"""Pictures decoded no larger than a face detector needs, and the faces in them."""

from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image

from idia_core.face_detection import Box, Detector, Face, clipped, largest_first
from idia_core.images import MAX_PIXELS, ON_ITS_SIDE, ORIENTATION, PictureStatus, decode_prepared

REDUCTIONS = (8, 4, 2)
"""What a JPEG's sides can be divided by while it is decoded."""


class Reduced(NamedTuple):
    """A picture upright, in RGB and perhaps smaller than it is, None where it cannot be decoded, with the reason.

    `width` and `height` are those of the full-size upright picture; zeros where its header cannot be read.
    """

    picture: Image.Image | None
    status: PictureStatus
    width: int
    height: int


class Found(NamedTuple):
    """A picture and its faces, in pixels of the full-size upright one, the largest first."""

    reduced: Reduced
    faces: list[Face]


def decode_reduced(content: bytes, at_least: int | None, max_pixels: int = MAX_PIXELS) -> Reduced:
    """The picture as `decode_picture` has it; a JPEG at 1/2, 1/4 or 1/8 where its longest side stays `at_least`.

    None decodes in full. EXIF orientation is applied here, once: boxes and crops are of the upright picture.
    """
    sizes = list[tuple[int, int]]()

    def shrink(picture: Image.Image) -> None:
        width, height = picture.size
        sizes.append((height, width) if picture.getexif().get(ORIENTATION) in ON_ITS_SIDE else (width, height))
        by = next((by for by in REDUCTIONS if at_least and max(width, height) >= by * at_least), 1)
        if by > 1:
            picture.draft(None, (max(width // by, 1), max(height // by, 1)))  # only JPEGs can; it never enlarges

    picture, status = decode_prepared(content, shrink, max_pixels)
    return Reduced(picture, status, *(sizes[0] if sizes else (0, 0)))


def find_faces(contents: Sequence[bytes], detector: Detector, max_pixels: int = MAX_PIXELS) -> list[Found]:
    """Decode some encoded pictures and find the faces in those that can be decoded."""
    reduced = [decode_reduced(content, detector.longest_side(), max_pixels) for content in contents]
    shown = [(one.picture, one.picture.width / one.width) for one in reduced if one.picture is not None]
    found = iter(detector.detect([picture for picture, _ in shown], [scale for _, scale in shown]))
    return [Found(one, [] if one.picture is None else at_full_size(one, next(found))) for one in reduced]


def at_full_size(reduced: Reduced, faces: Sequence[Face]) -> list[Face]:
    """The faces found on a picture that may be shown smaller than it is, with boxes in pixels of the full size."""
    picture = reduced.picture
    if picture is None or picture.size == (reduced.width, reduced.height):
        return list(faces)
    by_x, by_y = reduced.width / picture.width, reduced.height / picture.height
    boxes = (clipped(face.box.scaled(by_x, by_y), reduced.width, reduced.height) for face in faces)
    return largest_first(Face(box, face.score) for box, face in zip(boxes, faces, strict=True) if box is not None)


def box_in_reduced(reduced: Reduced, box: Box) -> Box:
    """Where a box of the full-size picture is in the reduced one. Raises ValueError where there is none."""
    if reduced.picture is None:
        raise ValueError(f"the picture is {reduced.status}")
    return box.scaled(reduced.picture.width / reduced.width, reduced.picture.height / reduced.height)
