"""How fast a run trains through our launch, beside plain torchrun with open_clip's own main and the same flags.

    python benchmarks/training.py [--quick]

Ours is the whole of it: a local Ray, a placement group, a torchrun in it, the entry with its heartbeat and its hashed
checkpoints, and the controller that watches. Plain is `torchrun -m open_clip_train.main` without Ray beside it.
Both train ViT-S-32-alt, which open_clip ships, on the same tars and are told the same, word by word, with as many
threads; they run in turn, and which is first alternates. One process each, as plain open_clip has no CPU training with
more; ours with two is shown too. Ray lowers its workers' priority by 15, which takes nothing from an idle machine but
most of the time from a run on a busy one; here it does not, so that other work tells on both alike.

Samples a second are those of the median step, all but the first few of a run; open_clip logs every one here. The bar
is of the median ratio of a turn's two. Shown beside are the mean over the same steps, which other work moves more,
an epoch with the checkpoint that ends it, and the time from the start to the last checkpoint: epochs are of seconds
here and of minutes in earnest. Our AdamW is torch's fused one, which gains some hundredths. The exit code is 1 when the
bar is missed. It needs 2 GB of disk. A process has one thread; `--threads 2` wants two cores that are idle, as threads
that wait for each other are several times slower on a busy one.
"""

import argparse
import io
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from cluster.torchrun import LOOPBACK
from idia_core.tars import TarWriter
from idia_core.training import TrainingRecipe, checkpoint_path, open_clip_flags
from jobs.local_ray import ray_when_needed
from pipelines.train_config import Run, TrainResources
from pipelines.training_run import Training, train

ROOT = Path(__file__).parent.parent
CORES, TARS, SIDE = 2, 2, 256
EPOCHS, BATCH = 2, 16
WARM_UP = 3
"""First steps of a run that are not counted: memory is taken then, and kernels are chosen."""
BAR = 0.95
LINE = re.compile(r"Train Epoch: .*?Data \(t\): ([\d.]+) Batch \(t\): ([\d.]+),")
Side = Callable[[Path, TrainingRecipe, int], None]
"""Trains in a folder on so many pairs an epoch."""


class Ran(NamedTuple):
    """What a run did."""

    rate: float
    """Pairs a second of the median step."""
    mean_rate: float
    """Pairs a second over all steps."""
    data_wait: float
    """Share of the steps' time."""
    epoch_rate: float
    """Pairs a second of the last epoch with its checkpoint."""
    seconds: float
    """From the start to the last checkpoint."""


