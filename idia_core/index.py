"""Searching faiss index shards as one index; each is a folder as clip-retrieval has it.

Axes: B queries, D dimensions, K neighbours.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from idia_core.errors import InvalidInputError, MissingInputError, UsageError
from idia_core.index_building import set_probes
from idia_core.storage import identity_of, is_local, write_whole

INDEX_FILE = "image.index"
METADATA = "metadata"
SHARDS = "shards"
SPARE = 16
"""Neighbours that a shard is asked for beyond those that count, so that it is seen whether there are more equals."""
ROUNDING = 4e-6
"""How much the similarities of a matrix product may be off, of vectors of length 1."""
Answer = tuple[np.ndarray, np.ndarray]
"""Similarities [B, K] and rows [B, K]."""


@dataclass(frozen=True)
class Shard:
    """One index folder; its rows are those from `first_row` on."""

    folder: UPath
    index: Any
    first_row: int

    @property
    def rows(self) -> int:
        """How many vectors it holds."""
        return int(self.index.ntotal)

    @cached_property
    def groups(self) -> "_RowGroups":
        """Where its metadata are."""
        return _RowGroups(self.folder, self.rows)


class ShardedIndex:
    """Index shards that answer as one index over all their rows, numbered through in the order of the folders' names.

    The files are mapped into memory, not read; a search goes from shard to shard.
    """

    def __init__(self, shards: Sequence[Shard], threads: int | None = None) -> None:
        self.shards, self._threads = tuple(shards), threads
        self._firsts = np.array([shard.first_row for shard in shards])
        self.rows = sum(shard.rows for shard in shards)
        self.dimensions = int(shards[0].index.d)

    @classmethod
    def open(
        cls, folder: UPath, cache: Path | None = None, threads: int | None = None, probes: int | None = None
    ) -> Self:
        """Open what the stage `index` or `clip-retrieval index` wrote: an index folder, or a folder of such folders.

        A folder at a URL is fetched to the local folder `cache` first. `threads` is how many a search uses (faiss' own
        number if not given), `probes` how many lists it looks into (what the files say if not given).
        Raises `MissingInputError` where there is no index and `InvalidInputError` for a file that is none, has another
        metric than the inner product, or other dimensions than the first.
        """
        shards, first = list[Shard](), 0
        for place in _index_folders(folder):
            index = _read_index(_local_copy(place / INDEX_FILE, cache))
            if shards and index.d != shards[0].index.d:
                what = f"{index.d} dimensions, and {shards[0].index.d} in {shards[0].folder}"
                raise InvalidInputError(what, str(place), "Open indices of one model.")
            if probes is not None:
                set_probes(index, probes)
            shards.append(Shard(place, index, first))
            first += int(index.ntotal)
        return cls(shards, threads)

    def search(self, queries_BD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k nearest rows of each query: similarities [B, K] float32 from the highest on, row numbers [B, K] int64.

        Of equal similarities the lower row comes first, and also decides which rows are among the k. Where fewer are
        found the row is -1 and the similarity -inf.
        Raises `InvalidInputError` for k below 1 and queries that are not finite rows of the index's dimensions.
        """
        queries_BD = self._checked(queries_BD, k)
        if not len(queries_BD):
            return np.empty((0, k), np.float32), np.empty((0, k), np.int64)
        if self._threads is not None:
            import faiss  # noqa: PLC0415 - heavy

            faiss.omp_set_num_threads(self._threads)
        found = [_search(shard, queries_BD, k + SPARE) for shard in self.shards]
        similarities, ids = merge_answers(found, k)
        for b in _cut_among_equals(self.shards, found, similarities[:, -1]):
            query_1D, cut = queries_BD[b : b + 1], float(similarities[b, -1])
            whole = [_with_all_equals(shard, query_1D, k + SPARE, cut) for shard in self.shards]
            similarities[b : b + 1], ids[b : b + 1] = merge_answers(whole, k)
        return similarities, ids

    def metadata(self, ids: Sequence[int] | np.ndarray, columns: Sequence[str]) -> pa.Table:
        """Those columns of the rows, in the order of `ids`; reads the row groups alone that hold them.

        Raises `InvalidInputError` for a row or column that is not there.
        """
        wanted = np.asarray(ids, np.int64)
        if (outside := (wanted < 0) | (wanted >= self.rows)).any():
            bad = int(wanted[outside][0])
            raise InvalidInputError(
                f"there is no row {bad}", f"index of {self.rows} rows", "Leave out -1: no neighbour."
            )
        rows, back = np.unique(wanted, return_inverse=True)
        owner = np.searchsorted(self._firsts, rows, side="right") - 1
        tables = [
            self.shards[one].groups.read(rows[owner == one] - self.shards[one].first_row, columns)
            for one in np.unique(owner).tolist() or [0]
        ]
        return pa.concat_tables(tables, promote_options="default").take(pa.array(back.reshape(-1)))

    def _checked(self, queries_BD: np.ndarray, k: int) -> np.ndarray:
        if k < 1:
            raise InvalidInputError(f"{k} neighbours are asked for", "search", "Ask for one or more.")
        if queries_BD.ndim != 2 or queries_BD.shape[1] != self.dimensions:
            what = f"queries of shape {queries_BD.shape}, and an index of {self.dimensions} dimensions"
            raise InvalidInputError(what, "search", "Embed them with the model of the index.")
        queries_BD = np.ascontiguousarray(queries_BD, np.float32)
        if not np.isfinite(queries_BD).all():
            raise InvalidInputError("a query holds a number that is not finite", "search", "Embed it again.")
        return queries_BD


