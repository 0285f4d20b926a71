"""Runs of `idia` that tests kill, and what is compared when they have been run again to their end."""

import hashlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

IDIA = [sys.executable, "-c", "from jobs.cli import main; main()"]
ROOT = Path(__file__).parent.parent
AT_WORK = "ray::_run_split"
"""What a worker is called while it does a split."""
SECONDS_TO_DIE = 20
"""Workers and trainings die with their driver at once; the reaper ends the rest of Ray a moment later."""


def contents(out: Path, parts: Iterable[str]) -> dict[str, str]:
    """The hash of every file in those folders of a run's output; manifests and logs hold times and are left out."""
    files = [path for part in parts for path in (out / part).rglob("*") if path.is_file()]
    kept = (
        path for path in files if path.name != "manifest.json" and path.suffix != ".log" and "logs" not in path.parts
    )
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(kept)}


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
    _, alive = psutil.wait_procs(children, timeout=SECONDS_TO_DIE)
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
    assert not [path for path in out.rglob("*") if path.name.startswith((".", "_"))]
    return contents(out, parts)
