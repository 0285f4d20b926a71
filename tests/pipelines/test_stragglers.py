"""Which splits are started once more."""

import pytest

from pipelines import stragglers
from pipelines.stragglers import FEWEST, TIMES, Place, Stragglers


class Clock:
    """A time that the test sets."""

    now = 0.0

    def monotonic(self) -> float:
        """The time."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock that stragglers are told by."""
    clock = Clock()
    monkeypatch.setattr(stragglers, "time", clock)
    return clock


def after(clock: Clock, seconds: float, ended: int, *, shortest: float | None) -> Stragglers:
    """A split that was handed over at 0, beside some others that took so many seconds each."""
    watched = Stragglers(shortest)
    for name in ("slow", *map(str, range(ended))):
        watched.submitted(name)
    clock.now = seconds
    for number in range(ended):
        watched.ended(str(number))
    return watched


def test_a_straggler_runs_five_times_as_long_as_the_others_and_longer_than_a_minimum(clock: Clock) -> None:
    """Both count from when it began; it is told once, with its node."""
    watched = after(clock, 2.0, FEWEST, shortest=1.0)
    clock.now = 2.0 * TIMES - 0.1
    assert watched.suspects() == []
    clock.now = 2.0 * TIMES
    assert watched.suspects() == ["slow"]
    assert watched.found({}) == {}
    assert watched.found({"slow": Place("n1", 2.0 * TIMES - 1)}) == {}
    assert watched.found({"slow": Place("n1", 2.0 * TIMES)}) == {"slow": "n1"}
    assert watched.again == {"slow"}
    assert watched.found({"slow": Place("n1", 99.0)}) == {}
    watched.ended("slow")
    assert watched.again == set()


@pytest.mark.parametrize(("ended", "shortest"), [(FEWEST - 1, 1.0), (FEWEST, 100.0), (FEWEST, None)])
def test_there_is_none_while_too_little_is_known_or_before_the_minimum(
    clock: Clock, ended: int, shortest: float | None
) -> None:
    """With few that have ended, within the minimum, and where the setting is null."""
    watched = after(clock, 2.0, ended, shortest=shortest)
    clock.now = 99.0
    assert watched.suspects() == []
    assert watched.found({"slow": Place("n1", 99.0)}) == {}
