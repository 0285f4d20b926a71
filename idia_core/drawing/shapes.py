"""Drawing with smooth edges: the shapes that faces and scenes are made of.

Points are arrays [n, 2] of (x, y), x to the right and y down. Colours are RGB.
"""

from collections.abc import Iterable, Sequence
from functools import cache

import cv2
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]
Points = npt.NDArray[np.float64]
Colour = tuple[int, int, int]

SIDE_RANGE_PX = (128, 256)
WHITE: Colour = (255, 255, 255)
BLACK: Colour = (0, 0, 0)
_SUBPIXEL_BITS = 4


@cache
def _circle(steps: int) -> Points:
    """Points [steps, 2] on the unit circle."""
    angle = np.linspace(0, 2 * np.pi, steps, endpoint=False)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def ellipse(x: float, y: float, radius_x: float, radius_y: float, *, steps: int = 28) -> Points:
    """The outline of an ellipse as points [steps, 2]."""
    outline: Points = _circle(steps) * (radius_x, radius_y) + (x, y)
    return outline


def rounded(points: Sequence[Sequence[float]] | Points, rounds: int = 2) -> Points:
    """A closed polygon with its corners cut again and again (Chaikin), so that it looks curved."""
    outline = np.asarray(points, dtype=np.float64)
    for _ in range(rounds):
        following = np.roll(outline, -1, axis=0)
        outline = np.hstack([0.75 * outline + 0.25 * following, 0.25 * outline + 0.75 * following]).reshape(-1, 2)
    return outline


def to_subpixels(points: Points) -> npt.NDArray[np.int32]:
    """Pixel coordinates in the fixed-point numbers that OpenCV draws smooth edges from."""
    return np.rint(points * (1 << _SUBPIXEL_BITS)).astype(np.int32)


def fill(picture: Picture, points: Points, colour: Sequence[float]) -> None:
    """Fill a polygon, given in pixels, with smooth edges."""
    cv2.fillPoly(picture, [to_subpixels(points)], colour, cv2.LINE_AA, _SUBPIXEL_BITS)


def stroke(picture: Picture, points: Points, colour: Sequence[float], width: float) -> None:
    """Draw an open line, given in pixels, at least one pixel wide."""
    thickness = max(1, round(width))
    cv2.polylines(picture, [to_subpixels(points)], False, colour, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)


def mix(one: Sequence[float], other: Sequence[float], share: float) -> Colour:
    """The colour that lies the given share of the way from one to the other, within 0 to 255."""
    return clipped([a + (b - a) * share for a, b in zip(one, other, strict=True)])


def clipped(channels: Iterable[float]) -> Colour:
    """The nearest colour of whole channels from 0 to 255."""
    red, green, blue = (min(255, max(0, round(channel))) for channel in channels)
    return red, green, blue


def muted(rng: np.random.Generator, low: float, high: float, chroma: float) -> Colour:
    """A random colour of a lightness from low to high whose channels stray at most `chroma` from it."""
    return clipped(rng.uniform(low, high) + rng.uniform(-chroma, chroma, size=3))


def gradient(side: int, top: Sequence[float], bottom: Sequence[float]) -> Picture:
    """A square picture [side, side, 3] that fades from one colour at the top to another at the bottom."""
    share = np.linspace(0, 1, side)[:, None]
    column = (np.asarray(top) * (1 - share) + np.asarray(bottom) * share).astype(np.uint8)
    return np.repeat(column[:, None], side, axis=1)


def add_grain(picture: Picture, rng: np.random.Generator, strength: float) -> Picture:
    """The picture with the same noise on all three channels, at most `strength` levels up or down."""
    height, width = picture.shape[:2]
    grain = np.frombuffer(rng.bytes(height * width), np.int8).reshape(height, width)
    scaled = cv2.cvtColor(grain * np.float32(strength / 128), cv2.COLOR_GRAY2BGR)
    return np.asarray(cv2.add(picture, scaled, dtype=cv2.CV_8U), dtype=np.uint8)
