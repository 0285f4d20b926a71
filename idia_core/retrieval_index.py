"""Retrieval from a local index of any number of shards, in steps that can be done apart: search, merge, read, answer.

Rows are numbered over all shards: the shard's place, then the row in it, so that no shard must be opened to know where
the next one begins. Axes: B queries, D dimensions, K neighbours, N rows.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from upath import UPath

from idia_core.caption_names import CaptionNames
from idia_core.captions import CaptionStatus
from idia_core.errors import InvalidInputError, MissingInputError
from idia_core.index import INDEX_FILE, METADATA, SHARDS, Shard, ShardedIndex, merge_answers
from idia_core.index_metadata import IndexMetadata
from idia_core.retrieval import ANSWER, Query
from idia_core.text_columns import readable

PATTERNS = tuple(
    f"{place}{file}" for place in ("", "*/", f"{SHARDS}/*/") for file in (INDEX_FILE, f"{METADATA}/*", f"{METADATA}.*")
)
"""Which files of a folder belong to an index, or to a folder of such."""
ROW_BITS = 40
"""Of a row's number, for its place in the shard; the bits above are for the shard's."""
NEIGHBOUR = np.dtype([("similarity", "<f4"), ("row", "<i8")])
"""One of the rows nearest to a query; row -1 where fewer were found."""
QUERIES_AT_ONCE = 512
"""Given to faiss together: enough that an exact index computes and does not wait for memory."""
NAMED = pa.schema([field for field in ANSWER if field.name != "similarity"])
Neighbours = npt.NDArray[np.void]
"""NEIGHBOUR [B, K], from the nearest on; of equal similarities the lower row first."""
Integers = npt.NDArray[np.int64]


def index_folders(files: Iterable[UPath], root: UPath) -> list[UPath]:
    """The index folders among the files of an input, in the order of their names: the root itself, or those in it.

    Raises `MissingInputError` where there is none.
    """
    found = {str(file.parent): file.parent for file in files if file.name == INDEX_FILE}
    if not found:
        fix = "Give the folder that the stage `index` or `clip-retrieval index` wrote."
        raise MissingInputError(f"no {INDEX_FILE}", str(root), fix)
    depth = min(len(folder.parts) for folder in found.values())
    nearest = [folder for folder in found.values() if len(folder.parts) == depth]
    return sorted(nearest, key=lambda folder: folder.path.rstrip("/"))


def open_shards(
    folders: Mapping[int, UPath], cache: Path, threads: int | None = None, probes: int | None = None
) -> ShardedIndex:
    """Some index folders, by their places among all, as one index whose rows are numbered over all.

    Raises what `ShardedIndex.open` and `IndexMetadata` raise, and `InvalidInputError` where a shard has another number
    of rows than its metadata.
    """
    shards = list[Shard]()
    for place, folder in folders.items():
        (shard,) = ShardedIndex.open(folder, cache, threads, probes).shards
        if (described := IndexMetadata(folder).rows) != shard.rows:
            what = f"{described} rows of metadata, and {shard.rows} in the index"
            raise InvalidInputError(what, str(folder), "Build it again.")
        shards.append(Shard(folder, shard.index, place << ROW_BITS))
    return ShardedIndex(shards, threads)


def search(index: ShardedIndex, queries_BD: npt.NDArray[np.float32], k: int) -> Neighbours:
    """The k rows nearest to each query; the memory that is used beside the answer does not grow with the queries."""
    found_BK = np.empty((len(queries_BD), k), NEIGHBOUR)
    for start in range(0, len(queries_BD), QUERIES_AT_ONCE):
        some = slice(start, start + QUERIES_AT_ONCE)
        found_BK["similarity"][some], found_BK["row"][some] = index.search(queries_BD[some], k)
    return found_BK


def merge(answers: Iterable[Neighbours]) -> Neighbours:
    """The nearest rows of all shards, given those of some at a time, to the same queries."""
    remaining = iter(answers)
    best_BK = next(remaining).copy()
    for more_BK in remaining:
        both = [(found_BK["similarity"], found_BK["row"]) for found_BK in (best_BK, more_BK)]
        best_BK["similarity"], best_BK["row"] = merge_answers(both, best_BK.shape[1])
    return best_BK


def rows_by_shard(neighbours: Iterable[Neighbours], places: Sequence[int]) -> dict[int, Integers]:
    """The rows of those shards that are among the neighbours, each once and ascending, by the shard's place.

    They are numbered over all shards.
    """
    wanted = np.empty(0, np.int64)
    for found_BK in neighbours:
        rows_N = found_BK["row"].ravel()
        mine_N = rows_N[(rows_N >= 0) & np.isin(rows_N >> ROW_BITS, places)]
        wanted = np.union1d(wanted, mine_N)
    return {place: wanted[wanted >> ROW_BITS == place] for place in places}


def read_named(
    folder: UPath, place: int, rows_N: Integers, names: CaptionNames, counts: Counter[str]
) -> Iterable[pa.Table]:
    """Those rows of a shard whose captions name anybody, as NAMED, some at a time in their order.

    Captions that are null or not UTF-8 are counted, by their status.
    """
    first = place << ROW_BITS
    for numbers_N, texts in IndexMetadata(folder).read(rows_N - first):
        naming, statuses = names.naming_anybody(texts["caption"])
        counts.update(statuses)
        kept = texts.take(pa.array(naming))
        columns = {"row": numbers_N[naming] + first, "url": kept["url"], "caption": readable(kept["caption"])}
        yield pa.table(columns | {"sha256": kept["sha256"]}).select(NAMED.names).cast(NAMED)


def dropped(statuses: Counter[str]) -> dict[str, int]:
    """The captions that were not searched, by why not."""
    return {status: count for status, count in statuses.items() if status != CaptionStatus.SEARCHED}


class SearchedIndex:
    """The answers of an index that was searched and read before: a `Backend`.

    A row whose caption names nobody comes without it. `named` holds, as NAMED in ascending order, all that do.
    """

    def __init__(self, neighbours_BK: Neighbours, named: pa.Table) -> None:
        self._neighbours_BK, self._named = neighbours_BK, named
        self._rows_N: Integers = named["row"].to_numpy()

    def answer(self, query: Query) -> pa.Table:
        """The rows nearest to the query of that place."""
        found_K = self._neighbours_BK[query.place]
        found_K = found_K[found_K["row"] >= 0]
        at_K = np.searchsorted(self._rows_N, found_K["row"])
        at_K[at_K == len(self._rows_N)] = 0
        there_K = self._rows_N[at_K] == found_K["row"] if len(self._rows_N) else np.zeros(len(found_K), bool)
        texts = self._named.take(pa.array(at_K, mask=~there_K))
        columns = {"row": found_K["row"], "similarity": found_K["similarity"].astype(np.float64)}
        return pa.table(columns | {name: texts[name] for name in ("url", "caption", "sha256")}, schema=ANSWER)
