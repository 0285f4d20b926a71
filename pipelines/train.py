"""`train`: one CLIP model for each training set, by open_clip_train under torchrun (paper, Section 5.1)."""

import os
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import polars as pl
import pyarrow as pa
from pydantic import Field, field_validator

from cluster.torchrun import torchrun_argv, training_environment
from idia_core.config import Resources, SeededConfig
from idia_core.errors import InvalidInputError, TrainingError
from idia_core.model_reference import model_config
from idia_core.shards import shard_path
from idia_core.storage import is_local
from idia_core.training import (
    TrainingRecipe,
    check_nothing_skipped,
    checkpoint_path,
    final_weights,
    open_clip_flags,
    read_progress,
)
from pipelines.stage import Input, Phase, Split, SplitWriter, Stage, StageContext

POLL_SECONDS = 1.0
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
    ]
)


class TrainConfig(SeededConfig):
    """Settings of `train`."""

    recipe: TrainingRecipe = TrainingRecipe()
    """What decides the weights."""
    resources: Resources = Field(default=Resources(workers=1, cpus=2))
    """Each worker trains one model at a time, with all its processes."""

    @field_validator("recipe")
    @classmethod
    def _one_seed(cls, recipe: TrainingRecipe) -> TrainingRecipe:
        if "seed" in recipe.model_fields_set:
            raise ValueError("the seed of a training is the stage's, train.seed")
        return recipe


def _sets(context: StageContext) -> Iterable[Split]:
    plan = pl.DataFrame(context.inputs["plan"].read("set", "images_per_member", "shard"))
    sets = plan.group_by("set", "images_per_member").agg(pairs=pl.len(), shards=pl.col("shard").n_unique())
    return sets.sort("set", descending=True).to_dicts()


class _Trainer:
    """Trains one model after another."""

    def __init__(self, context: StageContext) -> None:
        config: TrainConfig = context.config
        self._recipe = config.recipe.model_copy(update={"seed": config.seed or 0})
        self._tars = context.inputs["tars"].root

    def __call__(self, split: Split, out: SplitWriter) -> None:
        name, recipe = split["set"], self._recipe
        with out.scratch() as scratch:
            data = self._local_shards(name, split["shards"], scratch)
            flags = open_clip_flags(recipe, data, split["pairs"], name, scratch)
            log_file = scratch / name / "out.log"
            _train(flags, recipe, scratch / "torchrun.log", lambda: _report(name, log_file, recipe.epochs, out))
            log = log_file.read_text(encoding="utf-8")
            weights = final_weights(checkpoint_path(scratch, name, recipe), recipe)
        out.write(f"checkpoints/{name}.pt", weights)
        out.write(f"logs/{name}.log", log.encode())
        progress = read_progress(log, recipe.epochs)
        row = {
            "model": name,
            "architecture": recipe.architecture,
            "reference": f"{recipe.architecture}:checkpoints/{name}.pt",
            "images_per_member": split["images_per_member"],
            "checkpoint": f"checkpoints/{name}.pt",
            "sha256": out.files[0].sha256,
            "epochs": recipe.epochs,
            "training_pairs": split["pairs"],
            "loss": progress.loss if progress else None,
        }
        out.table("models", pa.Table.from_pylist([row], MODELS))
        out.count(rows_in=split["pairs"] * recipe.epochs, rows_kept=split["pairs"] * recipe.epochs)

    def _local_shards(self, name: str, shards: int, scratch: Path) -> str:
        """The shards of a set as open_clip names them; fetched first where they are not on this machine."""
        folder = Path(self._tars.path) / name
        if not is_local(self._tars):
            folder = scratch / "tars" / name
            self._tars.fs.get((self._tars / name).path, str(folder), recursive=True)
        first, last = (Path(shard_path(name, shard)).stem for shard in (0, shards - 1))
        return f"{folder}/{{{first}..{last}}}.tar"


def _train(flags: list[str], recipe: TrainingRecipe, output: Path, watch: Callable[[], None]) -> None:
    """Run open_clip_train to its end; `TrainingError` carries its last lines when it fails or skips pairs."""
    architecture = model_config(recipe.architecture)
    if architecture is None:
        what = f"no model config for '{recipe.architecture}'"
        raise InvalidInputError(what, "stage train, recipe.architecture", "Use idia-rn-tiny.")
    argv = torchrun_argv(recipe.processes, recipe.threads_per_process, architecture, flags)
    environment = training_environment(os.environ, recipe.threads_per_process, recipe.device, os.getpid())
    with output.open("wb") as sink, subprocess.Popen(argv, env=environment, stdout=sink, stderr=sink) as run:
        while run.poll() is None:
            time.sleep(POLL_SECONDS)
            watch()
    said = output.read_text(encoding="utf-8", errors="replace")
    if run.returncode != 0:
        lines = [line for line in said.splitlines() if line.strip()]
        raise TrainingError(f"torchrun ended with {run.returncode}: {' | '.join(lines[-3:])}", f"log {output}")
    check_nothing_skipped(said, str(output))


def _report(name: str, log: Path, epochs: int, out: SplitWriter) -> None:
    progress = read_progress(log.read_text(encoding="utf-8"), epochs) if log.exists() else None
    if progress:
        words = f"{name} epoch {progress.epoch}/{epochs} loss {progress.loss:.2f}"
        out.report(progress.fraction, f"{words} {progress.samples_per_second:,.0f} pairs/s")
    else:
        out.report(0.0, f"{name} starts")


STAGE = Stage(
    name="train",
    version=2,
    summary="train a CLIP model for each set",
    config=TrainConfig,
    inputs={
        "plan": Input("which pair is in which shard (set, images_per_member, shard)"),
        "tars": Input("the shards (a folder a set)", patterns=("*/*.tar",)),
    },
    phases=(Phase("models", _sets, _Trainer),),
    tables=("models", "checkpoints", "logs"),
)
