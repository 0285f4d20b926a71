"""The one place that hands splits to Ray: bounded pending work, retries of lost splits, receipts, progress."""

import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from idia_core.config import Resources
from idia_core.errors import IdiaError, WorkerLostError
from idia_core.manifest import FAILED, RECEIPTS, Receipt, digest_of, missing_files
from idia_core.storage import write_text
from pipelines.progress import STATE, WAITS, Note, Progress
from pipelines.stage import Phase, Report, Split, SplitWriter, StageContext, Worker

NOTES = "idia-notes"
POLL_SECONDS = 1.0
CONTROLLERS = 256
"""Splits of a phase that controls which may wait for the cluster at once."""


@dataclass(frozen=True)
class Job:
    """A split with what names it: its phase, its place in the plan and a digest of its content."""

    phase: str
    part: int
    split: Split
    key: str

    @property
    def name(self) -> str:
        """The name of the split's receipt."""
        return f"{self.phase}-{self.part:06d}"


class _Notes:
    """How far the running splits are; one small actor, because a running task cannot be asked."""

    def __init__(self) -> None:
        self._notes: dict[str, Note] = {}

    def put(self, job: str, note: Note) -> None:
        self._notes[job] = note

    def drop(self, job: str) -> None:
        self._notes.pop(job, None)

    def all(self) -> dict[str, Note]:
        return self._notes


_actors: dict[str, Any] = {}

_built: tuple[StageContext, str, Worker] | None = None
"""The worker that this process built last: a model is loaded once, not once a split."""


def _worker(phase: Phase, context: StageContext) -> Worker:
    global _built  # noqa: PLW0603 - a Ray task has no other place that outlives it
    if _built is None or _built[:2] != (context, phase.name):
        _built = None  # frees the memory of the last one before the next is built
        _built = (context, phase.name, phase.worker(context))
    return _built[2]


def _reporter(job: str, notes: Any) -> Report:
    """Tells the notes how far a job is, no more often than anybody looks at them."""
    told = -POLL_SECONDS

    def report(fraction: float, text: str, row: Mapping[str, str] | None = None) -> None:
        nonlocal told
        if time.monotonic() - told >= POLL_SECONDS:
            told = time.monotonic()
            notes.put.remote(job, Note(fraction, text, row or {}))

    return report


@ray.remote(max_calls=0)
def _run_split(phase_and_context: tuple[Phase, StageContext], job: Job, notes: Any) -> Receipt:
    phase, context = phase_and_context
    out = SplitWriter(context.folder, job.name, job.part, _reporter(job.name, notes))
    _worker(phase, context)(job.split, out)
    receipt = out.receipt(job.key)
    write_text(context.folder / RECEIPTS / f"{job.name}.json", receipt.model_dump_json())
    return receipt


def run_phase(phase: Phase, context: StageContext, resources: Resources, progress: Progress) -> list[Receipt]:
    """Do every split of a phase that has no valid receipt yet; returns the receipts of all, in the plan's order.

    Raises the split's own `IdiaError`, or `WorkerLostError` when its worker died more often than `retries`.
    """
    jobs = [Job(phase.name, part, split, digest_of(split)) for part, split in enumerate(phase.plan(context))]
    done = _valid_receipts(context, phase.name)
    receipts = {job.name: done[job.name] for job in jobs if job.name in done and done[job.name].key == job.key}
    todo = [job for job in jobs if job.name not in receipts]
    if urgency := phase.urgency:
        todo.sort(key=lambda job: -urgency(context, job.split))
    with progress.phase(f"{context.stage} {phase.name}", len(jobs), len(receipts)):
        for receipt in _run(phase, context, resources, todo, progress):
            receipts[receipt.split] = receipt
            progress.advance(receipt.counts.get("rows_in", 0))
    return [receipts[job.name] for job in jobs]


def _valid_receipts(context: StageContext, phase: str) -> dict[str, Receipt]:
    """The receipts of an earlier, interrupted run whose inputs could be read and whose files are all there in full."""
    found = (context.folder / RECEIPTS).glob(f"{phase}-*.json")
    receipts = [Receipt.model_validate_json(path.read_text(encoding="utf-8")) for path in found]
    lost = {entry.path for entry in missing_files(context.folder, (f for r in receipts for f in r.files))}
    return {r.split: r for r in receipts if FAILED not in r.facts and not any(f.path in lost for f in r.files)}


