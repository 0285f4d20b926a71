"""Candidates from `retrieve`, or from anybody's own list: who is in a picture at a URL, and under which caption."""

from collections.abc import Sequence

import polars as pl
import pyarrow as pa
from upath import UPath

from idia_core.caption_files import CAPTION_NAMES, URL_NAMES
from idia_core.errors import InvalidInputError
from idia_core.exchange import read_frame
from idia_core.names import tidy_name
from idia_core.retrieval import CANDIDATE_PAIRS, CandidateStatus
from idia_core.wanted_urls import KEPT, SHA256

NAMED = {"identity": ("identity", "name"), "url": URL_NAMES, "caption": CAPTION_NAMES}
"""Columns that must be there, and what they may be called."""
NUMBERS = {"place": pl.Int64, "rank": pl.Int64, "similarity": pl.Float64}
KNOWN = {*CANDIDATE_PAIRS.names, *(name for names in NAMED.values() for name in names)}


def read_candidates(files: Sequence[UPath]) -> pa.Table:
    """The rows of Parquet, CSV and TSV files as CANDIDATE_PAIRS, in their order; what `idia export` wrote is as it was.

    A list of one's own needs `identity` (or `name`), `url` and `caption`. What else is missing is filled in: `place`
    counts a person's rows from 0, `rank` is one more, `similarity` NaN, `picture` empty, and the `status` is kept.
    Raises `InvalidInputError` for a column that is missing or holds something else, which names file and row.
    """
    frames = [_read(file) for file in files]
    rows = pl.concat(frames)
    place = pl.int_range(pl.len(), dtype=pl.Int64).over("identity")
    rows = rows.with_columns(place=pl.col("place").fill_null(place))
    rows = rows.with_columns(rank=pl.col("rank").fill_null(pl.col("place") + 1))
    return rows.select(CANDIDATE_PAIRS.names).to_arrow().cast(CANDIDATE_PAIRS)


def _read(file: UPath) -> pl.DataFrame:
    found = read_frame(file, KNOWN)
    identity, url, caption = (_column(found, told, file) for told in NAMED)
    texts = {name: pl.col(name) if name in found.columns else pl.lit(None) for name in ("picture", "status", "sha256")}
    rows = found.select(
        identity=pl.col(identity).cast(pl.String).fill_null(""),
        picture=texts["picture"].cast(pl.String).fill_null(""),
        url=pl.col(url).cast(pl.String).fill_null(""),
        caption=pl.col(caption).cast(pl.String).fill_null(""),
        status=texts["status"].cast(pl.String).fill_null(KEPT),
        sha256=texts["sha256"].cast(pl.String).replace("", None),
        **{name: _number(found, name, file) for name in NUMBERS},
    )
    faults = {
        "there is no identity": pl.col("identity").map_elements(tidy_name, pl.String) == "",
        "the status is neither kept nor spare": ~pl.col("status").is_in([str(status) for status in CandidateStatus]),
        "the sha256 is none": ~pl.col("sha256").str.to_lowercase().str.contains(SHA256),
    }
    for what, wrong in faults.items():
        if len(at := rows.select(wrong).to_series().fill_null(value=False).arg_true()):
            raise InvalidInputError(what, f"{file}, row {at[0] + 1}", "Mend it, or take the row out.")
    return rows.with_columns(similarity=pl.col("similarity").fill_null(float("nan")))


def _column(frame: pl.DataFrame, told: str, file: UPath) -> str:
    found = next((name for name in NAMED[told] if name in frame.columns), None)
    if found is None:
        raise InvalidInputError(f"no column '{told}'", str(file), f"It has: {', '.join(frame.columns)}.")
    return found


def _number(frame: pl.DataFrame, name: str, file: UPath) -> pl.Expr:
    """A column of numbers; nulls where it is missing or empty."""
    if name not in frame.columns:
        return pl.lit(None, NUMBERS[name])
    given = frame[name].cast(pl.String).replace("", None)
    numbers = frame[name].cast(NUMBERS[name], strict=False)
    wrong = (numbers.is_null() & given.is_not_null()).arg_true()
    if len(wrong):
        what = f"'{given[wrong[0]]}' in column {name} is no number"
        raise InvalidInputError(what, f"{file}, row {wrong[0] + 1}", "Mend it, or leave it empty.")
    return pl.lit(numbers)
