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


def test_people_are_planted_in_the_background(tmp_path: Path) -> None:
    """None of the first person, ever more of the next, as many of strangers as of the last; no caption has a name."""
    with_them = draw(tmp_path / "with", people=4, strangers=2, planted_pictures=6)
    without = draw(tmp_path / "without", people=4)
    found = pl.read_parquet(tmp_path / "with/world/appearances/*.parquet")
    assert found.group_by("person").len().sort("person").rows() == [(1, 2), (2, 4), (3, 6), (4, 6), (5, 6)]
    people = pl.read_parquet(tmp_path / "with/world/identities/*.parquet")
    assert found.filter(pl.col("person") < 4)["identity"].unique().sort().to_list() == sorted(people["identity"][1:])
    assert found.filter(pl.col("person") >= 4)["identity"].is_null().all()
    background = pl.read_parquet(tmp_path / "with/world/background/*.parquet")
    planted = background.join(found, on="key")
    assert (background.height, planted.height, background["key"].n_unique()) == (130 + 24, 24, 130 + 24)
    assert not planted["caption"].str.contains_any(people["name"].to_list()).any()
    pictures = pl.concat(
        [pl.read_parquet(tmp_path / f"with/world/{table}/*.parquet")["image"] for table in ("pictures", "pairs")]
    )
    assert planted["image"].n_unique() == 24
    assert not set(planted["image"]) & set(pictures)
    assert with_them.pop("appearances")
    assert {k: v for k, v in with_them["background"].items() if "planted" not in k} == without["background"]
    assert with_them["pictures"] == without["pictures"]
