"""Training by Slurm: scripts that are printed or submitted, and what `idia run` makes of what their jobs leave."""

import io
import os
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from cluster.checkpoints import save_checkpoint
from cluster.training_entry import parse_entry_flags
from idia_core.config import Study
from idia_core.errors import InvalidInputError, MissingInputError, TrainingError, UsageError
from idia_core.manifest import Manifest, Provenance, write_manifest
from jobs.plan import State, plan_study
from jobs.run import run_study
from jobs.slurm import train_by_slurm
from pipelines.train_config import runs, work_root
from pipelines.training_run import Training
from pipelines.training_sets import TrainingSets
from tests.training_studies import SETS, training_study, verified_shards

# Small programs stand for Slurm's: sbatch gives out numbers, the others know of one node.
SBATCH = """#!/bin/bash
[ "$1" = --parsable ] && cat "$2" > /dev/null || exit 1
echo "$2" >> "$RECORD/submitted"
echo $((100 + $(wc -l < "$RECORD/submitted")))
"""
SRUN = '#!/bin/bash\nwhile [[ "$1" == --* ]]; do shift; done\nSLURM_NODEID=0 SLURM_NTASKS=4 exec "$@"\n'
SCONTROL = "#!/bin/bash\necho node01\n"


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of those programs on the PATH; what is submitted is listed there."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name, content in (("sbatch", SBATCH), ("srun", SRUN), ("scontrol", SCONTROL)):
        (folder / name).write_text(content)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("RECORD", str(folder))
    return folder


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """One epoch on each of two sets."""
    return training_study(verified_shards(tmp_path))


def say(study: Study, **how: bool) -> list[str]:
    """What is printed on the console of it; scripts go to standard output."""
    said = io.StringIO()
    train_by_slurm(study, Console(file=said, width=200), **how)
    return said.getvalue().splitlines()


def trainings(study: Study) -> dict[str, Training]:
    """The runs of the study by their names."""
    context = plan_study(study)["train"].context()
    sets, root = TrainingSets(context), work_root(context)
    found = [Training(run, root, run.digest(sets.digest(run.set))) for run in runs(context.config, sets.sizes())]
    return {training.run.model: training for training in found}


def leave_a_checkpoint(training: Training) -> None:
    """As a job does whose last epoch is done."""
    import torch  # noqa: PLC0415

    (training.folder / "out.log").write_text("", encoding="utf-8")
    folder = training.folder / "checkpoints"
    folder.mkdir()
    epochs = training.run.recipe.epochs
    content = {"epoch": epochs, "name": training.run.model, "state_dict": {"module.w": torch.ones(2)}}
    save_checkpoint(content, folder / f"epoch_{epochs}.pt", training.digest, training.run.architecture)


def files(folder: Path) -> set[str]:
    """All that is in a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_scripts_are_printed_for_all_runs_and_say_what_is_trained(
    study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    """The largest first, each with its own options and the set's tars, and more options of sbatch at their end."""
    train_by_slurm(study, Console(quiet=True), ("--partition=gpu",), dry=True)
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "--job-name" in line] == [
        "#SBATCH --job-name=idia-K002",
        "#SBATCH --job-name=idia-K001",
    ]
    assert lines.count("#SBATCH --partition=gpu") == 2
    starts = [line.strip() for line in lines if line.strip().startswith("-- --model-config")]
    own, flags = parse_entry_flags(starts[1].split()[1:-2])
    training = trainings(study)["K001"]
    assert (own.run, own.work, own.model_config.name) == (training.digest, training.folder, "idia-rn-tiny.json")
    assert flags[flags.index("--train-num-samples") + 1] == str(SETS["K001"][0])
    assert "tars/K001/{00000..00001}.tar" in flags[flags.index("--train-data") + 1]


