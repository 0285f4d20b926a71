"""One picture of a person under way: the shot that is taken, and the easel that turns head units into pixels.

A head is drawn in units of half its height: x to the right, y down, (0, 0) between the eyes, the crown near y = -1 and
the chin near y = 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from idia_core.drawing.people import Person
from idia_core.drawing.shapes import Picture, Points, fill, stroke


@dataclass(frozen=True)
class Shot:
    """What one picture adds to a person: camera, light and expression."""

    side: int
    """Pixels."""
    scale: float
    """Pixels in half a head's height."""
    centre: tuple[float, float]
    """Pixels."""
    roll: float
    """Radians in the plane of the picture."""
    yaw: float
    """Radians by which the features wander round the head, as the face turns."""
    pitch: float
    """Head units by which the features are lower."""
    light: tuple[float, float]
    """Where the light comes from, each part from -1 to 1."""
    smile: float
    mouth_open: float
    brow_raise: float
    lids: float
    """How open the eyes are, 0 to 1."""
    gaze: float


class Easel:
    """A picture under way: turns head units into pixels and draws there."""

    def __init__(self, picture: Picture, person: Person, shot: Shot) -> None:
        self.picture, self.person, self.shot = picture, person, shot
        cos, sin = np.cos(shot.roll) * shot.scale, np.sin(shot.roll) * shot.scale
        tall = person.face_length
        self._turn = np.array([[cos, sin], [-sin * tall, cos * tall]])

    def pixels(self, points: Points, on_face: bool = False) -> Points:
        """Head units to pixels; points on the face are moved round the head by yaw and pitch."""
        if on_face:
            width = self.person.face_width * 1.02
            angle = np.arcsin(np.maximum(np.minimum(points[:, 0] / width, 1), -1)) + self.shot.yaw
            points = points + np.array([0, self.shot.pitch])
            points[:, 0] = width * np.sin(np.maximum(np.minimum(angle, 1.57), -1.57))
        moved: Points = points @ self._turn + self.shot.centre
        return moved

    def fill(self, points: Points, colour: Sequence[float], on_face: bool = True) -> None:
        """Fill a polygon given in head units."""
        fill(self.picture, self.pixels(points, on_face), colour)

    def stroke(self, points: Points, colour: Sequence[float], width: float, on_face: bool = True) -> None:
        """Draw a line given in head units."""
        stroke(self.picture, self.pixels(points, on_face), colour, width * self.shot.scale)
