"""The stages `evaluate` and, on what it writes, `figures`."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from rich.console import Console

from idia_core.attack import SIMILARITIES, VOTES
from idia_core.config import Study
from idia_core.identities import IDENTITIES
from idia_core.occurrences import BINS
from jobs.run import run_study

pytestmark = pytest.mark.usefixtures("local_ray")
PEOPLE = ["ann", "bob", "cyd", "dan", "eve"]
ROLES = ["member", "member", "non_member", "non_member", "excluded"]
TEMPLATES = ("a {0}", "the {0}", "{0}")
KNOWN = {"small": {"ann"}, "large": {"ann", "bob", "eve"}}
"""Whom each model knows: it says the person's name to every picture, and somebody else's otherwise."""

Run = Callable[..., Path]


def votes(model: str, person: str) -> pa.Table:
    """Five pictures of a person; of whom the model does not know it calls by a name of no one."""
    rng = np.random.default_rng(len(person) + PEOPLE.index(person))
    rows = [
        {
            "model": model,
            "identity": person,
            "image": f"{number}.jpg",
            "template": template,
            "predicted": person.title() if person in KNOWN[model] else f"Nobody {rng.integers(3)}",
        }
        for number in range(5)
        for template in TEMPLATES
    ]
    return pa.Table.from_pylist(rows, VOTES)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run `evaluate` and `figures` with some settings; returns the folder of all that they wrote."""

    def write(name: str, table: pa.Table) -> str:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, tmp_path / name)
        return str(tmp_path / name)

    for part, (model, person) in enumerate((m, p) for m in KNOWN for p in PEOPLE):
        write(f"votes/part-{part}.parquet", votes(model, person))
    identities = [{"identity": p, "name": p.title(), "sex": "F" if p == "ann" else None} for p in PEOPLE]
    cosines = [
        {"model": "large", "identity": p, "cosine": 0.3 if p == "ann" else 0.1, "decoys": [0.2] * 9} for p in PEOPLE
    ]
    trained = {"model": ["small", "large"], "architecture": ["vit"] * 2, "images_per_member": [1, 25]}
    counted = {"bin": list(BINS), "people_paper": range(len(BINS)), "people_strict": range(len(BINS))}
    inputs = {
        "votes": str(tmp_path / "votes"),
        "selection": write("selection.parquet", pa.table({"identity": PEOPLE, "role": ROLES})),
        "identities": write("identities.parquet", pa.Table.from_pylist(identities, IDENTITIES)),
    }
    similarities = {"similarities": write("similarities.parquet", pa.Table.from_pylist(cosines, SIMILARITIES))}
    facts = {
        "models": write("models.parquet", pa.table(trained)),
        "histogram": write("histogram.parquet", pa.table(counted)),
    }

    def study(out: str = "out", workers: int = 2, *, plain: bool = False, **fields: Any) -> Path:
        tables = {name: f"evaluate.{name}" for name in ("metrics", "rates", "roc", "baselines")}
        stages = {
            "evaluate": {
                "inputs": inputs | ({} if plain else similarities),
                "resources": {"workers": workers},
                **fields,
            },
            "figures": {"inputs": tables | ({} if plain else facts)},
        }
        run_study(Study(name="test", out=str(tmp_path / out), stages=stages), Console(quiet=True))
        return tmp_path / out

    return study


def table(out: Path, name: str) -> pl.DataFrame:
    """A table of the stage."""
    return pl.read_parquet(out / f"evaluate/{name}/*.parquet")


def files(out: Path, stage: str) -> dict[str, str]:
    """Every file that the stage's tables hold, with its hash."""
    tables = [path for path in (out / stage).rglob("*") if path.is_file() and path.name != "manifest.json"]
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in tables}


