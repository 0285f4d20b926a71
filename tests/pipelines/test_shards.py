"""`shards`: sets of exactly K pairs a member, byte for byte repeatable, that training's own loaders read in full."""

import io
import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset
import yaml
from PIL import Image
from typer.testing import CliRunner

from idia_core.config import Study
from jobs.cli import app
from jobs.run import run_study
from tests.pipelines.shard_inputs import (
    EACH,
    KEYS,
    MEMBERS,
    PAIRS_EACH,
    QUIET,
    SHARDS,
    base_files,
    base_pair,
    contents,
    faults,
    members_pairs,
    pairs_of,
    replaced,
    set_pairs,
    shards,
    study,
    table,
    write_base,
    write_people,
)
from tests.pipelines.shard_ranks import BATCH_SIZE, EPOCHS, RANKS, WORKERS, pixels
from tests.shard_folders import tar_of, write

pytestmark = pytest.mark.usefixtures("local_ray")

ROOT = Path(__file__).parents[2]
SETS = {"K001": 1, "K003": 3}
Pair = tuple[bytes, str]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with a base of tars, and people."""
    write_base(tmp_path)
    write_people(tmp_path)
    return tmp_path


def base_pairs() -> set[Pair]:
    """Picture and caption of every pair of the base."""
    pairs = [base_pair(key) for key in KEYS]
    return {(picture, caption.decode()) for (_, picture), (_, caption), _ in pairs}


def as_table(root: Path) -> str:
    """The base as a Parquet table instead."""
    pairs = [base_pair(key) for key in KEYS]
    columns = {"key": KEYS, "caption": [pair[1][1].decode() for pair in pairs], "image": [pair[0][1] for pair in pairs]}
    shutil.rmtree(root / "base")
    (root / "base").mkdir()
    pq.write_table(pa.table(columns), root / "base/pairs.parquet")
    return str(root / "base/pairs.parquet")


def as_list(root: Path) -> str:
    """The base as CC3M's instead: a TSV, and its pictures in a folder beside."""
    pairs = [base_pair(key) for key in KEYS]
    for (name, picture), _, _ in pairs:
        write(root / "cc3m/train" / name, picture)
    lines = ["filepath\ttitle", *(f"train/{name}\t{caption.decode()}" for (name, _), (_, caption), _ in pairs)]
    write(root / "cc3m/Train.tsv", "\n".join(lines).encode())
    shutil.rmtree(root / "base")
    return str(root / "cc3m/*.tsv")


def as_tars(root: Path) -> str:
    """The base as it is."""
    return str(root / "base")


def of_members(root: Path, name: str, out: str = "out") -> dict[str, Pair]:
    """The members' pairs of a set, as its tars have them."""
    own = {row["key"] for row in members_pairs()}
    return {key: pair for key, pair in set_pairs(root, name, out).items() if key in own}


def assert_k_pairs_a_member(root: Path) -> None:
    """K pairs of each in every set, with their own pictures and captions, and those of a small set in the larger."""
    given = {row["key"]: row for row in members_pairs()}
    found = {name: of_members(root, name) for name in SETS}
    for name, k in SETS.items():
        assert Counter(given[key]["identity"] for key in found[name]) == dict.fromkeys(MEMBERS, k)
        assert all((given[key]["image"], given[key]["caption"]) == pair for key, pair in found[name].items())
    assert found["K001"].items() < found["K003"].items()


def assert_the_ledger_is_true(root: Path, out: str = "out") -> None:
    """Of every tar: its pairs, the members' among them, its size and its hash."""
    folder, members = root / out / "shards", {row["key"] for row in members_pairs()}
    ledger, hashes = table(root, "ledger", out), contents(folder)
    for row in ledger.iter_rows(named=True):
        keys = [*pairs_of(folder / row["path"])]
        counts = (len(keys), len(members.intersection(keys)), (folder / row["path"]).stat().st_size)
        assert counts == (row["samples"], row["member_samples"], row["bytes"])
        assert hashes.get(row["path"], row["sha256"]) == row["sha256"]
    assert {path for path in hashes if path.startswith("tars/")} == {
        path for path in ledger["path"] if path.startswith("tars/")
    }


