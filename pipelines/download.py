"""`download`: the pictures of URLs, and what became of each URL (paper, Section 5.2)."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any
from urllib.parse import urlsplit

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from idia_core.config import Resources, StageConfig
from idia_core.download import LEDGER, Way, fetch, load_img2dataset
from idia_core.fetch_status import FetchStatus
from idia_core.manifest import digest_of
from idia_core.safe_opener import Fetched, FetchSettings, Wanted
from idia_core.tars import TarWriter
from idia_core.wanted_urls import PATTERNS, read_wanted
from pipelines.earlier_downloads import ATTEMPT, SETTINGS, Earlier
from pipelines.stage import Input, Phase, Preview, Split, SplitWriter, Stage, StageContext, once

VERSION = 1
UNSETTLED = {"timeout_seconds", "total_seconds", "retries"}
"""Settings that only change what may turn out otherwise another time."""


class DownloadResources(Resources):
    """How fast it goes."""

    threads: Annotated[int, Field(ge=1)] = 64
    """URLs that each worker fetches at the same time."""


class DownloadConfig(FetchSettings, StageConfig):
    """Settings of `download`."""

    resources: DownloadResources = DownloadResources()
    """Speed-only settings."""
    urls_per_split: Annotated[int, Field(ge=1)] = 10_000
    """URLs whose pictures go into one tar."""
    attempt: Annotated[int, Field(ge=0)] = 0
    """How often what may have changed is fetched anew; `--retry-failed` raises it by one."""


def _settings(config: DownloadConfig) -> FetchSettings:
    return FetchSettings(**config.model_dump(include=set(FetchSettings.model_fields)))


class _Lister:
    """Writes the distinct URLs, a file for each split that fetches."""

    def __init__(self, context: StageContext) -> None:
        self._context = context

    def __call__(self, split: Split, out: SplitWriter) -> None:
        found = read_wanted(self._context.inputs["candidates"].files)
        size = self._context.config.urls_per_split
        for part, first in enumerate(range(0, found.table.num_rows, size)):
            rows = found.table.slice(first, size)
            with out.open(f"urls/part-{part:05d}.parquet", rows=rows.num_rows) as file:
                pq.write_table(rows, file, compression="zstd")
        out.count(**found.counts)


def _parts(context: StageContext) -> Iterable[Split]:
    """The files of URLs."""
    for file in sorted((context.folder / "urls").glob("*.parquet"), key=str):
        yield {"urls": f"urls/{file.name}"}


class _Fetcher:
    """Fetches the URLs of a part, but for those that an earlier run has settled."""

    def __init__(self, context: StageContext) -> None:
        config: DownloadConfig = context.config
        load_img2dataset()  # if it is missing, say so before anything else
        self._folder, self._config, self._settings = context.folder, config, _settings(config)
        decisive = self._settings.model_dump(mode="json", exclude=UNSETTLED)
        self._digest = digest_of({"version": VERSION, "settings": decisive})
        self._earlier = Earlier(context.kept, self._digest, config.attempt)

    def __call__(self, split: Split, out: SplitWriter) -> None:
        file = self._folder / split["urls"]
        urls = pl.DataFrame(pq.read_table(file.path, filesystem=file.fs))
        known = self._earlier.of(urls)
        asked = [Wanted(row["number"], row["url"], row["sha256"]) for row in urls.iter_rows(named=True)]
        asked = [wanted for wanted in asked if wanted.url not in known]
        with out.scratch() as scratch:
            way = Way(self._config.resources.threads, tell=_teller(len(asked), out))
            fetched = fetch(asked, self._settings, scratch, way)
            self._write(urls, known, fetched, out)
        out.note(SETTINGS, self._digest)
        out.note(ATTEMPT, str(self._config.attempt))

    def _write(
        self, urls: pl.DataFrame, known: dict[str, dict[str, Any]], fetched: Iterator[Fetched], out: SplitWriter
    ) -> None:
        """Write the part's tar and its ledger."""
        ledger = list[dict[str, Any]]()
        with out.open(f"tars/part-{out.part:05d}.tar") as file, TarWriter(file) as tar:
            for url in urls.iter_rows(named=True):
                if earlier := known.get(url["url"]):
                    row = {name: earlier[name] for name in LEDGER.names}
                    picture = self._earlier.picture(earlier) if row["status"] == FetchStatus.OK else None
                else:
                    row = next(fetched)._asdict()
                    picture = row.pop("image")
                key = None if picture is None else f"{url['number']:09d}"
                ledger.append(row | {"number": url["number"], "url": url["url"], "key": key})
                if picture is not None and key is not None:
                    tar.add(key, "jpg", picture, url["caption"].encode())
        out.table("ledger", pa.Table.from_pylist(ledger, LEDGER))
        counts = Counter(row["status"] for row in ledger)
        out.count(rows_kept=counts.pop(FetchStatus.OK, 0), **counts)


def _teller(total: int, out: SplitWriter) -> Callable[[int, int], None]:
    """Reports how fast URLs are done, and the share that has a picture."""
    began = time.monotonic()

    def tell(done: int, pictures: int) -> None:
        rate = done / max(time.monotonic() - began, 1e-6)
        out.report(done / total, f"{rate:,.0f} URLs/s, {pictures / done:.0%} ok")

    return tell


class _Summer:
    """Counts the URLs of each status."""

    def __init__(self, context: StageContext) -> None:
        self._context = context

    def __call__(self, split: Split, out: SplitWriter) -> None:
        ledger = pl.DataFrame(self._context.table("ledger").select(["status", "http_status"]))
        counts = ledger.group_by("status", "http_status").len("urls")
        out.csv("statuses", counts.sort("urls", "status", "http_status", descending=[True, False, False]).to_arrow())


def preview(context: StageContext) -> Preview:
    """How many URLs there are, on how many hosts, and in how many parts."""
    found = read_wanted(context.inputs["candidates"].files)
    hosts = Counter(_host(url) for url in found.table["url"].to_pylist())
    urls, size = found.table.num_rows, context.config.urls_per_split
    host, most = hosts.most_common(1)[0]
    rows = [{"urls": urls, "hosts": len(hosts), "parts": -(-urls // size)}]
    left = ", ".join(f"{count:,} {reason}" for reason, count in found.counts.items() if count and reason != "rows_in")
    notes = [f"Most of one host: {most:,} URLs of {host}."]
    return Preview(rows, [*notes, *([f"Rows that add no URL: {left}."] if left else [])])


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


STAGE = Stage(
    name="download",
    version=VERSION,
    summary="fetch pictures from their URLs",
    config=DownloadConfig,
    inputs={"candidates": Input("URLs (url, perhaps caption, sha256, status)", patterns=PATTERNS)},
    phases=(Phase("list", once, _Lister), Phase("fetch", _parts, _Fetcher), Phase("sum", once, _Summer)),
    tables=("urls", "tars", "ledger", "csv"),
    preview=preview,
)