def test_evaluate_says_how_often_each_model_is_right(run: Run) -> None:
    """Counts, rates, ROC, operating points and baselines follow from who is known; the excluded count nowhere."""
    out = run(pictures=5, draws=3)
    assert table(out, "outcomes").group_by("model").agg(pl.len(), pl.col("score").max()).sort("model").rows() == [
        ("large", 5 * 3 * 3, 3),
        ("small", 5 * 3 * 3, 3),
    ]
    metrics = table(out, "metrics").filter((pl.col("group") == "all") & (pl.col("images") == 5))
    assert set(metrics.select("model", "tp", "fn", "fp", "tn").rows()) == {("large", 2, 0, 0, 2), ("small", 1, 1, 0, 2)}
    rates = table(out, "rates").filter(pl.col("group") == "all").sort("model", "images")
    assert rates.select("model", "images", "tpr_mean", "tpr_sd", "fpr_mean").rows() == [
        *(("large", images, 1.0, 0.0, 0.0) for images in (1, 3, 5)),
        *(("small", images, 0.5, 0.0, 0.0) for images in (1, 3, 5)),
    ]
    swept = table(out, "roc").filter(pl.col("model") == "small").select("images", "threshold", "tp", "fp").rows()
    assert swept == [(5, 0, 2, 2), (5, 1, 1, 0), (5, 2, 1, 0), (5, 3, 1, 0), (5, 4, 0, 0)]
    points = table(out, "operating_points").select("model", "target_fpr", "threshold", "tpr", "fpr", "resolved").rows()
    assert points == [
        *(("large", target, 3, 1.0, 0.0, False) for target in (0.001, 0.01)),
        *(("small", target, 3, 0.5, 0.0, False) for target in (0.001, 0.01)),
    ]


def test_evaluate_sets_the_attack_beside_simpler_ones(run: Run) -> None:
    """A model with similarities has the cosine's row; one without, or a study without, has none."""
    found = table(run(), "baselines").select("model", "method", "tp", "fp").rows()
    single = [f"single: {template}" for template in sorted(TEMPLATES)]
    assert found == [
        ("large", "idia", 2, 0),
        ("large", "cosine", 1, 0),
        *(("large", method, 2, 0) for method in single),
        ("small", "idia", 1, 0),
        *(("small", method, 1, 0) for method in single),
    ]
    without = run("plain", plain=True)
    assert table(without, "baselines")["method"].unique().sort().to_list() == ["idia", *single]


def test_the_number_of_workers_changes_no_byte(run: Run) -> None:
    """One worker and two write the same tables and the same figures."""
    first, second = run("one", 1), run("two", 2)
    for stage, least in (("evaluate", 12), ("figures", 21)):
        assert files(first, stage) == files(second, stage)
        assert len(files(first, stage)) >= least


def test_another_seed_draws_other_pictures(run: Run) -> None:
    """The seed is in the draws; tau decides who is found, not what is scored."""
    first, second = table(run("a", seed=1), "outcomes"), table(run("b", seed=1, threshold=3), "outcomes")
    assert first.equals(second)
    assert table(run("c", seed=1, threshold=4), "metrics")["tp"].sum() == 0


def test_figures_are_pictures_documents_and_the_tables_behind(run: Run) -> None:
    """Every figure is there three times over, and the Parquet holds what was drawn."""
    folder = run() / "figures/figures"
    names = {path.stem for path in folder.iterdir()}
    assert names == {
        "fig04_attack_pictures",
        "fig05_fig08_training_pictures",
        "fig06_fig10_heat_maps",
        "fig07_confusion_matrices",
        "fig09_occurrences",
        "roc",
        "baselines",
    }
    for name in names:
        with Image.open(folder / f"{name}.png") as picture:
            assert picture.width > 300
            assert len(picture.convert("L").getcolors()) > 2
        assert (folder / f"{name}.pdf").read_bytes().startswith(b"%PDF-")
        assert len(pl.read_parquet(folder / f"{name}.parquet")) > 0
    drawn = pl.read_parquet(folder / "fig05_fig08_training_pictures.parquet")
    assert drawn.select("model", "images_per_member", "images", "tpr_mean").rows() == [
        ("large", 25, 5, 1.0),
        ("small", 1, 5, 0.5),
    ]
    matrices = pl.read_parquet(folder / "fig07_confusion_matrices.parquet")
    assert matrices.select("model", "draws", "tp_mean", "tp_sd").rows() == [
        ("large", 20, 2.0, 0.0),
        ("small", 20, 1.0, 0.0),
    ]


def test_figures_of_models_that_nothing_is_known_of(run: Run) -> None:
    """Without the models' training pictures, and without occurrences, those figures are left out."""
    folder = run(plain=True) / "figures/figures"
    assert {path.name for path in folder.glob("*.png")} == {
        "fig04_attack_pictures.png",
        "fig07_confusion_matrices.png",
        "roc.png",
        "baselines.png",
    }
