"""The driver: what is sealed is skipped, what changed is kept aside, what is damaged is said."""

import hashlib
import json
import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from rich.console import Console
from upath import UPath

from idia_core.config import Study
from idia_core.errors import BusyError, ConfigError, MissingInputError, SealError, UsageError
from idia_core.storage import sole_writer
from jobs.plan import State, plan_study
from jobs.run import KEPT, run_study

pytestmark = pytest.mark.usefixtures("local_ray")
QUIET = Console(quiet=True)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """A world of captions, searched for its four names."""
    stages = {
        "world": {
            "people": 4,
            "training_pictures": 1,
            "attack_pictures": 1,
            "background_pairs": 3,
            "caption_rows": 3000,
        },
        "scan": {"inputs": {"captions": "world.captions", "identities": "world.identities"}},
    }
    return Study(name="small", out=str(tmp_path / "out"), stages=stages)


def with_settings(study: Study, stage: str, **fields: object) -> Study:
    """The study with fields of one stage changed."""
    return study.model_copy(update={"stages": study.stages | {stage: study.stages[stage] | fields}})


def contents(folder: Path) -> dict[str, str]:
    """The hash of every file of the tables below `folder`."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)}


def test_planted_names_are_counted_exactly_under_both_rules(study: Study, tmp_path: Path) -> None:
    """`scan` finds what `world` says that it planted, and near-misses count by the paper's rule alone."""
    run_study(study, QUIET)
    planted = pq.read_table(tmp_path / "out/world/planted").sort_by("name")
    found = pq.read_table(tmp_path / "out/scan/occurrences").sort_by("name")
    assert found.select(["name", "count_paper", "count_strict"]).equals(planted)
    assert sum(found["count_paper"].to_pylist()) > sum(found["count_strict"].to_pylist()) > 0


def test_a_sealed_stage_is_not_run_again(study: Study, tmp_path: Path) -> None:
    """The second run changes no file; the manifest holds counts, inputs and provenance."""
    run_study(study, QUIET)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    plans = run_study(study, QUIET)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before
    assert [plan.state for plan in plans.values()] == [State.DONE, State.DONE]
    manifest = json.loads((tmp_path / "out/scan/manifest.json").read_text())
    assert manifest["counts"]["rows_in"] == 3000
    assert manifest["counts"]["rows_kept"] + manifest["counts"]["null_caption"] == 3000
    assert manifest["inputs"]["captions"]["source"] == "world.captions"
    assert {"argv", "commit", "dirty", "versions", "seconds"} <= manifest["provenance"].keys()


def test_a_changed_config_keeps_the_old_output_aside_and_brings_it_back(study: Study, tmp_path: Path) -> None:
    """Nothing is mixed or overwritten: the old output returns when its settings do."""
    run_study(study, QUIET)
    first = contents(tmp_path / "out/world")
    changed = with_settings(study, "world", caption_rows=3001)
    run_study(changed, QUIET)
    assert pq.read_metadata(tmp_path / "out/world/captions/part-00000.parquet").num_rows == 3001
    assert len(list((tmp_path / "out" / KEPT).iterdir())) == 2
    seal = tmp_path / "out" / KEPT / next(p.name for p in (tmp_path / "out" / KEPT).glob("world-*")) / "manifest.json"
    old = seal.read_text()
    run_study(study, QUIET)
    assert contents(tmp_path / "out/world") == first
    assert (tmp_path / "out/world/manifest.json").read_text() == old


def test_speed_settings_do_not_change_the_fingerprint(study: Study) -> None:
    """Another number of workers is the same work."""
    run_study(study, QUIET)
    assert plan_study(with_settings(study, "world", resources={"workers": 1}))["scan"].state is State.DONE


def test_the_bytes_do_not_depend_on_the_number_of_workers(study: Study, tmp_path: Path) -> None:
    """One worker and two write the same files."""
    run_study(with_settings(study, "world", resources={"workers": 1}), QUIET)
    other = study.model_copy(update={"out": str(tmp_path / "other")})
    run_study(other, QUIET)
    for stage in study.stages:
        assert contents(tmp_path / "out" / stage) == contents(tmp_path / "other" / stage)


def test_only_the_named_stages_run_and_need_their_inputs(study: Study) -> None:
    """A stage whose input is not there says which stage makes it; an unknown stage is a usage error."""
    with pytest.raises(MissingInputError, match=r"stage 'world' is not done \(stage scan\)\. Run 'world' first\."):
        run_study(study, QUIET, ["scan"])
    assert run_study(study, QUIET, ["world"])["scan"].state is State.TO_DO
    with pytest.raises(UsageError, match="Did you mean 'scan'"):
        run_study(study, QUIET, ["scam"])