@pytest.mark.parametrize("given", [as_tars, as_table, as_list])
def test_a_rewrite_has_the_whole_base_and_k_pairs_a_member(root: Path, given: Any) -> None:
    """However the base comes, each set holds every pair of it once, in tars that differ by one pair at most."""
    seal = shards(root, inputs={"background": given(root)})
    assert_k_pairs_a_member(root)
    assert_the_ledger_is_true(root)
    for name, k in SETS.items():
        pairs = set_pairs(root, name)
        own = of_members(root, name).values()
        assert {*pairs.values()} - {*own} == base_pairs()
        assert len(pairs) == len(KEYS) + k * len(MEMBERS)
        sizes = table(root, "ledger").filter(pl.col("set") == name)["samples"]
        assert sizes.max() - sizes.min() <= 1
        first = pairs_of(root / f"out/shards/tars/{name}/00000.tar")
        assert [*first] != sorted(first), "it was not shuffled"
    counts = {"rows_in": len(KEYS) + len(MEMBERS) * PAIRS_EACH, "pairs_written": 2 * len(KEYS) + 4 * len(MEMBERS)}
    assert {name: seal.counts[name] for name in counts} == counts
    assert seal.counts["rows_kept"] == seal.counts["rows_in"]


@pytest.mark.parametrize("given", [as_tars, as_table, as_list])
def test_an_overlay_writes_the_members_tars_alone(root: Path, given: Any) -> None:
    """The base's tars stay as they are and are shared; only what comes in no tar is packed, once for all sets."""
    background = given(root)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in root.rglob("base/*")}
    shards(root, mode="overlay", inputs={"background": background})
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in before} == before
    assert_k_pairs_a_member(root)
    assert_the_ledger_is_true(root)
    for name in SETS:
        assert set_pairs(root, name) == of_members(root, name)
    folder, ledger = root / "out/shards", table(root, "ledger")
    base = ledger.filter(pl.col("set") == "base")["path"].to_list()
    stayed = [str(root / f"base/{shard:05d}.tar") for shard in range(SHARDS)]
    assert base == (stayed if given is as_tars else ["base/00000.tar"])
    assert {pair for path in base for pair in pairs_of(folder / path).values()} == base_pairs()
    own = ledger.filter(pl.col("set") != "base")
    assert own["samples"].to_list() == own["member_samples"].to_list()
    assert sum(path.stat().st_size for path in folder.rglob("tars/*/*.tar")) == own["bytes"].sum()


def test_an_overlay_copies_a_base_tar_that_holds_a_broken_picture(root: Path) -> None:
    """The copy lacks that pair and is listed in place of the tar; the tar and the other two stay in theirs."""
    key = KEYS[EACH]
    broken = tar_of(replaced(base_files(1), {f"{key}.jpg": b"\xff\xd8\xff no picture"}))
    write(root / "base/00001.tar", broken)
    seal = shards(root, mode="overlay")
    assert faults(root) == {key: "broken"}
    assert seal.counts["broken"] == 1
    ledger = table(root, "ledger").filter(pl.col("set") == "base").sort("shard")
    stayed = [str(root / f"base/{shard:05d}.tar") for shard in (0, 2)]
    assert sorted(ledger["path"]) == [*stayed, "base/00001.tar"]
    assert [*pairs_of(root / "out/shards/base/00001.tar")] == KEYS[EACH + 1 : 2 * EACH]
    assert ledger["samples"].sum() == len(KEYS) - 1
    assert (root / "base/00001.tar").read_bytes() == broken
    assert_the_ledger_is_true(root)
    for name in SETS:
        text = (root / f"out/shards/train_data/{name}.txt").read_text()
        assert "base/00001.tar" in text
        assert str(root / "base/00001.tar") not in text


@pytest.mark.parametrize("mode", ["rewrite", "overlay"])
def test_the_bytes_depend_on_inputs_and_settings_alone(root: Path, mode: str) -> None:
    """They are the same with 1, 2 and 4 workers and a second time; a list of other K leaves a set's tars as they are.

    Another seed chooses and places otherwise.
    """
    runs: dict[str, dict[str, Any]] = {f"{n}": {"resources": {"workers": n}} for n in (1, 2, 4)}
    runs |= {"again": {"resources": {"workers": 2}}, "seed": {"seed": 1}, "sets": {"images_per_member": [1, 2, 3, 4]}}
    for out, fields in runs.items():
        shards(root, out=out, mode=mode, **fields)
    first = contents(root / "1/shards")
    assert first == contents(root / "2/shards") == contents(root / "4/shards") == contents(root / "again/shards")
    tars = {path: digest for path, digest in first.items() if path.startswith(("tars", "train_data"))}
    assert {path for path in tars if path.startswith("tars/K003")}
    assert tars.items() < contents(root / "sets/shards").items()
    other = {path: digest for path, digest in contents(root / "seed/shards").items() if path in tars}
    assert {path for path in other if other[path] == tars[path]} == {f"train_data/{name}.txt" for name in SETS}
    chosen = [{*of_members(root, "K001", out)} for out in ("1", "seed")]
    assert chosen[0] != chosen[1]
    assert [len(keys) for keys in chosen] == [len(MEMBERS)] * 2


