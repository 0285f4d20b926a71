"""The splits that the cluster has at the moment; a straggler is started once more on another node."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, Protocol, TypeVar

import ray

from idia_core.errors import WorkerLostError
from pipelines.stragglers import Place, Stragglers

POLL_SECONDS = 1.0
STOP_SECONDS = 5.0
"""For how long a split that was overtaken is waited for; one on a node that hangs may never answer."""


class Named(Protocol):
    """A split with a name."""

    @property
    def name(self) -> str:
        """Of its receipt."""


JobT = TypeVar("JobT", bound=Named)
ResultT = TypeVar("ResultT")


class Running(Generic[JobT, ResultT]):
    """Ray's tasks, by split: one for each, and two for a straggler, of which the first to end counts."""

    def __init__(
        self,
        submit: Callable[[JobT, str | None], Any],
        result: Callable[[Any, JobT], ResultT],
        straggler_seconds: float | None,
    ) -> None:
        self._submit = submit
        """Hands a split to Ray; to another node than the one that is named, if it can be."""
        self._result = result
        self._tasks = dict[Any, JobT]()
        self._stragglers = Stragglers(straggler_seconds)
        self._overtaken = list[Any]()

    def __len__(self) -> int:
        return len(self._tasks)

    def jobs(self) -> list[JobT]:
        """What is at work or waits for the cluster."""
        return list(self._tasks.values())

    def start(self, job: JobT) -> None:
        """Hand a split to the cluster."""
        self._tasks[self._submit(job, None)] = job
        self._stragglers.submitted(job.name)

    def suspects(self) -> list[str]:
        """Splits that were handed over so long ago that it should be asked where they run."""
        return self._stragglers.suspects()

    def start_again(self, places: Mapping[str, Place]) -> list[str]:
        """Start those that are stragglers once more; returns their names."""
        found = self._stragglers.found(places)
        for job in [job for job in self._tasks.values() if job.name in found]:
            self._tasks[self._submit(job, found[job.name])] = job
        return list(found)

    def ended(self) -> Iterator[tuple[JobT, ResultT]]:
        """The splits that have ended, and their results; the first is waited for, but not for long."""
        for reference in _ended(list(self._tasks)):
            job = self._tasks.pop(reference, None)
            if job is None:
                continue  # it was overtaken at this very moment
            result = self._result(reference, job)
            others = self._others(job) if job.name in self._stragglers.again else []
            if isinstance(result, WorkerLostError) and others:
                continue  # the other one decides
            self._overtake(others)
            self._stragglers.ended(job.name)
            yield job, result

    def _overtake(self, references: list[Any]) -> None:
        for reference in references:
            del self._tasks[reference]
            ray.cancel(reference, force=True)
        self._overtaken += references

    def stop(self) -> None:
        """End all that is still at work, and wait for what was overtaken, so that it writes nothing more."""
        for reference in self._tasks:
            ray.cancel(reference, force=True)
        if self._overtaken:
            ray.wait(self._overtaken, num_returns=len(self._overtaken), timeout=STOP_SECONDS)

    def _others(self, job: JobT) -> list[Any]:
        return [reference for reference, other in self._tasks.items() if other is job]


def _ended(references: list[Any]) -> list[Any]:
    """Those of the tasks that have ended, all of them at once; waits for the first, but not for long."""
    first, _ = ray.wait(references, timeout=POLL_SECONDS)
    return ray.wait(references, num_returns=len(references), timeout=0)[0] if first else []
