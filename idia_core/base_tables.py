"""Base pairs in Parquet tables of keys, captions and encoded pictures, read a little at a time."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from idia_core.base_samples import ROWS, BasePart, BaseSample, key_fault, pair_of, reading
from idia_core.errors import InvalidInputError
from idia_core.sample_status import SampleStatus
from idia_core.storage import as_path, is_local

COLUMNS = ("key", "caption", "image")
MAX_PIECES = 8
"""Of a row group. A piece reads over those before it, so more would read each byte more often than it is worth."""
BATCH_ROWS = 64
BLOCK_BYTES = 1 << 20  # read at once
BYTES = (pa.binary(), pa.large_binary(), pa.binary_view(), pa.null())
TEXTS = (*BYTES, pa.string(), pa.large_string(), pa.string_view())


def table_splits(table: UPath) -> Iterator[dict[str, Any]]:
    """Runs of about ROWS rows: several small row groups, or an equal piece of a large one.

    Raises `InvalidInputError` for a file that is no Parquet or lacks a column.
    """
    with _opened(table) as parquet:
        metadata = parquet.metadata
        groups = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    for start, stop in _runs(groups):
        yield {"url": str(table), "start": start, "stop": stop}


def _runs(groups: Sequence[int]) -> Iterator[tuple[int, int]]:
    start = stop = 0
    for rows in groups:
        if rows > ROWS and stop > start:
            yield start, stop
            start = stop
        stop += rows
        if stop - start >= ROWS:
            pieces = min(MAX_PIECES, -(-rows // ROWS))
            bounds = [start + (stop - start) * piece // pieces for piece in range(pieces + 1)]
            yield from pairwise(bounds)
            start = stop
    if stop > start:
        yield start, stop


def read_table(split: Mapping[str, Any]) -> BasePart:
    """The pairs of a run of rows; `InvalidInputError` on reaching a part of the file that is damaged."""
    return BasePart(_samples(as_path(split["url"]), split["start"], split["stop"]))


@contextmanager
def _opened(path: UPath) -> Iterator[pq.ParquetFile]:
    options: dict[str, Any] = {"pre_buffer": False, "buffer_size": BLOCK_BYTES, "page_checksum_verification": True}
    options["filesystem"] = None if is_local(path) else path.fs  # Arrow's own reads local files faster
    with reading(path, "Parquet file"), pq.ParquetFile(path.path, **options) as parquet:
        _check(path, parquet.schema_arrow)
        yield parquet


def _check(path: UPath, schema: pa.Schema) -> None:
    for column in COLUMNS:
        if column not in schema.names:
            raise InvalidInputError(f"no column '{column}'", str(path), f"It has: {', '.join(schema.names)}.")
        kind = schema.field(column).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if kind not in (BYTES if column == "image" else TEXTS):
            what = f"column '{column}' holds {kind}, not {'bytes' if column == 'image' else 'text'}"
            raise InvalidInputError(what, str(path), "Store keys and captions as text, encoded pictures as bytes.")


def _samples(path: UPath, start: int, stop: int) -> Iterator[BaseSample]:
    taken: set[str] = set()
    with _opened(path) as parquet:
        first = 0
        for group in range(parquet.metadata.num_row_groups):
            rows = parquet.metadata.row_group(group).num_rows
            wanted = range(max(start - first, 0), min(stop - first, rows))
            for batch in _batches(path, parquet, group, wanted):
                columns = [_values(batch.column(column)) for column in COLUMNS]
                for key, caption, image in zip(*columns, strict=True):
                    yield _sample(key, caption, image, taken)
            first += rows


def _batches(path: UPath, parquet: pq.ParquetFile, group: int, wanted: range) -> Iterator[pa.RecordBatch]:
    """Those rows of a row group; what is before them is read over, what is behind is not read."""
    first = 0
    if wanted:
        options = {"row_groups": [group], "columns": list(COLUMNS), "use_threads": False}
        for batch in parquet.iter_batches(BATCH_ROWS, **options):
            begin, end = max(wanted.start - first, 0), min(wanted.stop - first, batch.num_rows)
            if begin < end:
                yield batch.slice(begin, end - begin)
            first += batch.num_rows
            if first >= wanted.stop:
                return
        what = f"row group {group} has only {first} of its rows"  # damage can pass for an early end
        raise InvalidInputError(what, str(path), "Fetch it again.")


def _values(column: pa.Array) -> list[memoryview | None]:
    """Each value's bytes where they are."""
    plain = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
    buffers = [value.as_buffer() for value in plain.cast(pa.large_binary())]
    return [None if buffer is None else memoryview(buffer).cast("B") for buffer in buffers]


def _sample(
    raw_key: memoryview | None, raw_caption: memoryview | None, image: memoryview | None, taken: set[str]
) -> BaseSample:
    key = bytes(raw_key or b"").decode(errors="replace")
    caption = None if raw_caption is None else bytes(raw_caption)
    status, detail = key_fault(key, taken)
    if status is SampleStatus.OK and key.encode() != bytes(raw_key or b""):
        status, detail = SampleStatus.UNUSABLE_KEY, "not UTF-8"
    if status is SampleStatus.OK:
        return pair_of(key, caption, image or b"")
    return BaseSample(key, caption, image, None, None, None, status, detail)