def _search(shard: Shard, queries_BD: np.ndarray, k: int) -> Answer:
    """A shard's nearest rows, with numbers of the whole; the bits depend neither on the other queries nor on the shard.

    An exact index multiplies blocks of matrices, whose sums end in other bits where a block ends. Those of the rows
    that were found are computed again one by one, as faiss does for a single query.
    """
    import faiss  # noqa: PLC0415 - heavy

    similarities_BK, ids_BK = shard.index.search(queries_BD, k)
    if isinstance(shard.index, faiss.IndexFlat):
        x, rows, out = map(faiss.swig_ptr, (queries_BD, ids_BK, similarities_BK))
        by_row: Any = faiss.fvec_inner_products_by_idx  # type: ignore[attr-defined]  # swig's
        by_row(out, x, shard.index.get_xb(), rows, shard.index.d, len(queries_BD), ids_BK.shape[1])
    there = ids_BK >= 0
    return np.where(there, similarities_BK, np.float32(-np.inf)), np.where(there, ids_BK + shard.first_row, -1)


def merge_answers(found: Sequence[Answer], k: int) -> Answer:
    """The k best of the shards' answers to the same queries; of equals the lower row first."""
    similarities = np.concatenate([one for one, _ in found], axis=1)
    ids = np.concatenate([one for _, one in found], axis=1)
    order = np.lexsort((ids, -similarities), axis=1)[:, :k]
    return np.take_along_axis(similarities, order, 1), np.take_along_axis(ids, order, 1)


def _cut_among_equals(shards: Sequence[Shard], found: Sequence[Answer], cut_B: np.ndarray) -> list[int]:
    """The queries for which a shard may have left out rows as similar as the last one that counts."""
    near_B = np.zeros(len(cut_B), bool)
    for shard, (similarities_BK, _) in zip(shards, found, strict=True):
        last_B = similarities_BK.min(axis=1)
        if shard.rows > similarities_BK.shape[1]:
            near_B |= np.isfinite(last_B) & (last_B >= cut_B - ROUNDING * np.maximum(1, np.abs(cut_B)))
    return [int(b) for b in np.flatnonzero(near_B)]


def _with_all_equals(shard: Shard, query_1D: np.ndarray, wanted: int, cut: float) -> Answer:
    """A shard's answer that holds every row as similar as `cut`: of equals faiss keeps any."""
    least = cut - ROUNDING * max(1, abs(cut))
    while True:
        similarities, ids = _search(shard, query_1D, wanted)
        if wanted >= shard.rows or similarities.min() < least:
            return similarities, ids
        wanted = min(4 * wanted, shard.rows)


def _index_folders(folder: UPath) -> list[UPath]:
    """The folder itself, those in its `shards`, or those in it, that hold an index; in the order of their names."""
    if (folder / INDEX_FILE).exists():
        return [folder]
    top = folder / SHARDS if (folder / SHARDS).is_dir() else folder
    found = [one for one in top.iterdir() if (one / INDEX_FILE).exists()] if top.is_dir() else []
    if not found:
        fix = "Give the folder that the stage `index` or `clip-retrieval index` wrote."
        raise MissingInputError(f"no {INDEX_FILE}", str(folder), fix)
    return sorted(found, key=lambda one: one.path.rstrip("/"))


