"""Training sets for each K: which pairs are in them, in which tar, and the tars themselves (paper, Section 5.1)."""

import io
import tarfile
from collections.abc import Iterable, Sequence
from typing import IO

import numpy as np
import polars as pl
import pyarrow as pa

from idia_core.errors import DuplicateNameError, InvalidInputError

PLAN = pa.schema(
    [
        pa.field("set", pa.string(), nullable=False),
        pa.field("images_per_member", pa.int64(), nullable=False),  # K
        pa.field("shard", pa.int64(), nullable=False),
        pa.field("position", pa.int64(), nullable=False),  # within the shard
        pa.field("key", pa.string(), nullable=False),
        pa.field("identity", pa.string()),  # null for a background pair
    ]
)

LONGEST_KEY = 96
"""Bytes of a key: with its suffix it must fit the 100 of a tar entry's name."""
PNG_MAGIC = b"\x89PNG"


def set_name(images_per_member: int) -> str:
    """What the training set of K pictures a member is called: `K025`."""
    return f"K{images_per_member:03d}"


def shard_path(name: str, shard: int) -> str:
    """Where a shard lies below the table of tars."""
    return f"{name}/{shard:05d}.tar"


def plan_sets(  # noqa: PLR0913 - the plan is a pure function of all that decides it
    background: Sequence[str],
    pairs: pa.Table,
    *,
    images_per_member: Sequence[int],
    shard_size: int,
    multiple_of: int,
    seed: int,
) -> pa.Table:
    """Assign pairs to shards for every K: a `PLAN` table, a pure function of its arguments.

    `background` are the keys of the background pairs, `pairs` the members' (identity, key). The sets are nested: the
    pair of K = 1 is in K = 5. Shards are equal, and the total is a multiple of `multiple_of` (batch x processes), so
    that open_clip shows each pair exactly once an epoch; background pairs above that are left out.
    Raises `InvalidInputError` when a member has too few pairs, the background is too small or a key cannot name a file
    in a tar, and `DuplicateNameError` for a key given twice.
    """
    if multiple_of % shard_size:
        raise InvalidInputError(
            f"multiple_of {multiple_of} is not a multiple of shard_size {shard_size}",
            "stage shards",
            "Equal shards need that.",
        )
    _check_keys([*background, *pairs["key"].to_pylist()])
    rng = np.random.default_rng([seed, 0])
    base = [str(key) for key in rng.permutation(sorted(background))]
    ranked = _ranked_pairs(pairs, max(images_per_member), seed)
    tables = [
        _plan_set(base, ranked.filter(pl.col("rank") < k), k, (shard_size, multiple_of), seed)
        for k in sorted(set(images_per_member))
    ]
    return pl.concat(tables).select(PLAN.names).to_arrow().cast(PLAN)


def _check_keys(keys: Sequence[str]) -> None:
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            raise DuplicateNameError(f"the key '{key}' is given to two pairs", "stage shards", "Make the keys unique.")
        if "." in key or not 0 < len(key.encode()) <= LONGEST_KEY:
            fix = f"WebDataset cuts keys at the first dot; use at most {LONGEST_KEY} bytes without one."
            raise InvalidInputError(f"the key '{key}' cannot name a file in a tar", "stage shards", fix)
        seen.add(key)


def _ranked_pairs(pairs: pa.Table, most: int, seed: int) -> pl.DataFrame:
    """The members' pairs with a random rank within each member, so that smaller sets are parts of larger ones."""
    frame = pl.DataFrame(pairs).select("identity", "key").sort("identity", "key")
    order = np.random.default_rng([seed, 1]).random(frame.height)
    ranked = frame.with_columns(order=pl.Series(order)).with_columns(
        rank=pl.col("order").rank("ordinal").over("identity") - 1
    )
    counts = frame.group_by("identity").len().sort("len", "identity")
    if not counts.is_empty() and (fewest := counts.row(0))[1] < most:
        what = f"'{fewest[0]}' has {fewest[1]} pairs, {most} are wanted"
        raise InvalidInputError(what, "stage shards, images_per_member", "Lower it, or select people with more pairs.")
    return ranked.drop("order")


def _plan_set(base: list[str], members: pl.DataFrame, k: int, sizes: tuple[int, int], seed: int) -> pl.DataFrame:
    shard_size, multiple_of = sizes
    total = (len(base) + members.height) // multiple_of * multiple_of
    if total < max(members.height, 1):
        what = f"{members.height} members' and {len(base)} background pairs do not fill one batch of {multiple_of}"
        raise InvalidInputError(what, f"stage shards, K = {k}", "Give more background pairs or a smaller batch.")
    background = pl.DataFrame({"key": base[: total - members.height]}, {"key": pl.String})
    background = background.with_columns(identity=pl.lit(None, pl.String))
    both = pl.concat([members.select("key", "identity"), background])
    mixed = both[np.random.default_rng([seed, 2, k]).permutation(both.height)]
    place = pl.int_range(pl.len(), dtype=pl.Int64)
    return mixed.with_columns(
        set=pl.lit(set_name(k)),
        images_per_member=pl.lit(k, pl.Int64),
        shard=place // shard_size,
        position=place % shard_size,
    )


def write_tar(file: IO[bytes], samples: Iterable[tuple[str, bytes, str]]) -> None:
    """Write `(key, JPEG or PNG, caption)` samples as a WebDataset tar: the same samples, the same bytes."""
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for key, image, caption in samples:
            kind = "png" if image.startswith(PNG_MAGIC) else "jpg"
            for suffix, content in ((kind, image), ("txt", caption.encode())):
                entry = tarfile.TarInfo(f"{key}.{suffix}")  # owner, mode and time keep their fixed defaults
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
