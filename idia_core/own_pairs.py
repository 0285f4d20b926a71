"""Anybody's own pairs, in lists: who is in a picture, under which caption, and where the picture is."""

from collections.abc import Sequence
from typing import Any

import polars as pl
import pyarrow as pa
from upath import UPath

from idia_core.base_samples import Picture, key_fault, pair_of
from idia_core.caption_files import CAPTION_NAMES, URL_NAMES
from idia_core.errors import InvalidInputError, UsageError
from idia_core.exchange import read_frame
from idia_core.fetch_status import FetchStatus
from idia_core.images import PictureStatus
from idia_core.names import tidy_name
from idia_core.people_tables import beside
from idia_core.picture_sources import read_pictures
from idia_core.safe_fetching import PORTS
from idia_core.sample_status import SampleStatus

LISTED_PAIRS = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("identity", pa.string(), nullable=False),
        pa.field("caption", pa.string(), nullable=False),  # empty where there is none
        pa.field("picture", pa.string(), nullable=False),  # the path or URL as it is given
        pa.field("file", pa.string()),  # where the picture is; null unless it is a file of its own
        pa.field("tar", pa.string()),
        pa.field("member", pa.string()),
        pa.field("status", pa.string(), nullable=False),  # ok, or why the picture is not looked for
        pa.field("detail", pa.string(), nullable=False),
    ]
)
"""A row of a list."""
REJECTED_PAIRS = pa.schema([LISTED_PAIRS.field(name) for name in ("key", "identity", "picture", "status", "detail")])
"""A row that is no pair, with a `SampleStatus`, a URL's `FetchStatus`, or NOT_FETCHED."""
IDENTITY_NAMES, CAPTIONS, PATHS = ("identity", "name"), (*CAPTION_NAMES, "title"), ("path", "filepath")
KNOWN = {*IDENTITY_NAMES, *CAPTIONS, *PATHS, *URL_NAMES, "key"}
NOT_FETCHED = "not_fetched"
"""The status of a URL that the ledger does not have."""
PLACES = ("file", "tar", "member")


def read_own_pairs(files: Sequence[UPath], fetched: pl.DataFrame | None = None) -> pa.Table:
    """The rows of Parquet, CSV and TSV files with a line of column names, as LISTED_PAIRS, in their order.

    Columns: `identity` (or `name`), `caption`, and `path`, from the list's folder on or any fsspec URL, or else `url`,
    which is looked up in `fetched` (url, status, detail, and tar, member of its picture); and perhaps `key`. No picture
    is read. Raises `InvalidInputError` for a list that lacks a column or has no row, and for a row without a person.
    """
    rows = [row for file in files for row in _read(file)]
    if not rows:
        raise InvalidInputError("there is no row", str(files[0]), "Write a line of column names, then the pairs.")
    known = {} if fetched is None else {row["url"]: row for row in fetched.iter_rows(named=True)}
    taken, placed = set[str](), list[dict[str, Any]]()
    for number, row in enumerate(rows):
        if "url" in row and fetched is None:
            fix = "Run `download` on the list, and give its `ledger` and `tars` as inputs."
            raise InvalidInputError("the pictures are at URLs", row["where"], fix)
        key = row["key"] or f"own{number:08d}"
        place = _of_url(row["url"], known) if "url" in row else _of_path(row["path"], row["list"])
        fault, why = key_fault(key, taken)
        if fault is not SampleStatus.OK:
            place = dict.fromkeys(PLACES) | {"status": fault, "detail": why or ""}
        about = {name: row[name] for name in ("identity", "caption", "picture")}
        placed.append(about | {"key": key} | place)
    return pa.Table.from_pylist(placed, LISTED_PAIRS)


