"""Candidates put together with what their download made of them: a ledger of URLs, and tars of pictures."""

from collections.abc import Iterable

import polars as pl
import pyarrow as pa

from idia_core.base_samples import BaseSample
from idia_core.errors import InvalidInputError
from idia_core.fetch_status import FetchStatus
from idia_core.retrieval import RETRIEVED, CandidateStatus

LISTED = pa.schema(
    [
        pa.field("number", pa.int64(), nullable=False),  # of the URL, in the ledger
        pa.field("url", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),  # a `FetchStatus`
        pa.field("detail", pa.string(), nullable=False),
        pa.field("source", pa.string()),  # the tar with its picture; null, as the next two, unless the status is ok
        pa.field("picture_at", pa.int64()),
        pa.field("picture_bytes", pa.int64()),
    ]
)
FOUND = pa.schema(
    [
        pa.field("identity", pa.string(), nullable=False),
        pa.field("place", pa.int64(), nullable=False),
        pa.field("url", pa.string(), nullable=False),
        pa.field("caption", pa.string(), nullable=False),
        *(field for field in LISTED if field.name != "url"),
    ]
)
ONE_DOWNLOAD = "Give the ledger and the tars of one `download`, and the candidates that it was given."


def list_pictures(ledger: pl.DataFrame, samples: Iterable[BaseSample], source: str) -> pl.DataFrame:
    """The rows of a part of a ledger (LEDGER) with where their pictures lie in the tar of that part: LISTED.

    Raises `InvalidInputError` unless the tar holds the pictures of the ledger's good URLs and no others.
    """
    places = [(sample.key, sample.picture_place) for sample in samples]
    held = {key: place for key, place in places if place is not None}
    good = set(ledger.filter(pl.col("status") == FetchStatus.OK)["key"])
    if odd := sorted(good ^ held.keys()):
        what = f"{len(odd)} pictures are in the ledger or in the tar and not in both, first '{odd[0]}'"
        raise InvalidInputError(what, source, ONE_DOWNLOAD)
    where = pl.DataFrame(
        {
            "key": [*held],
            "picture_at": [p.at for p in held.values()],
            "picture_bytes": [p.bytes for p in held.values()],
        },
        schema={"key": pl.String, "picture_at": pl.Int64, "picture_bytes": pl.Int64},
    )
    is_error = pl.col("status") == FetchStatus.HTTP_ERROR
    told = pl.concat_str(pl.when(is_error).then("http_status"), pl.col("detail"), separator=" ", ignore_nulls=True)
    joined = ledger.with_columns(detail=told.str.strip_chars()).join(where, on="key", how="left", maintain_order="left")
    return joined.with_columns(source=pl.when(pl.col("picture_at").is_not_null()).then(pl.lit(source))).select(
        LISTED.names
    )


def find_pictures(candidates: pl.DataFrame, listed: pl.DataFrame) -> pl.DataFrame:
    """The candidates (identity, place, url, caption) with what became of their URLs: FOUND, by identity and place.

    One URL may serve several people. Raises `InvalidInputError` for a candidate that is there twice, a URL that the
    ledger (LISTED) does not have, and one that it has twice.
    """
    if twice := candidates.filter(candidates.select("identity", "place").is_duplicated()).rows():
        what = f"two candidates have the place {twice[0][1]} of '{twice[0][0]}'"
        raise InvalidInputError(what, "input candidates", "Give what one run of `retrieve` wrote.")
    if twice := listed.filter(listed["url"].is_duplicated()).rows():
        raise InvalidInputError(f"two rows have the URL {twice[0][1]}", "input ledger", ONE_DOWNLOAD)
    wanted = candidates.with_columns(pl.col("url").str.strip_chars())
    found = wanted.join(listed, on="url", how="left").sort("identity", "place")
    lost = found.filter(pl.col("status").is_null())
    if lost.height:
        what = f"{lost.height} of {found.height} candidates have URLs that are not in it, first {lost['url'][0]}"
        raise InvalidInputError(what, "input ledger", ONE_DOWNLOAD)
    return found.select(FOUND.names)


def check_counts(candidates: pl.DataFrame, retrieved: pl.DataFrame) -> None:
    """Raise `InvalidInputError` where candidates that are kept are not as many as `retrieved` (identity, kept) says."""
    counts = candidates.group_by("identity").len("there").join(retrieved, on="identity", how="full", coalesce=True)
    odd = counts.filter(pl.col("there").fill_null(0) != pl.col("kept").fill_null(0)).sort("identity")
    for identity, there, kept in odd.select("identity", "there", "kept").head(1).rows():
        what = f"'{identity}' has {there or 0} candidates, and {kept or 0} by `retrieved`"
        raise InvalidInputError(what, "inputs candidates and retrieved", "Give what one run of `retrieve` wrote.")


def count_candidates(candidates: pl.DataFrame) -> pl.DataFrame:
    """RETRIEVED of candidates (identity, status) that nobody counted: all that is known of is the candidates."""
    of_person = candidates.group_by("identity").agg(
        unique=pl.len().cast(pl.Int64), kept=(pl.col("status") == CandidateStatus.KEPT).sum().cast(pl.Int64)
    )
    same = {name: pl.col("unique") for name in ("retrieved", "name_in_caption")}
    missing = {name: pl.lit(0, pl.Int64) for name in set(RETRIEVED.names) - {*of_person.columns, *same}}
    return of_person.with_columns(**same, **missing).select(RETRIEVED.names).sort("identity")
