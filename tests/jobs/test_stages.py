"""A study may run a stage several times, each under a name of its own."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.console import Console
from typer.testing import CliRunner

from idia_core.config import Study
from idia_core.errors import ConfigError, UsageError
from idia_core.manifest import Manifest
from jobs.cli import app
from jobs.plan import State, plan_study, table_folder
from jobs.run import run_study
from jobs.stages import KEPT
from pipelines.report import collect_seals

pytestmark = pytest.mark.usefixtures("local_ray")
QUIET = Console(quiet=True)
WORLD = {"training_pictures": 0, "attack_pictures": 1, "background_pairs": 2, "caption_rows": 1500}
SCAN = {"stage": "scan", "inputs": {"captions": "world.captions", "identities": "other_world.identities"}}


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """Two worlds, and the people of the second looked for in the captions of the first."""
    stages: dict[str, dict[str, Any]] = {
        "world": {**WORLD, "people": 2, "seed": 1},
        "other_world": {"stage": "world", **WORLD, "people": 3, "seed": 2},
        "cross_scan": SCAN,
    }
    return Study(name="twice", out=str(tmp_path / "out"), stages=stages)


def test_each_has_its_folder_and_its_tables(study: Study, tmp_path: Path) -> None:
    """Inputs, paths and states go by the name; what it runs is in the seal."""
    plans = run_study(study, QUIET)
    assert [(name, plan.name, plan.stage.name) for name, plan in plans.items()] == [
        ("world", "world", "world"),
        ("other_world", "other_world", "world"),
        ("cross_scan", "cross_scan", "scan"),
    ]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["cross_scan", "logs", "other_world", "world"]
    names = pl.read_parquet(f"{table_folder(study, 'other_world.identities')}/*.parquet")["name"].to_list()
    assert len(names) == 3
    found = pl.read_parquet(f"{table_folder(study, 'cross_scan.occurrences')}/*.parquet")
    assert sorted(found["name"]) == sorted(names)
    seal = json.loads((tmp_path / "out/cross_scan/manifest.json").read_text())
    assert (seal["stage"], seal["inputs"]["identities"]["source"]) == ("scan", "other_world.identities")
    assert {plan.state for plan in plan_study(study).values()} == {State.DONE}


def test_the_name_is_in_no_fingerprint(study: Study) -> None:
    """The same settings are the same work, whatever it is called."""
    stages = {"world": study.stages["world"], "again": {"stage": "world", **study.stages["world"]}}
    plans = plan_study(study.model_copy(update={"stages": stages}))
    assert plans["world"].wanted_fingerprint() == plans["again"].wanted_fingerprint()


def test_what_is_kept_aside_is_each_ones_own(study: Study, tmp_path: Path) -> None:
    """A changed setting of one leaves the other as it is, and the old output comes back."""
    run_study(study, QUIET)
    first = plan_study(study)["other_world"].fingerprint
    changed = study.stages | {"other_world": study.stages["other_world"] | {"people": 4}}
    plans = run_study(study.model_copy(update={"stages": changed}), QUIET)
    kept = sorted(path.name for path in (tmp_path / "out" / KEPT).iterdir())
    assert [name.partition("-")[0] for name in kept] == ["cross_scan", "other_world"]
    assert plans["world"].why.startswith("sealed")
    assert run_study(study, QUIET)["other_world"].fingerprint == first


def test_only_those_that_are_named_run(study: Study, tmp_path: Path) -> None:
    """By the name that the study gives them."""
    assert list(run_study(study, QUIET, ["other_world"])) == ["world", "other_world", "cross_scan"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["logs", "other_world"]
    with pytest.raises(UsageError, match="Did you mean 'cross_scan'"):
        run_study(study, QUIET, ["cros_scan"])


def test_the_seals_behind_a_page_go_by_their_names(study: Study) -> None:
    """Both worlds are there, each under its own."""
    plans = run_study(study, QUIET)
    found = dict[str, Manifest]()
    collect_seals(plans["world"].folder.parent, "cross_scan.occurrences", found)
    assert {name: seal.stage for name, seal in found.items()} == {
        "world": "world",
        "other_world": "world",
        "cross_scan": "scan",
    }


def test_the_command_line_knows_the_names(tmp_path: Path) -> None:
    """`--set`, `--tolerate-failed-inputs`, `idia path` and the table of states."""
    lines = [
        "name: twice",
        f"out: {tmp_path}/out",
        "stages:",
        "  world: {people: 1}",
        "  two: {stage: world, people: 1}",
    ]
    lines += ["  look: {stage: scan, inputs: {captions: two.captions, identities: world.identities}}"]
    path = tmp_path / "study.yaml"
    path.write_text("\n".join(lines), encoding="utf-8")
    words = ["run", str(path), "--set", "two.people=2", "--tolerate-failed-inputs", "1", "--dry-run"]
    shown = CliRunner().invoke(app, words, catch_exceptions=False).output
    assert [line.split()[0] for line in shown.splitlines() if "to do" in line or "waits" in line] == [
        "world",
        "two",
        "look",
    ]
    folder = CliRunner().invoke(app, ["path", str(path), "look.occurrences"], catch_exceptions=False).output.strip()
    assert folder == f"{tmp_path}/out/look/occurrences"


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (
            {"embed_web": {}},
            "(study s). Did you mean 'embed'? One that is called otherwise says which it is: `stage: NAME`.",
        ),
        ({"web": {"stage": "embedd"}}, "there is no stage 'embedd' (study s). Did you mean 'embed'?"),
        (
            {"scan": {"stage": "world"}},
            "'scan' is a stage, and here it would run 'world' (study s). Call it otherwise.",
        ),
        ({"a.b": {"stage": "world"}}, "no stage can be called 'a.b' (study s)"),
        ({"../x": {"stage": "world"}}, "no stage can be called '../x'"),
        ({"kept": {"stage": "world"}}, "no stage can be called 'kept' (study s). Take letters, digits and '_'"),
        (
            {"two": {"stage": "world", "poeple": 1}},
            "unknown field 'poeple' (study s, stage two). Did you mean 'people'?",
        ),
        (
            {"two": {"stage": "world"}, "look": {**SCAN, "inputs": {"captions": "two.caption", "identities": "x"}}},
            "stage 'two' has no table 'caption' (study s, stage look, inputs). Did you mean 'captions'?",
        ),
    ],
)
def test_what_cannot_be_is_told(stages: dict[str, object], message: str, tmp_path: Path) -> None:
    """In one line, before anything runs."""
    study = Study.model_validate({"name": "s", "out": str(tmp_path / "out"), "stages": stages})
    with pytest.raises(ConfigError) as caught:
        run_study(study, QUIET)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
