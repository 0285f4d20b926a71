"""Figures of a running phase for Prometheus, by way of Ray, from the driver alone."""

from collections.abc import Mapping
from typing import NamedTuple

from ray.util.metrics import Counter, Gauge, Histogram

TAGS = ("stage", "phase")
SECONDS = [0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000, 10_000]
"""Upper bounds of the classes of how long splits take."""


class _Metrics(NamedTuple):
    splits: Counter
    rows: Counter
    seconds: Histogram
    left: Gauge
    running: Gauge


_made: list[_Metrics] = []
"""Once a process: Ray keeps them by name."""


def _metrics() -> _Metrics:
    if not _made:
        made = _Metrics(
            Counter("idia_splits", "Splits that have ended, by how", (*TAGS, "outcome")),
            Counter("idia_rows", "Rows of the splits that are done: read, kept, or why not kept", (*TAGS, "reason")),
            Histogram("idia_split_seconds", "Seconds that a split took its worker", SECONDS, TAGS),
            Gauge("idia_splits_left", "Splits of the phase that are not done", TAGS),
            Gauge("idia_splits_running", "Splits that were handed to the cluster and have not ended", TAGS),
        )
        _made.append(made)
    return _made[0]


class PhaseMetrics:
    """Those of one phase of a stage."""

    def __init__(self, stage: str, phase: str) -> None:
        self._tags = {"stage": stage, "phase": phase}
        self._metrics = _metrics()

    def ended(self, outcome: str, seconds: float | None = None, counts: Mapping[str, int] | None = None) -> None:
        """A split has ended: `done`, `failed`, `lost` or `again`; what it took and counted if it is done."""
        self._metrics.splits.inc(1, self._tags | {"outcome": outcome})
        if seconds is not None:
            self._metrics.seconds.observe(seconds, self._tags)
        for reason, count in (counts or {}).items():
            if count:
                self._metrics.rows.inc(count, self._tags | {"reason": reason})

    def now(self, left: int, running: int) -> None:
        """How many splits are not done, and how many of these the cluster has."""
        self._metrics.left.set(left, self._tags)
        self._metrics.running.set(running, self._tags)
