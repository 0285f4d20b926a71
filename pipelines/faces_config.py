"""The settings of `faces`."""

from typing import Literal, Self

from pydantic import Field, model_validator

from idia_core.zeroshot import SLOT
from pipelines.base_reading import BaseConfig
from pipelines.face_looking import FaceLookingConfig
from pipelines.tested_models import TestedModelsConfig


class FacesConfig(BaseConfig, FaceLookingConfig, TestedModelsConfig):
    """Settings of `faces`."""

    mode: Literal["retrieved", "full"] = "retrieved"
    """`retrieved`: look at the nearest base pictures of each picture of a person, as the paper does. `full`: look at
    every base picture, once."""
    model: str | None = None
    """`retrieved`: the CLIP model that the base was embedded with, as `idia audit --model` has it."""
    neighbours: int = Field(default=50, ge=1)
    """`retrieved`: the base pictures that are looked at for each picture of a person."""
    probes: int | None = Field(default=None, ge=1)
    """`retrieved`: the lists of an IVF index that a query looks into; the index's own number when not given."""
    templates: tuple[str, ...] = ("an image of {}",)
    """`retrieved`: the prompts by which CLIP is asked who is on a picture; their embeddings are averaged."""
    crops_per_person: int = Field(default=40, ge=0)
    """Pictures of each person's nearest of which the faces are kept, for people to look at; of `full`, hits of each in
    a split."""
    people_per_split: int = Field(default=8, ge=1)
    """People whose nearest pictures are looked up in one piece of work."""

    @model_validator(mode="after")
    def _mode_has_what_it_needs(self) -> Self:
        if self.mode == "retrieved" and self.model is None:
            raise ValueError("mode: retrieved needs the model that the base was embedded with")
        if not self.templates or not all(SLOT in template for template in self.templates):
            raise ValueError(f"there must be a template or more, each with {SLOT}")
        return self
