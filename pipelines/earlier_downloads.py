"""What earlier runs of a stage that fetches have of URLs, so that nothing is fetched twice."""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import polars as pl
import pyarrow.parquet as pq
from upath import UPath

from idia_core.base_samples import Picture
from idia_core.base_tars import tar_pictures
from idia_core.download import LEDGER
from idia_core.fetch_status import FetchStatus, may_change
from idia_core.manifest import Receipt, missing_files, read_receipts

SETTINGS, ATTEMPT = "settings", "attempt"
"""Facts of a receipt: a digest of what decides whether a picture is wanted, and how often URLs had been given a new
chance."""
TARS_AT_ONCE = 4
"""Earlier tars that are at hand: neighbours come from the same one, and one from afar is in memory."""
NOTHING = pl.DataFrame(LEDGER.empty_table()).with_columns(attempt=pl.lit(0, pl.Int64), tar=pl.lit(""))


class Earlier:
    """The outcomes of earlier runs that this one need not look for again."""

    def __init__(self, folders: Sequence[UPath], settings: str, attempt: int, ledger: str) -> None:
        self._settings, self._attempt, self._ledger = settings, attempt, ledger
        parts = [part for folder in folders for part in self._parts(folder)]
        rows = pl.concat([NOTHING, *parts])
        self._rows = rows.sort(pl.col("status") != FetchStatus.OK, -pl.col("attempt"), maintain_order=True)
        self._pictures = lru_cache(TARS_AT_ONCE)(tar_pictures)

    def of(self, wanted: pl.DataFrame) -> dict[str, dict[str, Any]]:
        """By URL, what is known of some of those that are wanted (url, sha256): a row of the ledger, and its `tar`.

        Of a file that should have another hash than the one that came before nothing is known.
        """
        same = pl.col("wanted").is_null() | pl.col("sha256").is_null() | (pl.col("wanted") == pl.col("sha256"))
        wrong = pl.col("status") == FetchStatus.WRONG_HASH
        found = self._rows.join(wanted.select("url", wanted="sha256"), on="url", maintain_order="left")
        kept = found.filter((same & ~wrong) | (wrong & (pl.col("wanted") != pl.col("sha256"))))
        return {row["url"]: row for row in kept.unique("url", keep="first").iter_rows(named=True)}

    def picture(self, row: Mapping[str, Any]) -> Picture:
        """The picture of a row whose status is ok."""
        return self._pictures(row["tar"])[row["key"]]

    def _parts(self, folder: UPath) -> Iterator[pl.DataFrame]:
        """The ledgers that a run left whole, under these settings, without what may be given a new chance."""
        receipts = [receipt for receipt in read_receipts(folder) if self._settings in receipt.facts.get(SETTINGS, ())]
        lost = {file.path for file in missing_files(folder, (f for r in receipts for f in r.files))}
        for receipt in receipts:
            if lost.isdisjoint(file.path for file in receipt.files):
                yield self._settled(folder, receipt)

    def _settled(self, folder: UPath, receipt: Receipt) -> pl.DataFrame:
        paths = {file.table: folder / file.path for file in receipt.files}
        attempt = int(receipt.facts[ATTEMPT][0])
        ledger = pl.DataFrame(pq.read_table(paths[self._ledger].path, filesystem=folder.fs))
        if attempt < self._attempt:
            ends = zip(ledger["status"], ledger["http_status"], strict=True)
            ledger = ledger.filter(
                pl.Series([not may_change(FetchStatus(end), code) for end, code in ends], dtype=pl.Boolean)
            )
        return ledger.with_columns(attempt=pl.lit(attempt, pl.Int64), tar=pl.lit(str(paths["tars"])))
