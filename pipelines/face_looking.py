"""What the stages that look at faces share: which faces are found, and who tells whose they are."""

from collections.abc import Mapping

from pydantic import Field

from idia_core.face_detection import DetectorConfig, make_detector
from idia_core.face_search import FaceSearch
from idia_core.recognition import load_recogniser
from pipelines.stage import Input, StageContext
from pipelines.tested_models import DeviceConfig

RECOGNISER_FILES = ("recogniser.json", "weights.pt", "gallery.parquet")


class FaceLookingConfig(DeviceConfig):
    """How faces are looked for."""

    detector: DetectorConfig = DetectorConfig()
    """What finds faces."""
    detected_at_a_time: int = Field(default=16, ge=1)
    """Pictures that the detector is given together."""


def recogniser_input(*, optional: bool = False) -> Input:
    """The input that says whose faces are."""
    return Input("what the stage recogniser wrote", patterns=RECOGNISER_FILES, optional=optional)


def face_search(context: StageContext) -> FaceSearch:
    """What finds faces and names them, by the stage's config and its input `recogniser`."""
    config: FaceLookingConfig = context.config
    detector = make_detector(config.detector, config.device)
    recogniser = load_recogniser(context.inputs["recogniser"].root, config.device)
    return FaceSearch(detector, recogniser, max(1, int(config.resources.cpus)), config.detected_at_a_time)


def detector_files(config: FaceLookingConfig) -> Mapping[str, str]:
    """The files that the detector's settings name."""
    return {"yunet_model": config.detector.yunet_model} if config.detector.yunet_model else {}
