"""`train`: a CLIP model for each architecture and training set, by open_clip_train under torchrun (paper, Section 5.1).

Each run is watched by a controller, a Ray task that takes no CPU; pipelines/training_run.py is what it does.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from idia_core.errors import InvalidInputError
from idia_core.exposure import Loader, exactness_problem, exposures
from idia_core.loss_curves import read_curves
from idia_core.training import TrainingRecipe, checkpoint_path, final_weights, open_clip_flags, read_progress
from pipelines.stage import Input, Phase, Split, SplitWriter, Stage, StageContext
from pipelines.train_config import Run, TrainConfig, check_work_root, length_of, runs, work_root
from pipelines.train_preview import preview
from pipelines.training_sets import FETCHED, TrainingSets

if TYPE_CHECKING:
    from pipelines.training_run import Attempt, Training

MODELS = pa.schema(
    [
        pa.field("model", pa.string(), nullable=False),
        pa.field("architecture", pa.string(), nullable=False),
        pa.field("reference", pa.string(), nullable=False),  # architecture:checkpoint
        pa.field("images_per_member", pa.int64(), nullable=False),
        pa.field("checkpoint", pa.string(), nullable=False),  # relative to the stage's folder
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("epochs", pa.int64(), nullable=False),
        pa.field("training_pairs", pa.int64(), nullable=False),
        pa.field("loss", pa.float64()),  # the last that open_clip logged
        pa.field("data_sha256", pa.string(), nullable=False),  # over the hashes of the set's tars, in order
        pa.field(
            "flags", pa.list_(pa.string()), nullable=False
        ),  # open_clip_train's that decide the weights; those as given are in `runs`
    ]
)
RUNS = pa.schema(
    [
        pa.field("model", pa.string(), nullable=False),
        pa.field("attempt", pa.int64(), nullable=False),  # from 0
        pa.field("first_epoch", pa.int64(), nullable=False),  # the first that it trained, from 1
        pa.field("last_epoch", pa.int64(), nullable=False),  # the last whose checkpoint was used
        pa.field("processes", pa.int64(), nullable=False),
        pa.field("nodes", pa.int64(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),  # why it ended
        pa.field("flags", pa.list_(pa.string()), nullable=False),  # open_clip_train's, word by word
    ]
)


def _runs(context: StageContext) -> Iterable[Split]:
    from cluster.launch import alive_nodes  # noqa: PLC0415 - loads Ray, which a study that is only looked at needs not

    check_work_root(context, len(alive_nodes()))
    return [run.model_dump(mode="json") for run in runs(context.config, TrainingSets(context).sizes())]


def _length(context: StageContext, split: Split) -> float:
    return length_of(Run.model_validate(split), context.config)


def _loader(recipe: TrainingRecipe, ranks: int) -> Loader:
    return Loader(recipe.batch_size_per_process, ranks, recipe.loader_processes, recipe.seed)


class _Checker:
    """Says what would go wrong with a run, before hours are spent on it."""

    def __init__(self, context: StageContext) -> None:
        self._exactly_once, self._sets = context.config.exactly_once, TrainingSets(context)

    def __call__(self, split: Split, out: SplitWriter) -> None:
        run = Run.model_validate(split)
        sizes = self._sets.tars(run.set)["samples"].to_list()
        problem = exactness_problem(sizes, _loader(run.recipe, run.recipe.processes), run.samples)
        if problem and self._exactly_once:
            fix = "Set shards.exact_for to this training, or train.exactly_once: false to take what `exposures` says."
            where = f"run {run.model}, set {run.set}"
            raise InvalidInputError(f"open_clip would not show each pair once an epoch: {problem}", where, fix)


class _Controller:
    """Trains one model, from start to end, whatever nodes come and go."""

    def __init__(self, context: StageContext) -> None:
        self._config: TrainConfig = context.config
        self._sets, self._work = TrainingSets(context), work_root(context)

    def __call__(self, split: Split, out: SplitWriter) -> None:
        from pipelines.training_run import Training, train  # noqa: PLC0415 - loads Ray

        run = Run.model_validate(split)
        training = Training(run, self._work, run.digest(self._sets.digest(run.set)))
        self._sets.fetch(run.set, self._work / FETCHED)
        data = self._sets.train_data(run.set, self._work / FETCHED)
        attempts = train(training, data, self._config.resources, out.report)
        self._keep(run, training, attempts, out)

    def _keep(self, run: Run, training: "Training", attempts: list["Attempt"], out: SplitWriter) -> None:
        log = (training.folder / "out.log").read_text(encoding="utf-8")
        out.write(f"checkpoints/{run.model}.pt", final_weights(_last(training), run.recipe))
        weights = out.files[-1].sha256
        out.write(f"logs/{run.model}.log", log.encode())
        for event in sorted((training.folder / "tensorboard").glob("events*")):
            out.write(f"tensorboard/{run.model}/{event.name}", event.read_bytes())
        progress = read_progress(log, run.recipe.epochs)
        row = {
            "model": run.model,
            "architecture": run.recipe.architecture,
            "reference": f"{run.recipe.architecture}:checkpoints/{run.model}.pt",
            "images_per_member": run.images_per_member,
            "checkpoint": f"checkpoints/{run.model}.pt",
            "sha256": weights,
            "epochs": run.recipe.epochs,
            "training_pairs": run.pairs,
            "loss": progress.loss if progress else None,
            "data_sha256": self._sets.digest(run.set),
            "flags": open_clip_flags(run.recipe, f"train_data/{run.set}.txt", run.samples, run.model, Path("logs")),
        }
        out.table("models", pa.Table.from_pylist([row], MODELS))
        out.table("runs", pa.Table.from_pylist([{"model": run.model, **a.model_dump()} for a in attempts], RUNS))
        out.table("curves", read_curves(log, run.model))
        out.count(rows_in=run.samples * run.recipe.epochs, rows_kept=run.samples * run.recipe.epochs)


def _last(training: "Training") -> Path:
    return checkpoint_path(training.root, training.run.model, training.run.recipe)


class _Counter:
    """Counts how often each member's pair was shown, from the attempts that made the weights."""

    def __init__(self, context: StageContext) -> None:
        self._sets, self._attempts = TrainingSets(context), context.table("runs").to_pylist()

    def __call__(self, split: Split, out: SplitWriter) -> None:
        run = Run.model_validate(split)
        mine = [row for row in self._attempts if row["model"] == run.model]
        loaders = [
            (row["last_epoch"] - row["first_epoch"] + 1, _loader(run.recipe, row["processes"]))
            for row in sorted(mine, key=lambda row: int(row["attempt"]))
        ]
        shown = exposures(
            self._sets.members(run.set),
            self._sets.tars(run.set)["samples"].to_list(),
            loaders,
            samples=run.samples,
            first_shard=self._sets.shared(run.set),
        )
        out.table("exposures", shown)


STAGE = Stage(
    name="train",
    version=4,
    summary="train a CLIP model for each architecture and set",
    config=TrainConfig,
    inputs={
        "plan": Input("which pair is in which shard (set, identity, key, shard, position)"),
        "ledger": Input("the shards (set, shard, path, samples, sha256)"),
        "verified": Input("the shards that were read again (path, sha256, faults)"),
    },
    phases=(
        Phase("check", _runs, _Checker),
        Phase("models", _runs, _Controller, controls=True, urgency=_length),
        Phase("exposures", _runs, _Counter),
    ),
    tables=("models", "checkpoints", "logs", "tensorboard", "runs", "curves", "exposures"),
    preview=preview,
    works_in=work_root,
)
