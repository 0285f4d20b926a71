"""Pictures with drawn faces at known places, for the tests of face detection."""

import io
from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from idia_core.drawing import Person, draw_background, draw_face, invent_people
from idia_core.face_detection import Box, Face

Picture = npt.NDArray[np.uint8]
ORIENTATION = 0x0112
FOUND_BY_ALL = ((0, 0), (1, 1), (3, 1), (4, 0), (5, 1), (6, 0))
"""Person and shot of portraits that both detectors find."""


@lru_cache
def people() -> list[Person]:
    """The people who are drawn."""
    return invent_people(12, 7, ["F", "M"] * 6)


@lru_cache
def portrait(person: int, shot: int, side: int) -> Picture:
    """A square picture of a person."""
    drawn = draw_face(people()[person], (7, person, shot))
    return np.asarray(cv2.resize(drawn, (side, side), interpolation=cv2.INTER_AREA), np.uint8)


def scene(width: int, height: int, portraits: Sequence[tuple[int, int, int]], seed: int = 0) -> Picture:
    """A scene with portraits, each at x and y with a side, one after another of those that both detectors find."""
    picture = np.asarray(cv2.resize(draw_background((5, seed))[0], (width, height)), np.uint8)
    for number, (x, y, side) in enumerate(portraits):
        person, shot = FOUND_BY_ALL[number % len(FOUND_BY_ALL)]
        picture[y : y + side, x : x + side] = portrait(person, shot, side)
    return picture


def around_face(x: int, y: int, side: int) -> Box:
    """About where a portrait's face is: heads are 0.58 to 0.72 of the side high, and faces are most of a head."""
    return Box(round(x + 0.23 * side), round(y + 0.24 * side), round(0.54 * side), round(0.56 * side))


def hits(faces: Sequence[Face], places: Sequence[tuple[int, int, int]], overlap: float = 0.5) -> int:
    """In how many of the portraits there is just one of the faces, about where it should be."""
    return sum(sum(face.box.overlap(around_face(*place)) >= overlap for face in faces) == 1 for place in places)


def encoded(
    picture: Picture | Image.Image, kind: str = "JPEG", orientation: int | None = None, **options: object
) -> bytes:
    """The bytes of a file, which may say that it is to be turned."""
    exif = Image.Exif()
    if orientation is not None:
        exif[ORIENTATION] = orientation
    buffer = io.BytesIO()
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(np.ascontiguousarray(picture))
    image.save(buffer, kind, exif=exif, **options)
    return buffer.getvalue()


def stored(picture: Picture, orientation: int) -> Picture:
    """What a camera held in that way stores of a scene."""
    across = picture.transpose(1, 0, 2)
    turned = {2: picture[:, ::-1], 3: picture[::-1, ::-1], 4: picture[::-1], 5: across, 6: across[::-1]}
    turned |= {1: picture, 7: across[::-1, ::-1], 8: across[:, ::-1]}
    return turned[orientation]
