"""Lists of names to search for: Parquet, CSV, or text with a name a line."""

import io
from typing import NamedTuple

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from idia_core.errors import InvalidInputError

PATTERNS = ("*.parquet", "*.csv", "*.txt")
"""Which files of a folder are lists of names."""
NAMES = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("aliases", pa.list_(pa.string()), nullable=False),  # other names that count as this one
    ]
)


class NameList(NamedTuple):
    """The names (NAMES) in their order, and how many rows were blank."""

    names: pa.Table
    blank: int


def read_name_list(file: UPath) -> NameList:
    """The names of a file: Parquet or CSV with a column `name` and perhaps `aliases`, or text with a name a line.

    Aliases are a list, or one text with semicolons between them. Rows without a name are counted and left out. Raises
    InvalidInputError for a file that cannot be read or has no such column.
    """
    frame = _read(file)
    if "name" not in frame.columns:
        raise InvalidInputError("no column 'name'", str(file), f"It has: {', '.join(frame.columns)}.")
    for column in {"name", "aliases"} & set(frame.columns):
        kind = frame.schema[column]
        if kind not in (pl.String, pl.Null) and (column == "name" or kind != pl.List(pl.String)):
            raise InvalidInputError(f"column '{column}' holds {kind}, not text", str(file), "Write it as text.")
    aliases = pl.col("aliases") if "aliases" in frame.columns else pl.lit(None, pl.String).alias("aliases")
    frame = frame.select(pl.col("name").cast(pl.String), aliases)
    if frame.schema["aliases"] != pl.List(pl.String):
        frame = frame.with_columns(pl.col("aliases").cast(pl.String).str.split(";"))
    listed = pl.col("aliases").fill_null([]).list.eval(pl.element().str.strip_chars())
    kept = frame.with_columns(aliases=listed.list.eval(pl.element().filter(pl.element() != "")))
    kept = kept.filter(pl.col("name").str.strip_chars().fill_null("") != "")
    for name in kept["name"].filter(kept["name"].str.strip_chars() != kept["name"]):
        what = f"the name {name!r} begins or ends with white space"
        raise InvalidInputError(what, str(file), "Take it out; the paper's rule would look for it.")
    return NameList(kept.to_arrow().cast(NAMES), len(frame) - len(kept))


def _read(file: UPath) -> pl.DataFrame:
    content = io.BytesIO(file.read_bytes())
    try:
        if file.name.endswith(".parquet"):
            return _from_parquet(content)
        if file.name.endswith(".csv"):
            return pl.read_csv(content, infer_schema=False)
        lines = [line.strip() for line in content.getvalue().decode("utf-8-sig").splitlines()]
    except (pl.exceptions.PolarsError, pa.ArrowException, OSError, UnicodeDecodeError) as error:
        what = f"not a readable list of names: {str(error).splitlines()[0]}"
        raise InvalidInputError(what, str(file), "Give Parquet or CSV with a column 'name', or UTF-8 text.") from None
    return pl.DataFrame({"name": lines}, schema={"name": pl.String})


def _from_parquet(content: io.BytesIO) -> pl.DataFrame:
    """The columns of names and aliases; Arrow reads them because polars panics on some damaged files."""
    with pq.ParquetFile(content, page_checksum_verification=True) as parquet:
        columns = parquet.schema_arrow.names
        wanted = [column for column in ("name", "aliases") if column in columns]
        table = parquet.read(wanted or columns)
    table.validate(full=True)
    frame = pl.DataFrame(table.replace_schema_metadata(None))  # keys that are no UTF-8 make polars panic too
    return frame.cast({pl.List(pl.Null): pl.List(pl.String)})