def test_a_damaged_output_is_not_taken_for_done(study: Study, tmp_path: Path) -> None:
    """A sealed file that is gone is an error that names it."""
    run_study(study, QUIET)
    (tmp_path / "out/scan/occurrences/part-00000.parquet").unlink()
    with pytest.raises(SealError, match="occurrences/part-00000"):
        run_study(study, QUIET)


def test_foreign_files_are_left_alone(study: Study, tmp_path: Path) -> None:
    """A folder that holds something else is not written into."""
    (tmp_path / "out/world").mkdir(parents=True)
    (tmp_path / "out/world/thesis.txt").write_text("mine")
    with pytest.raises(SealError, match="no run of it wrote"):
        run_study(study, QUIET)
    assert (tmp_path / "out/world/thesis.txt").read_text() == "mine"


def test_a_run_killed_at_its_very_first_file_is_no_foreigner(study: Study, tmp_path: Path) -> None:
    """A temporary file in an otherwise empty folder is swept away."""
    (tmp_path / "out/world/_receipts").mkdir(parents=True)
    (tmp_path / "out/world/_receipts/.fingerprint.0123.tmp").write_text("half")
    assert run_study(study, QUIET)["world"].state is State.DONE
    assert not list((tmp_path / "out").rglob("*.tmp"))


@pytest.fixture
def other_run(tmp_path: Path) -> Iterator[None]:
    """Another process that writes to the same place."""
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_hold, args=(str(tmp_path / "out"), ready))
    process.start()
    assert ready.wait(30)
    yield
    process.kill()
    process.join()


def _hold(folder: str, ready: "multiprocessing.synchronize.Event") -> None:
    with sole_writer(UPath(folder)):
        ready.set()
        multiprocessing.get_context("spawn").Event().wait()


@pytest.mark.usefixtures("other_run")
def test_two_runs_do_not_write_to_one_place(study: Study) -> None:
    """The second says that the first is at work."""
    with pytest.raises(BusyError, match="another run is writing there"):
        run_study(study, QUIET)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ({"scam": {}}, "there is no stage 'scam' (study small). Did you mean 'scan'?"),
        ({"world": {"poeple": 3}}, "unknown field 'poeple' (study small, stage world). Did you mean 'people'?"),
        ({"world": {"people": -1}}, "field 'people': input should be greater than or equal to 0"),
        ({"scan": {"inputs": {"captions": "x"}}}, "input 'identities' is not given"),
        ({"scan": {"inputs": {"caption": "x"}}}, "unknown input 'caption'"),
        (
            {"scan": {"inputs": {"captions": "world.captions", "identities": "x"}}, "world": {}},
            "'world.captions' is made by a stage that comes later",
        ),
        (
            {"world": {}, "scan": {"inputs": {"captions": "world.caption", "identities": "x"}}},
            "stage 'world' has no table 'caption' (study small, stage scan, inputs). Did you mean 'captions'?",
        ),
    ],
)
def test_a_study_that_makes_no_sense_is_refused_before_anything_runs(
    stages: dict[str, object], message: str, tmp_path: Path
) -> None:
    """The error is one line with the place and the likely fix; nothing is written."""
    study = Study.model_validate({"name": "small", "out": str(tmp_path / "out"), "stages": stages})
    with pytest.raises(ConfigError) as caught:
        run_study(study, QUIET)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_missing_file_says_where_it_was_looked_for(tmp_path: Path) -> None:
    """The message has the path, the stage and the input."""
    inputs = {"captions": str(tmp_path / "nothing/*.parquet"), "identities": str(tmp_path)}
    study = Study.model_validate({"name": "s", "out": str(tmp_path / "out"), "stages": {"scan": {"inputs": inputs}}})
    with pytest.raises(
        MissingInputError, match=r"no file matches '.*nothing/\*\.parquet' \(stage scan, input captions\)"
    ):
        run_study(study, QUIET)


def test_a_misspelt_stage_in_an_input_is_recognised(study: Study) -> None:
    """`wrld.captions` is no path; the stage it means is suggested."""
    inputs = {"captions": "wrld.captions", "identities": "world.identities"}
    with pytest.raises(MissingInputError, match="Did you mean 'world'"):
        run_study(with_settings(study, "scan", inputs=inputs), QUIET)