def test_a_dry_run_writes_and_submits_nothing(study: Study, slurm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Even where `--submit` stands beside it."""
    before = files(Path(study.out).parent)
    assert say(study, send=True, dry=True) == []
    assert capsys.readouterr().out.count("#!/bin/bash") == len(SETS)
    assert files(Path(study.out).parent) == before
    assert not (slurm / "submitted").exists()


def test_a_run_is_submitted_once(study: Study, slurm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A second time says the job that there is; only a run whose job is taken back is submitted again."""
    assert say(study, send=True) == ["K002: job 101", "K001: job 102"]
    assert say(study, send=True) == ["K002: job 101, submitted earlier", "K001: job 102, submitted earlier"]
    (trainings(study)["K001"].folder / "slurm-job").unlink()
    assert say(study, send=True) == ["K002: job 101, submitted earlier", "K001: job 103"]
    work = Path(study.out) / "train/_work"
    assert (slurm / "submitted").read_text().split() == [f"{work}/{run}/run.sbatch" for run in ("K002", "K001", "K001")]
    assert capsys.readouterr().out == ""


def test_a_run_that_is_trained_to_its_end_is_not_submitted(study: Study, slurm: Path) -> None:
    """The others are."""
    say(study)
    leave_a_checkpoint(trainings(study)["K002"])
    assert say(study, send=True) == ["K001: job 101"]
    assert (slurm / "submitted").read_text().count("\n") == 1


@pytest.mark.usefixtures("local_ray")
def test_a_job_is_waited_for_and_its_checkpoints_are_sealed(study: Study, slurm: Path) -> None:
    """Until the last epoch is there the job is named and nothing starts beside it; then weights and epochs are kept."""
    del slurm
    say(study, send=True)
    leave_a_checkpoint(trainings(study)["K002"])
    work = Path(study.out) / "train/_work"
    with pytest.raises(TrainingError, match=r"Slurm job 102 is at epoch 0 of 1 \(run K001") as caught:
        run_study(study, Console(quiet=True))
    assert caught.value.fix.startswith(f"Wait for it; where it is gone, remove {work}/K001/slurm-job")
    assert not list(work.glob("*/torchrun-*"))
    leave_a_checkpoint(trainings(study)["K001"])
    run_study(study, Console(quiet=True))
    check_sealed(study)


@pytest.mark.usefixtures("local_ray")
def test_a_script_that_is_submitted_by_hand_is_sealed_too(study: Study) -> None:
    """What was printed is known of: the folder is the study's own, and its epochs are told."""
    say(study)
    say(study)
    for training in trainings(study).values():
        assert training.folder.is_dir()  # where Slurm opens its log before the script runs
        leave_a_checkpoint(training)
    run_study(study, Console(quiet=True))
    check_sealed(study)


def check_sealed(study: Study) -> None:
    """Both models are sealed, each from one attempt of a Slurm job, with every epoch's exposures."""
    folder = Path(study.out) / "train"
    assert plan_study(study)["train"].state is State.DONE
    assert not list(folder.glob("_*"))
    attempts = pq.read_table(folder / "runs").to_pylist()
    columns = ("model", "attempt", "first_epoch", "last_epoch", "processes", "reason")
    assert sorted(tuple(row[column] for column in columns) for row in attempts) == [
        (model, 0, 1, 1, 1, "left to Slurm") for model in sorted(SETS)
    ]
    shown = pq.read_table(folder / "exposures").to_pylist()
    assert {(row["set"], row["epoch"]) for row in shown} == {("K001", 1), ("K002", 1)}


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_a_printed_script_trains_and_is_sealed(
    tmp_path: Path, slurm: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real bash runs it, with torchrun and open_clip; the weights are those that it left."""
    del slurm
    study = training_study(verified_shards(tmp_path))
    say(study)
    scripts = ["#!/bin/bash" + script for script in capsys.readouterr().out.split("#!/bin/bash")[1:]]
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "node01")
    for script in scripts:
        done = subprocess.run(["bash"], input=script, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
    run_study(study, Console(quiet=True))
    check_sealed(study)
    assert {path.name for path in (tmp_path / "out/train/checkpoints").iterdir()} == {"K001.pt", "K002.pt"}
    assert len(pq.read_table(tmp_path / "out/train/curves")) > 0


def test_other_settings_get_jobs_of_their_own(study: Study, slurm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What was begun under the earlier ones is kept aside, and does not stand in the way of a dry run either."""
    say(study, send=True)
    leave_a_checkpoint(trainings(study)["K001"])
    changed = training_study(Path(study.out).parent, recipe={"extra_flags": ["--grad-clip-norm", "1"]})
    assert say(changed, dry=True) == []
    assert capsys.readouterr().out.count("--grad-clip-norm 1") == len(SETS)
    assert say(changed, send=True)[-2:] == ["K002: job 103", "K001: job 104"]
    assert say(study, send=True)[-1] == "K002: job 101, submitted earlier"
    assert (slurm / "submitted").read_text().count("\n") == 2 * len(SETS)


def test_sealed_output_that_comes_back_is_not_trained_again(study: Study, slurm: Path) -> None:
    """Settings that were used before find their models in `kept`."""
    plan = plan_study(study)["train"]
    made = Provenance(argv=(), commit=None, dirty=None, python="", versions={}, started="2026", seconds=0)
    seal = {"stage": "train", "version": 1, "fingerprint": plan.fingerprint, "config": {}, "resources": {}}
    kept = plan.folder.parent / "kept" / f"train-{str(plan.fingerprint)[:12]}"
    write_manifest(kept, Manifest(**seal, inputs={}, counts={}, receipts=(), provenance=made))
    assert say(study, send=True)[-1] == "train is done already, sealed 2026"
    assert not (slurm / "submitted").exists()


def test_what_slurm_cannot_train_is_said(tmp_path: Path, study: Study) -> None:
    """A study without the stage, shards that are not made yet, and a folder that no other machine sees."""
    with pytest.raises(UsageError, match="the study has no stage 'train'"):
        say(Study(name="x", out=str(tmp_path / "x"), stages={}))
    inputs = dict(study.stages["train"]["inputs"])
    verify = {"inputs": {name: inputs[name] for name in ("plan", "ledger")}}
    train = study.stages["train"] | {"inputs": inputs | {"verified": "verify.shards"}}
    with pytest.raises(MissingInputError, match=r"stage 'verify' is not done \(stage train\)"):
        say(study.model_copy(update={"stages": {"verify": verify, "train": train}}))
    with pytest.raises(InvalidInputError, match="needs a shared folder"):
        say(training_study(tmp_path, "memory://out"))
