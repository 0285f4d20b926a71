"""`idia erase` on an audit: models are not asked again, and the pages that the next run writes are of the others."""

from importlib import resources
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.console import Console
from upath import UPath

from idia_core.audit_json import from_json
from idia_core.config import Study, load_study
from jobs.erase import erase_people
from jobs.judge_file import judge_file
from jobs.plan import State, plan_study
from jobs.run import run_study
from tests.jobs.test_erase import traces
from tests.pipelines.audits import NAMES, write_people
from tests.tiny_models import write_model

pytestmark = pytest.mark.usefixtures("local_ray")
STUDIES = resources.files("jobs") / "studies"
QUIET = Console(quiet=True)


def audit(root: Path) -> Study:
    """An audit of five people by a model with random weights, which gives everybody's names to everybody."""
    write_people(root / "given", NAMES, seed=3)
    pictures = pl.read_parquet(root / "given/pictures/part.parquet")
    whole = [image for image in pictures["image"] if len(image) > 200]  # one is cut there
    people = pictures.select(name="identity", image="image")
    people.write_parquet(root / "people.parquet")
    study = load_study(UPath(str(STUDIES / "audit.yaml")))
    stages: dict[str, dict[str, Any]] = {name: dict(fields) for name, fields in study.stages.items() if name != "panel"}
    for name, fields in stages.items():
        inputs = {field: source for field, source in fields.get("inputs", {}).items() if source[:6] != "panel."}
        stages[name] = fields | {"inputs": inputs}
    stages["people"]["inputs"]["people"] = str(root / "people.parquet")
    stages["models"]["models"] = [f"idia-rn-tiny:{write_model(root / 'model.pt', 0, whole)}"]
    stages["attack"] |= {"candidates": 6, "templates": ["{0}", "a photo of {0}"]}
    return Study(name="audit", out=str(root / "out"), seed=1, stages=stages)


def test_the_next_run_judges_and_shows_the_others_alone(tmp_path: Path) -> None:
    """From the votes that are there; what it says follows from them, and names of no use to anybody are gone."""
    study = audit(tmp_path)
    run_study(study, QUIET)
    out, votes = tmp_path / "out", "attack/votes/*.parquet"
    chosen = pl.read_parquet(out / votes).filter(
        pl.col("predicted").is_in(NAMES), pl.col("predicted") != pl.col("identity")
    )
    gone = chosen["predicted"].mode().sort()[0]
    before = pl.read_parquet(out / votes).filter(pl.col("identity") != gone)
    pictures = set(pl.read_parquet(out / "people/pictures/*.parquet").filter(identity=gone)["image"].drop_nulls())
    erase_people(study, [gone], QUIET)
    assert traces(out, gone, pictures) == []
    states = {name: plan.state for name, plan in plan_study(study).items()}
    assert states == dict.fromkeys(("people", "models", "attack"), State.DONE) | {
        "judge": State.TO_DO,
        "evidence": State.WAITS,
    }
    after = pl.read_parquet(out / votes)
    assert after.height == before.height
    assert before.filter(predicted=gone).height > 0
    assert after.filter(pl.col("predicted").str.starts_with("erased-")).height == before.filter(predicted=gone).height
    run_study(study, QUIET)
    assert traces(out, gone, pictures) == []
    found = from_json((out / "evidence/page/audit.json").read_bytes(), "audit.json")
    assert {person.identity for person in found.people} == set(NAMES) - {gone}
    judge_file(str(out / "evidence/page/audit.json"), QUIET)
