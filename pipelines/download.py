"""`download`: the pictures of URLs, and what became of each URL (paper, Section 5.2)."""

from idia_core.exchange import PATTERNS
from idia_core.identities import Role
from idia_core.safe_opener import FetchSettings
from idia_core.wanted_urls import WantedUrls, read_wanted
from pipelines.fetching import FetchConfig, Fetcher, Recipe, Summer, busiest_host, count_statuses, parts, write_urls
from pipelines.stage import Input, Phase, Preview, Split, SplitWriter, Stage, StageContext, once

VERSION = 1


class DownloadConfig(FetchSettings, FetchConfig):
    """Settings of `download`."""


def _wanted(context: StageContext) -> WantedUrls:
    """The URLs of everybody's candidates, or of the members' alone."""
    people = None
    if "selection" in context.inputs:
        roles = context.inputs["selection"].read("identity", "role").to_pylist()
        people = {row["identity"] for row in roles if row["role"] == Role.MEMBER}
    return read_wanted(context.inputs["candidates"].files, people)


class _Lister:
    """Writes the distinct URLs."""

    def __init__(self, context: StageContext) -> None:
        self._context = context

    def __call__(self, split: Split, out: SplitWriter) -> None:
        found = _wanted(self._context)
        write_urls(found.table, self._context.config.urls_per_split, out)
        out.count(**found.counts)


class _Fetcher(Fetcher):
    """Fetches the URLs of a part, and counts them."""

    def __init__(self, context: StageContext) -> None:
        settings = context.config.model_dump(include=set(FetchSettings.model_fields))
        super().__init__(context, Recipe(VERSION, FetchSettings(**settings)))

    def __call__(self, split: Split, out: SplitWriter) -> None:
        count_statuses(self.fetch(split, out)["status"].to_pylist(), out)


def preview(context: StageContext) -> Preview:
    """How many URLs there are, on how many hosts, and in how many parts."""
    found = _wanted(context)
    hosts, note = busiest_host(found.table["url"].to_pylist())
    urls, size = found.table.num_rows, context.config.urls_per_split
    rows = [{"urls": urls, "hosts": hosts, "parts": -(-urls // size)}]
    left = ", ".join(f"{count:,} {reason}" for reason, count in found.counts.items() if count and reason != "rows_in")
    return Preview(rows, [note, *([f"Rows that add no URL: {left}."] if left else [])])


STAGE = Stage(
    name="download",
    version=VERSION,
    summary="fetch pictures from their URLs",
    config=DownloadConfig,
    inputs={
        "candidates": Input("URLs (url, perhaps caption, sha256, status)", patterns=PATTERNS),
        "selection": Input("whose are fetched (identity, role): members'; everybody's without it", optional=True),
    },
    phases=(Phase("list", once, _Lister), Phase("fetch", parts, _Fetcher, outward=True), Phase("sum", once, Summer)),
    tables=("urls", "tars", "ledger", "csv"),
    preview=preview,
)
