"""`scan`: how often each name occurs in caption data, with the captions themselves (paper, Section 5.1)."""

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from idia_core.captions import CaptionStatus, NameMatcher, ScanResult, count_matches, merge_counts
from idia_core.config import StageConfig
from idia_core.errors import InvalidInputError
from pipelines.stage import Input, Phase, Split, SplitWriter, Stage, StageContext, once, open_parquet


class ScanConfig(StageConfig):
    """Settings of `scan`."""

    caption_column: str = "TEXT"
    """Column of the captions."""
    url_column: str | None = "URL"
    """Column of the URLs, copied into `matches`; none when null."""


def _row_groups(context: StageContext) -> Iterable[Split]:
    for file in context.inputs["captions"].files:
        first = 0
        with open_parquet(file) as parquet:
            for group in range(parquet.num_row_groups):
                yield {"file": str(file), "row_group": group, "first_row": first}
                first += parquet.metadata.row_group(group).num_rows


class _Matcher:
    """Searches one row group after another for all names."""

    def __init__(self, context: StageContext) -> None:
        self._config: ScanConfig = context.config
        self._names = searched_names(context)
        self._matcher = NameMatcher(self._names)

    def __call__(self, split: Split, out: SplitWriter) -> None:
        found = self._scan(UPath(split["file"]), split["row_group"], split["first_row"])
        out.table("matches", found.matches)
        out.table("counts", count_matches(found.matches, self._names))
        statuses = {
            str(status): count for status, count in found.captions.items() if status is not CaptionStatus.SEARCHED
        }
        out.count(rows_in=found.captions.total(), rows_kept=found.captions[CaptionStatus.SEARCHED], **statuses)

    def _scan(self, file: UPath, group: int, first_row: int) -> ScanResult:
        caption, url = self._config.caption_column, self._config.url_column
        with open_parquet(file) as parquet:
            for column in filter(None, (caption, url)):
                if column not in parquet.schema_arrow.names:
                    fix = f"Set `{'caption' if column == caption else 'url'}_column`; there are: "
                    fix += f"{', '.join(parquet.schema_arrow.names)}."
                    raise InvalidInputError(f"no column '{column}'", f"stage scan, {file}", fix)
            rows = parquet.read_row_group(group, columns=[c for c in (caption, url) if c])
        urls = rows[url] if url else None
        return self._matcher.scan(rows[caption], urls, source=file.name, first_row=first_row)


class _Summer:
    """Adds up the counts of all splits."""

    def __init__(self, context: StageContext) -> None:
        self._context = context

    def __call__(self, split: Split, out: SplitWriter) -> None:
        names = searched_names(self._context)
        parts = sorted((self._context.folder / "counts").glob("*.parquet"), key=str)
        counts = (pq.read_table(part.path, filesystem=part.fs) for part in parts)
        out.table("occurrences", merge_counts(counts, names))


def searched_names(context: StageContext) -> list[str]:
    """The names of the `identities` input, in its order."""
    names: pa.ChunkedArray = context.inputs["identities"].read("name")["name"]
    return [str(name) for name in names.to_pylist()]


STAGE = Stage(
    name="scan",
    version=1,
    summary="find names in captions",
    config=ScanConfig,
    inputs={
        "captions": Input("captions (Parquet)"),
        "identities": Input("the names to look for (Parquet with a column 'name')"),
    },
    phases=(Phase("match", _row_groups, _Matcher), Phase("sum", once, _Summer)),
    tables=("matches", "counts", "occurrences"),
)
