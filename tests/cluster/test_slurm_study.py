"""The script that runs a whole study on Slurm: by a real bash, with a real Ray of two nodes; stubs stand for Slurm."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import requests

from cluster.settings import ClusterSettings, Group, Machine, Slurm
from cluster.slurm_study import study_script
from tests.processes import still_running

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
SHIPPED = ROOT / "cluster" / "study.sbatch"

# A step is one process on this machine, and a signal to srun reaches it, as it does with Slurm's.
SRUN = '#!/bin/bash\necho "$@" >> "$RECORD/steps"\nwhile [[ "$1" == --* ]]; do shift; done\nexec "$@"\n'
SCONTROL = """#!/bin/bash
if [ "$1 $2" = "show hostnames" ]; then printf 'localhost\\nlocalhost\\n'; else echo "$@" >> "$RECORD/told"; fi
"""
STUDY = """
name: small
out: elsewhere
stages:
  world: {people: 8, caption_rows: 3000, background_pairs: 20, training_pictures: 2, attack_pictures: 2}
  scan:
    inputs: {captions: world.captions, identities: world.identities}
"""


def settings(folder: Path, **slurm: object) -> ClusterSettings:
    """Of two small nodes that share a folder."""
    fields = {"group": "cpu", "nodes": 2, "storage": str(folder / "shared"), "setup": (f"export PATH={BIN}:$PATH",)}
    return ClusterSettings(
        name="small",
        study=str(folder / "study.yaml"),
        head=Machine(cpus=1, memory_gib=1),
        groups=(Group(name="cpu", cpus=1, memory_gib=2),),
        slurm=Slurm.model_validate(fields | slurm),
    )


def script(folder: Path, **slurm: object) -> str:
    """For those settings."""
    made = settings(folder, **slurm)
    assert made.slurm
    return study_script(made, made.slurm, wait_seconds=90)


def test_the_shipped_script_asks_slurm_for_what_the_settings_say() -> None:
    """Nodes of the group, a warning before the limit, and that a lost node does not end the job."""
    lines = SHIPPED.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "#!/bin/bash"
    assert [line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH ")] == [
        "--job-name=idia",
        "--nodes=4",
        "--ntasks-per-node=1",
        "--cpus-per-task=48",
        "--mem=192G",
        "--gpus-per-node=4",
        "--time=24:00:00",
        "--output=idia-%j.log",
        "--open-mode=append",
        "--requeue",
        "--no-kill",
        "--signal=B:USR1@300",
        "--partition=gpu",
    ]
    first_command = next(i for i, line in enumerate(lines) if not line.startswith("#"))
    assert not [line for line in lines[first_command:] if line.startswith("#SBATCH")]  # sbatch stops reading there


@pytest.mark.parametrize("nodes", [1, 2])
def test_bash_and_shellcheck_have_nothing_to_say(tmp_path: Path, nodes: int) -> None:
    """Neither of the shipped script nor of another; the environment that is sourced is not there to be looked at."""
    for text in (SHIPPED.read_text(encoding="utf-8"), script(tmp_path, nodes=nodes)):
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)
        checked = [BIN / "shellcheck", "--shell=bash", "--exclude=SC1091", "-"]
        done = subprocess.run(checked, input=text, text=True, capture_output=True, check=False)
        assert (done.returncode, done.stdout) == (0, "")


def test_ray_listens_on_loopback_and_asks_for_a_token() -> None:
    """The token's file is made by the job, with no rights for others, and is not in the script."""
    text = SHIPPED.read_text(encoding="utf-8")
    assert "--dashboard-host=127.0.0.1" in text
    assert text.index("umask 077") < text.index("RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$private/auth_token")