def write_tars(folder: Path, pairs: int) -> None:
    """Tars of as many pairs each; the pictures are noise of four pixels' grain."""
    rng = np.random.default_rng(0)
    for tar in range(TARS):
        with (folder / f"{tar:05d}.tar").open("wb") as file, TarWriter(file) as writer:
            for number in range(pairs // TARS):
                grain = rng.integers(0, 255, (SIDE // 4, SIDE // 4, 3), np.uint8)
                picture = io.BytesIO()
                Image.fromarray(grain).resize((SIDE, SIDE)).save(picture, "JPEG", quality=90)
                caption = f"picture {number} of tar {tar}, about which as much is said as captions say".encode()
                writer.add(f"{tar:05d}{number:05d}", "jpg", picture.getvalue(), caption)


def data_in(folder: Path) -> str:
    """The tars, as open_clip is told."""
    return f"{folder}/{{{0:05d}..{TARS - 1:05d}}}.tar"


def plain(folder: Path, recipe: TrainingRecipe, pairs: int) -> None:
    """Train by open_clip's own main."""
    flags = open_clip_flags(recipe, data_in(folder.parent), pairs, "run", folder)
    threads = {name: str(recipe.threads_per_process) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    meeting = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"{LOOPBACK}:0", "--local-addr", LOOPBACK]
    torchrun = [Path(sys.executable).with_name("torchrun"), *meeting, "--nproc-per-node", str(recipe.processes)]
    command = [*torchrun, "--module", "--", "open_clip_train.main", *flags]
    with (folder / "plain.log").open("wb") as log:
        done = subprocess.run(command, env=os.environ | threads, stdout=log, stderr=log, check=False)
    if done.returncode:
        sys.exit(f"plain torchrun ended with {done.returncode}:\n{(folder / 'plain.log').read_text()[-2000:]}")


def ours(folder: Path, recipe: TrainingRecipe, pairs: int) -> None:
    """Train as a controller of the stage `train` does."""
    run = Run(
        model="run",
        architecture=recipe.architecture,
        set="noise",
        images_per_member=1,
        pairs=pairs,
        samples=pairs,
        recipe=recipe,
    )
    resources = TrainResources(cpus=recipe.threads_per_process, max_restarts=0)
    train(Training(run, folder, run.digest("noise")), data_in(folder.parent), resources, lambda *_: None)


def measure(side: Side, data: Path, recipe: TrainingRecipe, pairs: int) -> Ran:
    """Train in a fresh folder, with a fresh Ray where the side is ours; that its start is not counted."""
    with tempfile.TemporaryDirectory(dir=data) as folder, ray_when_needed(None) as start_ray:
        if side is ours:
            start_ray(0)
        os.sync()
        began = time.time()
        side(Path(folder), recipe, pairs)
        last = checkpoint_path(Path(folder), "run", recipe)
        last_at, before_at = written(last), written(last.with_name(f"epoch_{recipe.epochs - 1}.pt"))
        seconds, waited = steps_in((last.parents[1] / "out.log").read_text())
    batch = recipe.global_batch_size
    return Ran(
        batch / statistics.median(seconds),
        batch / statistics.mean(seconds),
        sum(waited) / sum(seconds),
        pairs / (last_at - before_at),
        last_at - began,
    )


def written(checkpoint: Path) -> float:
    """When it was, and its sidecar where it has one."""
    return max(path.stat().st_mtime for path in checkpoint.parent.glob(f"{checkpoint.name}*"))


def steps_in(log: str) -> tuple[list[float], list[float]]:
    """The seconds of the steps that count, and those of them that were spent waiting for pairs."""
    lines = LINE.findall(log)[WARM_UP:]
    return [float(seconds) for _, seconds in lines], [float(waited) for waited, _ in lines]


def show(what: str, value: float, bar: float | None = None) -> bool:
    """Print a figure and, where it has a bar, whether that holds."""
    held = bar is None or value >= bar
    told = "" if bar is None else f"  (bar: >= {bar:g})  {'held' if held else 'FELL SHORT'}"
    print(f"{what:<66} {value:8.3f}{told}", flush=True)
    return held


def tell(what: str, ran: Ran) -> None:
    """Print a run."""
    rates = f"pairs/s: median step {ran.rate:6.2f}, mean {ran.mean_rate:6.2f}, with a checkpoint {ran.epoch_rate:6.2f}"
    print(f"  {what:<20} {rates}; data wait {ran.data_wait:5.1%}; {ran.seconds:5.1f} s in all", flush=True)


def medians(runs: Sequence[Ran]) -> Ran:
    """Of each figure."""
    return Ran(*map(statistics.median, zip(*runs, strict=True)))


def compare(data: Path, threads: int, steps: int, turns: int) -> bool:
    """Ours and plain in turn, then ours with two processes; whether the bar holds."""
    pairs = steps * BATCH
    write_tars(data, pairs)
    fields = {
        "architecture": "ViT-S-32-alt",
        "epochs": EPOCHS,
        "warmup_steps": 10,
        "precision": "fp32",
        "device": "cpu",
    }
    one = TrainingRecipe(**fields, processes=1, threads_per_process=threads, batch_size_per_process=BATCH)
    two = TrainingRecipe(**fields, processes=CORES, threads_per_process=1, batch_size_per_process=BATCH // CORES)
    sides: dict[str, Side] = {"ours": ours, "plain": plain}
    ran: dict[str, list[Ran]] = {name: [] for name in sides}
    for turn in range(turns):
        for name in sorted(sides, reverse=turn % 2 == 1):
            ran[name].append(measure(sides[name], data, one, pairs))
            tell(f"{name}, turn {turn + 1}", ran[name][-1])
    tell("ours, two processes", measure(ours, data, two, pairs))
    for name, runs in ran.items():
        tell(f"{name}, medians", medians(runs))
    turns_apart = [[a / b for a, b in zip(*both, strict=True)] for both in zip(ran["ours"], ran["plain"], strict=True)]
    ratios = Ran(*map(statistics.median, zip(*turns_apart, strict=True)))
    show("samples/s, mean over the steps: ours / plain", ratios.mean_rate)
    show("an epoch with its checkpoint: ours / plain", ratios.epoch_rate)
    show("time from start to last checkpoint: ours / plain", ratios.seconds)
    return show("samples/s: ours / plain, median ratio", ratios.rate, BAR)


def main() -> None:
    """Measure, and say whether the bar holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one turn of short epochs; in 80 seconds")
    parser.add_argument("--threads", type=int, choices=(1, CORES), default=1, help="of the one process")
    options = parser.parse_args()
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - Ray's spelling
    steps, turns = (4, 1) if options.quick else (7, 3)  # up to 11 steps are all logged
    with tempfile.TemporaryDirectory() as data:
        held = compare(Path(data), options.threads, steps, turns)
    sys.exit(not held)


if __name__ == "__main__":
    main()
