"""How a stage that is not sealed gets on, from what lies beside its receipts: it needs no driver that still lives."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from idia_core.progress_record import LEAST_PART, ProgressRecord, now, read_record, receipts_of
from jobs.plan import PlannedStage, State

QUIET_SECONDS = 600.0
"""For so long no split may end before it is worth a word."""
KEPT = ("rows_in", "rows_kept")
"""Counts that are no failures."""


@dataclass(frozen=True)
class Live:
    """How far the present phase of a stage is."""

    record: ProgressRecord
    place: int
    """Of the phase among the stage's, from 1."""
    phases: int
    done: int
    """Splits that have a receipt."""
    last: float | None
    """When the last of them was written."""
    time: float

    @property
    def alive(self) -> bool:
        """Whether a driver seems to be at work on it."""
        return self.record.alive(self.time)

    @property
    def seconds(self) -> float:
        """How long the driver has worked, or had, on the phase."""
        return max((self.time if self.alive else self.record.seen) - self.record.began, 1e-6)

    @property
    def ended(self) -> float:
        """Splits that this driver did, with the parts of those that ran."""
        return self.done - self.record.before + (self.record.fraction if self.alive else 0.0)

    @property
    def share(self) -> float:
        """The part of the phase that is done, 0 to 1."""
        part = self.record.fraction if self.alive else 0.0
        return min(1.0, (self.done + part) / self.record.splits) if self.record.splits else 1.0

    @property
    def left(self) -> float | None:
        """Seconds until the phase is done, at the rate so far; None before enough is done to tell one."""
        ahead = self.record.splits - self.record.before - self.ended
        return max(0.0, ahead * self.seconds / self.ended) if self.ended >= LEAST_PART else None

    @property
    def silence(self) -> float:
        """Seconds since a split ended, or since the phase began."""
        return max(0.0, self.time - max(self.last or 0.0, self.record.began))

    def counted(self) -> Mapping[str, int]:
        """What kept rows out in the splits that this driver did, the most frequent reason first."""
        found = {reason: count for reason, count in self.record.counts.items() if count and reason not in KEPT}
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    def told(self) -> str:
        """In words: `phase 2 of 3, match: 120 of 416 splits, 1,200,000 rows/s, 0:10:00 left`."""
        record, parts = self.record, list[str]()
        if record.rows and self.alive:
            parts.append(f"{record.rows / self.seconds:,.0f} rows/s")
        if self.left is not None and self.done < record.splits:
            parts.append(f"{span(self.left)} left" + ("" if self.alive else " at the rate it had"))
        if self.silence >= QUIET_SECONDS and self.alive:
            parts.append(f"no split has ended for {span(self.silence)}")
        where = f"{record.phase}: {self.done:,} of {record.splits:,} splits"
        if self.phases > 1:
            where = f"phase {self.place} of {self.phases}, {where}"
        return ", ".join([where, *parts])

    def driver(self) -> str:
        """Who drives it, or since when nobody does."""
        who = f"process {self.record.pid} on {self.record.host}"
        if self.alive:
            return f"{who}, heard of {span(self.time - self.record.seen)} ago"
        return f"no driver: {who} was last heard of {span(self.time - self.record.seen)} ago"


def live(plan: PlannedStage, time: float | None = None) -> Live | None:
    """How a stage gets on; None where it is done or no phase of it has begun."""
    if plan.state is State.DONE or (record := read_record(plan.folder)) is None:
        return None
    names = [phase.name for phase in plan.stage.phases]
    if record.phase not in names:
        return None  # of a version of the stage that had other phases
    done, last = receipts_of(plan.folder, record.phase)
    done = min(max(done, record.done), record.splits)
    return Live(record, names.index(record.phase) + 1, len(names), done, last, now() if time is None else time)


def span(seconds: float) -> str:
    """A time as people read it: `0:10:00`, `2 days, 3:00:00`."""
    return str(timedelta(seconds=round(seconds)))
