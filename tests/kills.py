"""Runs of `idia` that tests kill, and what is compared when they have been run again to their end."""

import hashlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil

from tests.processes import still_running

IDIA = [sys.executable, "-c", "from jobs.cli import main; main()"]
ROOT = Path(__file__).parent.parent
AT_WORK = "ray::_run_split"
"""What a worker is called while it does a split."""
SECONDS_TO_DIE = 20
"""Workers and trainings die with their driver at once; the reaper ends the rest of Ray a moment later."""
SECONDS_TO_WAIT = 300


class Undisturbed(NamedTuple):
    """What a run ends with when nothing happens to it, how many seconds it takes, and how it is started."""

    words: Callable[[Path], list[str]]
    parts: tuple[str, ...]
    contents: dict[str, str]
    seconds: float


class Phase(NamedTuple):
    """A phase that runs are killed amid: its number of splits, and about how many seconds each takes."""

    stage: str
    name: str
    splits: int
    seconds: float

    def done(self, out: Path) -> int:
        """How many of its splits have their receipts."""
        return len(list((out / self.stage / "_receipts").glob(f"{self.name}-*.json")))

    def is_amid(self, out: Path) -> bool:
        """Some of its splits are done and others are not."""
        return 0 < self.done(out) < self.splits and not (out / self.stage / "manifest.json").exists()


def undisturbed(words: Callable[[Path], list[str]], out: Path, parts: tuple[str, ...]) -> Undisturbed:
    """Run to the end and see what comes of it."""
    began = time.monotonic()
    found = finish(out, words(out), parts)
    return Undisturbed(words, parts, found, time.monotonic() - began)


def contents(out: Path, parts: Iterable[str]) -> dict[str, str]:
    """The hash of every file in those folders of a run's output; manifests and logs hold times and are left out."""
    files = [path for part in parts for path in (out / part).rglob("*") if path.is_file()]
    kept = (
        path for path in files if path.name != "manifest.json" and path.suffix != ".log" and "logs" not in path.parts
    )
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(kept)}


@contextmanager
def running(words: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A run as a process; what it says goes to a file."""
    with log.open("ab") as said, subprocess.Popen([*IDIA, *words], cwd=ROOT, stdout=said, stderr=said) as driver:
        yield driver


def run_and_kill(words: list[str], seconds: float) -> bool:
    """Start a run and kill its driver with SIGKILL after some seconds; False when it ended before."""
    with subprocess.Popen([*IDIA, *words], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as driver:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and driver.poll() is None:
            time.sleep(0.05)
        return kill_driver(driver)


def kill_driver(driver: subprocess.Popen[bytes]) -> bool:
    """Kill a driver with SIGKILL, and see all that it started end; False when it had ended before."""
    if driver.poll() is not None:
        return False
    children = psutil.Process(driver.pid).children(recursive=True)
    driver.send_signal(signal.SIGKILL)
    alive = still_running(children, SECONDS_TO_DIE)
    assert not alive, f"still running after their driver was killed: {alive}"
    return True


def at_work(driver: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Those processes of this run, and of no other one, that are doing a split."""
    found = []
    for process in psutil.Process(driver.pid).children(recursive=True):
        try:
            if process.cmdline()[:1] == [AT_WORK]:
                found.append(process)
        except psutil.Error:  # it ended meanwhile
            continue
    return found


def finish(out: Path, words: list[str], parts: Iterable[str]) -> dict[str, str]:
    """Run to the end what was killed before; returns what is compared, and finds nothing temporary left."""
    done = subprocess.run([*IDIA, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return ended(out, parts)


def ended(out: Path, parts: Iterable[str]) -> dict[str, str]:
    """What is compared of a run that came to its end; finds nothing temporary left."""
    assert not [path for path in out.rglob("*") if path.name.startswith((".", "_"))]
    return contents(out, parts)


def kill_at_random(run: Undisturbed, folder: Path, kills: int, rng: random.Random) -> Iterator[dict[str, str]]:
    """SIGKILL for so many drivers, each followed by another run; what every run that came to its end left.

    A run that gets to its end between two kills is one of them, and the next kills meet a fresh one.
    """
    done, fresh = 0, 0
    while done < kills:
        fresh += 1
        out = folder / str(fresh)
        while done < kills and run_and_kill(run.words(out), rng.uniform(0, run.seconds)):
            done += 1
        yield finish(out, run.words(out), run.parts)


def kill_amid(run: Undisturbed, folder: Path, phase: Phase, rng: random.Random) -> dict[str, str]:
    """Kill a worker and then the driver amid a phase, and a worker of the next run; returns what that one left."""
    out, log = folder / "out", folder / "log"
    with running(run.words(out), log) as driver:
        kill_worker(driver, out, phase, rng)
        wait_for_splits(driver, out, phase, phase.done(out) + 1)
        assert phase.is_amid(out)
        assert kill_driver(driver)
    assert not (out / phase.stage / "manifest.json").exists()
    with running(run.words(out), log) as driver:
        kill_worker(driver, out, phase, rng)
        driver.wait()
    assert driver.returncode == 0, log.read_text()
    return ended(out, run.parts)


def kill_worker(driver: subprocess.Popen[bytes], out: Path, phase: Phase, rng: random.Random) -> None:
    """Kill a worker amid a phase, some moment after the phase's next split is done."""
    wait_for_splits(driver, out, phase, phase.done(out) + 1)
    time.sleep(rng.uniform(0, phase.seconds))
    workers: list[psutil.Process] = []
    while not workers:
        assert phase.is_amid(out), f"the phase was over before a worker was killed: {phase.done(out)} splits done"
        workers = at_work(driver)
    victim = rng.choice(workers)
    victim.kill()
    psutil.wait_procs([victim], timeout=SECONDS_TO_DIE)


def wait_for_splits(driver: subprocess.Popen[bytes], out: Path, phase: Phase, number: int) -> None:
    """Wait until that many splits of a phase are done."""
    deadline = time.monotonic() + SECONDS_TO_WAIT
    while phase.done(out) < number:
        assert driver.poll() is None, f"it ended with {phase.done(out)} splits done, {number} awaited"
        assert time.monotonic() < deadline, f"{phase.done(out)} splits done, {number} awaited"
        time.sleep(0.01)
