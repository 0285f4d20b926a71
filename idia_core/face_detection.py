"""Finding faces in pictures, by any of three detectors behind one protocol."""

from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Literal, NamedTuple, Protocol

from PIL import Image
from pydantic import Field

from idia_core.config import Strict

LEAST_SHOWN = 20
"""Pixels of a face in what a detector is shown; smaller ones are mostly guesses."""
Chance = Annotated[float, Field(ge=0, le=1)]


class Box(NamedTuple):
    """Whole pixels of a picture; x to the right, y down."""

    x: int
    y: int
    width: int
    height: int

    def scaled(self, by_x: float, by_y: float) -> "Box":
        """The box in a picture that is larger by so much, its corners rounded."""
        left, top = round(self.x * by_x), round(self.y * by_y)
        right, bottom = round((self.x + self.width) * by_x), round((self.y + self.height) * by_y)
        return Box(left, top, right - left, bottom - top)

    def overlap(self, other: "Box") -> float:
        """Intersection over union, 0 to 1."""
        wide = min(self.x + self.width, other.x + other.width) - max(self.x, other.x)
        high = min(self.y + self.height, other.y + other.height) - max(self.y, other.y)
        shared = max(wide, 0) * max(high, 0)
        return shared / (self.width * self.height + other.width * other.height - shared)


class Face(NamedTuple):
    """A face that a detector found; `score` is None where it gives none, as Haar."""

    box: Box
    score: float | None


class Detector(Protocol):
    """Finds faces."""

    @property
    def name(self) -> str:
        """What the config calls it."""

    def longest_side(self) -> int | None:
        """No picture need be larger than this for it; None where the full size is wanted."""

    def detect(self, pictures: Sequence[Image.Image], scales: Sequence[float] | None = None) -> list[list[Face]]:
        """The faces of each of some upright RGB pictures of any sizes, in the pictures' pixels, the largest first.

        `scales` says how large each picture is beside the full-size one (1 where not given), in whose pixels
        `min_face` is meant. Boxes lie within their pictures.
        """


class DetectorConfig(Strict):
    """Which faces are found, and how."""

    kind: Literal["haar", "mtcnn", "yunet"] = "mtcnn"
    """`haar` is the paper's; `yunet` wants a model file."""
    min_face: Annotated[int, Field(ge=12)] = 40
    """The side of the smallest face that is looked for, in pixels of the full-size picture."""
    longest_side: Annotated[int, Field(ge=64)] | None = 640
    """JPEGs are decoded no larger than need be for a longest side of this many pixels; null: always in full."""
    mtcnn_thresholds: tuple[Chance, Chance, Chance] = (0.6, 0.7, 0.7)
    """What the three networks must think a face likely at least."""
    pyramid_factor: Annotated[float, Field(gt=0.1, lt=1)] = 0.709
    """How much smaller each next level is in which MTCNN looks for larger faces."""
    haar_neighbours: Annotated[int, Field(ge=0)] = 5
    """How many windows must agree on a face."""
    haar_factor: Annotated[float, Field(gt=1)] = 1.1
    """How much larger each next window is."""
    yunet_model: str | None = None
    """OpenCV's face_detection_yunet ONNX file."""
    yunet_threshold: Chance = 0.7
    """What YuNet's score must be at least."""


def make_detector(config: DetectorConfig, device: str = "cpu") -> Detector:
    """The detector of the config; only MTCNN uses a device other than the CPU. Raises what its loading does."""
    if config.kind == "haar":
        from idia_core.haar import Haar  # noqa: PLC0415 - only the one that is asked for

        return Haar(config)
    if config.kind == "yunet":
        from idia_core.yunet import Yunet  # noqa: PLC0415

        return Yunet(config)
    from idia_core.mtcnn import Mtcnn  # noqa: PLC0415

    return Mtcnn(config, device)


def one_by_one(
    find: Callable[[Image.Image, float], list[Face]], pictures: Sequence[Image.Image], scales: Sequence[float] | None
) -> list[list[Face]]:
    """`Detector.detect` for what looks at a picture after another."""
    return [find(picture, scale) for picture, scale in zip(pictures, scales or [1] * len(pictures), strict=True)]


def least_side(min_face: int, scale: float) -> float:
    """The side in pixels of the smallest face to look for in a picture of which `min_face` is at full size."""
    return max(min_face * scale, min(min_face, LEAST_SHOWN))


def clipped(box: Box, width: int, height: int) -> Box | None:
    """What of the box lies in a picture of that size; None where nothing does."""
    left, top = max(box.x, 0), max(box.y, 0)
    right, bottom = min(box.x + box.width, width), min(box.y + box.height, height)
    return Box(left, top, right - left, bottom - top) if right > left and bottom > top else None


def largest_first(faces: Iterable[Face]) -> list[Face]:
    """Sorted by area, from the largest, then from the top left."""
    return sorted(faces, key=lambda face: (-face.box.width * face.box.height, face.box.y, face.box.x))