def _read(file: UPath) -> list[dict[str, Any]]:
    """The rows of a list, with either `path` or `url`."""
    found = read_frame(file, KNOWN)
    identity, caption = _column(found, IDENTITY_NAMES, file, "identity"), _column(found, CAPTIONS, file, "caption")
    path = next((name for name in PATHS if name in found.columns), None)
    place = path or _column(found, URL_NAMES, file, "path' or 'url")
    key = pl.col("key") if "key" in found.columns else pl.lit(None)
    given = {"key": key, "identity": pl.col(identity), "caption": pl.col(caption), "picture": pl.col(place)}
    texts = found.select(**{name: column.cast(pl.String).fill_null("") for name, column in given.items()})
    rows = []
    for number, row in enumerate(texts.iter_rows(named=True), 1):
        where, picture = f"{file}, row {number}", row["picture"].strip()
        if not (name := tidy_name(row["identity"])):
            raise InvalidInputError("there is no identity", where, "Fill it in, or take the row out.")
        rows.append(row | {"identity": name, "list": file, "where": where, "path" if path else "url": picture})
    return rows


def _column(frame: pl.DataFrame, names: Sequence[str], file: UPath, told: str) -> str:
    found = next((name for name in names if name in frame.columns), None)
    if found is None:
        raise InvalidInputError(f"no column '{told}'", str(file), f"It has: {', '.join(frame.columns)}.")
    return found


def _of_path(path: str, file: UPath) -> dict[str, Any]:
    nowhere = dict.fromkeys(PLACES)
    if not path:
        return nowhere | {"status": SampleStatus.NO_PICTURE, "detail": "the row has no path"}
    if path.partition("://")[0].lower() in PORTS:
        return nowhere | {"status": SampleStatus.UNSAFE_PATH, "detail": "a URL: call the column url"}
    try:
        return nowhere | {"file": beside(file, path), "status": SampleStatus.OK, "detail": ""}
    except UsageError as error:
        return nowhere | {"status": SampleStatus.UNSAFE_PATH, "detail": error.what}


def _of_url(url: str, known: dict[str, dict[str, Any]]) -> dict[str, Any]:
    if not url:
        return dict.fromkeys(PLACES) | {"status": SampleStatus.NO_PICTURE, "detail": "the row has no URL"}
    if url not in known:
        return dict.fromkeys(PLACES) | {"status": NOT_FETCHED, "detail": "the ledger does not have the URL"}
    found = known[url]
    place = {"tar": found["tar"], "member": found["member"]} if found["status"] == FetchStatus.OK else {}
    return dict.fromkeys(PLACES) | place | {"status": found["status"], "detail": found["detail"]}


def make_pairs(rows: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The pairs (as PAIRS) and the rejected rows (as REJECTED_PAIRS) of some of LISTED_PAIRS; their pictures are read.

    A picture is not decoded, and a caption may be empty: `shards` says what becomes of those.
    """
    good = [row for row in rows if row["status"] == SampleStatus.OK]
    contents = iter(read_pictures([[_source(row) for row in good]]).pictures[0])
    pairs, rejected = list[dict[str, Any]](), list[dict[str, Any]]()
    for row in rows:
        status, detail, content = row["status"], row["detail"], b""
        if status == SampleStatus.OK:
            _, read = next(contents)
            if isinstance(read, PictureStatus):
                status, detail = SampleStatus(read), str(row["file"] or f"{row['tar']}, {row['member']}")
            else:
                content = read
                status, detail = _fault(row, content)
        if status == SampleStatus.OK:
            pairs.append({name: row[name] for name in ("key", "identity", "caption")} | {"image": content})
        else:
            about = {name: row[name] for name in ("key", "identity", "picture")}
            rejected.append(about | {"status": status, "detail": detail})
    return pairs, rejected


def _source(row: dict[str, Any]) -> dict[str, Any]:
    place = {"url": row["file"]} if row["file"] else {"tar": row["tar"], "member": row["member"]}
    return {"picture": row["key"]} | place


def _fault(row: dict[str, Any], content: Picture) -> tuple[SampleStatus, str]:
    """What is wrong with the picture or the key; an empty caption is not."""
    found = pair_of(row["key"], b"x", content)
    return found.status, found.detail or ""
