"""YuNet, OpenCV's small neural face detector, whose weights are a file that the user brings."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from idia_core.errors import InvalidInputError, MissingInputError
from idia_core.face_detection import Box, DetectorConfig, Face, clipped, largest_first, least_side, one_by_one

SETTING = "setting yunet_model"
FIX = "Give the path of face_detection_yunet_2023mar.onnx of OpenCV's model zoo, or take another detector."
SAME_FACE, MOST = 0.3, 5000
"""The overlap from which two boxes are one face, and how many boxes are looked at: OpenCV's own."""


class Yunet:
    """Detects faces with `cv2.FaceDetectorYN`, a picture after another.

    Raises MissingInputError where the config names no model file or none is there, InvalidInputError where it is none.
    """

    name = "yunet"

    def __init__(self, config: DetectorConfig) -> None:
        if not config.yunet_model:
            raise MissingInputError("YuNet needs a model file, and none is given", SETTING, FIX)
        if not Path(config.yunet_model).is_file():
            raise MissingInputError(f"there is no file '{config.yunet_model}'", SETTING, FIX)
        self._config = config
        try:
            self._net: Any = cv2.FaceDetectorYN.create(
                config.yunet_model, "", (320, 320), config.yunet_threshold, SAME_FACE, MOST
            )
        except cv2.error:
            raise InvalidInputError(f"'{config.yunet_model}' is no YuNet model", SETTING, FIX) from None

    def longest_side(self) -> int | None:
        """What the config says."""
        return self._config.longest_side

    def detect(self, pictures: Sequence[Image.Image], scales: Sequence[float] | None = None) -> list[list[Face]]:
        """The faces of each picture, the largest first; see `Detector`. Those below `min_face` are left out."""
        return one_by_one(self._of, pictures, scales)

    def _of(self, picture: Image.Image, scale: float) -> list[Face]:
        self._net.setInputSize(picture.size)
        _, rows = self._net.detect(cv2.cvtColor(np.asarray(picture), cv2.COLOR_RGB2BGR))
        faces, least = list[Face](), least_side(self._config.min_face, scale)
        for row in [] if rows is None else rows.tolist():
            box = clipped(Box(*map(round, row[:4])), *picture.size)
            if box is not None and max(box.width, box.height) >= least:
                faces.append(Face(box, round(row[-1], 6)))
        return largest_first(faces)
