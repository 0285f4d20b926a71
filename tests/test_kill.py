"""Killed at any moment and run again, a study ends as if nothing had happened."""

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kills import finish, run_and_kill

COMPARED = (
    *("world", "scan", "select", "shards", "train/models", "train/checkpoints"),
    *("attack", "judge", "evaluate", "figures"),
)
SOAK_KILLS = max(1, round(6 * float(os.environ.get("IDIA_SOAK", "1"))))


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, tiny_demo: Callable[[Path], list[str]]
) -> tuple[dict[str, str], float]:
    """What a run ends with when nothing happens to it, and how many seconds it takes."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    began = time.monotonic()
    found = finish(out, tiny_demo(out), COMPARED)
    assert {path.split("/")[0] for path in found} == {part.split("/")[0] for part in COMPARED}
    return found, time.monotonic() - began


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
        assert finish(out, tiny_demo(out), COMPARED) == expected


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
        assert finish(out, tiny_demo(out), COMPARED) == expected
