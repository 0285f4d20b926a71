"""Embeddings whose workers or driver are killed at any moment end with the bytes of a run that was left alone."""

import random
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from tests.kills import Phase, Undisturbed, kill_amid, kill_at_random, undisturbed
from tests.pipelines.shard_inputs import picture
from tests.shard_folders import Files, tar_of, write
from tests.soak import soak_count
from tests.tiny_models import write_model

pytestmark = pytest.mark.soak

TARS, EACH, DRAWN = 16, 250, 25
"""Tars of the base, pairs of each, so that a split takes long enough to be killed in, and different pictures."""
EMBED = Phase("embed", "embed", TARS, seconds=0.3)


def base_files(tar: int) -> Files:
    """A tar of the base; every second one has a picture that is empty and one that is none."""
    drawn = [picture(f"{tar} {i}", size=64) for i in range(DRAWN)]
    files: Files = []
    for i, key in enumerate(f"{tar:05d}{i:04d}" for i in range(EACH)):
        files += [(f"{key}.jpg", drawn[i % DRAWN]), (f"{key}.txt", f"Füße am Strand, № {key}".encode())]
    if tar % 2:
        files[20], files[40] = (files[20][0], b""), (files[40][0], b"no picture")
    return files


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that embeds the pictures and captions of those tars."""
    folder = tmp_path_factory.mktemp("study")
    for tar in range(TARS):
        write(folder / f"base/{tar:05d}.tar", tar_of(base_files(tar)))
    model = write_model(folder / "tiny.pt", 3, [picture(f"{tar} 0", size=64) for tar in range(TARS)])
    config = {"inputs": {"background": str(folder / "base/*.tar")}, "model": f"idia-rn-tiny:{model}", "texts": True}
    stages = {"embed": {**config, "resources": {"retries": 100}}}
    text = yaml.safe_dump({"name": "kill", "out": "out", "stages": stages})
    (folder / "study.yaml").write_text(text, encoding="utf-8")
    return folder / "study.yaml"


@pytest.fixture(scope="module")
def alone(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """A run to which nothing happens."""

    def words(out: Path) -> list[str]:
        return ["run", str(study), "--set", f"out={out}"]

    out = tmp_path_factory.mktemp("undisturbed") / "out"
    run = undisturbed(words, out, ("embed",))
    names = [path.relative_to(out / "embed").parts[0] for path in (out / "embed").rglob("*.*") if path.is_file()]
    assert all(names.count(table) == TARS for table in ("img_emb", "text_emb", "metadata", "failures"))
    rows = [len(np.load(path)) for path in sorted((out / "embed/img_emb").iterdir())]
    assert rows == [pq.read_metadata(path).num_rows for path in sorted((out / "embed/metadata").iterdir())]
    assert rows == [EACH, EACH - 2] * (TARS // 2)
    return run


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_writes_the_same_bytes(tmp_path: Path, alone: Undisturbed, workers: int) -> None:
    """As the run that was left to choose."""

    def words(out: Path) -> list[str]:
        return [*alone.words(out), "--set", f"embed.resources.workers={workers}"]

    assert undisturbed(words, tmp_path / "out", ("embed",)).contents == alone.contents


def test_killed_drivers_change_nothing(tmp_path: Path, alone: Undisturbed) -> None:
    """SIGKILL at ten random moments, each followed by another run: every byte is as it should be."""
    for found in kill_at_random(alone, tmp_path, soak_count(10), random.Random(70)):
        assert found == alone.contents


@pytest.mark.parametrize("seed", range(soak_count(4)))
def test_kills_amid_the_embedding_change_nothing(seed: int, tmp_path: Path, alone: Undisturbed) -> None:
    """A worker and the driver die, then a worker of the next run, which ends well with every byte as it should be."""
    assert kill_amid(alone, tmp_path, EMBED, random.Random(seed)) == alone.contents
