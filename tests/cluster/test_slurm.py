"""The script for sbatch, run by a real bash; small programs stand for Slurm, which is not here, and for Python."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.slurm import SlurmRun, node_command, sbatch_script, submit
from cluster.torchrun import PROJECT_ROOT, Rendezvous, torchrun_argv
from idia_core.errors import TrainingError, UsageError

ENTRY = ("--model-config", "a model.json", "--threads", "2", "--train-data", "it's/{0..3}.tar", "--epochs", "3")

# Runs its command once a node, as srun does, and fails if one of them does.
SRUN = """#!/bin/bash
while [[ "$1" == --* ]]; do echo "$1" >> "$RECORD/srun.told"; shift; done
code=0
for node in 0 1; do SLURM_NODEID=$node "$@" || code=1; done
exit $code
"""
SCONTROL = '#!/bin/bash\n[ "$*" = "show hostnames gpu[07-08]" ] && printf "gpu07\\ngpu08\\n"\n'
# Writes down how it was started; there is a checkpoint from the second attempt on, and the third attempt ends well.
PYTHON = f"""#!{sys.executable}
import json, os, pathlib, sys
record = pathlib.Path(os.environ["RECORD"]) / "python.told"
earlier = record.read_text().splitlines() if record.exists() else []
node = os.environ.get("SLURM_NODEID") if sys.argv[2] == "cluster.slurm" else None
with record.open("a") as file:
    print(json.dumps([node, os.environ["PYTHONPATH"], *sys.argv[1:]]), file=file)
asked = sum("cluster.checkpoints" in line for line in earlier)
if sys.argv[2] == "cluster.checkpoints":
    print("work/epoch_2.pt" if asked else "")
else:
    sys.exit(0 if asked > 2 else 1)
"""


def _program(path: Path, content: str) -> Path:
    path.write_text(content)
    path.chmod(0o755)
    return path


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs on the PATH, where they also write down how they were started."""
    _program(tmp_path / "srun", SRUN)
    _program(tmp_path / "scontrol", SCONTROL)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("RECORD", str(tmp_path))
    monkeypatch.setenv("SLURM_JOB_ID", "41007")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "gpu[07-08]")
    monkeypatch.setenv("PYTHONPATH", "mine")
    return tmp_path


def _run(tmp_path: Path, **changed: object) -> SlurmRun:
    fields = {
        "name": "RN50x4_K075",
        "architecture": "RN50x4",
        "run": "d1ge57",
        "work": tmp_path / "a folder",
        "entry": ENTRY,
        "nodes": 2,
        "processes_per_node": 8,
        "cpus": 5.5,
        "threads": 1,
        "device": "cuda",
        "max_restarts": 3,
    }
    return SlurmRun(**(fields | changed))  # type: ignore[arg-type]


def test_the_script_asks_slurm_for_what_the_run_takes(tmp_path: Path) -> None:
    """One task a node with all its GPUs and CPUs, the user's own options last; none of the GPUs on CPU."""
    lines = sbatch_script(_run(tmp_path, time="2-00:00:00", options=("--partition=gpu", "--mem=0"))).splitlines()
    assert lines[0] == "#!/bin/bash"
    assert [line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH ")] == [
        "--job-name=RN50x4_K075",
        "--nodes=2",
        "--ntasks-per-node=1",
        "--cpus-per-task=44",
        "--gpus-per-node=8",
        "--time=2-00:00:00",
        f"--output='{tmp_path}/a folder/slurm-%j.log'",
        "--open-mode=append",
        "--requeue",
        "--partition=gpu",
        "--mem=0",
    ]
    assert "gpus" not in sbatch_script(_run(tmp_path, device="cpu"))


