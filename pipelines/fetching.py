"""What the stages that fetch share: URLs in parts, each with its tar and its ledger, and nothing fetched twice."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any, NamedTuple
from urllib.parse import urlsplit

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from idia_core.base_samples import suffix_of
from idia_core.config import Resources, StageConfig
from idia_core.download import LEDGER, Way, fetch, load_img2dataset
from idia_core.fetch_status import FetchStatus
from idia_core.manifest import digest_of
from idia_core.safe_opener import Fetched, FetchSettings, FileSettings, Wanted
from idia_core.tars import TarWriter
from pipelines.earlier_downloads import ATTEMPT, SETTINGS, Earlier
from pipelines.stage import Split, SplitWriter, StageContext

UNSETTLED = {"timeout_seconds", "total_seconds", "retries"}
"""Settings that only change what may turn out otherwise another time."""


class FetchResources(Resources):
    """How fast it goes."""

    threads: Annotated[int, Field(ge=1)] = 64
    """URLs that each worker fetches at the same time."""


class FetchConfig(FileSettings, StageConfig):
    """Settings of all stages that fetch."""

    resources: FetchResources = FetchResources()
    """Speed-only settings."""
    urls_per_split: Annotated[int, Field(ge=1)] = 10_000
    """URLs whose pictures go into one tar."""
    attempt: Annotated[int, Field(ge=0)] = 0
    """How often what may have changed is fetched anew; `--retry-failed` raises it by one."""


class Recipe(NamedTuple):
    """How a stage fetches."""

    version: int
    """Of the stage: what another one fetched is not used."""
    settings: FetchSettings
    resize: bool = True
    """Whether pictures are scaled and encoded anew; otherwise the files are kept as they are."""
    ledger: str = "ledger"
    """The table of what became of each URL."""


def write_urls(urls: pa.Table, size: int, out: SplitWriter) -> None:
    """Write the distinct URLs (WANTED_URLS), a file for each split that fetches."""
    for part, first in enumerate(range(0, urls.num_rows, size)):
        rows = urls.slice(first, size)
        with out.open(f"urls/part-{part:05d}.parquet", rows=rows.num_rows) as file:
            pq.write_table(rows, file, compression="zstd")


def parts(context: StageContext) -> Iterable[Split]:
    """The files of URLs."""
    for file in sorted((context.folder / "urls").glob("*.parquet"), key=str):
        yield {"urls": f"urls/{file.name}"}


def key_of(number: int) -> str:
    """The sample of a URL with that number in `tars`."""
    return f"{number:09d}"


class Fetcher:
    """Fetches the URLs of a part, but for those that an earlier run has settled."""

    def __init__(self, context: StageContext, recipe: Recipe) -> None:
        config: FetchConfig = context.config
        load_img2dataset()  # if it is missing, say so before anything else
        self._folder, self._config, self._recipe = context.folder, config, recipe
        decisive = recipe.settings.model_dump(mode="json", exclude=UNSETTLED)
        self._digest = digest_of({"version": recipe.version, "settings": decisive})
        self._earlier = Earlier(context.kept, self._digest, config.attempt, recipe.ledger)

    def fetch(self, split: Split, out: SplitWriter) -> pa.Table:
        """Write the part's tar and its ledger, which is returned."""
        file = self._folder / split["urls"]
        urls = pl.DataFrame(pq.read_table(file.path, filesystem=file.fs))
        known = self._earlier.of(urls)
        asked = [Wanted(row["number"], row["url"], row["sha256"]) for row in urls.iter_rows(named=True)]
        asked = [wanted for wanted in asked if wanted.url not in known]
        with out.scratch() as scratch:
            way = Way(self._config.resources.threads, self._recipe.resize, _teller(len(asked), out))
            fetched = fetch(asked, self._recipe.settings, scratch, way)
            ledger = self._write(urls, known, fetched, out)
        out.table(self._recipe.ledger, ledger)
        out.note(SETTINGS, self._digest)
        out.note(ATTEMPT, str(self._config.attempt))
        return ledger

    def _write(
        self, urls: pl.DataFrame, known: dict[str, dict[str, Any]], fetched: Iterator[Fetched], out: SplitWriter
    ) -> pa.Table:
        """Write the tar; the rows of the ledger."""
        ledger = list[dict[str, Any]]()
        with out.open(f"tars/part-{out.part:05d}.tar") as file, TarWriter(file) as tar:
            for url in urls.iter_rows(named=True):
                if earlier := known.get(url["url"]):
                    row = {name: earlier[name] for name in LEDGER.names}
                    picture = self._earlier.picture(earlier) if row["status"] == FetchStatus.OK else None
                else:
                    row = next(fetched)._asdict()
                    picture = row.pop("image")
                key = None if picture is None else key_of(url["number"])
                ledger.append(row | {"number": url["number"], "url": url["url"], "key": key})
                if picture is not None and key is not None:
                    tar.add(key, suffix_of(picture) or "jpg", picture, url["caption"].encode())
        return pa.Table.from_pylist(ledger, LEDGER)


def _teller(total: int, out: SplitWriter) -> Callable[[int, int], None]:
    """Reports how fast URLs are done, and the share that has a picture."""
    began = time.monotonic()

    def tell(done: int, pictures: int) -> None:
        rate = done / max(time.monotonic() - began, 1e-6)
        out.report(done / total, f"{rate:,.0f} URLs/s, {pictures / done:.0%} ok")

    return tell


def count_statuses(statuses: Iterable[str], out: SplitWriter) -> None:
    """Count rows by what became of them."""
    counts = Counter(statuses)
    out.count(rows_kept=counts.pop(FetchStatus.OK, 0), **counts)


class Summer:
    """Counts the rows of the ledger by status; a row is one of `counted`."""

    counted = "urls"

    def __init__(self, context: StageContext) -> None:
        self._context = context

    def __call__(self, split: Split, out: SplitWriter) -> None:
        """Write `csv/statuses.csv`."""
        ledger = pl.DataFrame(self._context.table("ledger").select(["status", "http_status"]))
        counts = ledger.group_by("status", "http_status").len(self.counted)
        order = [self.counted, "status", "http_status"]
        out.csv("statuses", counts.sort(order, descending=[True, False, False]).to_arrow())


def busiest_host(urls: Iterable[str]) -> tuple[int, str]:
    """On how many hosts some URLs are, and a sentence about the one that has most of them."""
    hosts = Counter(_host(url) for url in urls)
    host, most = hosts.most_common(1)[0]
    return len(hosts), f"Most of one host: {most:,} URLs of {host}."


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
