"""How fast a stage was, from the seal of a real run."""

from pathlib import Path

import pytest
from rich.console import Console
from upath import UPath

from idia_core.config import Study
from idia_core.errors import MissingInputError
from idia_core.manifest import RECEIPTS, read_manifest
from jobs import measured as module
from jobs.measured import Measured, matching, measured, stage_folders
from jobs.run import run_study
from pipelines.embed import EmbedConfig
from pipelines.world import WorldConfig


@pytest.mark.usefixtures("local_ray")
def test_a_seal_tells_how_long_the_workers_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a run without interruption all rows are in it; a short one is not relied on; the record is gone."""
    world = {"people": 4, "training_pictures": 1, "attack_pictures": 1, "background_pairs": 3, "caption_rows": 3000}
    run_study(Study(name="small", out=str(tmp_path), stages={"world": world}), Console(quiet=True))
    folder = UPath(tmp_path / "world")
    seal = read_manifest(folder)
    assert seal is not None
    assert seal.provenance.split_rows == seal.counts["rows_in"]
    assert 0 < (seal.provenance.split_seconds or 0) < seal.provenance.seconds * 64
    assert "seconds" not in seal.receipts[0].model_dump()
    assert not (folder / RECEIPTS).exists()
    assert stage_folders(UPath(tmp_path)) == [folder]
    assert measured([folder]) == []
    monkeypatch.setattr(module, "LEAST_SECONDS", 0.0)
    (found,) = measured([folder])
    assert found.seconds_a_row == (seal.provenance.split_seconds or 0) / seal.counts["rows_in"]
    assert matching([found], "world", WorldConfig()) == found
    assert matching([found], "scan", WorldConfig()) is None


def test_cpus_and_gpus_are_accounted_for() -> None:
    """A worker of four CPUs takes a quarter of the time of one; with a GPU it is not compared."""
    one = Measured("embed", {}, 0.1, cpus=1, gpus=0, where="")
    config = EmbedConfig.model_validate({"model": "ViT-B-32:a", "resources": {"cpus": 4}})
    assert one.seconds(100, config) == pytest.approx(2.5)
    gpu = EmbedConfig.model_validate({"model": "ViT-B-32:a", "device": "cuda", "resources": {"gpus": 1}})
    assert one.seconds(100, gpu) is None


def test_a_folder_without_seals_is_an_error(tmp_path: Path) -> None:
    """It would have been given for nothing."""
    with pytest.raises(MissingInputError, match="--measured"):
        stage_folders(UPath(tmp_path))
