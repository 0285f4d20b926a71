"""One training run from start to end: placed on the cluster, watched, and started anew from its last checkpoint.

Every start is an attempt. It ends well, or is lost with a rank or a node and followed by the next one, on the nodes
there are then; a loss that is not finite, a run that stands still and a pair that cannot be read end the run.
"""

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

from pydantic import BaseModel
from upath import UPath

from cluster.checkpoints import NOT_FINITE, Found, newest_valid
from cluster.launch import Attempt as Torchrun
from cluster.launch import Command, Ended, Placed, place, start
from cluster.placement import Shape
from cluster.slurm import JOB
from idia_core.errors import TrainingError
from idia_core.model_reference import architecture_file
from idia_core.storage import write_text
from idia_core.training import Progress, check_nothing_skipped, open_clip_flags, read_progress
from pipelines.stage import Report
from pipelines.train_config import Run, TrainResources

POLL_SECONDS = 1.0
TAIL_BYTES = 1 << 16
"""Of a growing log: the newest lines are among them."""
BY_SLURM = "left to Slurm"
LOWER = "Lower recipe.learning_rate, or lengthen the warm-up."


@dataclass(frozen=True)
class Training:
    """A run, where it works, and a digest of all that its checkpoints depend on."""

    run: Run
    root: Path
    digest: str

    @property
    def folder(self) -> Path:
        """Where open_clip and the entry write: logs, checkpoints, the heartbeat."""
        return self.root / self.run.model

    def newest(self) -> tuple[Found | None, list[str]]:
        """The checkpoint to go on from, and why newer ones are passed over."""
        return newest_valid(self.folder / "checkpoints", self.digest, self.run.recipe.architecture)


class Attempt(BaseModel):
    """One start of a run; epochs count from 1, and `last_epoch` is the last whose checkpoint was used."""

    attempt: int
    first_epoch: int
    last_epoch: int
    processes: int
    nodes: int
    flags: list[str]
    reason: str = "its controller was killed"


def train(training: Training, data: str, resources: TrainResources, report: Report) -> list[Attempt]:
    """Train until the checkpoint of the last epoch is there; the attempts that it took, over all runs of the study.

    `data` is open_clip's --train-data. Raises `TrainingError` with the reason where the run cannot go on.
    """
    training.folder.mkdir(parents=True, exist_ok=True)
    attempts, starts, job = _earlier(training), 0, submitted(training)
    while True:
        found, passed_over = training.newest()
        done = found.record.epoch if found else 0
        _settle(training, attempts, done, passed_over)
        _check_logs(training)
        if done == training.run.recipe.epochs:
            return attempts
        if job:
            what = f"Slurm job {job} is at epoch {done} of {training.run.recipe.epochs}"
            fix = f"Wait for it; where it is gone, remove {training.folder / JOB} and the run goes on here."
            raise TrainingError(what, _where(training), fix)
        if starts > resources.max_restarts:
            what = f"it was lost {starts} times, last: {attempts[-1].reason}"
            raise TrainingError(what, _where(training), "Mend the cause and run again: its last checkpoint is kept.")
        wanted = shape_of(training.run, resources)
        with _placed(training, wanted, resources, report, resumed=bool(attempts)) as placed:
            accumulate = wanted.processes // placed.shape.processes
            flags = flags_of(training, data, resources, accumulate=accumulate, resume=found.path if found else None)
            attempts.append(_begun(training, len(attempts), done, placed.shape, flags))
            with start(placed, command_of(training, flags, resources, attempts[-1].attempt)) as torchrun:
                ended = _watched(training, torchrun, attempts[-1], resources.stall_seconds, report)
        if NOT_FINITE in ended.reason:
            raise TrainingError(ended.reason, _where(training), LOWER)
        starts += 1


def _watched(training: Training, torchrun: Torchrun, attempt: Attempt, stall_seconds: float, report: Report) -> Ended:
    """Wait for the end of an attempt, and note why it came."""
    try:
        ended = _watch(training, torchrun, stall_seconds, report)
        attempt.reason = ended.reason or "done"
    except TrainingError as error:
        attempt.reason = error.what
        raise
    finally:
        _save(training, attempt)
    return ended


def submitted(training: Training) -> str | None:
    """The number of the Slurm job that trains the run, if one was submitted."""
    file = training.folder / JOB
    return file.read_text(encoding="utf-8").strip() if file.exists() else None


def leave_to_slurm(training: Training, flags: list[str], resources: TrainResources) -> None:
    """Note that a Slurm job, whose script always takes all processes, trains what is left of a run."""
    attempts = _earlier(training)
    if attempts and attempts[-1].reason.startswith(BY_SLURM):
        return  # its script was printed before
    found, passed_over = training.newest()
    done = found.record.epoch if found else 0
    _settle(training, attempts, done, passed_over)
    attempt = _begun(training, len(attempts), done, shape_of(training.run, resources), flags)
    attempt.reason = BY_SLURM
    _save(training, attempt)


def _begun(training: Training, number: int, done: int, shape: Shape, flags: list[str]) -> Attempt:
    """A new attempt, noted before anything can happen to it."""
    attempt = Attempt(
        attempt=number,
        first_epoch=done + 1,
        last_epoch=done,
        processes=shape.processes,
        nodes=shape.nodes,
        flags=flags,
    )
    _save(training, attempt)
    return attempt


