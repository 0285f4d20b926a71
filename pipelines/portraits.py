"""`portraits`: people's own pictures, fetched from FaceScrub's lists and from lists of URLs."""

from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from typing import Annotated, Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from idia_core.base_tars import tar_pictures
from idia_core.fetch_status import FetchStatus
from idia_core.identities import PICTURES
from idia_core.people_sources import read_corrections
from idia_core.portrait_lists import PORTRAIT_ROWS, PortraitLists, RowStatus, parse_box, read_portrait_lists
from idia_core.portraits import LEDGER, Portrait, portrait_of
from idia_core.safe_opener import FetchSettings, FileSettings
from pipelines.fetching import FetchConfig, Fetcher, Recipe, Summer, busiest_host, count_statuses, parts, write_urls
from pipelines.stage import Input, Phase, Preview, Split, SplitWriter, Stage, StageContext, once

VERSION = 1
FETCHED = "fetched"
"""The table of what became of each URL."""
PEOPLE = pa.schema(
    [
        pa.field("identity", pa.string(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("sex", pa.string()),
        pa.field("aliases", pa.list_(pa.string())),
        pa.field("path", pa.string(), nullable=False),  # from the folder of this table on
    ]
)
"""Beside the people's folders: what folders cannot say, in the form in which `people` reads it."""
OF_THE_FILE = ("http_status", "width", "height", "bytes", "sha256")
TARS_AT_ONCE = 4


class PortraitsConfig(FetchConfig):
    """Settings of `portraits`."""

    crop: bool = True
    """Cut the face out where a list has a box; otherwise whole pictures are kept, and boxes are not looked at."""
    urls_per_split: Annotated[int, Field(ge=1)] = 1000
    """URLs whose files, as they are, go into one tar."""
    people_per_split: Annotated[int, Field(ge=1)] = 4
    """People in one piece of work, whose pictures are in memory at the same time."""


def _lists(context: StageContext) -> PortraitLists:
    corrections = read_corrections(context.inputs["corrections"].files[0] if "corrections" in context.inputs else None)
    return read_portrait_lists(context.inputs["lists"].files, corrections, boxes=context.config.crop)


class _Lister:
    """Writes the people, the rows of some of them together, and the distinct URLs."""

    def __init__(self, context: StageContext) -> None:
        self._context, self._config = context, context.config

    def __call__(self, split: Split, out: SplitWriter) -> None:
        found = _lists(self._context)
        out.table("identities", found.identities)
        write_urls(found.urls, self._config.urls_per_split, out)
        order = {name: place for place, name in enumerate(found.identities["identity"].to_pylist())}
        places = [order.get(name, len(order)) for name in found.rows["identity"].to_pylist()]  # the nameless come last
        rows = pl.DataFrame(found.rows).with_columns(block=pl.Series(places) // self._config.people_per_split)
        for part, block in enumerate(rows.partition_by("block", maintain_order=True, include_key=False)):
            with out.open(f"rows/part-{part:05d}.parquet", rows=block.height) as file:
                pq.write_table(block.to_arrow().cast(PORTRAIT_ROWS), file, compression="zstd")


class _Fetcher(Fetcher):
    """Fetches the URLs of a part as the files that they are."""

    def __init__(self, context: StageContext) -> None:
        settings = context.config.model_dump(include=set(FileSettings.model_fields))
        super().__init__(
            context, Recipe(VERSION, FetchSettings(longest_side=None, **settings), resize=False, ledger=FETCHED)
        )

    def __call__(self, split: Split, out: SplitWriter) -> None:
        self.fetch(split, out)


def _blocks(context: StageContext) -> Iterable[Split]:
    """The rows of some people each."""
    for file in sorted((context.folder / "rows").glob("*.parquet"), key=str):
        yield {"rows": f"rows/{file.name}"}


class _Cutter:
    """Makes the pictures of some people, and says what became of each row."""

    def __init__(self, context: StageContext) -> None:
        self._folder, self._config = context.folder, context.config
        self._people = {person["identity"]: person for person in context.table("identities").to_pylist()}
        self._tar = lru_cache(TARS_AT_ONCE)(tar_pictures)

    def __call__(self, split: Split, out: SplitWriter) -> None:
        file = self._folder / split["rows"]
        rows = pq.read_table(file.path, filesystem=file.fs).to_pylist()
        fetched = self._fetched({row["number"] for row in rows} - {None})
        ledger, pictures, people = list[dict[str, Any]](), list[dict[str, Any]](), list[dict[str, Any]]()
        shown = dict[tuple[str, bytes], str]()
        for done, row in enumerate(rows, 1):
            about = fetched.get(row["number"], {})
            portrait = self._portrait(row, about)
            if portrait.status is FetchStatus.OK:
                portrait = _once(portrait, row, shown)
            name = None
            if portrait.status is FetchStatus.OK:
                name = f"{row['place']:06d}.{portrait.suffix}"
                path = f"{row['identity'].replace(' ', '_')}/{name}"
                out.write(f"people/{path}", portrait.image)
                pictures.append({"identity": row["identity"], "picture": name, "status": "ok", "image": portrait.image})
                people.append({**self._people[row["identity"]], "path": path})
            outcome = {"status": portrait.status, "detail": portrait.detail, "picture": name}
            ledger.append(row | {column: about.get(column) for column in OF_THE_FILE} | outcome)
            out.report(done / len(rows), f"{done:,} rows")
        out.table("ledger", pa.Table.from_pylist(ledger, LEDGER))
        out.table("pictures", pa.Table.from_pylist(pictures, PICTURES))
        out.table("people", pa.Table.from_pylist(people, PEOPLE))
        out.count(rows_in=len(rows))
        count_statuses((row["status"] for row in ledger), out)

    def _fetched(self, numbers: set[int]) -> dict[int, dict[str, Any]]:
        """What became of some URLs, by their numbers, with the `tar` that the file would be in."""
        found = dict[int, dict[str, Any]]()
        for part in sorted({number // self._config.urls_per_split for number in numbers}):
            name = f"part-{part:05d}"
            file, tar = self._folder / f"{FETCHED}/{name}.parquet", str(self._folder / f"tars/{name}.tar")
            rows = pq.read_table(file.path, filesystem=file.fs, filters=[("number", "in", numbers)])
            found |= {row["number"]: row | {"tar": tar} for row in rows.to_pylist()}
        return found

    def _portrait(self, row: dict[str, Any], about: dict[str, Any]) -> Portrait:
        if row["status"] is not None:
            return Portrait(RowStatus(row["status"]), row["detail"])
        if about["sha256"] and row["expected_sha256"] not in (None, about["sha256"]):
            return Portrait(FetchStatus.WRONG_HASH, f"{row['expected_sha256']} was expected")
        if about["status"] != FetchStatus.OK:
            return Portrait(FetchStatus(about["status"]), about["detail"])
        box = parse_box(row["box"]) if row["box"] else None
        return portrait_of(bytes(self._tar(about["tar"])[about["key"]]), box)


def _once(portrait: Portrait, row: dict[str, Any], shown: dict[tuple[str, bytes], str]) -> Portrait:
    """The portrait, or that an earlier one of the person shows the same."""
    here = f"{row['list']}, line {row['line']}"
    first = shown.setdefault((row["identity"], portrait.digest), here)
    return portrait if first == here else Portrait(RowStatus.DUPLICATE_PICTURE, f"as {first}")


class _Summer(Summer):
    """Counts the rows by status, and each person's rows and pictures."""

    counted = "rows"

    def __call__(self, split: Split, out: SplitWriter) -> None:
        super().__call__(split, out)
        ledger = pl.DataFrame(self._context.table("ledger").select(["identity", "status"]))
        counts = ledger.group_by("identity").agg(rows=pl.len(), pictures=(pl.col("status") == FetchStatus.OK).sum())
        people = pl.DataFrame(self._context.table("identities").select(["identity", "sex"]))
        told = people.join(counts, on="identity", how="left", maintain_order="left").fill_null(0)
        out.csv("people", told.to_arrow())
        out.count(people=told.height, people_without_pictures=told.filter(pictures=0).height)


def preview(context: StageContext) -> Preview:
    """How many people and rows there are, and how many URLs on how many hosts."""
    found = _lists(context)
    hosts, note = busiest_host(found.urls["url"].to_pylist())
    counts = {"people": found.identities.num_rows, "rows": found.rows.num_rows, "urls": found.urls.num_rows}
    statuses = Counter(status for status in found.rows["status"].to_pylist() if status)
    left = ", ".join(f"{count:,} {status}" for status, count in sorted(statuses.items()))
    return Preview([counts | {"hosts": hosts}], [note, *([f"Rows that are not fetched: {left}."] if left else [])])


STAGE = Stage(
    name="portraits",
    version=VERSION,
    summary="fetch people's own pictures",
    config=PortraitsConfig,
    inputs={
        "lists": Input("FaceScrub's lists, or lists of URLs (First_Last.txt)", patterns=("*.txt", "*/*.txt")),
        "corrections": Input("names to correct: CSV (given, name)", patterns=("*.csv",), optional=True),
    },
    phases=(
        Phase("list", once, _Lister),
        Phase("fetch", parts, _Fetcher, outward=True),
        Phase("cut", _blocks, _Cutter),
        Phase("sum", once, _Summer),
    ),
    tables=("identities", "pictures", "people", "ledger", "rows", "urls", "tars", FETCHED, "csv"),
    preview=preview,
)
