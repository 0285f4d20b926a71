"""The settings of `faces`."""

from typing import Literal, Self

from pydantic import Field, model_validator

from idia_core.base_inputs import ListColumns
from idia_core.config import StageConfig
from idia_core.face_detection import DetectorConfig
from idia_core.zeroshot import SLOT


class FacesConfig(StageConfig):
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
    device: str = Field(default="cpu", pattern=r"^(cpu|mps|cuda(:\d+)?)$")
    """Where models and networks run: cpu, cuda, cuda:1."""
    batch_size: int | None = Field(default=None, ge=1)
    """Pictures that CLIP encodes at a time, 8 on a CPU and 256 on a GPU when not given; decides the last bits."""
    detector: DetectorConfig = DetectorConfig()
    """What finds faces."""
    detected_at_a_time: int = Field(default=16, ge=1)
    """Pictures that the detector is given together."""
    crops_per_person: int = Field(default=40, ge=0)
    """Pictures of each person's nearest of which the faces are kept, for people to look at; of `full`, hits of each in
    a split."""
    people_per_split: int = Field(default=8, ge=1)
    """People whose nearest pictures are looked up in one piece of work."""
    lists: ListColumns = ListColumns()
    """Where a list of pictures (TSV) has its paths and captions."""
    images: str | None = None
    """Folder or URL of a list's pictures; the list's own folder when not given."""
    tolerate_failed_inputs: int = Field(default=0, ge=0)
    """Go on without up to this many damaged base files; what can be read of them is used."""

    @model_validator(mode="after")
    def _mode_has_what_it_needs(self) -> Self:
        if self.mode == "retrieved" and self.model is None:
            raise ValueError("mode: retrieved needs the model that the base was embedded with")
        if not self.templates or not all(SLOT in template for template in self.templates):
            raise ValueError(f"there must be a template or more, each with {SLOT}")
        return self
