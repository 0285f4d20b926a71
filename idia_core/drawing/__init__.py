"""The drawings of the built-in world: invented people, their pictures, and scenes without people.

Real face detectors find the faces, and no single attribute tells the people apart. Everything follows from seeds.
"""

from idia_core.drawing.people import MIN_DISTANCE, Person, distance, invent_people
from idia_core.drawing.photograph import draw_face, encode_jpeg
from idia_core.drawing.scenery import draw_background

__all__ = ["MIN_DISTANCE", "Person", "distance", "draw_background", "draw_face", "encode_jpeg", "invent_people"]
