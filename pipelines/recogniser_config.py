"""The settings of `recogniser`."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from idia_core.config import SeededConfig
from idia_core.face_detection import DetectorConfig
from idia_core.gallery import GalleryRecipe
from idia_core.recogniser_training import ClassifierRecipe

Share = Annotated[float, Field(ge=0, le=1)]


class RecogniserConfig(SeededConfig):
    """Settings of `recogniser`."""

    kind: Literal["classifier", "gallery"] = "classifier"
    """Train a network on the people, as the paper does, or keep embeddings of them."""
    recipe: ClassifierRecipe = ClassifierRecipe()
    """How a classifier is trained."""
    gallery: GalleryRecipe | None = None
    """What a gallery is made of."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where networks run; on cuda a training takes a GPU for each process."""
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of each person's pictures that is not trained on but tests the recogniser."""
    false_match_rate: Share = 0.01
    """Share of strangers' faces, and of people's as somebody else, that may be given a name."""
    threshold: float | None = None
    """The threshold, instead of the one that `false_match_rate` asks for; 0 gives every face a name, as the paper."""
    detector: DetectorConfig | None = None
    """Cut the largest face out of every picture; not given, the pictures are crops of faces already."""
    margin: Annotated[float, Field(ge=0)] = 0.2
    """By which a crop is wider than a detector's box, here and where faces are recognised later."""
    worst_pairs: Annotated[int, Field(ge=0)] = 100
    """Rows of `confusions`."""
    people_per_split: Annotated[int, Field(ge=1)] = 16
    """People whose pictures are prepared in one piece of work."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.kind == "gallery") != (self.gallery is not None):
            raise ValueError("kind: gallery, and no other, takes the settings of a gallery")
        gpus = (self.recipe.processes if self.kind == "classifier" else 1) if self.device == "cuda" else 0
        if "gpus" in self.resources.model_fields_set and self.resources.gpus != gpus:
            raise ValueError(f"resources.gpus follows from the device and recipe.processes: it is {gpus}")
        object.__setattr__(self, "resources", self.resources.model_copy(update={"gpus": gpus}))
        return self
