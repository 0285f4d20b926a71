"""OpenCV's frontal-face cascade with the paper's parameters: the same windows and rules, several times faster.

OpenCV judges one window after another. Here the first stage, which few windows pass, judges all windows at once, and
each later stage those that are left, with their neighbours. The scaled pictures, their integrals and the grouping are
OpenCV's.

Axes: S stages, F weak classifiers ("stumps") of all stages, R their rectangles, of which there are up to three.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from idia_core.face_detection import Box, DetectorConfig, Face, clipped, largest_first, least_side, one_by_one
from idia_core.haar_loops import Integers, Scaled, Stumps, passing

CASCADE = "haarcascade_frontalface_default.xml"
WINDOW = 24
"""Pixels of the cascade's window."""
NORMALISED = (1, 1, 23, 23)
"""The part of a window by whose contrast its features are divided: left, top, right, bottom."""
STAGE_TOLERANCE = 1e-5
GROUPING = 0.2
"""How much windows that are one face may differ. Both are OpenCV's."""
COARSE = 2.0
"""Below this scale OpenCV looks at every other window only, down and across."""


class Cascade(NamedTuple):
    """What the cascade's file says."""

    stumps: Stumps
    corners_FR4: Integers
    """Left, top, right and bottom of each rectangle in the window."""


class Haar:
    """Detects faces as `cv2.CascadeClassifier.detectMultiScale` does, in one thread; it gives no scores."""

    name = "haar"

    def __init__(self, config: DetectorConfig) -> None:
        self._config, self._cascade = config, read_cascade()

    def longest_side(self) -> int | None:
        """What the config says."""
        return self._config.longest_side

    def detect(self, pictures: Sequence[Image.Image], scales: Sequence[float] | None = None) -> list[list[Face]]:
        """The faces of each picture, the largest first, without scores; see `Detector`."""
        return one_by_one(self._of, pictures, scales)

    def _of(self, picture: Image.Image, scale: float) -> list[Face]:
        grey = _grey(picture)
        least = round(least_side(self._config.min_face, scale))
        windows = list[tuple[int, int, int, int]]()
        for factor in factors(picture.size, self._config.haar_factor, least):
            windows += _windows(grey, factor, self._cascade)
        # A group of so many windows is kept that has more of them than it is asked for.
        grouped = cv2.groupRectangles(windows, self._config.haar_neighbours, GROUPING)[0] if windows else []
        boxes = (clipped(Box(*map(int, window)), *picture.size) for window in grouped)
        return largest_first(Face(box, None) for box in boxes if box is not None)


def factors(size: tuple[int, int], step: float, least: int) -> list[float]:
    """How much larger than the cascade's window faces are looked for in a picture of that size, from `least` pixels."""
    found, factor = list[float](), 1.0
    while round(WINDOW * factor) <= min(size):
        if round(WINDOW * factor) >= least:
            found.append(float(np.float32(factor)))
        factor *= step
    return found


def _grey(picture: Image.Image) -> Any:
    """As OpenCV makes RGB grey; Pillow's four bytes a pixel are read where they are, but for a picture in pieces."""
    try:
        pixels: Any = pa.array(picture).flatten().to_numpy().reshape(picture.height, picture.width, 4)
    except ValueError:
        return cv2.cvtColor(np.asarray(picture), cv2.COLOR_RGB2GRAY)
    return cv2.cvtColor(pixels, cv2.COLOR_RGBA2GRAY)


@lru_cache(maxsize=1)
def read_cascade() -> Cascade:
    """The cascade that comes with OpenCV."""
    opencv: Any = cv2  # its types leave the folder out
    file = cv2.FileStorage(str(Path(opencv.data.haarcascades) / CASCADE), cv2.FILE_STORAGE_READ)
    root = file.getNode("cascade")
    stages = _nodes(root.getNode("stages"))
    weak = [stump for stage in stages for stump in _nodes(stage.getNode("weakClassifiers"))]
    sizes = [stage.getNode("weakClassifiers").size() for stage in stages]
    features = [_nodes(feature.getNode("rects")) for feature in _nodes(root.getNode("features"))]
    corners, weights, stumps = np.zeros((len(weak), 3, 4)), np.zeros((len(weak), 3)), np.zeros((len(weak), 3))
    for place, stump in enumerate(weak):
        _, _, feature, threshold = _numbers(stump.getNode("internalNodes"))
        stumps[place] = threshold, *_numbers(stump.getNode("leafValues"))
        for number, rectangle in enumerate(features[int(feature)]):
            x, y, width, height, weights[place, number] = _numbers(rectangle)
            corners[place, number] = x, y, x + width, y + height
    least = np.array([stage.getNode("stageThreshold").real() for stage in stages], np.float32)
    first = np.cumsum([0, *sizes], dtype=np.int32)
    tolerated = least - np.float32(STAGE_TOLERANCE)
    kept = Stumps(first, tolerated, weights.astype(np.int32), stumps.astype(np.float32))
    return Cascade(kept, corners.astype(np.int32))


@lru_cache
def corners_in_planes(step: int) -> Integers:
    """The plane, row and column of each rectangle's corners, and of those of what is measured: 3 x F + 1 x 3 x 4."""
    corners_FR4 = np.concatenate([read_cascade().corners_FR4, np.array([[NORMALISED] * 3], np.int32)])
    across, down = corners_FR4[..., [0, 2, 0, 2]], corners_FR4[..., [1, 1, 3, 3]]
    parts = down % step * step + across % step, down // step, across // step
    return np.ascontiguousarray(parts)  # as they are made, rows and columns are another way round in memory


def _nodes(node: Any) -> list[Any]:
    return [node.at(place) for place in range(node.size())]


def _numbers(node: Any) -> list[float]:
    return [number.real() for number in _nodes(node)]


def _windows(grey: npt.NDArray[np.uint8], factor: float, cascade: Cascade) -> list[tuple[int, int, int, int]]:
    """All windows of that size that the cascade takes for faces: x, y, width and height in the picture."""
    size = round(grey.shape[1] / factor), round(grey.shape[0] / factor)
    scaled = cv2.resize(grey, size, interpolation=cv2.INTER_LINEAR_EXACT)
    step = 1 if factor >= COARSE else 2
    whole: tuple[Any, ...] = cv2.integral2(scaled, sdepth=cv2.CV_32S, sqdepth=cv2.CV_32S)
    sums, squares = (_planes(integral, step) for integral in whole)
    columns, rows = (-(-(side - WINDOW + 1) // step) for side in size)
    _, high, wide = sums.shape
    picture = Scaled(sums.ravel(), squares.ravel(), rows, columns, wide, high * wide)
    places = passing(picture, cascade.stumps, corners_in_planes(step)).tolist()
    side, grown = round(WINDOW * factor), step * factor
    return [(round(place % wide * grown), round(place // wide * grown), side, side) for place in places]


def _planes(whole: Integers, step: int) -> Integers:
    """An integral's every `step`-th row and column, from each start: what neighbours read then lies side by side."""
    if step == 1:
        return whole[None]
    rows, columns = whole.shape
    planes = np.zeros((step * step, -(-rows // step), -(-columns // step)), np.int32)
    for plane in range(step * step):
        part = whole[plane // step :: step, plane % step :: step]
        planes[plane, : part.shape[0], : part.shape[1]] = part
    return planes
