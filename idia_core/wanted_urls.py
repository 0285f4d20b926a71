"""The URLs that are to be fetched, from tables of candidates or anybody's own lists."""

from collections import Counter
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

import polars as pl
import pyarrow as pa
from upath import UPath

from idia_core.caption_files import CAPTION_NAMES, URL_NAMES
from idia_core.errors import InvalidInputError
from idia_core.exchange import read_frame

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
KNOWN = {*URL_NAMES, *CAPTION_NAMES, "sha256", "status", "identity"}


class WantedUrls(NamedTuple):
    """Distinct URLs (WANTED_URLS), and how many rows there were in all and of each kind that adds none."""

    table: pa.Table
    counts: Counter[str]


def read_wanted(files: Sequence[UPath], people: AbstractSet[str] | None = None) -> WantedUrls:
    """The distinct URLs of Parquet, TSV and CSV files with a line of column names, in their order.

    Columns: `url`, and perhaps `caption`, `sha256`, and `status`, of which only `kept` is wanted. The names of LAION's
    columns are known. With `people` only rows are wanted whose `identity` is one of these. Raises `InvalidInputError`
    for a file of another form, and where there is no URL at all.
    """
    frames = [_read(file) for file in files]
    rows = pl.concat(frames)
    kept = rows.filter(pl.col("status").is_null() | (pl.col("status") == KEPT))
    wanted = kept if people is None else kept.filter(pl.col("identity").is_in(people))
    urls = wanted.filter(pl.col("url") != "")
    distinct = urls.group_by("url", maintain_order=True).agg(
        pl.col("caption").first(), pl.col("sha256").drop_nulls().first()
    )
    if distinct.is_empty():
        what = f"there is no URL to fetch among {rows.height} rows"
        whose = "" if people is None else " and an identity that is selected"
        raise InvalidInputError(
            what, str(files[0]), f"Rows need a URL{whose} and, where there is one, the status '{KEPT}'."
        )
    counts = Counter(
        rows_in=rows.height,
        not_kept=rows.height - kept.height,
        no_url=wanted.height - urls.height,
        duplicate_url=urls.height - distinct.height,
    )
    if people is not None:
        counts["not_selected"] = kept.height - wanted.height
    numbered = distinct.with_row_index("number").select(WANTED_URLS.names)
    return WantedUrls(numbered.to_arrow().cast(WANTED_URLS), counts)


def _read(file: UPath) -> pl.DataFrame:
    """The columns `url`, `caption`, `sha256`, `status` and `identity` of a file, as text."""
    found = read_frame(file, KNOWN)
    url = _column(found, URL_NAMES)
    if url is None:
        raise InvalidInputError("no column 'url'", str(file), f"It has: {', '.join(found.columns)}.")
    caption = _column(found, CAPTION_NAMES)
    nothing = pl.lit(None, pl.String)
    columns = {name: pl.col(name) if name in found.columns else nothing for name in ("sha256", "status", "identity")}
    rows = found.select(
        url=pl.col(url).cast(pl.String).fill_null("").str.strip_chars(),
        caption=(pl.lit("") if caption is None else pl.col(caption)).cast(pl.String).fill_null(""),
        sha256=columns["sha256"].cast(pl.String).str.strip_chars().str.to_lowercase().replace("", None),
        status=columns["status"].cast(pl.String),
        identity=columns["identity"].cast(pl.String),
    )
    wrong = rows.filter(~pl.col("sha256").str.contains(SHA256))
    if wrong.height:
        what = f"'{wrong['sha256'][0]}' is no SHA-256"
        raise InvalidInputError(what, f"{file}, column sha256", "Give 64 hexadecimal digits, or leave it empty.")
    return rows


def _column(frame: pl.DataFrame, names: Sequence[str]) -> str | None:
    return next((name for name in names if name in frame.columns), None)
