"""`world`: what it draws to test models on."""

import io
from pathlib import Path

import polars as pl
import pytest
from PIL import Image

from idia_core.config import Study
from idia_core.manifest import read_manifest
from idia_core.storage import as_path
from jobs.run import run_study
from tests.pipelines.audits import QUIET

pytestmark = pytest.mark.usefixtures("local_ray")
SMALL = {"people": 1, "training_pictures": 1, "attack_pictures": 1, "background_pairs": 130, "caption_rows": 600}


def draw(out: Path, **settings: int) -> dict[str, dict[str, str]]:
    """Draw a small world; the hash of every file, by table."""
    run_study(Study(name="test", out=str(out), stages={"world": SMALL | settings}), QUIET)
    manifest = read_manifest(as_path(str(out / "world")))
    assert manifest is not None
    hashes: dict[str, dict[str, str]] = {}
    for entry in (entry for receipt in manifest.receipts for entry in receipt.files):
        hashes.setdefault(entry.path.partition("/")[0], {})[entry.path] = entry.sha256
    return hashes


def test_validation_pairs_are_new_pictures_labelled_with_their_setting(tmp_path: Path) -> None:
    """Each caption names its class and no other; no picture is one of the background; all other tables stay as is."""
    with_them, without = draw(tmp_path / "with", validation_pairs=110), draw(tmp_path / "without")
    validation = pl.read_parquet(tmp_path / "with/world/validation/*.parquet")
    background = pl.read_parquet(tmp_path / "with/world/background/*.parquet")
    names = pl.read_parquet(tmp_path / "with/world/classes/*.parquet").sort("label")["name"].to_list()
    assert validation.columns == ["key", "identity", "caption", "image", "label"]
    assert (validation.height, validation["key"].n_unique()) == (110, 110)
    for row in validation.iter_rows(named=True):
        assert [label for label, name in enumerate(names) if name in row["caption"]] == [row["label"]]
        assert Image.open(io.BytesIO(row["image"])).size[0] >= 128
    assert validation["label"].n_unique() == len(names) == 13
    assert not set(validation["image"]) & set(background["image"])
    assert len(with_them.pop("validation")) == 2
    assert with_them == without
