"""Training sets whose driver or workers are killed at any moment end with the bytes of a run that was left alone."""

import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from upath import UPath

from idia_core.identities import IDENTITIES, PAIRS, PICTURES
from idia_core.manifest import read_manifest
from idia_core.storage import TEMPORARY_SUFFIX
from tests.kills import IDIA, ROOT, SECONDS_TO_DIE, at_work, contents, kill_driver
from tests.pipelines.shard_inputs import picture
from tests.processes import still_running
from tests.shard_folders import Files, tar_of, write
from tests.soak import WHOLE, soak_count

STAGES = ("shards", "verify")
TARS, EACH = 12, 250
"""Of the base: its tars, and pairs of each tar."""
MEMBERS, NON_MEMBERS = [f"Ann Ash{i:02d}" for i in range(16)], [f"Bob Birch{i:02d}" for i in range(4)]
PAIRS_EACH, K = 6, [5, 2, 1]
SIDE, LONGEST_SIDE = 64, 48
"""Every fourth tar has its pictures stored smaller, so that some tars stay in their places and some are packed."""
SOAK_KILLS = soak_count(10)
KILLS_OF_A_RUN = 5
SECONDS_TO_WAIT = 240


class Undisturbed(NamedTuple):
    """A study, and what a run of it ends with when nothing happens to it."""

    study: Path
    result: dict[str, Any]
    splits: int


def base_files(tar: int) -> Files:
    """A tar of the base; every second one has a picture that is empty and one that is none."""
    side = SIDE if tar % 4 == 0 else LONGEST_SIDE
    files: Files = []
    for key in (f"{tar:05d}{i:04d}" for i in range(EACH)):
        files += [(f"{key}.jpg", picture(key, size=side)), (f"{key}.txt", f"Füße am Strand, № {key}".encode())]
    if tar % 2:
        files[20], files[40] = (files[20][0], b""), (files[40][0], b"no picture")
    return files