def _local_copy(file: UPath, cache: Path | None) -> Path:
    """The file, or its copy in the cache, fetched where the one at the URL is not the same."""
    if is_local(file):
        return Path(file.path)
    if cache is None:
        raise UsageError("an index at a URL needs a local folder to be fetched to", str(file), "Give a cache folder.")
    version = hashlib.sha256(repr((str(file), identity_of(file))).encode()).hexdigest()
    copy = cache / version[:32] / file.name
    if not copy.exists():
        with write_whole(UPath(copy)) as out, file.open("rb") as source:
            while block := source.read(1 << 24):
                out.write(block)
    return copy


def _read_index(file: Path) -> Any:
    """The index in a file, mapped into memory; faiss maps exact ones and lists in two ways."""
    import faiss  # noqa: PLC0415 - heavy

    lists = faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY
    said = ""
    for flags in (faiss.IO_FLAG_MMAP_IFC | faiss.IO_FLAG_READ_ONLY, lists):
        try:
            index = faiss.read_index(str(file), flags)
        except RuntimeError as error:
            said = str(error).strip().splitlines()[0].rpartition("Error: ")[2]
            continue
        if index.metric_type != faiss.METRIC_INNER_PRODUCT:
            what = "its metric is not the inner product"
            raise InvalidInputError(what, str(file), "Build it with the inner product.")
        _touch_no_lists_beforehand(index)
        return index
    raise InvalidInputError(f"not a readable faiss index: {said}", str(file), "Fetch or build it again.")


def _touch_no_lists_beforehand(index: Any) -> None:
    """Keep faiss from starting 32 threads a search to touch mapped lists: where they are in memory it costs 15%."""
    import faiss  # noqa: PLC0415 - heavy

    ivf: Any = faiss.try_extract_index_ivf(index)
    lists = ivf and faiss.downcast_InvertedLists(ivf.invlists)
    if isinstance(lists, faiss.OnDiskInvertedLists):
        lists.prefetch_nthread = 0


class _RowGroups:
    """The row groups of an index folder's metadata, found by row."""

    def __init__(self, folder: UPath, rows: int) -> None:
        self._files = sorted((folder / METADATA).glob("*.parquet"), key=lambda file: str(file.path))
        self._places = list[tuple[int, int]]()
        sizes = list[int]()
        for place, file in enumerate(self._files):
            with _opened(file) as parquet:
                for group in range(parquet.metadata.num_row_groups):
                    self._places.append((place, group))
                    sizes.append(parquet.metadata.row_group(group).num_rows)
        self._ends = np.cumsum(sizes, dtype=np.int64)
        if sum(sizes) != rows:
            what = f"{sum(sizes)} rows of metadata, and {rows} in the index"
            raise InvalidInputError(what, str(folder), "Build it again.")

    def read(self, rows: np.ndarray, columns: Sequence[str]) -> pa.Table:
        """Those columns of the rows, which are given in their order."""
        group_of = np.searchsorted(self._ends, rows, side="right")
        tables = [self._read_group(one, rows[group_of == one], columns) for one in np.unique(group_of).tolist()]
        if not tables:
            tables = [self._read_group(0, rows, columns)]
        return pa.concat_tables(tables, promote_options="default")

    def _read_group(self, number: int, rows: np.ndarray, columns: Sequence[str]) -> pa.Table:
        place, group = self._places[number]
        file, first = self._files[place], self._ends[number - 1] if number else 0
        with _opened(file) as parquet:
            present = parquet.schema_arrow.names
            if missing := [column for column in columns if column not in present]:
                raise InvalidInputError(f"no column '{missing[0]}'", str(file), f"It has: {', '.join(present)}.")
            return (
                parquet.read_row_group(group, columns=list(columns)).select(list(columns)).take(pa.array(rows - first))
            )


def _opened(file: UPath) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file.path, filesystem=file.fs)
    except (pa.ArrowInvalid, OSError) as error:
        what = f"not a readable Parquet file: {str(error).splitlines()[0]}"
        raise InvalidInputError(what, str(file), "Fetch it again.") from None
