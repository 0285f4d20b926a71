"""`own_pairs`: pairs from anybody's own list, for `shards`."""

from collections import Counter
from collections.abc import Iterable
from typing import Annotated

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from idia_core.config import StageConfig
from idia_core.errors import InvalidInputError
from idia_core.exchange import PATTERNS
from idia_core.identities import PAIRS
from idia_core.own_pairs import REJECTED_PAIRS, make_pairs, read_own_pairs
from pipelines.stage import Input, Phase, Split, SplitWriter, Stage, StageContext, once, read_parquet

FETCHED = ("ledger", "tars")
"""Inputs where the pictures of a list are at URLs."""


class OwnPairsConfig(StageConfig):
    """Settings of `own_pairs`."""

    rows_per_split: Annotated[int, Field(ge=1)] = 256
    """Rows whose pictures are in memory at the same time."""


class _Lister:
    """Writes the rows, some together, with where their pictures are."""

    def __init__(self, context: StageContext) -> None:
        self._context = context

    def __call__(self, split: Split, out: SplitWriter) -> None:
        rows = read_own_pairs(self._context.inputs["list"].files, _fetched(self._context))
        size = self._context.config.rows_per_split
        for part, first in enumerate(range(0, rows.num_rows, size)):
            mine = rows.slice(first, size)
            with out.open(f"rows/part-{part:05d}.parquet", rows=mine.num_rows) as file:
                pq.write_table(mine, file, compression="zstd")
        out.count(rows_in=rows.num_rows)


def _fetched(context: StageContext) -> pl.DataFrame | None:
    """What became of the URLs of a download, with the place of each picture; None without one."""
    if not set(FETCHED) <= set(context.inputs):
        return None
    tars = {tar.stem: str(tar) for tar in context.inputs["tars"].files}
    parts = list[pl.DataFrame]()
    for file in context.inputs["ledger"].files:
        if file.stem not in tars:
            what = f"there is no tar '{file.stem}.tar' beside '{file.name}'"
            raise InvalidInputError(what, f"stage {context.stage}, input tars", "Give those of the same `download`.")
        rows = pl.DataFrame(read_parquet(file, ("url", "status", "detail", "key")))
        parts.append(rows.with_columns(tar=pl.lit(tars[file.stem]), member=pl.col("key") + ".jpg"))
    return pl.concat(parts)


def _blocks(context: StageContext) -> Iterable[Split]:
    for file in sorted((context.folder / "rows").glob("*.parquet"), key=str):
        yield {"rows": f"rows/{file.name}"}


class _Reader:
    """Reads the pictures of some rows."""

    def __init__(self, context: StageContext) -> None:
        self._folder = context.folder

    def __call__(self, split: Split, out: SplitWriter) -> None:
        file = self._folder / split["rows"]
        pairs, rejected = make_pairs(pq.read_table(file.path, filesystem=file.fs).to_pylist())
        out.table("pairs", pa.Table.from_pylist(pairs, PAIRS))
        out.table("rejected", pa.Table.from_pylist(rejected, REJECTED_PAIRS))
        out.count(rows_kept=len(pairs), **Counter(row["status"] for row in rejected))


STAGE = Stage(
    name="own_pairs",
    version=1,
    summary="read your own pairs",
    config=OwnPairsConfig,
    inputs={
        "list": Input("your pairs (identity, caption, and path or url): TSV, CSV or Parquet", patterns=PATTERNS),
        "ledger": Input("what `download` says of each URL, where the list has URLs", optional=True),
        "tars": Input("the pictures that it fetched", patterns=("*.tar",), optional=True),
    },
    phases=(Phase("list", once, _Lister), Phase("read", _blocks, _Reader)),
    tables=("pairs", "rejected", "rows"),
)
