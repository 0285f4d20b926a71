"""How often each training pair is shown: open_clip's shuffles, slices and batches, computed without reading a picture.

open_clip's loader shuffles the shards, deals them to ranks and then to each rank's workers, and every worker shuffles
the pairs of its own shards and cuts them into batches, dropping the last unless it is full. All workers give equally
many batches an epoch: one that runs out begins its pairs anew, one that does not leaves pairs unseen.

Both shuffles must be seeded by seed + epoch, as cluster/training_entry.py sees to. In plain open_clip the shuffle of
the pairs takes its seed from the clock: then the sum over a worker's pairs is as computed here and each pair's is not,
unless all are shown once. Every pair must be readable: the loader passes over one that is not.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa

from idia_core.compiled import jit
from idia_core.errors import InvalidInputError

EXPOSURES = pa.schema(
    [
        pa.field("set", pa.string(), nullable=False),
        pa.field("identity", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("epoch", pa.int64(), nullable=False),  # from 1, as open_clip counts checkpoints
        pa.field("seen", pa.int64(), nullable=False),  # in this epoch
        pa.field("seen_so_far", pa.int64(), nullable=False),  # what a checkpoint after this epoch has seen
    ]
)

# open_clip's (open_clip_train/data.py): the size of the buffer that is drawn from and how full it is at the first draw.
SHARD_SHUFFLE = (2000, 500)
PAIR_SHUFFLE = (5000, 1000)


@dataclass(frozen=True)
class Loader:
    """What decides what open_clip's loader shows, besides the shards."""

    batch_size: int
    """Pairs of one rank's step (--batch-size)."""
    ranks: int
    """Processes of the whole run."""
    workers: int
    """DataLoader processes of each rank (--workers); with 0 the rank reads by itself and deals like 1."""
    seed: int
    """Of both shuffles (--seed)."""

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.ranks < 1 or self.workers < 0 or self.seed < 0:
            what = f"there is no loader of {self.ranks} ranks x {self.workers} workers, batch {self.batch_size}"
            raise InvalidInputError(what, f"seed {self.seed}", "Give at least 1 rank, 0 workers, batch 1 and seed 0.")

    @property
    def workers_per_rank(self) -> int:
        """How many ways a rank's shards are dealt."""
        return max(1, self.workers)

    @property
    def all_workers(self) -> int:
        """How many ways all shards are dealt."""
        return self.ranks * self.workers_per_rank

    def batches_per_worker(self, samples: int) -> int:
        """Batches of one worker in an epoch of `samples` pairs over all ranks (--train-num-samples), rounded up."""
        return -(-samples // (self.batch_size * self.all_workers))


def exact_multiple(batch_size: int, ranks: int, workers: int, shard_size: int) -> int:
    """What the number of pairs must be a multiple of, in shards of `shard_size`, to show each once in every epoch.

    Every worker then gets equally many whole shards that fill whole batches.
    """
    return math.lcm(batch_size, shard_size) * Loader(batch_size, ranks, workers, seed=0).all_workers


def exactness_problem(shard_samples: Sequence[int], loader: Loader, samples: int | None = None) -> str | None:
    """Why a set is not shown exactly once in every epoch, as a clause for a message; None where it is.

    `shard_samples` are the pairs of each shard, `samples` the pairs of an epoch; by default all there are.
    """
    dealt, total = loader.all_workers, sum(shard_samples)
    among = f"{dealt} workers ({loader.ranks} ranks x {loader.workers_per_rank})"
    if total == 0:
        return "the shards hold no pairs"
    if len(shard_samples) % dealt:
        return f"{len(shard_samples):,} shards do not divide among {among}"
    if dealt > 1 and min(shard_samples) != max(shard_samples):
        return f"shards of {min(shard_samples):,} to {max(shard_samples):,} pairs give {among} unequal shares"
    if total // dealt % loader.batch_size:
        return f"each worker gets {total // dealt:,} pairs, not a multiple of the batch size of {loader.batch_size:,}"
    if loader.batches_per_worker(total if samples is None else samples) * loader.batch_size * dealt != total:
        return f"an epoch is {samples:,} pairs and the shards hold {total:,}"
    return None


def samples_seen(
    shard_samples: Sequence[int], loader: Loader, epoch: int, samples: int | None = None
) -> list[np.ndarray]:
    """How often each pair is shown in one epoch: for each shard an array over the positions in it.

    `shard_samples` are the pairs of each shard in the order of --train-data, `epoch` counts from 0, as open_clip does
    while it trains, and `samples` are the pairs of an epoch (--train-num-samples); by default all there are.
    Raises `InvalidInputError` where the loader would never end: a worker that has not one full batch.
    """
    if exactness_problem(shard_samples, loader, samples) is None:
        return [np.ones(size, np.int64) for size in shard_samples]
    samples = sum(shard_samples) if samples is None else samples
    if samples < 1:
        raise InvalidInputError(f"an epoch of {samples} pairs never ends in open_clip", "the training set")
    sizes, seed = np.asarray(shard_samples, np.int64), loader.seed + epoch
    seen: list[np.ndarray] = [np.empty(0, np.int64)] * len(sizes)
    order = shuffled(len(sizes), SHARD_SHUFFLE, seed)
    for worker in range(loader.all_workers):
        own = order[worker :: loader.all_workers]  # a rank takes each R-th shard, and its worker each W-th of those
        shown = _seen_by_worker(int(sizes[own].sum()), loader, loader.batches_per_worker(samples), seed)
        for shard, part in zip(own, np.split(shown, np.cumsum(sizes[own])[:-1]), strict=True):
            seen[shard] = part
    return seen


def _seen_by_worker(pairs: int, loader: Loader, batches: int, seed: int) -> np.ndarray:
    """How often a worker shows each of its pairs, numbered as it reads them."""
    full = pairs // loader.batch_size
    if full == 0:
        what = f"a worker gets {pairs} pairs, not one batch of {loader.batch_size}, and open_clip would stand still"
        raise InvalidInputError(what, "the training set", "Use more shards, fewer workers or smaller batches.")
    passes, rest = divmod(batches, full)  # every pass is in the same order
    order = shuffled(pairs, PAIR_SHUFFLE, seed)
    seen = np.zeros(pairs, np.int64)
    seen[order[: full * loader.batch_size]] = passes
    seen[order[: rest * loader.batch_size]] += 1
    return seen


def exposures(
    pairs: pa.Table,
    shard_samples: Sequence[int],
    loaders: Sequence[tuple[int, Loader]],
    *,
    samples: int | None = None,
    first_shard: int = 0,
) -> pa.Table:
    """How often each member's pair is shown in each epoch of a run: an `EXPOSURES` table, by epoch, then as given.

    `pairs` has set, identity, key, shard and position, as `PLAN` has; rows without an identity are passed over.
    `shard_samples` and `samples` are as in `samples_seen`; `loaders` are those of the run in order, each with how many
    epochs it served: a run that went on with fewer ranks has two. `first_shard` is where the pairs' shard 0 stands in
    `shard_samples`, behind the shards that all sets share. Memory grows with the pairs and the rows returned.
    """
    members = pl.DataFrame(pairs.select(["set", "identity", "key", "shard", "position"]))
    members = members.filter(pl.col("identity").is_not_null()).with_columns(pl.col("shard") + first_shard)
    at = _places(members, np.asarray(shard_samples, np.int64))
    named = members.select("set", "identity", "key").to_arrow()
    so_far, tables = np.zeros(len(at), np.int64), []
    served = [loader for epochs, loader in loaders for _ in range(epochs)]
    for epoch, loader in enumerate(served):
        seen = np.concatenate([at[:0], *samples_seen(shard_samples, loader, epoch, samples)])[at]
        so_far = so_far + seen
        counts = (np.full(len(at), epoch + 1), seen, so_far)
        tables.append(pa.table([*named.columns, *map(pa.array, counts)], names=EXPOSURES.names).cast(EXPOSURES))
    return pa.concat_tables([EXPOSURES.empty_table(), *tables])


def _places(members: pl.DataFrame, sizes: np.ndarray) -> np.ndarray:
    """The place of each pair among all, counted through the shards; `InvalidInputError` where a shard lacks it."""
    shard, position = members["shard"].to_numpy(), members["position"].to_numpy()
    outside = (shard < 0) | (shard >= len(sizes)) | (position < 0)
    outside |= position >= np.append(sizes, 0)[np.where(outside, len(sizes), shard)]
    if outside.any():
        row = members.row(int(outside.argmax()), named=True)
        what = f"the pair '{row['key']}' has position {row['position']} of shard {row['shard']}, which is not there"
        raise InvalidInputError(what, f"set {row['set']}", "Give the plan and the sizes of the same shards.")
    return np.asarray(np.concatenate([[0], np.cumsum(sizes)])[shard] + position, np.int64)


def shuffled(count: int, shuffle: tuple[int, int], seed: int) -> np.ndarray:
    """The numbers 0 to `count` - 1 in the order in which webdataset's shuffle, seeded so, yields them.

    Twelve times as fast as webdataset's own: Python's generator hands its state to numpy's, which draws the same words.
    """
    *words, position = random.Random(seed).getstate()[1]
    bits = np.random.MT19937()
    bits.state = {"bit_generator": "MT19937", "state": {"key": np.array(words, np.uint32), "pos": position}}
    return np.asarray(_draw(np.random.Generator(bits), count, *shuffle))


@jit
def _draw(generator: np.random.Generator, count: int, buffer_size: int, initial: int) -> np.ndarray:
    """webdataset.filters._shuffle over 0 to `count` - 1, with each draw as random.Random.randint makes it."""
    buffer = np.empty(buffer_size, np.int64)
    order = np.empty(count, np.int64)
    held, read = 0, 0
    for place in range(count):
        while read < count:
            buffer[held] = read
            held, read = held + 1, read + 1
            if held < buffer_size and read < count:
                buffer[held] = read
                held, read = held + 1, read + 1
            if held >= initial:
                break
        bits = 0
        while held >> bits:
            bits += 1
        drawn = generator.integers(0, 1 << 32) >> (32 - bits)
        while drawn >= held:
            drawn = generator.integers(0, 1 << 32) >> (32 - bits)
        order[place] = buffer[drawn]
        held -= 1
        buffer[drawn] = buffer[held]
    return order
