"""`idia doctor`, and what it says of a real Ray, with and without a token."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
import requests
import typer
from typer.testing import CliRunner

from jobs.checks import Status, head_found, jobs_found
from jobs.doctor import doctor, token_here
from tests.processes import still_running
from tests.servers import free_port

TOKEN = "5f0c" * 16
app = typer.Typer()
app.command()(doctor)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's home with nothing in it, and no token in the environment."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_faults_are_errors_and_come_with_fixes(home: Path, tmp_path: Path) -> None:
    """A storage that cannot be written to ends it with 1; one that can, and is closed, with 0."""
    good = home / "good"
    good.mkdir(mode=0o700)
    done = CliRunner().invoke(app, ["--storage", str(good)])
    assert done.exit_code == 0, done.output
    assert [line.split()[:2] for line in done.output.splitlines() if line.startswith("storage")] == [["storage", "ok"]]
    (tmp_path / "file").write_text("")
    done = CliRunner().invoke(app, ["--storage", str(good), "--storage", str(tmp_path / "file" / "x")])
    assert done.exit_code == 1
    checks = [line.split()[:2] for line in done.output.splitlines() if line.startswith("storage")]
    assert checks == [["storage", "ok"], ["storage", "error"], ["storage:", "Give"]]


def test_an_open_token_is_a_warning(home: Path) -> None:
    """Ray makes it with the rights of any file; the fix is a command."""
    (home / ".ray").mkdir()
    token = home / ".ray" / "auth_token"
    token.write_text(TOKEN)
    token.chmod(0o644)
    done = CliRunner().invoke(app, [])
    assert done.exit_code == 0
    assert f"token: chmod go-rwx {token}" in done.output.splitlines()
    assert TOKEN not in done.output


def test_the_token_is_looked_for_as_ray_does(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable, the file that another one names, the user's own file."""
    assert token_here() is None
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text("of the home\n")
    assert token_here() == "of the home"
    (home / "other").write_text("of a file\n")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(home / "other"))
    assert token_here() == "of a file"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "of the variable")
    assert token_here() == "of the variable"


@contextmanager
def ray_head(mode: str) -> Iterator[tuple[str, str]]:
    """A head of its own for as long as the block lasts: its address, and the URL of its job server."""
    folder = tempfile.mkdtemp(prefix="r")  # a short one: sockets lie in it
    port, dashboard = free_port(), free_port()
    words = ["start", "--head", "--block", f"--port={port}", "--num-cpus=1", f"--temp-dir={folder}"]
    words += ["--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", f"--ray-client-server-port={free_port()}"]
    words.append(f"--dashboard-agent-listen-port={free_port()}")
    environment = os.environ | {"RAY_AUTH_MODE": mode, "RAY_AUTH_TOKEN": TOKEN}
    command = [sys.executable, "-m", "ray.scripts.scripts", *words, f"--object-store-memory={128 << 20}"]
    head = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    processes: list[psutil.Process] = []
    try:
        url, ends = f"http://127.0.0.1:{dashboard}", time.monotonic() + 60
        while time.monotonic() < ends:
            with suppress(requests.ConnectionError):
                requests.get(f"{url}/api/jobs/", timeout=5)
                break
            time.sleep(0.2)
        processes = psutil.Process(head.pid).children(recursive=True)
        yield f"127.0.0.1:{port}", url
    finally:
        head.terminate()
        head.wait(60)
        shutil.rmtree(folder, ignore_errors=True)
    assert still_running(processes, 10) == []


@pytest.mark.slow
@pytest.mark.usefixtures("home")
def test_a_ray_that_asks_for_its_token() -> None:
    """Job server and head both: with the right token well, with another one or none an error that says so."""
    with ray_head("token") as (address, url):
        for look, place in ((jobs_found, url), (head_found, address)):
            found = look(place, TOKEN)
            assert (found.status, found.what) == (Status.OK, f"{place} answers, and asks for the token"), look
            assert look(place, "0" * 64).status is Status.ERROR
            assert look(place, None).status is Status.ERROR
        assert jobs_found(url, "0" * 64).what == f"{url} asks for a token, and ours is another"
        assert jobs_found(url, None).what == f"{url} asks for a token, and there is none here"


@pytest.mark.slow
@pytest.mark.usefixtures("home")
def test_a_ray_that_is_open_to_all() -> None:
    """Is an error, however well it works."""
    with ray_head("disabled") as (address, url):
        for look, place in ((jobs_found, url), (head_found, address)):
            found = look(place, TOKEN)
            assert found.status is Status.ERROR
            assert found.what == f"{place} asks for no token: who reaches it can run code there"
            assert "RAY_AUTH_MODE=token" in found.fix
