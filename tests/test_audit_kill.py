"""An audit whose driver or workers are killed at any moment ends with the bytes of one that was left alone."""

import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from PIL import Image

from idia_core.drawing import draw_face, invent_people
from idia_core.names import invent_names
from tests.kills import IDIA, ROOT, SECONDS_TO_DIE, at_work, contents, finish, kill_driver, run_and_kill
from tests.pipelines.audits import write_model

pytestmark = pytest.mark.slow
STAGES = ("people", "panel", "models", "attack", "judge", "evidence")
PEOPLE, BYSTANDERS, PICTURES, SIDE = 10, 6, 4, 1500
"""Pictures of this size take long enough to decode that an attack can be killed amid its votes."""
SECONDS_TO_WAIT = 120


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], list[str]]:
    """The words after `idia` that audit two models, written to a folder, with prompts that no run has embedded yet."""
    root = tmp_path_factory.mktemp("inputs")
    for seed, (group, number) in enumerate((("people", PEOPLE), ("panel", BYSTANDERS))):
        sexes = ["FM"[place % 2] for place in range(number)]
        people = zip(invent_names(number, seed), invent_people(number, seed, sexes), strict=True)
        for place, (name, person) in enumerate(people):
            folder = root / group / name.replace(" ", "_")
            folder.mkdir(parents=True)
            for i in range(PICTURES):
                face = Image.fromarray(draw_face(person, [seed, place, i])).resize((SIDE, SIDE))
                face.save(folder / f"{i}.jpg")
    models = [f"idia-rn-tiny:{write_model(root / f'm{seed}.pt', seed)}" for seed in range(2)]

    def of(out: Path) -> list[str]:
        settings = {
            "attack.people_per_split": 1,
            "attack.resources.text_cache": out.with_suffix(".texts"),
            "attack.resources.retries": 100,
            "evidence.people_per_split": 2,
        }
        options = {"--people": root / "people", "--panel": root / "panel", "--out": out, "--candidates": 600}
        return [
            *("audit", *(word for model in models for word in ("--model", model))),
            *(str(word) for option in options.items() for word in option),
            *(word for key, value in settings.items() for word in ("--set", f"{key}={value}")),
        ]

    return of


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, words: Callable[[Path], list[str]]
) -> tuple[dict[str, str], float]:
    """What an audit ends with when nothing happens to it, and how many seconds it takes."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    began = time.monotonic()
    found = finish(out, words(out), STAGES)
    assert len([path for path in found if path.startswith("attack/votes/")]) == 2 * PEOPLE
    assert "evidence/page/audit.json" in found
    return found, time.monotonic() - began


@contextmanager
def running(words: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """An audit as a process; what it says goes to a file."""
    with log.open("ab") as said, subprocess.Popen([*IDIA, *words], cwd=ROOT, stdout=said, stderr=said) as driver:
        yield driver


def votes_done(out: Path) -> int:
    """How many pieces of the votes have their receipts."""
    return len(list((out / "attack/_receipts").glob("votes-*.json")))


def wait_for_votes(driver: subprocess.Popen[bytes], out: Path, done: int) -> None:
    """Wait until that many pieces of the votes are done."""
    deadline = time.monotonic() + SECONDS_TO_WAIT
    while votes_done(out) < done:
        assert driver.poll() is None, f"it ended with {votes_done(out)} pieces done, {done} awaited"
        assert time.monotonic() < deadline, f"{votes_done(out)} pieces done, {done} awaited"
        time.sleep(0.01)


def test_killed_audits_change_nothing(
    tmp_path: Path, words: Callable[[Path], list[str]], undisturbed: tuple[dict[str, str], float]
) -> None:
    """SIGKILL before the votes, amid them and once more: the run after them ends with every byte as it should be."""
    expected, seconds = undisturbed
    rng, out = random.Random(9), tmp_path / "out"
    assert run_and_kill(words(out), rng.uniform(0.1, 0.35) * seconds)
    with running(words(out), tmp_path / "log") as driver:
        wait_for_votes(driver, out, votes_done(out) + rng.randint(1, PEOPLE // 2))
        assert kill_driver(driver)
    assert 0 < votes_done(out) < 2 * PEOPLE
    assert run_and_kill(words(out), rng.uniform(0.1, 0.4) * seconds)
    assert finish(out, words(out), STAGES) == expected


def test_killed_workers_change_nothing(
    tmp_path: Path, words: Callable[[Path], list[str]], undisturbed: tuple[dict[str, str], float]
) -> None:
    """SIGKILL for three workers amid the votes: the same run ends well, with every byte as it should be."""
    expected, _ = undisturbed
    out, died = tmp_path / "out", 0
    with running(words(out), tmp_path / "log") as driver:
        while died < 3:
            wait_for_votes(driver, out, 1 + 2 * died)
            workers = at_work(driver)
            assert votes_done(out) < 2 * PEOPLE
            if workers:
                workers[0].kill()
                psutil.wait_procs(workers[:1], timeout=SECONDS_TO_DIE)
                died += 1
        driver.wait()
    assert driver.returncode == 0, (tmp_path / "log").read_text()
    assert contents(out, STAGES) == expected