def command_of(training: Training, flags: Sequence[str], resources: TrainResources, attempt: int) -> Command:
    """What the ranks of an attempt are told."""
    recipe = training.run.recipe
    return Command(
        model_config=_model_config(training),
        run=training.digest,
        open_clip_flags=tuple(flags),
        work=training.folder,
        device=recipe.device,
        threads=recipe.threads_per_process,
        attempt=attempt,
        wandb=resources.wandb,
    )


def _model_config(training: Training) -> Path:
    """The architecture's JSON where all nodes see it."""
    copy = training.folder / "architecture" / f"{training.run.architecture}.json"
    write_text(UPath(copy), architecture_file(training.run.architecture).read_text(encoding="utf-8"))
    return copy


def shape_of(run: Run, resources: TrainResources) -> Shape:
    """What a run asks the cluster for."""
    nodes = resources.nodes_of(run.architecture)
    gpus = 1.0 if run.recipe.device == "cuda" else 0.0
    return Shape(nodes, run.recipe.processes // nodes, resources.cpus, gpus, resources.placement)


def flags_of(
    training: Training, data: str, resources: TrainResources, *, accumulate: int = 1, resume: Path | None = None
) -> list[str]:
    """open_clip's flags for a run."""
    run = training.run
    return open_clip_flags(
        run.recipe,
        data,
        run.samples,
        run.model,
        training.root,
        accumulate=accumulate,
        checkpoint_epochs=resources.checkpoint_epochs,
        resume=resume,
        wandb=resources.wandb,
    )


def _placed(
    training: Training, wanted: Shape, resources: TrainResources, report: Report, *, resumed: bool
) -> AbstractContextManager[Placed]:
    """Room for the run; one that was begun takes what is there when what it had does not come back."""
    name = f"idia-{training.run.model}-{training.digest[:8]}"
    return place(name, wanted, partial(_tell_state, training, report), resources.wait_seconds, smaller=resumed)


def _watch(training: Training, torchrun: Torchrun, stall_seconds: float, report: Report) -> Ended:
    """Wait for the end of an attempt, telling how far it is."""
    beat, since = _beat(training), time.monotonic()
    while (ended := torchrun.poll()) is None:
        time.sleep(POLL_SECONDS)
        if (newest := _beat(training)) != beat:
            beat, since = newest, time.monotonic()
        elif time.monotonic() - since > stall_seconds:
            what = f"no step was taken for {stall_seconds:,.0f} seconds"
            raise TrainingError(what, _where(training), "Look at its logs; train.resources.stall_seconds allows more.")
        progress = read_progress(_tail(training.folder / "out.log"), training.run.recipe.epochs)
        if progress:
            _check_finite(training, progress)
        _tell(training, progress, report)
    return ended


def _beat(training: Training) -> bytes:
    try:
        return (training.folder / "heartbeat.json").read_bytes()
    except FileNotFoundError:
        return b""


def _tail(log: Path) -> str:
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL_BYTES))
        return file.read().decode(errors="replace")


def _check_finite(training: Training, progress: Progress) -> None:
    if not progress.finite:
        what = f"the loss is {progress.loss} in epoch {progress.epoch}"
        raise TrainingError(what, _where(training), LOWER)


def _tell(training: Training, progress: Progress | None, report: Report) -> None:
    if progress is None:
        _tell_state(training, report, "starts")
        return
    name = training.run.model
    row = {
        "run": name,
        "epoch": f"{progress.epoch}/{progress.epochs}",
        "loss": f"{progress.loss:.2f}",
        "pairs/s": f"{progress.samples_per_second:,.0f}",
        "data wait": f"{progress.data_wait:.0%}",
        "left": str(timedelta(seconds=round(progress.seconds_left))),
        "state": "",
    }
    report(progress.fraction, f"{name} epoch {row['epoch']} loss {row['loss']} {row['pairs/s']} pairs/s", row)


def _tell_state(training: Training, report: Report, state: str) -> None:
    name = training.run.model
    row = {"run": name, "epoch": "", "loss": "", "pairs/s": "", "data wait": "", "left": "", "state": state}
    report(0.0, f"{name} {state}", row)


def _earlier(training: Training) -> list[Attempt]:
    found = sorted((training.folder / "attempts").glob("*.json"))
    return [Attempt.model_validate_json(path.read_text(encoding="utf-8")) for path in found]


def _settle(training: Training, attempts: list[Attempt], done: int, passed_over: list[str]) -> None:
    """Note which of the attempts' epochs are gone on from, and which checkpoints were no good."""
    for attempt in attempts[:-1]:  # their checkpoints may be no good either by now
        attempt.last_epoch = min(attempt.last_epoch, max(done, attempt.first_epoch - 1))
        _save(training, attempt)
    if attempts:
        attempts[-1].last_epoch = max(done, attempts[-1].first_epoch - 1)
        attempts[-1].reason = "; ".join([attempts[-1].reason, *passed_over])
        _save(training, attempts[-1])


def _save(training: Training, attempt: Attempt) -> None:
    path = training.folder / "attempts" / f"{attempt.attempt:04d}.json"
    write_text(UPath(path), attempt.model_dump_json())


def _check_logs(training: Training) -> None:
    for log in sorted([*training.folder.glob("torchrun-*.log"), *training.folder.glob("slurm-*.log")]):
        check_nothing_skipped(log.read_text(encoding="utf-8", errors="replace"), str(log))


def _where(training: Training) -> str:
    return f"run {training.run.model}, logs in {training.folder}"
