"""The search for people in a base, from embeddings to roles, ends with the same bytes whatever is killed on the way."""

import random
from pathlib import Path

import polars as pl
import pytest
import yaml

from idia_core.config import Study
from jobs.run import run_study
from tests.kills import Undisturbed, kill_at_random, undisturbed
from tests.pipelines.audits import QUIET
from tests.soak import WHOLE, soak_count
from tests.tiny_models import write_model

pytestmark = pytest.mark.soak

STAGES = ("embed", "index", "recogniser", "faces", "presence", "select")
WORLD = {
    "people": 8,
    "training_pictures": 0,
    "attack_pictures": 10,
    "background_pairs": 40,
    "planted_pictures": 8,
    "strangers": 4,
    "caption_rows": 1000,
}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> Path:  # noqa: ARG001 - draws the world
    """All stages on a base of eight parts with eight people and four strangers in it."""
    folder = tmp_path_factory.mktemp("study")
    run_study(Study(name="world", out=str(folder), stages={"world": WORLD}), QUIET)
    background = pl.read_parquet(folder / "world/background/*.parquet").sort("key")
    (folder / "base").mkdir()
    for part in range(8):
        background.gather_every(8, part).write_parquet(folder / f"base/{part}.parquet")
    model = write_model(folder / "tiny.pt", 3, background["image"].to_list()[:16])
    base, people = f"{folder}/base", {name: f"{folder}/world/{name}" for name in ("identities", "pictures")}
    clip = f"idia-rn-tiny:{model}"
    found = {"index": "index.shards", "embeddings": "embed.img_emb", "embedded_by": "embed.about"}
    looked = {name: f"faces.{name}" for name in ("faces", "candidates", "agreement", "crops")}
    recipe = {"backbone": "small", "side": 32, "epochs": 6, "batch_size": 8}
    stages = {
        "embed": {"inputs": {"background": base}, "model": clip, "texts": True},
        "index": {"inputs": {"embeddings": "embed.img_emb", "metadata": "embed.metadata"}, "rows_per_shard": 40},
        "recogniser": {"inputs": people, "recipe": recipe, "detector": {"kind": "haar"}},
        "faces": {
            "inputs": {"background": base, **people, "recogniser": "recogniser.recogniser", **found},
            "model": clip,
            "neighbours": 6,
            "people_per_split": 2,
            "detector": {"kind": "haar"},
        },
        "presence": {"inputs": {**people, **looked}},
        "select": {"inputs": {**people, "presence": "presence.presence"}, "by": "presence", "max_hit_rate": None},
    }
    stages = {name: {**config, "resources": {"retries": 100}} for name, config in stages.items()}
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({"name": "kill", "out": "out", "stages": stages}, sort_keys=False), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def alone(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """A run to which nothing happens."""

    def words(out: Path) -> list[str]:
        return ["run", str(study), "--set", f"out={out}"]

    run = undisturbed(words, tmp_path_factory.mktemp("undisturbed") / "out", STAGES)
    assert {path.partition("/")[0] for path in run.contents} == set(STAGES)
    return run


@WHOLE
def test_one_worker_writes_the_same_bytes(tmp_path: Path, alone: Undisturbed) -> None:
    """As the run that was left to choose."""

    def words(out: Path) -> list[str]:
        return [*alone.words(out), *(word for name in STAGES for word in ("--set", f"{name}.resources.workers=1"))]

    assert undisturbed(words, tmp_path / "out", STAGES).contents == alone.contents


def test_killed_drivers_change_nothing(tmp_path: Path, alone: Undisturbed) -> None:
    """SIGKILL at ten random moments, each followed by another run: every byte is as it should be."""
    for found in kill_at_random(alone, tmp_path, soak_count(10), random.Random(70)):
        assert found == alone.contents
