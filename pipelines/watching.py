"""Tells the log and the metrics what becomes of the splits of a phase."""

import os
import socket
from typing import Any, NamedTuple

import ray
from upath import UPath

from idia_core.errors import IdiaError, WorkerLostError
from idia_core.manifest import Receipt
from pipelines.metrics import PhaseMetrics
from pipelines.split_log import SplitLog


class Done(NamedTuple):
    """What a worker answers when it has done a split."""

    receipt: Receipt
    node: str
    host: str
    pid: int
    attempt: int
    """How often it was begun before; more than 0 when workers were lost."""

    @classmethod
    def here(cls, receipt: Receipt) -> "Done":
        """In this process."""
        core: Any = ray._private.worker.global_worker.core_worker  # type: ignore[attr-defined]  # noqa: SLF001
        node = ray.get_runtime_context().get_node_id()
        return cls(receipt, node, socket.gethostname(), os.getpid(), core.get_current_task_attempt_number())


class Watching:
    """From the beginning of a phase to its end, however that is."""

    def __init__(self, folder: UPath, phase: str, splits: int) -> None:
        self._log = SplitLog(folder, phase)
        self._metrics = PhaseMetrics(folder.name, phase)
        self._left = splits

    def begin(self) -> None:
        """The phase begins."""
        self._log.open()
        self._log.line("phase started", splits=self._left)

    def end(self) -> None:
        """It has ended; in good order if no splits are left."""
        self._metrics.now(self._left, 0)
        self._log.line("phase ended", "error" if self._left else "info", left=self._left)
        self._log.close()

    def submitted(self, split: str, away_from: str | None) -> None:
        """A split was handed to the cluster; once more, and away from a node, where it is a straggler."""
        if away_from:
            self._log.line("retried", "warning", split=split, away_from=away_from, why="straggler")
            self._metrics.ended("again")
        else:
            self._log.line("started", split=split)

    def ended(self, split: str, result: Done | IdiaError) -> None:
        """A split has ended, well or not."""
        if isinstance(result, Done):
            self._done(split, result)
        else:
            event = "lost" if isinstance(result, WorkerLostError) else "failed"
            self._log.line(event, "error", split=split, error=type(result).__name__, why=str(result))
            self._metrics.ended(event)

    def _done(self, split: str, done: Done) -> None:
        where: dict[str, Any] = {"node": done.node, "host": done.host, "pid": done.pid}
        if done.attempt:
            self._log.line("retried", "warning", split=split, attempts=done.attempt, why="worker lost", **where)
            self._metrics.ended("again")
        receipt = done.receipt
        seconds = None if receipt.seconds is None else round(receipt.seconds, 3)
        rows = receipt.counts.get("rows_in")
        self._log.line("ended", split=split, seconds=seconds, rows=rows, files=len(receipt.files), **where)
        self._metrics.ended("done", receipt.seconds, receipt.counts)
        self._left -= 1

    def now(self, running: int) -> None:
        """Called now and then; so many splits are with the cluster."""
        self._metrics.now(self._left, running)
        self._log.flush()
