"""Killed at any moment and run again, a study ends as if nothing had happened."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kills import kill_at_random, undisturbed
from tests.soak import soak_count

COMPARED = (
    *("world", "scan", "select", "shards", "verify", "train/models", "train/checkpoints"),
    *("attack", "judge", "evaluate", "figures"),
)


@pytest.mark.soak
def test_kills_at_random_moments_change_nothing(tmp_path: Path, tiny_demo: Callable[[Path], list[str]]) -> None:
    """SIGKILL at ten random moments, each followed by another run: every byte is that of an undisturbed run."""
    run = undisturbed(tiny_demo, tmp_path / "undisturbed", COMPARED)
    assert {path.split("/")[0] for path in run.contents} == {part.split("/")[0] for part in COMPARED}
    for found in kill_at_random(run, tmp_path / "killed", soak_count(10), random.Random(10)):
        assert found == run.contents
