"""The tars that runs train on: verified ones, fetched once where they are elsewhere."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import polars as pl
import pytest

from idia_core.errors import InvalidInputError, SealError
from idia_core.shards import LEDGER
from jobs.plan import plan_study
from pipelines.training_sets import TrainingSets
from tests.shard_folders import write_table
from tests.training_studies import SETS, training_study, verified_shards

REMOTE = "memory://sets"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The shards and what was found of them."""
    return verified_shards(tmp_path)


@pytest.fixture
def store(root: Path) -> Iterator[Any]:
    """An object store with a copy of the shards, whose local ones are gone."""
    store = fsspec.filesystem("memory")
    store.put(str(root / "shards"), "/sets/shards", recursive=True)
    (root / "shards").rename(root / "elsewhere")
    yield store
    store.rm("/sets", recursive=True)


def sets(root: Path, shards: str | None = None) -> TrainingSets:
    """The sets of the study, with the shards in another place if so said."""
    place = shards or f"{root}/shards"
    inputs = {"plan": f"{place}/plan", "ledger": f"{place}/ledger", "verified": f"{root}/verified"}
    return TrainingSets(plan_study(training_study(root, inputs=inputs))["train"].context())


def rewrite(root: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Have the ledger say something else; `change` is done to each of its rows."""
    rows = pl.read_parquet(root / "shards/ledger/*.parquet").to_dicts()
    write_table(root / "shards/ledger/part-00000.parquet", [change(row) for row in rows], LEDGER)


def test_sets_are_told_with_their_pairs_the_largest_first(root: Path) -> None:
    """Name, K and pairs; the tars of one in their order, and nothing shared here."""
    found = sets(root)
    assert found.sizes() == [("K002", 2, SETS["K002"][0]), ("K001", 1, SETS["K001"][0])]
    assert found.tars("K002")["path"].to_list() == [f"tars/K002/0000{shard}.tar" for shard in range(3)]
    assert found.shared("K002") == 0
    assert len({found.digest("K001"), found.digest("K002")}) == 2
    assert sorted(found.members("K001")["key"].to_pylist()) == ["ann-0", "bob-0"]


def test_what_all_sets_share_comes_first_in_each(root: Path) -> None:
    """The base's tars count in every set, by number, before its own."""
    rewrite(root, lambda row: row | ({"set": "base", "images_per_member": 0} if row["set"] == "K002" else {}))
    found = sets(root)
    assert found.sizes() == [("K001", 1, SETS["K001"][0] + SETS["K002"][0])]
    assert found.tars("K001").select("set", "shard").rows() == [
        *(("base", shard) for shard in range(SETS["K002"][1])),
        *(("K001", shard) for shard in range(SETS["K001"][1])),
    ]
    assert found.shared("K001") == SETS["K002"][1]


def test_local_tars_are_read_where_they_lie(root: Path) -> None:
    """Nothing is copied."""
    found = sets(root)
    found.fetch("K001", root / "fetched")
    assert found.train_data("K001", root / "fetched") == f"{root}/shards/tars/K001/{{00000..00001}}.tar"
    assert not (root / "fetched").exists()


def test_tars_elsewhere_are_fetched_once(root: Path, store: Any) -> None:
    """Their bytes are as they were; what was fetched is read from then on, also when the store has it no more."""
    found = sets(root, f"{REMOTE}/shards")
    found.fetch("K001", root / "fetched")
    copies = sorted((root / "fetched").rglob("*.tar"))
    assert found.train_data("K001", root / "fetched") == f"{root}/fetched/K001/{{00000..00001}}.tar"
    assert [path.name for path in copies] == ["00000.tar", "00001.tar"]
    for copy in copies:
        assert copy.read_bytes() == (root / "elsewhere/tars/K001" / copy.name).read_bytes()
    store.rm("/sets/shards/tars/K001", recursive=True)
    found.fetch("K001", root / "fetched")
    assert not (root / "fetched/K002").exists()


@pytest.mark.parametrize("cut", [0, 100])
def test_a_bad_copy_is_not_trained_on_and_fetched_again(root: Path, store: Any, cut: int) -> None:
    """A short one at once; one that only differs is an error that leaves room for another."""
    assert store.exists("/sets/shards")
    found = sets(root, f"{REMOTE}/shards")
    found.fetch("K001", root / "fetched")
    copy = root / "fetched/K001/00000.tar"
    copy.write_bytes(copy.read_bytes()[: copy.stat().st_size - cut].replace(b"bg-0", b"bg-9"))
    if not cut:
        with pytest.raises(SealError, match=r"is not the one that was verified \(memory://sets/shards/tars/K001/00000"):
            found.fetch("K001", root / "fetched")
    found.fetch("K001", root / "fetched")
    assert copy.read_bytes() == (root / "elsewhere/tars/K001/00000.tar").read_bytes()


def test_a_tar_that_changed_or_went_since_is_a_seal_error(root: Path, store: Any) -> None:
    """Here and elsewhere; the error names it."""
    tar = "/sets/shards/tars/K001/00001.tar"
    store.pipe_file(tar, store.cat_file(tar).replace(b"ann-0", b"ann-9"))
    with pytest.raises(SealError, match=r"not the one that was verified \(memory://sets/shards/tars/K001/00001"):
        sets(root, f"{REMOTE}/shards").fetch("K001", root / "fetched")
    store.rm(tar)
    with pytest.raises(SealError, match=r"the tar is gone \(memory://sets/shards/tars/K001/00001"):
        sets(root, f"{REMOTE}/shards").fetch("K001", root / "fetched")
    (root / "elsewhere").rename(root / "shards")
    tars = root / "shards/tars/K001"
    (tars / "00000.tar").write_bytes((tars / "00000.tar").read_bytes()[:-1])
    with pytest.raises(SealError, match="not the one that was verified"):
        sets(root).fetch("K001", root / "fetched")
    (tars / "00000.tar").unlink()
    with pytest.raises(SealError, match=r"the tar is gone .*K001/00000\.tar"):
        sets(root).fetch("K001", root / "fetched")


@pytest.mark.parametrize(
    "change",
    [
        pl.col("faults").replace(0, 1),
        pl.col("sha256").str.reverse(),
        pl.col("path").str.replace("K001/00001", "K001/00007"),
    ],
)
def test_tars_that_are_not_verified_are_refused(root: Path, change: pl.Expr) -> None:
    """One with a fault, one whose bytes were others then, and one that was not looked at."""
    file = root / "verified/part-00000.parquet"
    found = pl.read_parquet(file)
    last_of_one = pl.col("path") == "tars/K001/00001.tar"
    name = change.meta.output_name()
    found.with_columns(pl.when(last_of_one).then(change).otherwise(pl.col(name)).alias(name)).write_parquet(file)
    with pytest.raises(InvalidInputError, match=r"1 of 5 tars are not verified, first 'tars/K001/00001\.tar'"):
        sets(root)
