"""The command line: what it prints, and what it ends with."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from cluster.torchrun import Rendezvous, entry_argv, torchrun_argv
from idia_core.config import Study
from idia_core.errors import ConfigError, DuplicateNameError, InvalidInputError, MissingInputError, UsageError
from idia_core.model_reference import architecture_file
from idia_core.training import open_clip_flags
from jobs.cli import app
from jobs.plan import plan_study
from pipelines.train_config import runs, work_root
from pipelines.training_sets import TrainingSets
from tests.training_studies import SETS, training_study, verified_shards

IDIA = [sys.executable, "-c", "from jobs.cli import main; main()"]
ROOT = Path(__file__).parents[2]


def refused(*words: str) -> Exception:
    """The error that a command ends with."""
    result = CliRunner().invoke(app, list(words))
    assert result.exception is not None, result.output
    return result.exception


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two people with two small pictures each."""
    for person, shade in (("Ada_Lovelace", 40), ("Alan_Turing", 120)):
        (tmp_path / "people" / person).mkdir(parents=True)
        for i in range(2):
            Image.new("RGB", (32, 32), (shade, 10 * i, 0)).save(tmp_path / "people" / person / f"{i}.jpg")
    return tmp_path / "people"


def read_people(folder: Path) -> list[str]:
    """The command that reads a people folder into `folder`/../out."""
    out = folder.parent / "out"
    inputs = ["--set", f"people.inputs.people={folder}", "--set", f"out={out}"]
    return ["run", "own_people.yaml", "people", *inputs, "--set", "people.training_pictures=1"]


def test_an_error_is_one_line_and_decides_the_exit_code(tmp_path: Path) -> None:
    """No traceback: the type, what, where and the fix, and 2 for wrong usage."""
    study = tmp_path / "study.yaml"
    study.write_text("name: x\nout: x\nstagse: {}\n")
    done = subprocess.run([*IDIA, "run", str(study)], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"ConfigError: unknown field 'stagse' (study {study}). Did you mean 'stages'?",
    ]


def test_wrong_words_are_a_usage_error() -> None:
    """An unknown option ends with 2, as everywhere."""
    assert CliRunner().invoke(app, ["run", "demo.yaml", "--fast"]).exit_code == 2


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_a_retry_needs_a_stage_that_fetches(folder: Path, dry: list[str]) -> None:
    """Among those that are named; Slurm fetches nothing."""
    words = [*read_people(folder), "--retry-failed", *dry]
    assert isinstance(error := refused(*words), UsageError)
    assert "there is no stage that fetches" in str(error)
    slurm = ["run", "cc3m.yaml", "train", "--launcher", "slurm", "--retry-failed", *dry]
    assert isinstance(error := refused(*slurm), UsageError)
    assert "fetches nothing" in str(error)


@pytest.mark.parametrize(
    "command",
    [[], ["run"], ["status"], ["path"], ["export"], ["names"], ["demo"], ["audit"], ["judge"], ["serve-model"]],
)
def test_help_has_an_example(command: list[str]) -> None:
    """`--help` of every command says what it does and how it is typed."""
    text = CliRunner().invoke(app, [*command, "--help"]).output
    assert "Usage" in text
    assert ("Example" in text) == bool(command)


def test_an_unknown_field_is_named_with_the_one_that_was_meant() -> None:
    """`--set` reaches every field of a stage and no other."""
    error = refused("run", "demo.yaml", "--set", "attack.candidate=5", "--dry-run")
    assert isinstance(error, ConfigError)
    assert str(error) == "unknown field 'candidate' (study demo, stage attack). Did you mean 'candidates'?"


def test_a_study_that_is_not_there_is_missing() -> None:
    """A path that is no file is said."""
    assert isinstance(refused("run", "nothing/here.yaml"), MissingInputError)


