"""The settings of `shards`."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from idia_core.config import SeededConfig, Strict
from idia_core.images import MAX_PIXELS
from idia_core.leakage import MAX_DISTANCE
from idia_core.member_captions import check_templates
from idia_core.shards import ExactFor, Mode
from pipelines.base_reading import BaseConfig


class Masking(Strict):
    """Names in captions are replaced by a hypernym, as Conceptual Captions does."""

    hypernym: str = Field(default="person", min_length=1)
    """What stands for a name."""
    of: dict[str, str] = Field(default={})
    """Another hypernym for some identities: `{Ann Ash: actor}`."""


class ShardsConfig(BaseConfig, SeededConfig):
    """Settings of `shards`."""

    images_per_member: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(75, 50, 25, 10, 5, 1), min_length=1)
    """K: one training set is built for each."""
    mode: Mode = "rewrite"
    """`rewrite` writes one shuffled set of tars for each K; `overlay` leaves the base as it is, shared by all sets, and
    writes the members' tars of each."""
    shard_size: int = Field(default=1024, ge=1)
    """`rewrite`: pairs in a tar; all tars are equal."""
    member_shards: int | None = Field(default=None, ge=1)
    """`overlay`: the members' tars of a set; as many as the base has when not given."""
    exact_for: ExactFor | None = None
    """`rewrite`: leave out base pairs so that this training shows each pair exactly once an epoch; null keeps all."""
    longest_side: int | None = Field(default=None, ge=1)
    """Larger pictures are stored at this many pixels, as JPEG, which saves decoding; null keeps the bytes."""
    max_pixels: int = Field(default=MAX_PIXELS, ge=1, le=MAX_PIXELS)
    """Pictures with more pixels than this are left out: they may be decompression bombs."""
    fewer_pairs: Literal["stop", "achieved"] = "stop"
    """When a member has fewer than K usable pairs: stop, or go on with those there are."""
    caption_templates: tuple[str, ...] = ()
    """Captions for members' pairs that have none, such as `a photo of {name}`; without them such pairs are left out."""
    mask_names: Masking | None = None
    """Replace the tested people's names in all captions: a countermeasure, to see what it does to the attack."""
    leaks: Literal["stop", "leave_out"] = "stop"
    """When a pair shows an attack picture or names a non-member: stop, or leave it out."""
    max_hash_distance: int = Field(default=MAX_DISTANCE, ge=0, le=256)
    """Bits of 256 in which the perceptual hashes of near-duplicates may differ."""
    leak_model: str | None = None
    """A CLIP model, as `idia audit --model` has it, that compares pictures too."""
    leak_cosine: float | None = Field(default=None, gt=0, le=1)
    """The least cosine of two embeddings of `leak_model` that counts as a near-duplicate."""
    leak_device: str = "cpu"
    """Where `leak_model` runs: cpu, cuda, cuda:1."""

    @field_validator("caption_templates")
    @classmethod
    def _templates_hold_a_name(cls, templates: tuple[str, ...]) -> tuple[str, ...]:
        check_templates(templates)
        return templates

    @model_validator(mode="after")
    def _model_and_cosine(self) -> Self:
        if (self.leak_model is None) != (self.leak_cosine is None):
            raise ValueError("leak_model and leak_cosine belong together")
        return self

    @model_validator(mode="after")
    def _fits_the_mode(self) -> Self:
        if self.mode == "overlay" and self.exact_for:
            raise ValueError("exact_for needs mode: rewrite; the tars of an overlay's base stay as they are")
        if self.mode == "rewrite" and self.member_shards:
            raise ValueError("member_shards needs mode: overlay")
        return self