def test_the_script_starts_every_node_and_goes_on_from_the_newest_checkpoint(slurm: Path) -> None:
    """After two failed attempts the third ends well: each is another meeting, and resumes from what is there then."""
    python = str(_program(slurm / "a python", PYTHON))
    script = sbatch_script(_run(slurm), python)
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    done = subprocess.run(["bash"], input=script, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "attempt 0 ended with 1\nattempt 1 ended with 1\n"
    calls = [json.loads(line) for line in (slurm / "python.told").read_text().splitlines()]
    path, counts = f"{PROJECT_ROOT}:mine", ["--nodes", "2", "--processes", "8", "--threads", "1", "--device", "cuda"]
    asks = [None, path, "-m", "cluster.checkpoints", f"{slurm}/a folder/checkpoints"]
    asks += ["--run", "d1ge57", "--architecture", "RN50x4"]
    expected = list[object]()
    for attempt, resume in enumerate(([], ["--resume", "work/epoch_2.pt"], ["--resume", "work/epoch_2.pt"])):
        meeting = ["--port", "21007", "--id", f"41007-0-{attempt}", "gpu07", "gpu08", "--", *ENTRY, *resume]
        expected += [asks, *([node, path, "-m", "cluster.slurm", *counts, *meeting] for node in "01")]
    assert calls == expected
    started = ["--ntasks-per-node=1", "--cpus-per-task=44", "--kill-on-bad-exit=1"]
    assert (slurm / "srun.told").read_text().split() == started * 3


@pytest.mark.parametrize(("restarts", "asked"), [(1, 2), (0, 1)])
def test_the_script_gives_up_after_so_many_restarts(slurm: Path, restarts: int, asked: int) -> None:
    """It ends with an error, so that Slurm shows the job as failed."""
    script = sbatch_script(_run(slurm, max_restarts=restarts), str(_program(slurm / "python", PYTHON)))
    assert subprocess.run(["bash"], input=script, text=True, check=False).returncode == 1
    assert (slurm / "python.told").read_text().count("cluster.checkpoints") == asked


def test_a_checkpoint_of_another_run_ends_the_job_at_once(slurm: Path) -> None:
    """The real `python -m cluster.checkpoints` says why, and nothing is started."""
    work = slurm / "a folder" / "checkpoints"
    work.mkdir(parents=True)
    (work / "epoch_1.pt").write_bytes(b"weights")
    sha256 = hashlib.sha256(b"weights").hexdigest()
    side = {"run": "d1ge57", "architecture": "ViT-B-32", "epoch": 1, "bytes": 7, "sha256": sha256}
    (work / "epoch_1.pt.json").write_text(json.dumps(side))
    done = subprocess.run(["bash"], input=sbatch_script(_run(slurm)), text=True, capture_output=True, check=False)
    assert done.returncode == 1
    assert "TrainingError: " in done.stderr
    assert "ViT-B-32" in done.stderr
    assert not (slurm / "srun.told").exists()


WORDS = ["--nodes", "2", "--processes", "8", "--threads", "3", "--device", "cpu", "--port", "21007", "--id", "7-0-1"]
INHERITED = {"SLURM_NODEID": "1", "SLURM_NTASKS": "2", "SLURM_PROCID": "1", "HOME": "/root", "WANDB_API_KEY": "k"}


def test_a_node_joins_the_first_host_and_leaves_slurms_variables_behind() -> None:
    """Its torchrun is the launcher's own, and open_clip sees no SLURM_NTASKS."""
    argv, environment = node_command([*WORDS, "127.0.0.1", "127.0.0.1", "--", *ENTRY], INHERITED)
    assert argv == torchrun_argv(8, Rendezvous("127.0.0.1", 21007, "7-0-1", 2, 1), ENTRY, address="127.0.0.1")
    assert not [name for name in environment if name.startswith(("SLURM_", "WANDB_"))]
    assert (environment["HOME"], environment["OMP_NUM_THREADS"]) == ("/root", "3")
    assert environment["IDIA_PARENT_PID"] == str(os.getpid())
    reporting = node_command(["--wandb", *WORDS, "127.0.0.1", "127.0.0.1", "--", *ENTRY], INHERITED)[1]
    assert reporting["WANDB_API_KEY"] == "k"


def test_a_single_node_needs_no_name() -> None:
    """It meets itself, at a port of its choice, so that two runs may share a node."""
    words = ["--nodes", "1", *WORDS[2:], "unknown.invalid", "unknown.invalid", "--", *ENTRY]
    assert node_command(words, INHERITED)[0] == torchrun_argv(8, Rendezvous("127.0.0.1", 0, "7-0-1"), ENTRY)


def test_a_job_is_submitted_and_its_script_kept(slurm: Path) -> None:
    """The id is what sbatch says before the cluster's name; a refusal is an error with sbatch's own words."""
    _program(slurm / "sbatch", '#!/bin/bash\necho "$@" > "$RECORD/sbatch.args"\necho "41007;alps"\n')
    assert submit("#!/bin/bash\n", slurm / "new" / "run") == "41007"
    assert (slurm / "new" / "run" / "run.sbatch").read_text() == "#!/bin/bash\n"
    assert (slurm / "sbatch.args").read_text() == f"--parsable {slurm}/new/run/run.sbatch\n"
    _program(slurm / "sbatch", "#!/bin/bash\necho 'sbatch: error: invalid partition' >&2\nexit 1\n")
    with pytest.raises(TrainingError, match="sbatch refused the job: sbatch: error: invalid partition"):
        submit("", slurm / "new")


def test_without_slurm_there_is_nothing_to_submit_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says where to go."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="no sbatch on this machine"):
        submit("", tmp_path)
    assert not list(tmp_path.iterdir())
