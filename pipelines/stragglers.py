"""Which splits run so much longer than the others of their phase that they are started once more, elsewhere."""

import time
from collections import deque
from collections.abc import Mapping
from statistics import median
from typing import NamedTuple

TIMES = 5
"""So much longer than half of the splits that have ended a straggler runs."""
FEWEST = 3
"""Before so many have ended, nobody knows how long a split takes."""
REMEMBERED = 1000


class Place(NamedTuple):
    """Where a split runs: the node, and for how many seconds."""

    node: str
    seconds: float


class Stragglers:
    """Watches the splits of one phase.

    How long the others took counts from when they were handed to the cluster, a straggler from when it began: a cluster
    that is slow to start splits does not make stragglers of them.
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._submitted: dict[str, float] = {}
        self._took: deque[float] = deque(maxlen=REMEMBERED)
        self.again: set[str] = set()
        """The splits that were started once more; none is a third time."""

    def submitted(self, split: str) -> None:
        """A split was handed to the cluster."""
        self._submitted[split] = time.monotonic()

    def ended(self, split: str) -> None:
        """A split is done."""
        self._took.append(time.monotonic() - self._submitted.pop(split))
        self.again.discard(split)

    def suspects(self) -> list[str]:
        """Splits that may be stragglers: they were handed over long ago."""
        now = time.monotonic()
        longest = self._longest()
        return [name for name, since in self._submitted.items() if now - since >= longest and name not in self.again]

    def found(self, places: Mapping[str, Place]) -> dict[str, str]:
        """Those of the suspects that are stragglers, by where they run, and the node of each; each is told once."""
        longest = self._longest()
        slow = {name: places[name].node for name in self.suspects() if name in places}
        slow = {name: node for name, node in slow.items() if places[name].seconds >= longest}
        self.again |= set(slow)
        return slow

    def _longest(self) -> float:
        if self._seconds is None or len(self._took) < FEWEST:
            return float("inf")
        return max(self._seconds, TIMES * median(self._took))
