"""The whole road on a tiny world: every stage is the real one, and its output reads with the tools people use."""

import io
import json
import os
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import open_clip
import pandas as pd
import polars as pl
import pytest
import webdataset
from PIL import Image

from idia_core.prompts import TEMPLATES

IDIA = [sys.executable, "-c", "from jobs.cli import main; main()"]
ROOT = Path(__file__).parent.parent
STAGES = ["world", "scan", "select", "shards", "verify", "train", "zeroshot", "retrieval_rank", "attack", "judge"]
STAGES += ["evaluate", "figures", "report"]
FIGURES = [
    "baselines",
    "fig04_attack_pictures",
    "fig05_fig08_training_pictures",
    "fig06_fig10_heat_maps",
    "fig07_confusion_matrices",
    "fig09_occurrences",
    "roc",
]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory, tiny_demo: Callable[[Path], list[str]]) -> Path:
    """The output of the tiny demo, run once for this file as a user would."""
    folder: Path = tmp_path_factory.mktemp("road") / "out"
    done = subprocess.run([*IDIA, *tiny_demo(folder)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"Report: {folder}/report/page/report.html" in done.stdout
    return folder


def test_every_stage_is_sealed_and_leaves_nothing_else(out: Path) -> None:
    """A manifest each, no receipts, no temporary files."""
    assert sorted(path.name for path in out.iterdir()) == sorted([*STAGES, "logs"])
    assert all((out / stage / "manifest.json").exists() for stage in STAGES)
    assert not [path for path in out.rglob("*") if path.name.startswith((".", "_"))]


def test_nothing_is_open_to_others(out: Path, tmp_path: Path) -> None:
    """Files are 0600 and folders 0700, whatever the shell's umask: parts, checkpoints, logs, pages and exports."""
    words = ["export", "demo.yaml", "select.selection", str(tmp_path / "new/selection.csv"), "--set", f"out={out}"]
    before = os.umask(0)
    try:
        subprocess.run([*IDIA, *words], cwd=ROOT, capture_output=True, check=True)
    finally:
        os.umask(before)
    made = [out, *out.rglob("*"), *(tmp_path / "new").rglob("*")]
    assert len(made) > 100
    assert [path for path in made if stat.S_IMODE(path.stat().st_mode) & 0o077] == []


def test_the_second_run_does_nothing(out: Path, tiny_demo: Callable[[Path], list[str]]) -> None:
    """Every stage says that it is done, and no file changes."""
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    done = subprocess.run([*IDIA, *tiny_demo(out)], cwd=ROOT, capture_output=True, text=True, check=True)
    assert [line.split()[0] for line in done.stderr.splitlines() if "done already" in line] == STAGES
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_the_shards_hold_exactly_k_pairs_a_member_and_read_with_webdataset(out: Path) -> None:
    """Both sets are nested, equal in shard size, and every picture decodes."""
    plan = pl.read_parquet(out / "shards/plan/*.parquet")
    selection = pl.read_parquet(out / "select/selection/*.parquet")
    members = set(selection.filter(pl.col("role") == "member")["identity"])
    keys: dict[str, set[str]] = {}
    for name, k in (("K001", 1), ("K005", 5)):
        tars = sorted(str(path) for path in (out / "shards/tars" / name).glob("*.tar"))
        samples = list(webdataset.WebDataset(tars, shardshuffle=False))
        mine = plan.filter((pl.col("set") == name) & pl.col("identity").is_not_null())
        assert Counter(mine["identity"].to_list()) == dict.fromkeys(members, k)
        assert [sample["__key__"] for sample in samples] == plan.filter(pl.col("set") == name)["key"].to_list()
        assert [len(samples) / len(tars)] == [16]
        assert all(Image.open(io.BytesIO(sample["jpg"])).convert("RGB").size[0] > 0 for sample in samples)
        keys[name] = set(mine["key"])
    assert keys["K001"] < keys["K005"]


def test_the_checkpoints_load_with_plain_open_clip(out: Path) -> None:
    """`create_model_and_transforms` takes the file as it is."""
    open_clip.add_model_config(ROOT / "idia_core" / "idia-rn-tiny.json")
    models = pd.read_parquet(out / "train/models")
    assert sorted(models["model"]) == ["K001", "K005"]
    for checkpoint in models["checkpoint"]:
        model, _, _ = open_clip.create_model_and_transforms("idia-rn-tiny", pretrained=str(out / "train" / checkpoint))
        assert sum(weight.numel() for weight in model.parameters()) > 1_000_000


def test_the_votes_are_complete_and_the_verdicts_follow_from_them(out: Path) -> None:
    """One vote for every model, picture and template; S recounted with pandas equals the table's."""
    votes = pd.read_parquet(out / "attack/votes")
    names = pd.read_parquet(out / "attack/names")
    verdicts = pd.read_parquet(out / "judge/verdicts")
    assert len(votes) == 2 * 6 * 3 * len(TEMPLATES)
    assert not votes.duplicated(["model", "identity", "image", "template"]).any()
    assert set(votes["predicted"]) <= set(names["name"])
    assert len(names) == 50
    for row in verdicts.itertuples():
        mine = votes[(votes["model"] == row.model) & (votes["identity"] == row.identity)]
        modes = mine.groupby("template")["predicted"].agg(lambda given: given.mode().tolist())
        assert row.score == sum(mode == [row.identity] for mode in modes)
        assert (row.images_used, row.images_failed, row.member) == (3, 0, row.score >= 1)


def test_the_metrics_count_everybody_once_a_draw(out: Path) -> None:
    """True and false positives and negatives add up to three members and three others in all of 20 draws."""
    metrics = pd.read_parquet(out / "evaluate/metrics")
    everybody = metrics[metrics["group"] == "all"]
    assert (everybody["tp"] + everybody["fn"] == 3).all()
    assert (everybody["fp"] + everybody["tn"] == 3).all()
    assert everybody.groupby(["model", "images"]).size().to_dict() == {
        (model, images): 20 for model in ("K001", "K005") for images in (1, 3)
    }


def test_every_figure_is_there_as_png_and_pdf_with_the_numbers_behind_it(out: Path) -> None:
    """The pictures decode and the tables have rows; what is drawn of the rates is what `evaluate` wrote."""
    files = sorted((out / "figures/figures").iterdir())
    assert sorted({file.stem for file in files}) == FIGURES
    assert [file.suffix for file in files] == [".parquet", ".pdf", ".png"] * len(FIGURES)
    for file in files:
        if file.suffix == ".png":
            assert min(Image.open(file).convert("RGB").size) > 200
        if file.suffix == ".pdf":
            assert file.read_bytes().startswith(b"%PDF-")
    rates = pl.read_parquet(out / "evaluate/rates/*.parquet").filter(group="all").sort("model", "images")
    shown = pl.read_parquet(out / "figures/figures/fig04_attack_pictures.parquet")
    assert shown.sort("model", "images")["tpr_mean"].to_list() == rates["tpr_mean"].to_list()
    assert all(pl.read_parquet(file).height for file in files if file.suffix == ".parquet")


def test_the_page_shows_everybody_and_asks_the_network_for_nothing(out: Path) -> None:
    """All people are on it, how it was made too, and no address is loaded from it."""
    page = (out / "report/page/report.html").read_text()
    selection = pd.read_parquet(out / "select/selection")
    tested = selection[selection["role"] != "excluded"]
    assert len(tested) == 6
    assert all(identity in page for identity in tested["identity"])
    assert not any(f'{attribute}="http' in page for attribute in ("src", "href"))
    fingerprint = json.loads((out / "attack/manifest.json").read_text())["fingerprint"]
    assert fingerprint[:12] in page
