"""Killed at any moment and run again, a study ends as if nothing had happened."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

IDIA = [sys.executable, "-c", "from jobs.cli import main; main()"]
ROOT = Path(__file__).parent.parent
COMPARED = ("world", "scan", "select", "shards", "train/models", "train/checkpoints", "attack", "evaluate")
SECONDS_TO_DIE = 20
"""Workers and trainings die with their driver at once; the reaper ends the rest of Ray a moment later."""
SOAK_KILLS = max(1, round(6 * float(os.environ.get("IDIA_SOAK", "1"))))


def contents(out: Path) -> dict[str, str]:
    """The hash of every file that is compared; manifests hold times."""
    files = [path for part in COMPARED for path in (out / part).rglob("*") if path.is_file()]
    kept = (
        path for path in files if path.name != "manifest.json" and path.suffix != ".log" and "logs" not in path.parts
    )
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(kept)}


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, tiny_demo: Callable[[Path], list[str]]
) -> tuple[dict[str, str], float]:
    """What a run ends with when nothing happens to it, and how many seconds it takes."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    began = time.monotonic()
    subprocess.run([*IDIA, *tiny_demo(out)], cwd=ROOT, check=True, capture_output=True)
    return contents(out), time.monotonic() - began


def run_and_kill(words: list[str], seconds: float) -> bool:
    """Start a run and kill its driver with SIGKILL after some seconds; False when it ended before."""
    with subprocess.Popen([*IDIA, *words], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as driver:
        children = []
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and driver.poll() is None:
            time.sleep(0.05)
        children = psutil.Process(driver.pid).children(recursive=True) if driver.poll() is None else []
        killed = driver.poll() is None
        driver.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(children, timeout=SECONDS_TO_DIE)
    assert not alive, f"still running after their driver was killed: {alive}"
    return killed


def finish(out: Path, words: list[str]) -> dict[str, str]:
    """Run to the end what was killed before; returns what is compared, and finds nothing temporary left."""
    done = subprocess.run([*IDIA, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not [path for path in out.rglob("*") if path.name.startswith((".", "_"))]
    return contents(out)


@pytest.mark.slow
def test_five_kills_change_nothing(
    tmp_path: Path, tiny_demo: Callable[[Path], list[str]], undisturbed: tuple[dict[str, str], float]
) -> None:
    """SIGKILL at five random moments, each followed by another run: every byte is that of an undisturbed run.

    A run that gets to its end between two kills is compared, and the next kills meet a fresh one.
    """
    expected, seconds = undisturbed
    rng = random.Random(5)
    kills, fresh = 0, 0
    while kills < 5:
        fresh += 1
        out = tmp_path / str(fresh)
        while kills < 5 and run_and_kill(tiny_demo(out), rng.uniform(2, 0.7 * seconds)):
            kills += 1
        assert finish(out, tiny_demo(out)) == expected


@pytest.mark.soak
def test_many_kills_change_nothing(
    tmp_path: Path, tiny_demo: Callable[[Path], list[str]], undisturbed: tuple[dict[str, str], float]
) -> None:
    """The same over many fresh runs, each killed once at a moment anywhere in it."""
    expected, seconds = undisturbed
    rng = random.Random(50)
    for number in range(SOAK_KILLS):
        out = tmp_path / str(number)
        run_and_kill(tiny_demo(out), rng.uniform(0, seconds))
        assert finish(out, tiny_demo(out)) == expected