def test_a_dry_run_says_what_would_run_and_writes_nothing(tmp_path: Path) -> None:
    """Every stage is listed with its state and the reason."""
    result = CliRunner().invoke(app, ["demo", "--out", str(tmp_path / "out"), "--dry-run"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    lines = [line.split() for line in result.output.splitlines()]
    states = {words[0]: " ".join(words[1:]) for words in lines if words}
    assert states["world"] == "draw people, scenes and captions to do not run yet"
    assert states["report"] == "write the page waits for train"
    assert not (tmp_path / "out").exists()


def test_path_prints_where_a_table_lies(tmp_path: Path) -> None:
    """The folder is printed alone, for use in a shell; an unknown table is a usage error."""
    result = CliRunner().invoke(app, ["path", "demo.yaml", "judge.verdicts", "--set", f"out={tmp_path}"])
    assert result.output.strip() == str(tmp_path / "judge" / "verdicts")
    assert isinstance(refused("path", "demo.yaml", "judge.verdict"), UsageError)


@pytest.mark.usefixtures("local_ray")
def test_a_people_folder_is_read_and_a_broken_picture_counted(folder: Path) -> None:
    """Good pictures are dealt out; a truncated, an empty and a repeated one are rows with their reason."""
    (folder / "Ada_Lovelace" / "cut.jpg").write_bytes((folder / "Ada_Lovelace" / "0.jpg").read_bytes()[:200])
    (folder / "Ada_Lovelace" / "empty.jpg").touch()
    (folder / "Ada_Lovelace" / "same.jpg").write_bytes((folder / "Ada_Lovelace" / "1.jpg").read_bytes())
    result = CliRunner().invoke(app, read_people(folder))
    assert result.exit_code == 0, result.exception
    assert "7 in, 4 kept, 1 duplicate, 1 empty, 1 truncated" in result.stderr
    pictures = pq.read_table(folder.parent / "out/people/pictures").to_pylist()
    statuses = {(row["identity"], row["picture"]): row["status"] for row in pictures}
    assert statuses["Ada Lovelace", "cut.jpg"] == "truncated"
    assert statuses["Ada Lovelace", "empty.jpg"] == "empty"
    assert statuses["Ada Lovelace", "same.jpg"] == "duplicate"
    pairs = pq.read_table(folder.parent / "out/people/pairs").to_pylist()
    assert [row["identity"] for row in pairs] == ["Ada Lovelace", "Alan Turing"]
    assert all(row["identity"] in row["caption"] for row in pairs)
    used = {(row["identity"], row["image"]) for row in pictures if row["status"] == "ok"}
    assert not used & {(row["identity"], row["image"]) for row in pairs}


def test_an_empty_people_folder_is_missing_input(tmp_path: Path) -> None:
    """A folder without pictures is an error before Ray is started."""
    (tmp_path / "people").mkdir()
    error = refused(*read_people(tmp_path / "people"))
    assert isinstance(error, MissingInputError)
    assert "(stage people, input people)" in str(error)


@pytest.mark.usefixtures("local_ray")
def test_the_same_name_twice_is_refused(folder: Path) -> None:
    """Two folders of one name, up to case and spelling of the space, are one person twice."""
    (folder / "ada lovelace").mkdir()
    (folder / "ada lovelace" / "0.jpg").write_bytes(b"x")
    error = refused(*read_people(folder))
    assert isinstance(error, DuplicateNameError)
    assert "'ada lovelace'" in str(error)


@pytest.mark.usefixtures("local_ray")
def test_too_few_people_is_said_with_the_numbers(folder: Path) -> None:
    """Nobody has 25 training pictures here, so the selection cannot be made."""
    command = read_people(folder)
    command.remove("people")
    error = refused(*command)
    assert isinstance(error, InvalidInputError)
    assert str(error).startswith("0 people can take part, 2 are wanted (stage select).")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--submit"], "there is no job to submit (--submit). Add --launcher slurm."),
        (["--sbatch=--mem=0"], "there is no job to submit (--sbatch). Add --launcher slurm."),
        (["--launcher", "slurm", "--address", "auto"], "Slurm's jobs use no Ray (--address). Leave it out."),
    ],
)
def test_a_launcher_that_does_not_fit_is_a_usage_error(words: list[str], said: str) -> None:
    """Nothing is left out in silence."""
    error = refused("run", "demo.yaml", "train", *words, "--dry-run")
    assert isinstance(error, UsageError)
    assert str(error) == said


@pytest.mark.parametrize("stages", [[], ["shards", "train"], ["shards"]])
def test_slurm_runs_the_trainings_alone(stages: list[str]) -> None:
    """The stages before it need Ray, and have to be done."""
    error = refused("run", "demo.yaml", *stages, "--launcher", "slurm")
    assert isinstance(error, UsageError)
    assert "(--launcher slurm). Name it: idia run STUDY train." in str(error)
    assert CliRunner().invoke(app, ["run", "demo.yaml", "train", "--launcher", "pbs"]).exit_code == 2


@pytest.fixture
def trained(tmp_path: Path) -> tuple[Path, Study]:
    """A file with a study that only trains, and the study."""
    study = training_study(
        verified_shards(tmp_path),
        recipe={"epochs": 30, "processes": 2},
        resources={"pairs_per_second": 0.01, "workers": 1},
    )
    file = tmp_path / "study.yaml"
    file.write_text(json.dumps(study.model_dump(mode="json")))  # which YAML is too
    return file, study


def test_a_dry_run_of_the_trainings_says_commands_and_hours(trained: tuple[Path, Study]) -> None:
    """The torchrun of each run, word for word, and what all of them take; nothing is written."""
    file, study = trained
    result = CliRunner().invoke(app, ["run", str(file), "train", "--dry-run"], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.exception
    hours = {name: 30 * pairs / 0.01 / 3600 for name, (pairs, _) in SETS.items()}
    cells = {line.split()[0]: line.split()[1:] for line in result.output.splitlines() if line.startswith(tuple(SETS))}
    assert cells["K002"][:1] == ["10"]
    assert cells["K002"][-2:] == [f"{hours['K002']:.2f}", f"{hours['K002'] / 2:.2f}"]
    assert f"2 runs: {sum(hours.values()):,.1f} process-hours." in result.output
    assert f"On 1 x 2 processes: {sum(hours.values()) / 2:,.1f} hours, " in result.output
    context = plan_study(study)["train"].context()
    sets, root = TrainingSets(context), work_root(context)
    for run in runs(context.config, sets.sizes()):
        flags = open_clip_flags(run.recipe, sets.train_data(run.set, root), run.samples, run.model, root)
        digest, work = run.digest(sets.digest(run.set)), root / run.model
        entry = entry_argv(architecture_file(run.architecture), 1, digest, work, flags)
        command = torchrun_argv(2, Rendezvous("127.0.0.1", 0, f"{digest}-0"), entry)
        assert f"{run.model}: {shlex.join(command)}" in result.output.splitlines()
    assert not Path(study.out).exists()


def test_slurms_scripts_are_printed_with_the_options_given(trained: tuple[Path, Study]) -> None:
    """With --dry-run nothing is written, also where --submit stands beside it."""
    file, study = trained
    options = ["--launcher", "slurm", "--submit", "--sbatch=--partition=gpu", "--sbatch=--mem=0", "--dry-run"]
    result = CliRunner().invoke(app, ["run", str(file), "train", *options])
    assert result.exit_code == 0, result.exception
    assert result.output.count("#SBATCH --partition=gpu\n#SBATCH --mem=0\n") == len(SETS)
    assert not Path(study.out).exists()