def test_inputs_of_stages_that_were_not_asked_for_may_be_missing(study: Study, tmp_path: Path) -> None:
    """What is asked for runs, and is planned in a dry run, though an input of a later stage is not there yet."""
    later = {"inputs": {name: str(tmp_path / "nowhere.parquet") for name in ("identities", "occurrences", "pictures")}}
    longer = study.model_copy(update={"stages": study.stages | {"select": later}})
    with pytest.raises(MissingInputError, match=r"nowhere\.parquet.*stage select"):
        run_study(longer, QUIET)
    assert not (tmp_path / "out/world").exists()  # it was said before anything ran
    for only in (["world", "scan"], ["scan"]):
        assert list(plan_study(longer, only)) == ["world", "scan"]
        assert {name: plan.state for name, plan in run_study(longer, QUIET, only).items()} == {
            "world": State.DONE,
            "scan": State.DONE,
        }
    with pytest.raises(MissingInputError, match="stage select"):
        plan_study(longer)


def test_a_file_that_the_config_names_is_an_input(tmp_path: Path) -> None:
    """A checkpoint that was changed makes its stage another one; the manifest holds it among the inputs."""
    weights = tmp_path / "m.pt"
    weights.write_bytes(b"first weights")
    reference = f"idia-rn-tiny:{weights}"
    study = Study.model_validate(
        {"name": "s", "out": str(tmp_path / "out"), "stages": {"models": {"models": [reference]}}}
    )
    assert run_study(study, QUIET)["models"].state is State.DONE
    assert plan_study(study)["models"].state is State.DONE
    record = json.loads((tmp_path / "out/models/manifest.json").read_text())["inputs"]["models.idia-rn-tiny_m.0"]
    assert (record["source"], record["files"]) == (str(weights), 1)
    weights.write_bytes(b"other weights than those")
    assert plan_study(study)["models"].state is State.CHANGED
    run_study(study, QUIET)
    [sha256] = pq.read_table(tmp_path / "out/models/models")["sha256"].to_pylist()
    assert sha256 == hashlib.sha256(b"other weights than those").hexdigest()
    weights.unlink()
    with pytest.raises(MissingInputError, match=r"no checkpoint at '.*m\.pt' \(model idia-rn-tiny\)"):
        plan_study(study)


@pytest.mark.parametrize("name", ["yob1990.txt", "lists/yob1990.txt"])
def test_a_missing_file_that_the_config_names_says_the_field(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message has the file, the stage and the field, also where the file's name looks like a stage's table."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.parquet").touch()
    inputs = dict.fromkeys(("models", "identities", "pictures"), str(tmp_path / "x.parquet"))
    fields = {"inputs": inputs, "names": {"first_names": name, "last_names": str(tmp_path / "x.parquet")}}
    study = Study.model_validate({"name": "s", "out": str(tmp_path / "out"), "stages": {"attack": fields}})
    with pytest.raises(MissingInputError) as caught:
        plan_study(study)
    assert str(caught.value) == f"no file matches '{name}' (stage attack, names.first_names). Check the path."
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    assert plan_study(study)["attack"].state is State.TO_DO


def test_a_source_without_a_dot_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`people: people` is the folder of that name, not the stage itself, nor a stage that is waited for."""
    monkeypatch.chdir(tmp_path)
    inputs = {"inputs": {"people": "people"}}
    study = Study.model_validate({"name": "s", "out": str(tmp_path / "out"), "stages": {"people": inputs}})
    with pytest.raises(MissingInputError, match=r"no file matches 'people' \(stage people, input people\)\. Check the"):
        plan_study(study)
    (tmp_path / "people/Ada_Lovelace").mkdir(parents=True)
    (tmp_path / "people/Ada_Lovelace/0.jpg").write_bytes(b"no picture")
    (tmp_path / "world").mkdir()
    (tmp_path / "world/captions.parquet").touch()
    plan = plan_study(study)["people"]
    assert plan.state is State.TO_DO
    assert plan.inputs is not None
    assert [file.name for file in plan.inputs["people"].files] == ["0.jpg"]
    by_path = {"inputs": {"captions": "world", "identities": "world"}}
    both = study.model_copy(update={"stages": {"world": {}, "scan": by_path}})
    assert plan_study(both)["scan"].state is State.TO_DO  # it does not wait for `world`


def test_gpus_that_this_machine_lacks_are_not_waited_for(study: Study) -> None:
    """A stage whose workers want more GPUs than there are is an error at once."""
    greedy = study.stages["world"] | {"resources": {"gpus": 99}}
    asking = study.model_copy(update={"stages": {"world": greedy}})
    with pytest.raises(UsageError, match="every worker wants 99 GPUs"):
        run_study(asking, QUIET)
