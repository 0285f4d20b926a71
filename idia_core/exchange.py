"""Tables that go out to other tools and come back: Parquet, CSV and TSV, at any fsspec URL."""

import io
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import IO

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from idia_core.errors import InvalidInputError, UsageError
from idia_core.storage import write_whole

SEPARATORS = {".tsv": "\t", ".csv": ","}
FORMATS = (*SEPARATORS, ".parquet")
PATTERNS = tuple(f"*{suffix}" for suffix in FORMATS)
"""Which files of a folder hold tables."""
GROUP_ROWS, GROUP_BYTES = 65_536, 64 << 20
"""Of what is written together, a row group in Parquet: whichever comes first."""
BATCH_ROWS, PICTURES_AT_ONCE = 8192, 64
"""Rows that are read at once, without and with pictures."""
CUTS = "[\t\n\r]"
"""What ends a field or a line of a TSV, which has no quotes."""


def read_frame(file: UPath, known: Collection[str]) -> pl.DataFrame:
    """The `known` columns of a Parquet file, or all columns of a CSV or TSV, as text.

    A TSV has no quotes, so that a `"` is a character like any other. An empty field is null; in CSV `""` is an empty
    text. Raises `InvalidInputError` for a file that cannot be read.
    """
    return _read_parquet(file, known) if file.name.endswith(".parquet") else _read_lines(file)


def _read_parquet(file: UPath, known: Collection[str]) -> pl.DataFrame:
    try:
        with pq.ParquetFile(file.path, filesystem=file.fs) as parquet:
            columns = [name for name in parquet.schema_arrow.names if name in known]
            table = parquet.read(columns)
            return pl.DataFrame(table) if columns else pl.DataFrame()
    except (pa.ArrowInvalid, OSError) as error:
        what = f"not a readable Parquet file: {str(error).splitlines()[0]}"
        raise InvalidInputError(what, str(file), "Write it again.") from None


def _read_lines(file: UPath) -> pl.DataFrame:
    tabs = file.name.endswith(".tsv")
    try:
        return pl.read_csv(
            io.BytesIO(file.read_bytes()),
            infer_schema=False,
            separator="\t" if tabs else ",",
            quote_char=None if tabs else '"',
        )
    except pl.exceptions.PolarsError as error:
        what = f"not a readable table: {str(error).splitlines()[0]}"
        raise InvalidInputError(what, str(file), "Write a line of column names, then the rows in UTF-8.") from None


def export(files: Sequence[UPath], target: UPath) -> int:
    """Write the rows of Parquet files of one schema to a file, whole or not at all; returns how many they are.

    The end of its name tells the format. Never more than some rows are in memory. Raises `UsageError` for another end,
    and where the format cannot hold a column or a value so that it is read back as it was.
    """
    suffix = next((suffix for suffix in FORMATS if target.name.endswith(suffix)), None)
    if suffix is None:
        raise UsageError(f"no kind of table ends like '{target.name}'", "FILE", f"Use one of {', '.join(FORMATS)}.")
    with pq.ParquetFile(files[0].path, filesystem=files[0].fs) as first:
        schema = first.schema_arrow
    groups = _groups(_batches(files, schema), schema)
    if suffix in SEPARATORS:
        _check_columns(schema, target)
    with write_whole(target) as file:
        return _write_parquet(groups, schema, file) if suffix == ".parquet" else _write_lines(groups, target, file)


def _batches(files: Sequence[UPath], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    rows = PICTURES_AT_ONCE if any(map(_is_bytes, schema.types)) else BATCH_ROWS
    for path in files:
        with pq.ParquetFile(path.path, filesystem=path.fs) as parquet:
            yield from parquet.iter_batches(rows)


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _groups(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    """The batches, as many together as are written together; one without rows where there are none."""
    held, rows, size, written = list[pa.RecordBatch](), 0, 0, False
    for batch in batches:
        held.append(batch)
        rows, size = rows + batch.num_rows, size + batch.nbytes
        if rows >= GROUP_ROWS or size >= GROUP_BYTES:
            yield pa.Table.from_batches(held, schema)
            held, rows, size, written = [], 0, 0, True
    if held or not written:
        yield pa.Table.from_batches(held, schema)


def _write_parquet(groups: Iterable[pa.Table], schema: pa.Schema, file: IO[bytes]) -> int:
    rows = 0
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for group in groups:
            writer.write_table(group)
            rows += group.num_rows
    return rows


def _check_columns(schema: pa.Schema, target: UPath) -> None:
    for column in schema:
        if _is_bytes(column.type) or pa.types.is_nested(column.type):
            holds = "pictures" if _is_bytes(column.type) else "lists"
            what = f"column '{column.name}' holds {holds}, which lines of text cannot"
            raise UsageError(what, str(target), "Use a name that ends in .parquet.")


def _write_lines(groups: Iterable[pa.Table], target: UPath, file: IO[bytes]) -> int:
    rows = 0
    tabs = target.name.endswith(".tsv")
    for group in groups:
        frame = pl.DataFrame(group).cast({pl.Categorical: pl.String})
        if tabs:
            _check_values(frame, rows, target)
        frame.write_csv(
            file,
            include_header=rows == 0,
            separator="\t" if tabs else ",",
            quote_style="never" if tabs else "necessary",
        )
        rows += frame.height
    return rows


def _check_values(frame: pl.DataFrame, before: int, target: UPath) -> None:
    for column in frame.select(pl.col(pl.String)):
        cut = column.str.contains(CUTS).arg_true()
        if len(cut):
            what = f"'{column.name}' of row {before + cut[0] + 1} has a tab or a line break, which ends a field there"
            raise UsageError(what, str(target), "Use a name that ends in .csv or .parquet.")