class Job:
    """A job that Slurm would run, with what it would tell it."""

    def __init__(self, folder: Path, number: int) -> None:
        self.folder, self.number, self.port = folder, number, 20000 + number % 20000
        self.private = folder / "shared" / f".ray-{number}"
        self.token = self.private / "auth_token"
        self.scratch = Path(f"/tmp/idia-ray-{number}")  # noqa: S108 - where the script says
        environment = os.environ | {
            "PATH": f"{folder}:{os.environ['PATH']}",
            "RECORD": str(folder),
            "SLURM_JOB_ID": str(number),
            "SLURM_JOB_NODELIST": "node[01-02]",
        }
        self.log = folder / f"log-{number}"
        with self.log.open("w") as log:
            command = ["bash", str(folder / "study.sbatch")]
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        self.seen: set[psutil.Process] = set()

    def until(self, there: Callable[[], object], seconds: float = 120) -> None:
        """Wait, and note the job's processes on the way."""
        ends = time.monotonic() + seconds
        while not there():
            assert time.monotonic() < ends, self.log.read_text()
            if self.process.poll() is None:
                self.seen |= set(psutil.Process(self.process.pid).children(recursive=True))
            time.sleep(0.1)

    def ended(self) -> int:
        """The exit code, once there is one."""
        self.until(lambda: self.process.poll() is not None)
        return self.process.wait()

    def check_nothing_left(self) -> None:
        """No process, no folder, no token, no port."""
        assert len(self.seen) > 10
        assert still_running(self.seen, 10) == []
        assert not self.private.exists()
        assert not self.scratch.exists()
        with socket.socket() as free:
            free.bind(("127.0.0.1", self.port))


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[Callable[[int], Job]]:
    """Starts the script as job NUMBER; the study of a test is small."""
    for name, content in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "study.yaml").write_text(STUDY)
    (tmp_path / "study.sbatch").write_text(script(tmp_path))
    jobs: list[Job] = []

    def start(number: int) -> Job:
        jobs.append(Job(tmp_path, number))
        return jobs[-1]

    yield start
    for job in jobs:
        for process in [job.process, *job.seen]:
            if process.is_running() if isinstance(process, psutil.Process) else process.poll() is None:
                process.kill()


def answers(job: Job, token: str | None) -> int:
    """The status that the job server gives to somebody with this token; 0 where it does not listen."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        return requests.get(f"http://127.0.0.1:{job.port + 20000}/api/jobs/", headers=headers, timeout=5).status_code
    except requests.ConnectionError:
        return 0


@pytest.mark.slow
def test_a_job_at_its_limit_queues_itself_again_and_then_ends_the_study(
    tmp_path: Path, slurm: Callable[[int], Job]
) -> None:
    """On two nodes, with a token that is the job's own; after each run nothing of Ray is left."""
    first = slurm(31007)
    first.until(lambda: "has 2 of 2 nodes" in first.log.read_text())
    assert first.token.stat().st_mode & 0o777 == 0o600
    assert first.private.stat().st_mode & 0o777 == 0o700
    token = first.token.read_text()
    assert len(token) == 64
    first.until(lambda: answers(first, token) == 200)
    assert answers(first, None) == 401
    assert answers(first, "0" * 64) in {401, 403}
    first.until((tmp_path / "shared" / "study" / "world").exists)
    first.process.send_signal(signal.SIGUSR1)
    assert first.ended() != 0
    first.check_nothing_left()
    assert (tmp_path / "told").read_text() == "requeue 31007\n"

    again = slurm(31007)
    again.until(again.token.exists)
    again.until(again.token.read_text)
    assert again.token.read_text() != token
    assert again.ended() == 0, again.log.read_text()
    again.check_nothing_left()
    assert (tmp_path / "told").read_text() == "requeue 31007\n"
    for stage in ("world", "scan"):
        assert (tmp_path / "shared" / "study" / stage / "manifest.json").exists()
    steps = [line.split(" ray start")[0] for line in (tmp_path / "steps").read_text().splitlines()][-3:]
    assert steps == [
        "--nodes=1 --ntasks=1 --nodelist=localhost --cpus-per-task=1",
        "--nodes=1 --ntasks=1 --nodelist=localhost --no-kill --kill-on-bad-exit=0 --cpus-per-task=1",
        f"--overlap --nodes=2 --ntasks-per-node=1 rm -rf {again.scratch}",
    ]


@pytest.mark.slow
def test_a_job_that_is_taken_back_stops_soon_and_stays_stopped(tmp_path: Path, slurm: Callable[[int], Job]) -> None:
    """Also while Ray is still being started; Slurm is not asked to queue it again."""
    job = slurm(31008)
    job.until(lambda: "Ray runtime started" in job.log.read_text())
    job.process.terminate()
    began = time.monotonic()
    assert job.ended() != 0
    assert time.monotonic() - began < 30
    job.check_nothing_left()
    assert not (tmp_path / "told").exists()


def test_what_the_setup_lacks_ends_the_job(tmp_path: Path, slurm: Callable[[int], Job]) -> None:
    """Before anything of Ray is started, where the storage cannot be written to."""
    (tmp_path / "shared").write_text("not a folder")
    job = slurm(31009)
    assert job.ended() == 1
    assert "Not a directory" in job.log.read_text()
    assert not (tmp_path / "steps").exists()
