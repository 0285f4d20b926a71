"""Training sets for each K: which pairs are in them, and in which place of which tar (paper, Section 5.1)."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
from pydantic import Field

from idia_core.config import Strict
from idia_core.errors import DuplicateNameError, InvalidInputError
from idia_core.exposure import exact_multiple

PLACES = [
    pa.field("suffix", pa.string()),  # the picture's; null where there is none
    pa.field("picture_at", pa.int64()),  # where its bytes begin in the tar; null where there are none
    pa.field("picture_bytes", pa.int64()),
    pa.field("caption_at", pa.int64()),
    pa.field("caption_bytes", pa.int64()),
]
LISTING = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),  # the tar: below the stage's folder, or a full URL
        pa.field("key", pa.string(), nullable=False),
        pa.field("identity", pa.string()),  # null for a pair of the base
        *PLACES,
        pa.field("caption_source", pa.string()),  # a `CaptionSource`; null for a pair of the base
        pa.field("status", pa.string(), nullable=False),  # a `SampleStatus`
        pa.field("detail", pa.string()),
    ]
)
PLAN = pa.schema(
    [
        pa.field("set", pa.string(), nullable=False),  # 'base' for what all sets of an overlay share
        pa.field("images_per_member", pa.int64(), nullable=False),  # K; 0 for the base
        pa.field("shard", pa.int64(), nullable=False),
        pa.field("position", pa.int64(), nullable=False),  # within the shard
        pa.field("key", pa.string(), nullable=False),
        pa.field("identity", pa.string()),  # null for a pair of the base
        pa.field("source", pa.string(), nullable=False),  # where the pair is copied from
        *PLACES,
    ]
)
LEDGER = pa.schema(
    [
        pa.field("set", pa.string(), nullable=False),
        pa.field("images_per_member", pa.int64(), nullable=False),
        pa.field("shard", pa.int64(), nullable=False),
        pa.field("path", pa.string(), nullable=False),  # below the stage's folder, or the URL of an untouched base tar
        pa.field("samples", pa.int64(), nullable=False),
        pa.field("member_samples", pa.int64(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
    ]
)

BASE = "base"
"""The set that all sets of an overlay share."""
Mode = Literal["rewrite", "overlay"]


class ExactFor(Strict):
    """A training that shows each pair exactly once an epoch: every loader gets equally many whole tars and batches."""

    batch_size: Annotated[int, Field(ge=1)] = 128
    """Pairs of a process's step."""
    ranks: Annotated[int, Field(ge=1)] = 1
    """Processes of the training, usually GPUs."""
    workers: Annotated[int, Field(ge=1)] = 1
    """Loader processes of each, open_clip's --workers; 1 for none."""

    def multiple(self, shard_size: int) -> int:
        """The pairs of a set, in tars of `shard_size`, must be a multiple of this."""
        return exact_multiple(self.batch_size, self.ranks, self.workers, shard_size)


class Shape(NamedTuple):
    """The tars of a rewritten set: of `shard_size` pairs each, one more or less where no training is given to suit."""

    shard_size: int
    exact_for: ExactFor | None

    def multiple(self) -> int:
        """The pairs of a set are a multiple of this."""
        return self.exact_for.multiple(self.shard_size) if self.exact_for else 1

    def total(self, base: int, members: int, k: int) -> int:
        """The pairs of a set made of so many; `InvalidInputError` where they fill no batch beside the members'."""
        total = (base + members) // self.multiple() * self.multiple()
        if total < max(members, 1):
            what = f"{members} members' and {base} background pairs do not fill one batch of {self.multiple()}"
            raise InvalidInputError(what, f"stage shards, K = {k}", "Give more background pairs or a smaller batch.")
        return total

    def shards(self, pairs: int) -> int:
        """How many tars so many pairs fill."""
        return max(1, round(pairs / self.shard_size))


def set_name(images_per_member: int) -> str:
    """What the training set of K pictures a member is called: `K025`."""
    return f"K{images_per_member:03d}"


def shard_path(name: str, shard: int) -> str:
    """Where a shard lies below the table of tars."""
    return f"{name}/{shard:05d}.tar"


def usable_base(listing: pl.DataFrame) -> pl.DataFrame:
    """The base pairs that can be trained on, by key.

    Raises `DuplicateNameError` for a key that two files give: within one file the second is no usable pair.
    """
    base = listing.filter(pl.col("identity").is_null() & (pl.col("status") == "ok")).drop("status").sort("key")
    twice = base.filter(pl.col("key") == pl.col("key").shift())
    if not twice.is_empty():
        key = twice["key"][0]
        sources = sorted(base.filter(pl.col("key") == key)["source"].cast(pl.String))
        what = f"the key '{key}' is given to two pairs, in '{sources[0]}' and in '{sources[1]}'"
        raise DuplicateNameError(what, "stage shards", "Make the keys unique over all files.")
    return base


