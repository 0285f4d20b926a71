"""The phases of `retrieve` that search an index: its shards for all questions, and what is worth knowing of the rows.

What they write is work, gone with the seal. No more is in memory than the shards that are mapped, and the neighbours of
a block of people. Axes: B queries, D embedding dimensions, K neighbours.
"""

import io
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from upath import UPath

from idia_core.index import ShardedIndex
from idia_core.manifest import WORK
from idia_core.retrieval_index import (
    NAMED,
    Integers,
    Neighbours,
    SearchedIndex,
    dropped,
    merge,
    open_shards,
    read_named,
    rows_by_shard,
    search,
)
from idia_core.storage import write_whole
from pipelines.retrieve_config import RetrieveConfig
from pipelines.retrieve_queries import blocks, caption_names, folders_of, read_queries
from pipelines.stage import Phase, Split, SplitWriter, StageContext, open_parquet

BLOCKS_PER_SEARCH = 8
"""Blocks of people for which shards are opened once."""
ROWS_PER_GROUP = 65_536


def _groups(context: StageContext) -> list[list[int]]:
    """The shards, by their places, some at a time."""
    places, each = list(range(len(folders_of(context)))), context.config.shards_per_split
    return [places[first : first + each] for first in range(0, len(places), each)]


def _searches(context: StageContext) -> Iterable[Split]:
    """Some shards each with the questions of some blocks of people."""
    groups = _groups(context)
    count = len(blocks(context)) if groups else 0
    for group, places in enumerate(groups):
        for first in range(0, count, BLOCKS_PER_SEARCH):
            yield {"group": group, "shards": places, "blocks": [first, min(first + BLOCKS_PER_SEARCH, count)]}


class _Searcher:
    """Writes the rows of some shards that are nearest to each question."""

    def __init__(self, context: StageContext) -> None:
        self._context, self._config = context, context.config
        self._folders = folders_of(context)
        self._open: tuple[int, ShardedIndex, tempfile.TemporaryDirectory[str]] | None = None

    def __call__(self, split: Split, out: SplitWriter) -> None:
        config: RetrieveConfig = self._config
        index = self._opened(split["group"], split["shards"])
        first, end = split["blocks"]
        for block in range(first, end):
            out.report((block - first) / (end - first), f"{index.rows:,} rows, people of block {block}")
            queries = read_queries(self._context, block)
            found = [query.embedding_D for query in queries if query.embedding_D is not None]
            queries_BD = np.stack(found) if found else np.empty((0, index.dimensions), np.float32)
            neighbours_BK = search(index, queries_BD, config.neighbours)
            _save(self._context.folder / WORK / f"found/{split['group']:05d}-{block:05d}.npy", neighbours_BK)

    def _opened(self, group: int, places: list[int]) -> ShardedIndex:
        if self._open is None or self._open[0] != group:
            if self._open:
                self._open[2].cleanup()  # the copies of shards at a URL
            self._open = None  # lets go of the mapped shards
            cache = tempfile.TemporaryDirectory()
            folders = {place: self._folders[place] for place in places}
            threads = max(1, int(self._config.resources.cpus))
            self._open = group, open_shards(folders, Path(cache.name), threads, self._config.probes), cache
        return self._open[1]


def _blocks_to_merge(context: StageContext) -> Iterable[Split]:
    return [{"block": block} for block, _ in enumerate(blocks(context))] if folders_of(context) else []


class _Merger:
    """Writes the rows of all shards that are nearest to each question of a block."""

    def __init__(self, context: StageContext) -> None:
        self._folder, self._groups = context.folder / WORK, len(_groups(context))

    def __call__(self, split: Split, out: SplitWriter) -> None:
        block = split["block"]
        found = (_load(self._folder / f"found/{group:05d}-{block:05d}.npy") for group in range(self._groups))
        _save(_nearest_file(self._folder, block), merge(found))


def _groups_to_read(context: StageContext) -> Iterable[Split]:
    return [{"group": group, "shards": places} for group, places in enumerate(_groups(context))]


class _Reader:
    """Writes the URLs and captions of those neighbours in some shards whose captions name anybody."""

    def __init__(self, context: StageContext) -> None:
        self._folder, self._folders = context.folder / WORK, folders_of(context)
        self._names, self._blocks = caption_names(context), len(blocks(context))

    def __call__(self, split: Split, out: SplitWriter) -> None:
        neighbours = (_load(_nearest_file(self._folder, block)) for block in range(self._blocks))
        wanted, counts = rows_by_shard(neighbours, split["shards"]), Counter[str]()
        with write_whole(_named_file(self._folder, split["group"])) as file, pq.ParquetWriter(file, NAMED) as writer:
            for table in _together(self._named(wanted, counts, out)):
                writer.write_table(table)
        out.count(**dropped(counts))

    def _named(self, wanted: dict[int, Integers], counts: Counter[str], out: SplitWriter) -> Iterator[pa.Table]:
        for done, (place, rows_N) in enumerate(wanted.items()):
            out.report(done / len(wanted), f"captions of {len(rows_N):,} rows of shard {place}")
            yield from read_named(self._folders[place], place, rows_N, self._names, counts)


def _together(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The tables put together to row groups of a good size."""
    some = list[pa.Table]()
    for table in tables:
        some.append(table)
        if sum(map(len, some)) >= ROWS_PER_GROUP:
            yield pa.concat_tables(some)
            some = []
    yield pa.concat_tables([NAMED.empty_table(), *some])


def searched_index(context: StageContext, block: int) -> SearchedIndex:
    """The answers to the questions of a block."""
    folder = context.folder / WORK
    neighbours_BK = _load(_nearest_file(folder, block))
    rows = pa.array(np.unique(neighbours_BK["row"]))
    named = [NAMED.empty_table()]
    for group, _ in enumerate(_groups(context)):
        with open_parquet(_named_file(folder, group)) as parquet:
            for number in range(parquet.num_row_groups):
                some = parquet.read_row_group(number)
                named.append(some.filter(pc.is_in(some["row"], rows)))
    return SearchedIndex(neighbours_BK, pa.concat_tables(named))


def _nearest_file(folder: UPath, block: int) -> UPath:
    return folder / f"nearest/{block:05d}.npy"


def _named_file(folder: UPath, group: int) -> UPath:
    return folder / f"named/{group:05d}.parquet"


def _save(path: UPath, neighbours_BK: Neighbours) -> None:
    with write_whole(path) as file:
        np.save(file, neighbours_BK)


def _load(path: UPath) -> Neighbours:
    found: Neighbours = np.load(io.BytesIO(path.read_bytes()))
    return found


INDEX_PHASES = (
    Phase("search", _searches, _Searcher),
    Phase("merge", _blocks_to_merge, _Merger),
    Phase("read", _groups_to_read, _Reader),
)
