"""Studies submitted to a real Ray head that wants a token: let in, followed, stopped, and gone on with."""

import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from tests.kills import IDIA, ROOT, contents
from tests.servers import free_port

pytestmark = pytest.mark.slow
RAY = [sys.executable, "-m", "ray.scripts.scripts"]
SECONDS_TO_BEGIN, SECONDS_TO_STOP = 300, 10


class Head(NamedTuple):
    """A head node's job server, and the environment of those who know its token."""

    address: str
    environment: dict[str, str]

    def idia(self, *words: str, token: str | None = None) -> subprocess.CompletedProcess[str]:
        """A command to its end, with another token if one is given."""
        own = {"RAY_AUTH_TOKEN": token} if token else {}
        environment = self.environment | own
        command = [*IDIA, *words, "--address", self.address]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """A Ray of its own on this machine, whose dashboard wants a token."""
    folder, port = tempfile.mkdtemp(prefix="idia-"), free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_TMPDIR": folder}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # a node's own python
    ports = ["--port", str(free_port()), "--dashboard-host", "127.0.0.1", "--dashboard-port", str(port)]
    ports += [
        f"--{what}-port={free_port()}" for what in ("dashboard-agent-listen", "ray-client-server")
    ]  # not Ray's own
    command = [*RAY, "start", "--head", "--num-cpus", "2", "--temp-dir", folder, *ports]
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    yield Head(f"http://127.0.0.1:{port}", environment)
    for process in psutil.process_iter(["cmdline"]):
        if folder in " ".join(process.info["cmdline"] or []):
            process.kill()
    shutil.rmtree(folder, ignore_errors=True)


def small(words: list[str]) -> list[str]:
    """The words after `idia submit` for the demo study, of those after `idia` that run it here."""
    command, option, out, *settings = words
    assert (command, option) == ("demo", "--out")
    return ["demo.yaml", "--set", f"out={out}", *settings]


def test_a_wrong_token_and_no_server_are_refused(head: Head, tmp_path: Path) -> None:
    """It is told in a line, and nothing is submitted."""
    refused = head.idia("submit", "demo.yaml", "--set", f"out={tmp_path / 'out'}", token="wrong" * 8)
    assert refused.returncode == 1
    assert re.fullmatch(
        r"ClusterError: Authentication failed.*RAY_AUTH_TOKEN_PATH.*", refused.stderr.strip().splitlines()[-1]
    )
    nobody = Head(f"http://127.0.0.1:{free_port()}", head.environment).idia("jobs")
    assert nobody.returncode == 1
    assert "ClusterError: no job server answers" in nobody.stderr
    assert not (tmp_path / "out").exists()


def test_a_folder_that_only_this_machine_has_is_refused(head: Head) -> None:
    """The job's own folder would be gone with the job."""
    refused = head.idia("submit", "demo.yaml")
    assert refused.returncode == 2
    assert "'out/demo' is relative to this machine's folder" in refused.stderr


def test_a_study_is_followed_to_its_report(head: Head, tmp_path: Path, tiny_demo: object) -> None:
    """What the run says comes here, the exit code is the job's, and `jobs` and `logs` know it afterwards."""
    out = tmp_path / "out"
    done = head.idia("submit", *small(tiny_demo(out)), "--follow")  # type: ignore[operator]
    assert done.returncode == 0, done.stdout + done.stderr
    assert (out / "report/page/report.html").exists()
    job = re.search(r"(idia-demo-\w+-1) submitted \(\d+ files, [\d.]+ MB of code\)", done.stderr)
    assert job, done.stderr
    assert all(f"{stage} " in done.stdout for stage in ("world", "train", "attack", "report"))
    listed = head.idia("jobs")
    assert re.search(rf"{job[1]}\s+demo\s+succeeded", listed.stdout), listed.stdout
    said = head.idia("logs", job[1])
    assert said.stdout == done.stdout
    again = head.idia("submit", *small(tiny_demo(out)), "--follow")  # type: ignore[operator]
    assert again.returncode == 0
    assert again.stdout.count("done already") == said.stdout.count(" s)\n")


def test_a_job_that_fails_ends_with_its_error(head: Head, tmp_path: Path) -> None:
    """The exit code is 1, and the error is in what is followed."""
    settings = [f"out={tmp_path / 'out'}", "scan.inputs.captions=/nowhere/*.parquet"]
    failed = head.idia(
        "submit", "demo.yaml", *(word for setting in settings for word in ("--set", setting)), "--follow"
    )
    assert failed.returncode == 1
    assert "MissingInputError" in failed.stdout


def test_a_stopped_study_goes_on(head: Head, tmp_path: Path) -> None:
    """Within ten seconds; meanwhile the same study is attached to, and afterwards nothing that was done is repeated."""
    words = ["demo.yaml", "world", "--set", "world.background_pairs=12000", "--set", "world.caption_rows=6000"]
    whole, out = tmp_path / "whole", tmp_path / "out"
    undisturbed = subprocess.run(
        [*IDIA, "run", *words, "--set", f"out={whole}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert undisturbed.returncode == 0, undisturbed.stderr
    submitted = head.idia("submit", *words, "--set", f"out={out}")
    assert submitted.returncode == 0, submitted.stderr
    job, deadline = submitted.stdout.strip(), time.monotonic() + SECONDS_TO_BEGIN
    while len(list((out / "world/_receipts").glob("background-*.json"))) < 3:
        assert time.monotonic() < deadline, head.idia("logs", job).stdout
        time.sleep(0.1)
    attached = head.idia("submit", *words, "--set", f"out={out}")
    assert attached.stdout.strip() == job
    assert "runs it already" in attached.stderr
    stopped = head.idia("stop", job)
    assert stopped.returncode == 0, stopped.stderr
    seconds = re.search(rf"{job} stopped after ([\d.]+) s", stopped.stderr)
    assert seconds, stopped.stderr
    assert float(seconds[1]) < SECONDS_TO_STOP
    done = len(list((out / "world/_receipts").glob("background-*.json")))
    assert 3 <= done < 120
    assert not (out / "world/manifest.json").exists()
    again = head.idia("submit", *words, "--set", f"out={out}", "--follow")
    assert again.returncode == 0, again.stdout
    assert f"world background: {done} of 120 splits are done already" in again.stdout
    assert contents(out, ("world",)) == contents(whole, ("world",))
