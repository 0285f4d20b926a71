"""`train`: one CLIP model for each training set, by open_clip_train under torchrun (paper, Section 5.1)."""

import os
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pds
from pydantic import Field, field_validator
from upath import UPath

from cluster.torchrun import torchrun_argv, training_environment
from idia_core.config import Resources, SeededConfig
from idia_core.errors import InvalidInputError, SealError, TrainingError
from idia_core.exposure import Loader, exactness_problem, exposures
from idia_core.model_reference import architecture_file
from idia_core.shards import BASE, LEDGER
from idia_core.sources import source_path
from idia_core.storage import is_local, sha256_of
from idia_core.train_data import train_data
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
    exactly_once: bool = True
    """Refuse a set that would not be shown exactly once an epoch; otherwise `exposures` says how often it is."""
    resources: Resources = Field(default=Resources(workers=1, cpus=2))
    """Each worker trains one model at a time, with all its processes."""

    @field_validator("recipe")
    @classmethod
    def _one_seed(cls, recipe: TrainingRecipe) -> TrainingRecipe:
        if "seed" in recipe.model_fields_set:
            raise ValueError("the seed of a training is the stage's, train.seed")
        architecture_file(recipe.architecture)  # an unknown one is told before the shards are built
        return recipe


def _ledger(context: StageContext) -> pl.DataFrame:
    """The tars of all sets; `InvalidInputError` unless `verify` found each of them to be what the ledger says."""
    ledger = pl.DataFrame(context.inputs["ledger"].read_as(LEDGER))
    verified = pl.DataFrame(context.inputs["verified"].read("path", "sha256", "faults"))
    sound = verified.filter(pl.col("faults") == 0).select("path", "sha256")
    if (unverified := ledger.join(sound, on=["path", "sha256"], how="anti").sort("path")).height:
        what = f"{unverified.height} of {ledger.height} tars are not verified, first '{unverified['path'][0]}'"
        raise InvalidInputError(what, "stage train, input verified", "Run the stage verify on these shards.")
    return ledger


def _own_and_base(ledger: pl.DataFrame, name: str) -> pl.DataFrame:
    """The tars of a set in the order in which open_clip is told of them: those that all sets share, then its own."""
    mine = ledger.filter(pl.col("set").is_in([BASE, name]))
    return mine.sort(pl.col("set") == name, "shard")


def _sets(context: StageContext) -> Iterable[Split]:
    ledger = _ledger(context)
    sets = ledger.filter(pl.col("set") != BASE).select("set", "images_per_member").unique()
    for name, k in sets.sort("set", descending=True).iter_rows():
        pairs = int(_own_and_base(ledger, name)["samples"].sum())
        yield {"set": name, "images_per_member": k, "pairs": pairs}


class _Foreteller:
    """Says how often each member's pair will be shown, before hours are spent on it."""

    def __init__(self, context: StageContext) -> None:
        self._config: TrainConfig = context.config
        self._plan, self._ledger = context.inputs["plan"], _ledger(context)

    def __call__(self, split: Split, out: SplitWriter) -> None:
        recipe, name = self._config.recipe, split["set"]
        loader = Loader(
            recipe.batch_size_per_process, recipe.processes, recipe.loader_processes, int(self._config.seed or 0)
        )
        tars = _own_and_base(self._ledger, name)
        sizes = tars["samples"].to_list()
        problem = exactness_problem(sizes, loader)
        if problem and self._config.exactly_once:
            fix = "Set shards.exact_for to this training, or train.exactly_once: false to take what `exposures` says."
            raise InvalidInputError(f"open_clip would not show each pair once an epoch: {problem}", f"set {name}", fix)
        members = self._members(name)
        shared = tars.filter(pl.col("set") == BASE).height
        out.table("exposures", exposures(members, sizes, loader, epochs=recipe.epochs, first_shard=shared))

    def _members(self, name: str) -> pa.Table:
        columns = ["set", "identity", "key", "shard", "position"]
        mine = (pc.field("set") == name) & pc.field("identity").is_valid()
        files = self._plan.files
        plan = pds.dataset([file.path for file in files], filesystem=files[0].fs, format="parquet")
        return plan.to_table(columns=columns, filter=mine)


class _Trainer:
    """Trains one model after another."""

    def __init__(self, context: StageContext) -> None:
        config: TrainConfig = context.config
        self._recipe = config.recipe.model_copy(update={"seed": config.seed or 0})
        self._shards, self._ledger = context.inputs["ledger"].root.parent, _ledger(context)

    def __call__(self, split: Split, out: SplitWriter) -> None:
        name, recipe = split["set"], self._recipe
        with out.scratch() as scratch:
            data = self._local_shards(name, scratch)
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

    def _local_shards(self, name: str, scratch: Path) -> str:
        """A set's shards as open_clip names them; those that are elsewhere are fetched first."""
        paths = []
        for row in _own_and_base(self._ledger, name).iter_rows(named=True):
            path = source_path(self._shards, row["path"])
            if not is_local(path):
                fetched = scratch / "tars" / row["set"] / f"{row['shard']:05d}.tar"
                fetched.parent.mkdir(parents=True, exist_ok=True)
                path.fs.get_file(path.path, str(fetched))
                path = UPath(fetched)
            if sha256_of(path) != row["sha256"]:
                raise SealError("the tar is not the one that was verified", str(path), "Run shards and verify again.")
            paths.append(path.path)
        return train_data(paths)


def _train(flags: list[str], recipe: TrainingRecipe, output: Path, watch: Callable[[], None]) -> None:
    """Run open_clip_train to its end; `TrainingError` carries its last lines when it fails or skips pairs."""
    architecture = architecture_file(recipe.architecture)
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
    version=3,
    summary="train a CLIP model for each set",
    config=TrainConfig,
    inputs={
        "plan": Input("which pair is in which shard (set, identity, key, shard, position)"),
        "ledger": Input("the shards (set, shard, path, samples, sha256)"),
        "verified": Input("the shards that were read again (path, sha256, faults)"),
    },
    phases=(Phase("exposures", _sets, _Foreteller), Phase("models", _sets, _Trainer)),
    tables=("models", "checkpoints", "logs", "exposures"),
)