def _run(
    phase: Phase, context: StageContext, resources: Resources, todo: list[Job], progress: Progress
) -> Iterator[Receipt]:
    """Yield receipts as splits end, with no more splits pending than the cluster can soon take.

    An `IdiaError` of one split ends all, but for those of a phase that controls: it is raised when they have ended.
    """
    if not todo:
        return
    notes, errors = _notes_actor(), list[IdiaError]()
    task, shared = _task(phase, resources), ray.put((phase, context))
    waiting, running, board = iter(todo), dict[Any, Job](), _Board(notes, phase, resources)
    try:
        while True:
            for job in islice(waiting, board.room(running.values())):
                running[task.remote(shared, job, notes)] = job
            if not running:
                break
            ended, _ = ray.wait(list(running), timeout=POLL_SECONDS)
            for reference in ended:
                job = running.pop(reference)
                notes.drop.remote(job.name)
                result = _result(reference, job, context)
                if isinstance(result, Receipt):
                    yield result
                elif phase.controls:
                    errors.append(result)
                    progress.say(f"{type(result).__name__}: {result}")
                else:
                    raise result
            board.show(progress)
    finally:
        for reference in running:
            ray.cancel(reference, force=True)
    if errors:
        raise errors[0]


def _task(phase: Phase, resources: Resources) -> Any:
    """The Ray task of a phase's splits."""
    retries = resources.retries
    if phase.controls:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        return _run_split.options(num_cpus=0, max_retries=retries, scheduling_strategy=here)
    return _run_split.options(num_cpus=resources.cpus, num_gpus=resources.gpus, max_retries=retries)


def _limit(phase: Phase, resources: Resources) -> int:
    """How many splits may be pending: twice what the CPUs that the cluster has now can hold, so that it grows."""
    if resources.workers:
        return resources.workers
    if phase.controls:
        return CONTROLLERS
    cpus: float = ray.cluster_resources().get("CPU", 1)  # type: ignore[no-untyped-call]
    return 2 * max(1, int(cpus // resources.cpus))


def _result(reference: Any, job: Job, context: StageContext) -> Receipt | IdiaError:
    """A split's receipt, or why there is none; what is a bug of ours is raised."""
    try:
        receipt: Receipt = ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, IdiaError):
            return error.cause
        raise error.cause from None
    except RayError as error:
        where = f"stage {context.stage}, split {job.name}, {dict(job.split)}"
        fix = "Look at its memory and Ray's logs; `resources: {retries: N}` allows more."
        return WorkerLostError(f"its worker died too often: {type(error).__name__}", where, fix)
    return receipt


def _notes_actor() -> Any:
    """The actor of this Ray session; it is kept for all phases, as its process takes a second to start."""
    here = ray.get_runtime_context()
    session = f"{here.get_node_id()} {here.get_job_id()}"  # a job's number alone begins again after `ray.shutdown`
    if session not in _actors:
        _actors.clear()
        _actors[session] = ray.remote(_Notes).options(name=NOTES, get_if_exists=True, num_cpus=0).remote()
    return _actors[session]


class _Board:
    """Shows what the splits say of themselves, without ever waiting for it, and knows how many may be pending."""

    def __init__(self, notes: Any, phase: Phase, resources: Resources) -> None:
        self._notes, self._phase, self._resources = notes, phase, resources
        self._limit = _limit(phase, resources)
        self._asked = notes.all.remote()
        self._since = time.monotonic()
        self._begun: set[str] = set()

    def room(self, running: Collection[Job]) -> int:
        """How many more splits may be started now.

        Those that control start one by one, each once the one before has what it waits for: Ray's own queue of
        placement groups lets small ones overtake large ones, for ever if need be.
        """
        free = self._limit - len(running)
        if not self._phase.controls:
            return free
        return min(free, int(all(job.name in self._begun for job in running)))

    def show(self, progress: Progress) -> None:
        """Show the answer if there is one, ask again a second later, and count the cluster's CPUs anew."""
        if time.monotonic() - self._since < POLL_SECONDS or not ray.wait([self._asked], timeout=0)[0]:
            return
        with suppress(RayActorError):  # only the display is poorer for it
            notes: dict[str, Note] = ray.get(self._asked)
            self._begun |= {job for job, note in notes.items() if not note.row.get(STATE, "").startswith(WAITS)}
            progress.notes(list(notes.values()))
        self._limit = _limit(self._phase, self._resources)
        self._asked, self._since = self._notes.all.remote(), time.monotonic()
