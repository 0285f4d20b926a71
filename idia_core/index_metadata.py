"""URLs and captions of index rows, out of an index folder's metadata: Parquet, or Arrow, as clip-retrieval has either.

Rows are read a piece at a time, however large row groups and record batches are.
"""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from idia_core.caption_files import CAPTION_NAMES, URL_NAMES
from idia_core.errors import InvalidInputError, MissingInputError
from idia_core.index import METADATA
from idia_core.storage import is_local
from idia_core.text_columns import readable

COLUMNS = {"url": URL_NAMES, "caption": CAPTION_NAMES, "sha256": ("sha256",)}
"""What is read, and the columns that it is taken from: the first that a file has."""
ROWS_AT_ONCE = 16_384
BLOCK_BYTES = 1 << 20  # of a Parquet file, read at once
FIX = "Give an index whose metadata have URLs and captions, under the names that LAION or img2dataset give them."
Integers = npt.NDArray[np.int64]


class IndexMetadata:
    """The metadata of one index folder.

    Raises `MissingInputError` where there are none, and `InvalidInputError` for a file that cannot be read, or has no
    column that is known to hold URLs or captions.
    """

    def __init__(self, folder: UPath) -> None:
        self._files = [_ParquetFile(f) if f.name.endswith(".parquet") else _ArrowFile(f) for f in _files(folder)]
        self.rows = sum(sum(file.counts) for file in self._files)
        """How many rows there are."""

    def read(self, rows_N: Integers) -> Iterator[tuple[Integers, pa.Table]]:
        """The rows of these numbers, which ascend: some numbers with their `url`, `caption` and `sha256` at a time.

        Captions keep the type they are stored with and may not be UTF-8; `sha256` is null where there is no such
        column. Groups of rows without any of these are not read.
        """
        first = 0
        for file in self._files:
            for group, count in enumerate(file.counts):
                begin, end = np.searchsorted(rows_N, (first, first + count))
                if begin < end:
                    yield from _read_group(file, group, first, rows_N[begin:end])
                first += count


class _File(Protocol):
    path: UPath
    columns: dict[str, str]
    """The file's own name of each column that it has."""
    counts: list[int]
    """The rows of its groups."""

    def batches(self, group: int) -> Iterator[pa.RecordBatch]:
        """The rows of a group, some at a time."""


class _ParquetFile:
    def __init__(self, path: UPath) -> None:
        self.path = path
        try:
            source = None if is_local(path) else path.fs  # Arrow's own reads local files faster
            self._file = pq.ParquetFile(path.path, filesystem=source, pre_buffer=False, buffer_size=BLOCK_BYTES)
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(path, "Parquet", error) from None
        footer = self._file.metadata
        self.columns = _columns(self._file.schema_arrow.names, path)
        self.counts = [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]

    def batches(self, group: int) -> Iterator[pa.RecordBatch]:
        wanted = list(self.columns.values())
        try:
            yield from self._file.iter_batches(ROWS_AT_ONCE, [group], wanted, use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(self.path, "Parquet", error) from None


class _ArrowFile:
    """A file that is mapped where it is local: its batches take no memory of their own."""

    def __init__(self, path: UPath) -> None:
        self.path = path
        try:
            self._file = pa.ipc.open_file(
                pa.memory_map(path.path) if is_local(path) else pa.PythonFile(path.open("rb"), "r")
            )
            self.counts = [self._file.get_batch(group).num_rows for group in range(self._file.num_record_batches)]
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(path, "Arrow", error) from None
        self.columns = _columns(self._file.schema.names, path)

    def batches(self, group: int) -> Iterator[pa.RecordBatch]:
        try:
            batch = self._file.get_batch(group)
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(self.path, "Arrow", error) from None
        for start in range(0, batch.num_rows, ROWS_AT_ONCE):
            yield batch.slice(start, ROWS_AT_ONCE)


def _files(folder: UPath) -> list[UPath]:
    """The files of metadata in the order of their rows, which is that of their names."""
    places = [(folder / METADATA, "*.parquet"), (folder / METADATA, "*.arrow"), (folder, f"{METADATA}.arrow")]
    for place, pattern in places:
        if found := sorted(place.glob(pattern), key=lambda file: str(file.path)):
            return found
    what = f"no {METADATA}/*.parquet, {METADATA}/*.arrow or {METADATA}.arrow"
    if (folder / f"{METADATA}.hdf5").exists():
        what += " (HDF5 is not read)"
    raise MissingInputError(what, str(folder), FIX)


def _unreadable(path: UPath, kind: str, error: Exception) -> InvalidInputError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return InvalidInputError(f"not a readable {kind} file: {reason}", str(path), "Fetch it again.")


def _columns(present: list[str], path: UPath) -> dict[str, str]:
    found = {ours: next((name for name in names if name in present), None) for ours, names in COLUMNS.items()}
    for ours in ("url", "caption"):
        if found[ours] is None:
            what = f"no column {' or '.join(map(repr, COLUMNS[ours]))}"
            raise InvalidInputError(what, str(path), f"It has: {', '.join(present)}. {FIX}")
    return {ours: name for ours, name in found.items() if name is not None}


def _read_group(file: _File, group: int, first: int, rows_N: Integers) -> Iterator[tuple[Integers, pa.Table]]:
    """The wanted rows of a group that begins with that row."""
    for batch in file.batches(group):
        begin, end = np.searchsorted(rows_N, (first, first + batch.num_rows))
        if begin < end:
            mine_N = rows_N[begin:end]
            yield mine_N, _under_our_names(batch.take(pa.array(mine_N - first)), file.columns)
        first += batch.num_rows


def _under_our_names(batch: pa.RecordBatch, columns: dict[str, str]) -> pa.Table:
    texts = {ours: readable(batch.column(columns[ours])) for ours in ("url", "sha256") if ours in columns}
    missing = {"sha256": [None] * batch.num_rows}
    whole = missing | texts | {"caption": batch.column(columns["caption"])}
    return pa.table({ours: whole[ours] for ours in COLUMNS})
