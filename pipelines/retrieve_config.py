"""The settings of `retrieve`."""

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from idia_core.config import Resources
from idia_core.retrieval_service import ServiceConfig, ServiceSettings
from idia_core.zeroshot import SLOT
from pipelines.tested_models import TestedModelsConfig


class RetrieveResources(Resources):
    """How fast people's pairs are retrieved."""

    service: ServiceSettings = ServiceSettings()
    """How a service is asked."""


class RetrieveConfig(TestedModelsConfig):
    """Settings of `retrieve`; the defaults are the paper's."""

    service: ServiceConfig | None = None
    """A clip-retrieval service to ask; the input `index` is searched here when not given."""
    by: Literal["embedding", "picture", "text"] = "embedding"
    """What a base is asked with: the `embedding` of each picture of a person, by `model`; each `picture` itself, which
    a service embeds; or `texts` with the person's name, which a service embeds, or `model` for an index."""
    model: str | None = None
    """The CLIP model that the base was embedded with, as `idia audit --model` has it; of no use where a service
    embeds."""
    texts: tuple[str, ...] = ("an image of {}",)
    """By text: what is asked, each with the name in it."""
    neighbours: int = Field(default=999, ge=1)
    """Rows of the base that are looked at for each picture or text."""
    probes: int | None = Field(default=None, ge=1)
    """The lists of an IVF index that a query looks into; the index's own number when not given."""
    wanted: int = Field(default=100, ge=1)
    """Pairs of each person."""
    oversample: float = Field(default=1.0, ge=1)
    """So many times as many are kept, for links that are dead: 1.5 where two of three are expected to work."""
    strict: bool = True
    """Which captions name a person: by the strict rule of `scan`, or by the paper's."""
    people_per_split: int = Field(default=16, ge=1)
    """People in one piece of work."""
    shards_per_split: int = Field(default=4, ge=1)
    """Shards of an index that are searched, and read, in one piece of work."""
    resources: RetrieveResources = RetrieveResources()
    """Speed-only settings."""

    @property
    def goal(self) -> int:
        """The candidates that are kept of a person."""
        return math.ceil(round(self.wanted * self.oversample, 6))  # 1.1 times 100 is a little more than 110 in floats

    @property
    def embeds(self) -> bool:
        """Whether questions are embedded here."""
        return self.by == "embedding" or (self.by == "text" and self.service is None)

    @model_validator(mode="after")
    def _questions_can_be_asked(self) -> Self:
        if self.by == "picture" and self.service is None:
            raise ValueError("by: picture is for a service, which embeds it; take by: embedding for an index")
        if self.embeds and self.model is None:
            raise ValueError("the model that the base was embedded with is not given (model)")
        if not self.texts or not all(SLOT in text for text in self.texts) or len(set(self.texts)) < len(self.texts):
            raise ValueError(f"there must be a text or more, each once and with {SLOT}")
        return self
