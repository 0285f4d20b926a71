"""The URLs that are to be fetched, from tables of candidates or anybody's own lists."""

import io
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from idia_core.caption_files import CAPTION_NAMES, URL_NAMES
from idia_core.errors import InvalidInputError

PATTERNS = ("*.parquet", "*.tsv", "*.csv")
WANTED_URLS = pa.schema(
    [
        pa.field("number", pa.int64(), nullable=False),  # by first appearance
        pa.field("url", pa.string(), nullable=False),
        pa.field("caption", pa.string(), nullable=False),  # of the first row with the URL; empty where it has none
        pa.field("sha256", pa.string()),  # of the file that should be there, the first that is told; null if none is
    ]
)
KEPT = "kept"
"""The status of the candidates that are to be fetched."""
SHA256 = "^[0-9a-f]{64}$"


class WantedUrls(NamedTuple):
    """Distinct URLs (WANTED_URLS), and how many rows there were in all and of each kind that adds none."""

    table: pa.Table
    counts: Counter[str]


def read_wanted(files: Sequence[UPath]) -> WantedUrls:
    """The distinct URLs of Parquet, TSV and CSV files with a line of column names, in their order.

    Columns: `url`, and perhaps `caption`, `sha256`, and `status`, of which only `kept` is wanted. The names of LAION's
    columns are known. Raises `InvalidInputError` for a file of another form, and where there is no URL at all.
    """
    frames = [_read(file) for file in files]
    rows = pl.concat(frames)
    wanted = rows.filter(pl.col("status").is_null() | (pl.col("status") == KEPT))
    urls = wanted.filter(pl.col("url") != "")
    distinct = urls.group_by("url", maintain_order=True).agg(
        pl.col("caption").first(), pl.col("sha256").drop_nulls().first()
    )
    if distinct.is_empty():
        what = f"there is no URL to fetch among {rows.height} rows"
        raise InvalidInputError(what, str(files[0]), f"Rows need a URL and, where there is one, the status '{KEPT}'.")
    counts = Counter(
        rows_in=rows.height,
        not_kept=rows.height - wanted.height,
        no_url=wanted.height - urls.height,
        duplicate_url=urls.height - distinct.height,
    )
    numbered = distinct.with_row_index("number").select(WANTED_URLS.names)
    return WantedUrls(numbered.to_arrow().cast(WANTED_URLS), counts)


def _read(file: UPath) -> pl.DataFrame:
    """The columns `url`, `caption`, `sha256` and `status` of a file, as text."""
    found = _read_parquet(file) if file.name.endswith(".parquet") else _read_lines(file)
    url = _column(found, URL_NAMES)
    if url is None:
        raise InvalidInputError("no column 'url'", str(file), f"It has: {', '.join(found.columns)}.")
    caption = _column(found, CAPTION_NAMES)
    nothing = pl.lit(None, pl.String)
    columns = {name: pl.col(name) if name in found.columns else nothing for name in ("sha256", "status")}
    rows = found.select(
        url=pl.col(url).cast(pl.String).fill_null("").str.strip_chars(),
        caption=(pl.lit("") if caption is None else pl.col(caption)).cast(pl.String).fill_null(""),
        sha256=columns["sha256"].cast(pl.String).str.strip_chars().str.to_lowercase().replace("", None),
        status=columns["status"].cast(pl.String),
    )
    wrong = rows.filter(~pl.col("sha256").str.contains(SHA256))
    if wrong.height:
        what = f"'{wrong['sha256'][0]}' is no SHA-256"
        raise InvalidInputError(what, f"{file}, column sha256", "Give 64 hexadecimal digits, or leave it empty.")
    return rows


def _column(frame: pl.DataFrame, names: Sequence[str]) -> str | None:
    return next((name for name in names if name in frame.columns), None)


def _read_parquet(file: UPath) -> pl.DataFrame:
    try:
        with pq.ParquetFile(file.path, filesystem=file.fs) as parquet:
            columns = [name for name in parquet.schema_arrow.names if name in _KNOWN]
            table = parquet.read(columns)
            return pl.DataFrame(table) if columns else pl.DataFrame()
    except (pa.ArrowInvalid, OSError) as error:
        what = f"not a readable Parquet file: {str(error).splitlines()[0]}"
        raise InvalidInputError(what, str(file), "Write it again.") from None


_KNOWN = {*URL_NAMES, *CAPTION_NAMES, "sha256", "status"}


def _read_lines(file: UPath) -> pl.DataFrame:
    """A CSV or TSV with a line of column names; a TSV has no quotes, so that a caption may hold one."""
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
