"""The one place that hands splits to Ray: bounded pending work, retries of lost splits, receipts, progress."""

import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, NodeLabelSchedulingStrategy, NotIn

from idia_core.config import Resources
from idia_core.errors import BusyError, IdiaError, WorkerLostError
from idia_core.manifest import FAILED, FINGERPRINT, RECEIPTS, Receipt, digest_of, missing_files, unsealed_receipts
from idia_core.storage import keep_private, room_needed, write_text
from pipelines.progress import STATE, WAITS, Note, Progress
from pipelines.ray_head import Head
from pipelines.running import Running
from pipelines.stage import Phase, Report, Split, SplitWriter, StageContext, Worker
from pipelines.stragglers import Place
from pipelines.watching import Done, Watching

NOTES = "idia-notes"
POLL_SECONDS = 1.0
NODE_ID = "ray.io/node-id"
"""The label that Ray gives to every node."""
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
        self._begun: dict[str, tuple[str, float]] = {}

    def clear(self) -> dict[str, Note]:
        self._notes.clear()  # of a phase before, whose last words came when nobody asked any more
        self._begun.clear()
        return self._notes

    def begin(self, job: str, node: str) -> None:
        self._begun[job] = node, time.monotonic()

    def places(self, jobs: Collection[str]) -> dict[str, Place]:
        begun = {job: self._begun[job] for job in jobs if job in self._begun}
        return {job: Place(node, time.monotonic() - since) for job, (node, since) in begun.items()}

    def put(self, job: str, note: Note) -> None:
        self._notes[job] = note

    def all(self, ended: Collection[str] = ()) -> dict[str, Note]:
        for job in ended:
            self._notes.pop(job, None)
            self._begun.pop(job, None)
        return self._notes


_actors: dict[str, Any] = {}

_built: tuple[str, StageContext, Worker] | None = None
"""The worker that this process built last, and what for: a model is loaded once, not once a split."""


def _worker(shared: Any) -> tuple[StageContext, Worker]:
    """The context and the worker of a phase, of which `shared` is the reference.

    It is read when the worker is built, not with every split: a stage may have a hundred thousand input files.
    """
    global _built  # noqa: PLW0603 - a Ray task has no other place that outlives it
    if _built is None or _built[0] != shared.hex():
        _built = None  # frees the memory of the last one before the next is built
        phase, context = ray.get(shared)
        _built = (shared.hex(), context, phase.worker(context))
    return _built[1:]


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
def _run_split(shared: tuple[Any], job: Job, notes: Any) -> Done:
    keep_private()
    context, worker = _worker(*shared)  # in a tuple, or Ray would read it for every split
    notes.begin.remote(job.name, ray.get_runtime_context().get_node_id())
    out = SplitWriter(context.folder, job.name, job.part, _reporter(job.name, notes))
    began = time.monotonic()
    with room_needed(f"{context.folder}, or the temporary folder {tempfile.gettempdir()}"):
        worker(job.split, out)
    receipt = out.receipt(job.key)
    _check_still_wanted(context)
    write_text(context.folder / RECEIPTS / f"{job.name}.json", receipt.model_dump_json())
    return Done.here(receipt.model_copy(update={"seconds": time.monotonic() - began}))


def _check_still_wanted(context: StageContext) -> None:
    """Raise `BusyError` where the stage is sealed or begun anew: this worker was lost, and another did its split."""
    if context.fingerprint is None:
        return
    try:
        begun = (context.folder / RECEIPTS / FINGERPRINT).read_text(encoding="utf-8")
    except FileNotFoundError:
        begun = ""
    if begun != context.fingerprint:
        raise BusyError("the split was done by another worker", str(context.folder), "Nothing is to be done.")


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
            progress.advance(receipt.counts)
    return [receipts[job.name] for job in jobs]


def _valid_receipts(context: StageContext, phase: str) -> dict[str, Receipt]:
    """The receipts of an earlier, interrupted run whose inputs could be read and whose files are all there in full."""
    receipts = unsealed_receipts(context.folder, f"{phase}-")
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
    watching = Watching(context.folder, phase.name, len(todo))
    waiting, board = iter(todo), _Board(notes, phase, resources)
    running = _running(phase, context, resources, notes, watching)
    try:
        watching.begin()
        while True:
            for job in islice(waiting, board.room(running.jobs())):
                running.start(job)
            if not running:
                break
            for job, result in running.ended():
                board.ended(job)
                watching.ended(job.name, result)
                if isinstance(result, Done):
                    yield result.receipt
                elif phase.controls:
                    errors.append(result)
                    progress.say(f"{type(result).__name__}: {result}")
                else:
                    raise result
            board.show(progress, running, watching)
    finally:
        running.stop()
        watching.end()
    if errors:
        raise errors[0]


def _running(
    phase: Phase, context: StageContext, resources: Resources, notes: Any, watching: Watching
) -> Running[Job, Done | IdiaError]:
    """What hands splits to Ray and takes their results; none runs yet."""
    shared, anywhere = ray.put((phase, context)), _task(phase, resources)

    def submit(job: Job, away_from: str | None) -> Any:
        watching.submitted(job.name, away_from)
        task = _task(phase, resources, away_from) if away_from else anywhere
        return task.remote((shared,), job, notes)

    once = phase.controls or phase.outward
    return Running(submit, partial(_result, context=context), None if once else resources.straggler_seconds)


