"""`scan`: how often each name occurs in caption data, with the captions themselves (paper, Section 5.1)."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field
from upath import UPath

from idia_core import caption_files, name_lists
from idia_core.caption_files import CaptionFile, open_caption_file, read_captions, read_urls
from idia_core.captions import MATCHES, CaptionStatus, NameMatcher, check_searchable
from idia_core.config import StageConfig
from idia_core.errors import InputError, InvalidInputError
from idia_core.manifest import FAILED, Receipt, digest_of, missing_files, read_receipts
from idia_core.name_lists import NAMES, read_name_list
from idia_core.storage import identity_of
from pipelines.failures import check_failures
from pipelines.stage import Input, Phase, Split, SplitWriter, Stage, StageContext, once

VERSION = 2
ROWS_PER_SPLIT = 1_000_000
FILES_AT_ONCE = 16  # whose footers are read by the driver
SEARCH = "match"
ORDER = [("row", "ascending"), ("place", "ascending")]


class ScanConfig(StageConfig):
    """Settings of `scan`."""

    caption_column: str | None = None
    """Column of the captions; recognised in each file when null."""
    url_column: str | None = None
    """Column of the URLs, copied into `matches`; recognised in each file when null."""
    urls: bool = True
    """Whether to copy URLs; reading them takes about as long as reading the captions."""
    tolerate_failed_inputs: int = Field(default=0, ge=0)
    """A run may end with up to this many files that cannot be read in full; the manifest names them."""


class _Lister:
    """Writes the names to search for, checked."""

    def __init__(self, context: StageContext) -> None:
        self._files = context.inputs["identities"].files

    def __call__(self, split: Split, out: SplitWriter) -> None:
        lists = [read_name_list(file) for file in self._files]
        names = pa.concat_tables([found.names for found in lists])
        check_searchable(names["name"].to_pylist())
        out.table("names", names)
        out.count(names=names.num_rows, blank_names=sum(found.blank for found in lists))


def _row_groups(context: StageContext) -> Iterable[Split]:
    """Runs of row groups of about ROWS_PER_SPLIT rows; a TSV is one split."""
    files, root = context.inputs["captions"].files, PurePosixPath(context.inputs["captions"].root.path)
    while not all(root in PurePosixPath(file.path).parents for file in files):
        root = root.parent  # of a file, or of a glob; more files of the same input change nothing in it
    with ThreadPoolExecutor(FILES_AT_ONCE) as threads:
        for splits in threads.map(partial(_splits, context.config, root), files):
            yield from splits


def _splits(config: ScanConfig, root: PurePosixPath, path: UPath) -> list[Split]:
    base: dict[str, Any] = {
        "file": str(path),
        "source": str(PurePosixPath(path.path).relative_to(root)),
        "content": digest_of(identity_of(path)),
    }
    base |= {"caption": config.caption_column, "url": config.url_column, "urls": config.urls, "version": VERSION}
    try:
        file = open_caption_file(path, config.caption_column, config.url_column)
    except InputError as error:
        if not config.tolerate_failed_inputs:
            raise
        return [{**base, "groups": [], "failed": error.what}]
    runs: list[list[int]] = [[]]
    rows = 0
    for group, size in enumerate(file.groups):
        if runs[-1] and rows + size > ROWS_PER_SPLIT:
            runs.append([])
            rows = 0
        runs[-1].append(group)
        rows += size
    return [{**base, "groups": run} for run in runs]


class _Earlier:
    """What a scan under another fingerprint found: the names it looked for, and its receipts."""

    def __init__(self, folder: UPath) -> None:
        self._folder = folder
        receipts = [receipt for receipt in read_receipts(folder) if FAILED not in receipt.facts]
        lost = {file.path for file in missing_files(folder, (f for r in receipts for f in r.files))}
        whole = [receipt for receipt in receipts if lost.isdisjoint(file.path for file in receipt.files)]
        tables = [self._read(file.path, NAMES) for r in whole for file in r.files if file.table == "names"]
        self.names = dict(_pairs(tables[0])) if tables else {}
        self.receipts = {receipt.key: receipt for receipt in whole if receipt.split.startswith(SEARCH)}

    def matches(self, receipt: Receipt, names: pa.Array) -> pa.Table:
        """Those matches of a split that are of the given names."""
        table = self._read(receipt.files[0].path, MATCHES)
        return table.filter(pc.is_in(table["name"], names))

    def _read(self, path: str, schema: pa.Schema) -> pa.Table:
        file = self._folder / path
        return pq.read_table(file.path, filesystem=file.fs).cast(schema)


def _pairs(names: pa.Table) -> list[tuple[str, tuple[str, ...]]]:
    """Each name with its aliases."""
    return [(name, tuple(aliases)) for name, aliases in zip(*(c.to_pylist() for c in names.columns), strict=True)]


class _Matcher:
    """Searches one run of row groups after another, for the names that no earlier scan has looked for there."""

    def __init__(self, context: StageContext) -> None:
        self._config: ScanConfig = context.config
        self._names = dict(_pairs(context.table("names")))
        self._order = pa.array(self._names, pa.string())
        self._earlier = [_Earlier(folder) for folder in context.kept]
        self._built: tuple[tuple[str, ...], NameMatcher] | None = None
        self._shared = cache(self._share)  # most splits were done by the same earlier scans

    def __call__(self, split: Split, out: SplitWriter) -> None:
        key, tables, counts = digest_of(split), [MATCHES.empty_table()], Counter[str]()
        done = tuple(i for i, earlier in enumerate(self._earlier) if key in earlier.receipts)
        known, wanted = self._shared(done)
        for i, names in known.items():
            receipt = self._earlier[i].receipts[key]
            tables.append(self._earlier[i].matches(receipt, names))
            counts = Counter(receipt.counts)
            for edition in receipt.facts["edition"]:
                out.note("edition", edition)
        if wanted:
            counts = self._search(split, wanted, tables, out)
        found = pa.concat_tables(tables)
        place = pc.index_in(found["name"], value_set=self._order)
        out.table("matches", found.take(pc.sort_indices(pa.table([found["row"], place], ["row", "place"]), ORDER)))
        out.count(**counts)

    def _share(self, done: tuple[int, ...]) -> tuple[dict[int, pa.Array], tuple[str, ...]]:
        """The names whose matches each of those earlier scans has, and the names that none of them looked for."""
        known: dict[int, list[str]] = {i: [] for i in done}
        wanted: list[str] = []
        for name, aliases in self._names.items():
            place = next((i for i in done if self._earlier[i].names.get(name) == aliases), None)
            (wanted if place is None else known[place]).append(name)
        return {i: pa.array(names, pa.string()) for i, names in known.items() if names}, tuple(wanted)

    def _search(self, split: Split, names: tuple[str, ...], tables: list[pa.Table], out: SplitWriter) -> Counter[str]:
        """Add what a search for the names finds to the tables; returns the counts of captions by status."""
        statuses = Counter[CaptionStatus](dict.fromkeys(CaptionStatus, 0))
        try:
            if "failed" in split:
                raise InvalidInputError(split["failed"])
            file = open_caption_file(UPath(split["file"]), split["caption"], split["url"])
            out.note("edition", str(file.edition))
            failures = list[InputError]()
            batches = _until_failure(file, split["groups"], out, failures)
            found, counts = self._matcher(names).scan_batches(batches, source=split["source"])
            statuses.update(counts)
            tables.append(_with_urls(found, file, split["groups"]) if split["urls"] and not failures else found)
            if failures:
                raise failures[0]
        except InputError as error:
            if not self._config.tolerate_failed_inputs:
                raise
            out.note(FAILED, f"{split['file']}: {error.what}")
        kept = statuses.pop(CaptionStatus.SEARCHED)
        dropped = {str(status): count for status, count in statuses.items()}
        return Counter(rows_in=kept + sum(dropped.values()), rows_kept=kept, **dropped)

    def _matcher(self, names: tuple[str, ...]) -> NameMatcher:
        if self._built is None or self._built[0] != names:
            self._built = (names, NameMatcher(names, [self._names[name] for name in names]))
        return self._built[1]


def _until_failure(
    file: CaptionFile, groups: Sequence[int], out: SplitWriter, failures: list[InputError]
) -> Iterator[tuple[int, pa.Array]]:
    """The captions of those row groups up to their end or a failure, which is added to `failures`."""
    done, rows = 0, sum(file.groups[group] for group in groups)
    try:
        for first, captions in read_captions(file, groups):
            yield first, captions
            done += len(captions)
            if rows:
                out.report(min(1.0, done / rows), "")
    except InputError as error:
        failures.append(error)


def _with_urls(matches: pa.Table, file: CaptionFile, groups: Sequence[int]) -> pa.Table:
    urls = read_urls(file, groups, matches["row"].to_numpy())
    return matches.set_column(MATCHES.get_field_index("url"), MATCHES.field("url"), urls)


class _Summer:
    """Adds up the matches of all splits, when not too many inputs have failed."""

    def __init__(self, context: StageContext) -> None:
        self._context = context

    def __call__(self, split: Split, out: SplitWriter) -> None:
        check_failures(self._context, self._context.inputs["captions"].files)
        from pipelines.scan_tables import write_tables  # noqa: PLC0415 - its plots load slowly, and searching needs none

        write_tables(self._context, out)


STAGE = Stage(
    name="scan",
    version=VERSION,
    summary="find names in captions",
    config=ScanConfig,
    inputs={
        "captions": Input("captions (Parquet or TSV)", patterns=caption_files.PATTERNS),
        "identities": Input("names to look for (a column 'name', perhaps 'aliases')", patterns=name_lists.PATTERNS),
    },
    phases=(Phase("names", once, _Lister), Phase(SEARCH, _row_groups, _Matcher), Phase("sum", once, _Summer)),
    tables=("names", "matches", "occurrences", "histogram", "csv", "figures"),
)
