"""A scan whose workers or driver are killed at any moment ends with the bytes of one that was left alone."""

import hashlib
import random
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from idia_core.synthetic import plant_captions
from tests.kills import IDIA, ROOT, SECONDS_TO_DIE, at_work, kill_driver

pytestmark = pytest.mark.slow
NAMES = ("Jon Hamm", "Johannes B. Kerner", "Zoë Zeta-Jones", "Sting", "Ann Lee")
SLOW_NAME = "Ann (Lee|Mai)"
"""Its special characters have it tried on every caption, so that a split takes long enough to be killed in."""
FILES, ROWS = 24, 100_000
WORKER_KILLS, DRIVER_KILLS = 6, 3
SECONDS_TO_WAIT = 120


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of 24 files with 100,000 captions each, every one four times, in an order of the file's own."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "captions").mkdir()
    captions, _ = plant_captions(NAMES, ROWS // 4, seed=3)
    for number in range(FILES):
        turned = pa.concat_tables([captions.slice(100 * number), captions.slice(0, 100 * number)])
        pq.write_table(pa.concat_tables([turned] * 4), folder / f"captions/{number:02d}.parquet", row_group_size=30_000)
    (folder / "names.txt").write_text("\n".join([*NAMES, SLOW_NAME]), encoding="utf-8")
    inputs = f"{{captions: {folder}/captions, identities: {folder}/names.txt}}"
    text = f"name: kill\nout: out\nstages:\n  scan:\n    inputs: {inputs}\n    resources: {{retries: 100}}\n"
    (folder / "study.yaml").write_text(text)
    return folder / "study.yaml"


@contextmanager
def running(study: Path, out: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A run of the study as a process; what it says goes to a file beside its output."""
    with (
        out.with_suffix(".log").open("ab") as log,
        subprocess.Popen([*IDIA, "run", str(study), "--set", f"out={out}"], cwd=ROOT, stdout=log, stderr=log) as driver,
    ):
        yield driver


def contents(out: Path) -> dict[str, str]:
    """The hash of every file but the seal, which holds times; nothing temporary is left."""
    files = sorted(path for path in out.rglob("*") if path.is_file())
    assert not [path for path in files if any(part.startswith((".", "_")) for part in path.relative_to(out).parts)]
    kept = (path for path in files if path.name != "manifest.json")
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in kept}


def finish(study: Path, out: Path) -> dict[str, str]:
    """Run to the end; returns what is compared."""
    with running(study, out) as driver:
        driver.wait()
    assert driver.returncode == 0, out.with_suffix(".log").read_text()
    return contents(out)


def splits_done(out: Path) -> int:
    """How many splits of captions have their receipts."""
    return len(list((out / "scan/_receipts").glob("match-*.json")))


def wait_for_split(driver: subprocess.Popen[bytes], out: Path, done: int) -> bool:
    """Wait until that many splits are done; False when the run ended before."""
    deadline = time.monotonic() + SECONDS_TO_WAIT
    while splits_done(out) < done:
        assert time.monotonic() < deadline, f"{splits_done(out)} splits done, {done} awaited"
        if driver.poll() is not None:
            return False
        time.sleep(0.01)
    return driver.poll() is None


def kill_workers(driver: subprocess.Popen[bytes], out: Path, kills: int, rng: random.Random) -> int:
    """Kill that many workers, each some moment after one was seen at work; returns how many died by it.

    Workers of the phases before and behind the search are left alone: these are over in no time.
    """
    died = 0
    while died < kills and wait_for_split(driver, out, 1):
        time.sleep(rng.uniform(0, 1))
        if driver.poll() is None and splits_done(out) < FILES and (workers := at_work(driver)):
            victim = rng.choice(workers)
            victim.kill()
            psutil.wait_procs([victim], timeout=SECONDS_TO_DIE)
            died += 1
    return died


@pytest.fixture(scope="module")
def undisturbed(study: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a run ends with when nothing happens to it."""
    found = finish(study, tmp_path_factory.mktemp("undisturbed") / "out")
    assert len([path for path in found if path.startswith("scan/matches/")]) == FILES
    return found


def test_killed_workers_change_nothing(study: Path, tmp_path: Path, undisturbed: dict[str, str]) -> None:
    """SIGKILL for six workers in the midst of a split: the same run ends well, with every byte as it should be."""
    rng = random.Random(7)
    with running(study, tmp_path / "out") as driver:
        died = kill_workers(driver, tmp_path / "out", WORKER_KILLS, rng)
        driver.wait()
    assert driver.returncode == 0, (tmp_path / "out.log").read_text()
    assert died == WORKER_KILLS
    assert contents(tmp_path / "out") == undisturbed


def test_killed_drivers_change_nothing(study: Path, tmp_path: Path, undisturbed: dict[str, str]) -> None:
    """SIGKILL for three drivers, one before its search and two amid it, with a worker killed too: nothing changes."""
    rng, out = random.Random(8), tmp_path / "out"
    for kill in range(DRIVER_KILLS):
        begun = splits_done(out)
        with running(study, out) as driver:
            if kill == 0:
                time.sleep(rng.uniform(1, 4))
            else:
                assert wait_for_split(driver, out, begun + rng.randint(1, 6))
                kill_workers(driver, out, 1, rng)
            assert driver.poll() is None
            kill_driver(driver)
        assert not (out / "scan/manifest.json").exists()
        assert splits_done(out) > begun or kill == 0
    assert splits_done(out) < FILES  # so the last run has a search to do
    assert finish(study, out) == undisturbed