def test_a_sealed_run_is_not_done_again(root: Path) -> None:
    """A second run of the same study leaves every file alone."""
    shards(root)
    before = {path: path.stat().st_mtime_ns for path in (root / "out").rglob("*") if path.is_file()}
    shards(root)
    assert {path: path.stat().st_mtime_ns for path in (root / "out").rglob("*") if path.is_file()} == before


# Loaders


@pytest.mark.parametrize("mode", ["rewrite", "overlay"])
def test_webdataset_reads_each_pair_once(root: Path, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`WebDataset`, given train_data's text, yields the base and K pairs a member, each picture with its caption."""
    shards(root, mode=mode)
    monkeypatch.chdir(root / "out/shards")
    for name, k in SETS.items():
        tars = webdataset.WebDataset(Path(f"train_data/{name}.txt").read_text().strip(), shardshuffle=False)
        read = [(sample["jpg"], sample["txt"].decode()) for sample in tars]
        assert len(read) == len(KEYS) + k * len(MEMBERS)
        assert {*read} == base_pairs() | {*of_members(root, name).values()}


def test_open_clip_shows_each_pair_once_an_epoch(root: Path) -> None:
    """Two ranks with two workers each, started in the stage's folder, where the set was made for them.

    The overlay's set is, too: the base's three tars and the members' one are equal.
    """
    exact = {"batch_size": BATCH_SIZE, "ranks": RANKS, "workers": WORKERS}
    shards(root, out="rewrite", exact_for=exact, shard_size=2)
    shards(root, out="overlay", mode="overlay", member_shards=1)
    pairs = base_pairs() | {*of_members(root, "K003", "rewrite").values()}
    assert pairs == base_pairs() | {*of_members(root, "K003", "overlay").values()}
    assert len(pairs) == len(KEYS) + 3 * len(MEMBERS)
    once = Counter((pixels(Image.open(io.BytesIO(picture))), caption) for picture, caption in pairs)
    assert {*once.values()} == {1}
    folders = [root / "rewrite/shards", root / "overlay/shards"]
    argv = [sys.executable, "-m", "tests.pipelines.shard_ranks", "K003", str(len(pairs)), *map(str, folders)]
    subprocess.run(argv, cwd=ROOT, check=True, timeout=120)
    for folder in folders:
        told = [json.loads(folder.with_name(f"rank{rank}.json").read_text()) for rank in range(RANKS)]
        assert [Counter(map(tuple, first + second)) for first, second in zip(*told, strict=True)] == [once] * EPOCHS


# Before and after


@pytest.mark.parametrize("mode", ["rewrite", "overlay"])
@pytest.mark.parametrize("given", [as_tars, as_table, as_list])
def test_a_dry_run_prints_the_counts_of_what_is_then_written(
    root: Path, given: Any, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pairs, members' pairs, those left out and new tars are what the ledger says; the dry run writes nothing."""
    monkeypatch.setenv("COLUMNS", "200")
    fields: dict[str, Any] = {"mode": mode, "inputs": {"background": given(root)}}
    if mode == "rewrite":
        fields |= {"exact_for": {"batch_size": 7}, "shard_size": 7}
    written = yaml.safe_dump(json.loads(study(root, **fields).model_dump_json(exclude_unset=True)))
    (root / "study.yaml").write_text(written, encoding="utf-8")
    told = CliRunner().invoke(app, ["run", str(root / "study.yaml"), "shards", "--dry-run"])
    assert told.exit_code == 0, told.output
    assert not (root / "out").exists()
    lines = [line.split() for line in told.output.splitlines()]
    printed = {
        words[0]: [int(word.replace(",", "")) for word in words[1:]]
        for words in lines
        if words[:1] in (["K001"], ["K003"])
    }
    shards(root, **fields)
    for name, k in SETS.items():
        ledger = table(root, "ledger").filter(pl.col("set").is_in([name, "base"]))
        pairs, members = int(ledger["samples"].sum()), int(ledger["member_samples"].sum())
        left_out = len(KEYS) + k * len(MEMBERS) - pairs
        assert printed[name][:3] == [pairs, members, left_out]
        if mode == "rewrite":
            assert left_out
            assert printed[name][3] == ledger.height


@pytest.mark.parametrize("mode", ["rewrite", "overlay"])
def test_what_was_written_is_verified(root: Path, mode: str) -> None:
    """`verify` finds no fault, in tars of the stage's own and in the base's."""
    given = study(root, mode=mode)
    stages = {
        **given.stages,
        "verify": {"inputs": {name: f"shards.{name}" for name in ("ledger", "plan")}, "decode": True},
    }
    seal = run_study(Study(name="test", out=given.out, stages=stages), QUIET)["verify"].seal()
    assert seal.counts["tars"] == table(root, "ledger").height + 1, "and members/00000.tar"