def ranked_pairs(listing: pl.DataFrame, members: Sequence[str], seed: int) -> pl.DataFrame:
    """The members' usable pairs with a `rank` drawn within each member, so that smaller sets are parts of larger ones.

    The ranks depend on the seed and the keys alone. Raises `DuplicateNameError` for a key that is given twice.
    """
    usable = listing.filter(pl.col("identity").is_in(list(members)) & (pl.col("status") == "ok")).drop("status")
    frame = usable.sort("identity", "key")
    if frame["key"].n_unique() < frame.height:
        key = frame.filter(pl.col("key").is_duplicated())["key"][0]
        raise DuplicateNameError(f"the key '{key}' is given to two pairs", "stage shards", "Make the keys unique.")
    order = np.random.default_rng([seed, 1]).random(frame.height)
    return frame.with_columns(order=pl.Series(order)).with_columns(
        rank=pl.col("order").rank("ordinal").over("identity") - 1
    )


def plan_rewrite(base: pl.DataFrame, ranked: pl.DataFrame, k: int, shape: Shape, seed: int) -> pa.Table:
    """The set of K pairs a member, globally shuffled into equal tars: a `PLAN` table, a pure function of its arguments.

    `base` are the `usable_base` pairs, `ranked` the members' `ranked_pairs`. Base pairs above the shape's multiple are
    left out.
    Raises `InvalidInputError` when they fill no batch, and `DuplicateNameError` for a key of base and member alike.
    """
    members = ranked.filter(pl.col("rank") < k)
    _check_apart(base, ranked)
    total = shape.total(base.height, members.height, k)
    drawn = base[np.random.default_rng([seed, 0]).permutation(base.height)][: total - members.height]
    both = pl.concat([members.select(drawn.columns), drawn])
    mixed = both[np.random.default_rng([seed, 2, k]).permutation(total)]
    return _plan(mixed, set_name(k), k, equal_sizes(total, shape.shards(total)))


def plan_overlay(ranked: pl.DataFrame, k: int, shards: int, seed: int) -> pa.Table:
    """The members' tars of a set whose base is shared, as `PLAN`: K pairs a member in at most `shards` equal tars.

    Many small tars are mixed evenly with the base by open_clip's shuffle of the shards.
    """
    members = ranked.filter(pl.col("rank") < k)
    mixed = members[np.random.default_rng([seed, 2, k]).permutation(members.height)]
    return _plan(mixed, set_name(k), k, equal_sizes(members.height, max(1, min(shards, members.height))))


def plan_base(base: pl.DataFrame, ranked: pl.DataFrame) -> pa.Table:
    """The base of an overlay as `PLAN`: its tars as they are, in the order of their names.

    Raises `DuplicateNameError` for a key of base and member alike.
    """
    _check_apart(base, ranked)
    tars = pl.Enum(base["source"].cast(pl.String).unique().sort())
    placed = base.with_columns(tar=pl.col("source").cast(tars).to_physical().cast(pl.Int64)).sort("tar", "picture_at")
    placed = placed.with_columns(
        shard="tar",
        position=pl.int_range(pl.len(), dtype=pl.Int64).over("tar"),
        set=pl.lit(BASE),
        images_per_member=pl.lit(0, pl.Int64),
    )
    return placed.select(PLAN.names).to_arrow().cast(PLAN)


def equal_sizes(total: int, shards: int) -> list[int]:
    """`total` pairs in so many tars whose sizes differ by one at most."""
    ends = [total * i // shards for i in range(shards + 1)]
    return [stop - start for start, stop in pairwise(ends)]


def _check_apart(base: pl.DataFrame, members: pl.DataFrame) -> None:
    both: list[str] = members.join(base.select("key"), on="key", how="semi")["key"].sort().to_list()
    if both:
        what = f"the key '{both[0]}' is given to two pairs, of a member and of the base"
        raise DuplicateNameError(what, "stage shards", "Make the keys unique.")


def _plan(pairs: pl.DataFrame, name: str, k: int, sizes: Sequence[int]) -> pa.Table:
    planned = pairs.with_columns(
        set=pl.lit(name),
        images_per_member=pl.lit(k, pl.Int64),
        shard=pl.Series(np.repeat(np.arange(len(sizes)), sizes), dtype=pl.Int64),
        position=pl.Series(np.concatenate([np.arange(size) for size in (*sizes, 0)]), dtype=pl.Int64),
    )
    return planned.select(PLAN.names).to_arrow().cast(PLAN)