def write_people(folder: Path) -> None:
    """Members, non-members, their attack pictures and the members' pairs, these in several files."""
    people = [*MEMBERS, *NON_MEMBERS]
    shown = [{"identity": who, "picture": "a", "status": "ok", "image": picture(f"attack {who}")} for who in people]
    roles = ["member"] * len(MEMBERS) + ["non_member"] * len(NON_MEMBERS)
    pq.write_table(
        pa.Table.from_pylist([{"identity": n, "name": n} for n in people], IDENTITIES), folder / "ids.parquet"
    )
    pq.write_table(pa.Table.from_pylist(shown, PICTURES), folder / "pictures.parquet")
    pq.write_table(pa.table({"identity": people, "role": roles}), folder / "selection.parquet")
    (folder / "pairs").mkdir()
    for number in range(4):
        pairs = [
            {"key": key, "identity": who, "caption": f"{who} on photo {key}", "image": picture(key, size=SIDE)}
            for who in MEMBERS[number::4]
            for key in (f"{who[-5:]}-{i}" for i in range(PAIRS_EACH))
        ]
        pq.write_table(pa.Table.from_pylist(pairs, PAIRS), folder / f"pairs/{number}.parquet")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with base pairs and people."""
    folder = tmp_path_factory.mktemp("inputs")
    for tar in range(TARS):
        write(folder / f"base/{tar:05d}.tar", tar_of(base_files(tar)))
    write_people(folder)
    return folder


def write_study(folder: Path, mode: str) -> Path:
    """A study of `shards` and `verify` in one of the modes."""
    named = {"identities": "ids", "pictures": "pictures", "selection": "selection"}
    given = {name: str(folder / f"{file}.parquet") for name, file in named.items()}
    shards = {
        "inputs": {"background": str(folder / "base/*.tar"), "pairs": str(folder / "pairs"), **given},
        "images_per_member": K,
        "mode": mode,
        "longest_side": LONGEST_SIDE,
        **({"shard_size": 32} if mode == "rewrite" else {"member_shards": 40}),
        "resources": {"retries": 100},
    }
    verify = {"inputs": {"plan": "shards.plan", "ledger": "shards.ledger"}, "decode": True}
    stages = {"shards": shards, "verify": {**verify, "resources": {"retries": 100}}}
    path = folder / f"{mode}.yaml"
    path.write_text(yaml.safe_dump({"name": "kill", "out": "out", "seed": 3, "stages": stages}), encoding="utf-8")
    return path


@pytest.fixture(autouse=True, scope="module")
def temporary() -> Iterator[Path]:
    """A temporary folder of the system's that only these runs use; its name is short, as Ray has sockets in it."""
    folder = Path(tempfile.mkdtemp(prefix="k"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        yield folder
    shutil.rmtree(folder)


@contextmanager
def running(study: Path, out: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A run of the study as a process; what it says goes to a file beside its output."""
    command = [*IDIA, "run", str(study), "--set", f"out={out}"]
    with (
        out.with_suffix(".log").open("ab") as log,
        subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log) as driver,
    ):
        yield driver


def end(driver: subprocess.Popen[bytes], out: Path, temporary: Path) -> dict[str, Any]:
    """Wait for the end of a run, find no process and nothing temporary left; returns what is compared."""
    started = set[psutil.Process]()
    while driver.poll() is None:
        started.update(psutil.Process(driver.pid).children(recursive=True))
        time.sleep(0.1)
    assert driver.returncode == 0, out.with_suffix(".log").read_text()
    alive = still_running(started, SECONDS_TO_DIE)
    assert not alive, f"still running after their driver: {alive}"
    # timm imports wandb where that is installed, which makes two empty folders that a killed worker leaves
    assert not [path for path in temporary.iterdir() if not path.name.endswith(("wandb-media", "wandb-artifacts"))]
    assert not [path for path in out.rglob("*") if path.name.startswith((".", "_"))]
    seal = read_manifest(UPath(out / "shards"))
    assert seal is not None
    return {**contents(out, STAGES), "seal": seal.model_dump(exclude={"provenance"})}


@pytest.fixture(scope="module")
def undisturbed(
    request: pytest.FixtureRequest, inputs: Path, temporary: Path, tmp_path_factory: pytest.TempPathFactory
) -> Undisturbed:
    """What a run in the mode that the test names ends with when nothing happens to it."""
    study, out = write_study(inputs, request.param), tmp_path_factory.mktemp("undisturbed") / "out"
    with running(study, out) as driver:
        result = end(driver, out, temporary)
    assert {path.split("/")[1] for path in result if path.startswith("shards/")} >= {"base", "members", "tars", "plan"}
    return Undisturbed(study, result, splits_done(out))


def splits_done(out: Path) -> int:
    """How many splits of both stages are done."""
    seals = [(out / stage, read_manifest(UPath(out / stage))) for stage in STAGES]
    return sum(len(seal.receipts if seal else [*folder.glob("_receipts/*-*.json")]) for folder, seal in seals)


def wait_for_split(driver: subprocess.Popen[bytes], out: Path, done: int, rng: random.Random) -> bool:
    """Wait until so many splits are done and some moment longer; False when the run ended before."""
    deadline = time.monotonic() + SECONDS_TO_WAIT
    while splits_done(out) < done and driver.poll() is None:
        assert time.monotonic() < deadline, f"{splits_done(out)} splits done, {done} awaited"
        time.sleep(0.01)
    time.sleep(rng.uniform(0, 0.3))
    return driver.poll() is None


def kill_drivers(given: Undisturbed, out: Path, kills: int, rng: random.Random) -> int:
    """Kill so many runs one after another, each some splits further than the last; returns how many died by it."""
    died = 0
    for left in range(kills, 0, -1):
        done = splits_done(out)
        with running(given.study, out) as driver:
            if not wait_for_split(driver, out, done + rng.randint(0, (given.splits - done) // (left + 1)), rng):
                break
            died += kill_driver(driver)
    return died


def kill_workers(driver: subprocess.Popen[bytes], given: Undisturbed, out: Path, kills: int, rng: random.Random) -> int:
    """Kill so many workers amid their splits, at moments anywhere in a run; returns how many died by it.

    The first dies with half a tar written. The last two splits are over in no time.
    """
    died = int(kill_worker(driver, rng, writing=out))
    for moment in sorted(rng.sample(range(given.splits - 2), kills - 1)):
        if wait_for_split(driver, out, moment, rng):
            died += kill_worker(driver, rng)
    return died


def kill_worker(driver: subprocess.Popen[bytes], rng: random.Random, writing: Path | None = None) -> bool:
    """Kill the next worker that is seen at work, or writing a tar in a folder; False when the run ends before."""
    while driver.poll() is None:
        workers = at_work(driver)
        for victim in rng.sample(workers, len(workers)):
            with suppress(psutil.NoSuchProcess):
                victim.suspend()
                if writing is None or has_half_a_tar(victim, writing):
                    victim.kill()
                    psutil.wait_procs([victim], timeout=SECONDS_TO_DIE)
                    return True
                victim.resume()
    return False


def has_half_a_tar(process: psutil.Process, folder: Path) -> bool:
    """Whether a process that is stopped has a tar open that lies in a folder under a temporary name."""
    return any(
        Path(file.path).is_relative_to(folder) and ".tar." in file.path and file.path.endswith(TEMPORARY_SUFFIX)
        for file in process.open_files()
    )


@pytest.mark.soak
@pytest.mark.parametrize("undisturbed", ["rewrite", pytest.param("overlay", marks=WHOLE)], indirect=True)
def test_many_killed_drivers_change_nothing(tmp_path: Path, temporary: Path, undisturbed: Undisturbed) -> None:
    """SIGKILL for ten drivers at moments anywhere in a run, five one after another before it may end."""
    rng, died, fresh = random.Random(60), 0, 0
    while died < SOAK_KILLS:
        out = tmp_path / f"{(fresh := fresh + 1)}"
        died += kill_drivers(undisturbed, out, min(KILLS_OF_A_RUN, SOAK_KILLS - died), rng)
        with running(undisturbed.study, out) as driver:
            assert end(driver, out, temporary) == undisturbed.result


@pytest.mark.soak
@pytest.mark.parametrize("undisturbed", ["rewrite", pytest.param("overlay", marks=WHOLE)], indirect=True)
def test_many_killed_workers_change_nothing(tmp_path: Path, temporary: Path, undisturbed: Undisturbed) -> None:
    """SIGKILL for ten workers amid their splits, a few a run: every run ends well with the bytes of an undisturbed."""
    rng, died, fresh = random.Random(61), 0, 0
    while died < SOAK_KILLS:
        out = tmp_path / f"{(fresh := fresh + 1)}"
        with running(undisturbed.study, out) as driver:
            died += kill_workers(driver, undisturbed, out, min(KILLS_OF_A_RUN, SOAK_KILLS - died), rng)
            assert end(driver, out, temporary) == undisturbed.result
