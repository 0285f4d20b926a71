"""The training sets that runs train on: tars that `verify` found to be what the ledger says."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pds
from upath import UPath

from idia_core.errors import InvalidInputError, SealError
from idia_core.manifest import digest_of
from idia_core.shards import BASE, LEDGER
from idia_core.sources import source_path
from idia_core.storage import is_local, sha256_of, write_whole
from idia_core.train_data import train_data
from pipelines.stage import StageContext

COPY_BYTES = 1 << 20
AT_ONCE = 8
"""Tars that are fetched and hashed at once, in threads."""
FETCHED = "tars"
"""Folder beside the runs' own for tars that were copied from elsewhere."""


class TrainingSets:
    """The sets of a study, by name.

    Raises `InvalidInputError` unless `verify` found each tar of the ledger to be what that says.
    """

    def __init__(self, context: StageContext) -> None:
        ledger = pl.DataFrame(context.inputs["ledger"].read_as(LEDGER))
        verified = pl.DataFrame(context.inputs["verified"].read("path", "sha256", "faults"))
        sound = verified.filter(pl.col("faults") == 0).select("path", "sha256")
        if (unverified := ledger.join(sound, on=["path", "sha256"], how="anti").sort("path")).height:
            what = f"{unverified.height} of {ledger.height} tars are not verified, first '{unverified['path'][0]}'"
            raise InvalidInputError(what, "stage train, input verified", "Run the stage verify on these shards.")
        self._ledger, self._plan = ledger, context.inputs["plan"]
        self._shards = context.inputs["ledger"].root.parent

    def sizes(self) -> list[tuple[str, int, int]]:
        """Name, images per member and pairs of each set, the base's included, the largest K first."""
        sets = self._ledger.filter(pl.col("set") != BASE).select("set", "images_per_member").unique()
        ordered = sets.sort("images_per_member", "set", descending=True).iter_rows()
        return [(name, k, int(self.tars(name)["samples"].sum())) for name, k in ordered]

    def tars(self, name: str) -> pl.DataFrame:
        """A set's rows of the ledger in the order in which open_clip is told of them: what all share comes first."""
        mine = self._ledger.filter(pl.col("set").is_in([BASE, name]))
        return mine.sort(pl.col("set") == name, "shard")

    def digest(self, name: str) -> str:
        """What changes whenever a byte of the set does."""
        return digest_of(self.tars(name)["sha256"].to_list())

    def shared(self, name: str) -> int:
        """How many of its tars it shares with all other sets."""
        return self.tars(name).filter(pl.col("set") == BASE).height

    def members(self, name: str) -> pa.Table:
        """The members' pairs: set, identity, key, shard and position of each."""
        columns = ["set", "identity", "key", "shard", "position"]
        mine = (pc.field("set") == name) & pc.field("identity").is_valid()
        files = self._plan.files
        plan = pds.dataset([file.path for file in files], filesystem=files[0].fs, format="parquet")
        return plan.to_table(columns=columns, filter=mine)

    def train_data(self, name: str, fetched: Path) -> str:
        """The set as open_clip's --train-data; tars that are elsewhere are named as they will lie in `fetched`."""
        return train_data([str(local) for _, local, _ in self._places(name, fetched)])

    def fetch(self, name: str, fetched: Path) -> None:
        """Copy what is elsewhere to this machine, and hash every tar once more before it is trained on.

        Raises `SealError` for a tar that is no longer what was verified.
        """
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for _ in pool.map(lambda place: _fetch(*place), self._places(name, fetched)):
                pass

    def _places(self, name: str, fetched: Path) -> Iterator[tuple[UPath, UPath, dict[str, Any]]]:
        """Where each tar of a set is, where it is read from, and its row of the ledger."""
        for row in self.tars(name).iter_rows(named=True):
            path = source_path(self._shards, row["path"])
            copied = UPath(fetched / row["set"] / f"{row['shard']:05d}.tar")
            yield path, UPath(path.path) if is_local(path) else copied, row


def _fetch(source: UPath, local: UPath, row: Mapping[str, Any]) -> None:
    """Have one tar here, and see that it is what the ledger's row says."""
    try:
        if not is_local(source):
            _copy(source, local, row["bytes"])
        found = sha256_of(local)
    except FileNotFoundError:
        found = None
    if found != row["sha256"]:
        if not is_local(source):
            local.unlink(missing_ok=True)  # the copy may be what is wrong
        what = "the tar is not the one that was verified" if found else "the tar is gone"
        raise SealError(what, str(source), "Run shards and verify again.")


def _copy(source: UPath, target: UPath, size: int) -> None:
    """Copy a tar, unless another run has done so."""
    if not (target.exists() and target.stat().st_size == size):
        with source.open("rb") as reader, write_whole(target) as writer:
            while block := reader.read(COPY_BYTES):
                writer.write(block)