def _task(phase: Phase, resources: Resources, away_from: str | None = None) -> Any:
    """The Ray task of a phase's splits; on another node than the one that is named, if there is one."""
    retries = resources.retries
    if phase.controls:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        return _run_split.options(num_cpus=0, max_retries=retries, scheduling_strategy=here)
    wanted: dict[str, Any] = {"num_cpus": resources.cpus, "num_gpus": resources.gpus, "max_retries": retries}
    if away_from:
        elsewhere: dict[str, Any] = {NODE_ID: NotIn(away_from)}  # type: ignore[no-untyped-call]
        wanted["scheduling_strategy"] = NodeLabelSchedulingStrategy(hard={}, soft=elsewhere)
    return _run_split.options(**wanted)


def _limit(phase: Phase, resources: Resources) -> int:
    """How many splits may be pending: twice what the CPUs that the cluster has now can hold, so that it grows."""
    if resources.workers:
        return resources.workers
    if phase.controls:
        return CONTROLLERS
    cpus: float = ray.cluster_resources().get("CPU", 1)  # type: ignore[no-untyped-call]
    return 2 * max(1, int(cpus // resources.cpus))


def _result(reference: Any, job: Job, context: StageContext) -> Done | IdiaError:
    """A split's receipt and who did it, or why there is none; what is a bug of ours is raised."""
    try:
        done: Done = ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, IdiaError):
            return error.cause
        raise error.cause from None
    except OutOfMemoryError:
        where = f"stage {context.stage}, split {job.name}, {dict(job.split)}"
        fix = "Raise `resources: {cpus: N}`, so that fewer workers share a machine, or take larger machines."
        return WorkerLostError("its machine ran out of memory each time, and Ray ended the worker", where, fix)
    except RayError as error:
        where = f"stage {context.stage}, split {job.name}, {dict(job.split)}"
        fix = "Look at its memory and Ray's logs; `resources: {retries: N}` allows more."
        return WorkerLostError(f"its worker died too often: {type(error).__name__}", where, fix)
    return done


def _notes_actor() -> Any:
    """The actor of this Ray session; it is kept for all phases, as its process takes a second to start."""
    here = ray.get_runtime_context()
    session = f"{here.get_node_id()} {here.get_job_id()}"  # a job's number alone begins again after `ray.shutdown`
    if session not in _actors:
        _actors.clear()
        near = NodeAffinitySchedulingStrategy(here.get_node_id(), soft=True)  # no other node's end is the actor's
        wanted = {"name": NOTES, "get_if_exists": True, "num_cpus": 0, "scheduling_strategy": near, "max_restarts": -1}
        _actors[session] = ray.remote(_Notes).options(**wanted).remote()
    return _actors[session]


class _Board:
    """Shows what the splits say of themselves, without ever waiting for it, and knows how many may be pending."""

    def __init__(self, notes: Any, phase: Phase, resources: Resources) -> None:
        self._notes, self._phase, self._resources = notes, phase, resources
        self._limit = _limit(phase, resources)
        self._head = Head()
        self._asked, self._places = notes.clear.remote(), notes.places.remote(())
        self._since = time.monotonic()
        self._begun: set[str] = set()
        self._ended: list[str] = []

    def ended(self, job: Job) -> None:
        """A split is done: nothing that it said is of interest any more."""
        self._ended.append(job.name)

    def room(self, running: Collection[Job]) -> int:
        """How many more splits may be started now.

        Those that control start one by one, each once the one before has what it waits for: Ray's own queue of
        placement groups lets small ones overtake large ones, for ever if need be.
        """
        free = max(0, self._limit - len(running))  # the cluster may have shrunk
        if not self._phase.controls:
            return free
        return min(free, int(all(job.name in self._begun for job in running)))

    def show(self, progress: Progress, running: Running[Job, Done | IdiaError], watching: Watching) -> None:
        """Show the answer if there is one, ask again a second later, and count the cluster's CPUs anew.

        Where splits run as stragglers they are started once more. Raises `ClusterError` when the head is gone.
        """
        if time.monotonic() - self._since < POLL_SECONDS or not self._head.answers():
            return
        asked = [self._asked, self._places]
        if len(ray.wait(asked, num_returns=len(asked), timeout=0)[0]) < len(asked):
            return
        with suppress(RayActorError):  # only the display is poorer for it
            notes: dict[str, Note] = ray.get(self._asked)
            self._begun |= {job for job, note in notes.items() if not note.row.get(STATE, "").startswith(WAITS)}
            progress.notes(list(notes.values()))
            for name in running.start_again(ray.get(self._places)):
                progress.say(f"{name} runs much longer than the others: it is started once more elsewhere")
        self._limit = _limit(self._phase, self._resources)
        self._asked, self._since = self._notes.all.remote(self._ended), time.monotonic()
        self._places = self._notes.places.remote(running.suspects())
        self._ended = []
        watching.now(len(running))
