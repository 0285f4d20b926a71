"""What `train` would start, from the sizes of the training sets: for `--dry-run`, before an hour of a GPU is spent."""

import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from cluster.packing import Schedule, schedule
from cluster.torchrun import LOOPBACK, Rendezvous, entry_argv, torchrun_argv
from idia_core.model_reference import architecture_file
from idia_core.training import open_clip_flags
from pipelines.stage import Preview, StageContext
from pipelines.train_config import Run, TrainConfig, check_work_root, length_of, runs, work_root
from pipelines.training_sets import FETCHED, TrainingSets

NODE_GPUS = 8
CLUSTERS = (8, 16, 64)
"""GPUs of the clusters that the time is told for when the config does not say how many runs there are at once."""
PORT = 29400
NO_RATE = (
    "The hours are told once train.resources.pairs_per_second says how many pairs one GPU trains a second, "
    "for each architecture: {ViT-B-32: 900, RN50: 400}."
)


def preview(context: StageContext) -> Preview:
    """Every run with its steps and hours, how long all take on some clusters, and the command that starts each."""
    config: TrainConfig = context.config
    sets = TrainingSets(context)
    found = sorted(runs(config, sets.sizes()), key=lambda run: -length_of(run, config))
    check_work_root(context, max(config.resources.nodes_of(run.architecture) for run in found))
    rows = [_row(run, config) for run in found]
    return Preview(rows, [*_times(found, config), *_commands(found, sets, context)])


def _row(run: Run, config: TrainConfig) -> dict[str, Any]:
    rate, recipe = config.resources.rate_of(run.architecture), run.recipe
    hours = run.hours(rate) if rate else None
    kind = "gpu" if config.recipe.device == "cuda" else "process"
    return {
        "model": run.model,
        "pairs": run.samples,
        "epochs": recipe.epochs,
        "steps": run.steps,
        "processes": recipe.processes,
        "nodes": config.resources.nodes_of(run.architecture),
        f"{kind}_hours": None if hours is None else round(hours * recipe.processes, 2),
        "hours": None if hours is None else round(hours, 2),
    }


def _times(found: Sequence[Run], config: TrainConfig) -> Iterator[str]:
    """What all runs take together, on the GPUs of as many as run at once or of clusters of some sizes."""
    hours = [run.hours(rate) for run in found if (rate := config.resources.rate_of(run.architecture))]
    if len(hours) < len(found):
        yield NO_RATE
        return
    kind, kinds = ("GPU", "GPUs") if config.recipe.device == "cuda" else ("process", "processes")
    total = sum(time * run.recipe.processes for time, run in zip(hours, found, strict=True))
    yield f"{len(found)} runs: {total:,.1f} {kind}-hours."
    wanted = [bundles(run, config) for run in found]
    largest = max(max(parts) for parts in wanted)
    if config.resources.workers:
        clusters = [(largest, config.resources.workers * max(map(len, wanted)))]
    else:
        node = max(NODE_GPUS, largest)
        clusters = [(node, gpus // node) for gpus in CLUSTERS if gpus // node >= max(map(len, wanted))]
    for node, count in clusters:
        plan = schedule_on(found, config, [node] * count)
        busy = f"{plan.utilisation_until_last_start:.0%} busy until the last run starts"
        yield f"On {count} x {node} {kinds}: {plan.length:,.1f} hours, {busy}."


def schedule_on(found: Sequence[Run], config: TrainConfig, nodes: Sequence[int]) -> Schedule:
    """How the runs follow each other, in hours, on nodes of so many GPUs, or CPUs, each.

    Every architecture's rate must be known. Raises `InvalidInputError` for a run that the nodes cannot hold.
    """
    hours = [run.hours(config.resources.rate_of(run.architecture) or 0) for run in found]
    return schedule(hours, [bundles(run, config) for run in found], nodes)


def bundles(run: Run, config: TrainConfig) -> tuple[int, ...]:
    """The processes of a run on each of its nodes."""
    nodes = config.resources.nodes_of(run.architecture)
    return (run.recipe.processes // nodes,) * nodes


def _commands(found: Sequence[Run], sets: TrainingSets, context: StageContext) -> Iterator[str]:
    """The command of each run and node, for a shell; NODE_0, NODE_1, ... stand for the nodes' addresses."""
    config: TrainConfig = context.config
    root = work_root(context)
    for run in found:
        parts, digest = bundles(run, config), run.digest(sets.digest(run.set))
        flags = open_clip_flags(
            run.recipe,
            sets.train_data(run.set, root / FETCHED),
            run.samples,
            run.model,
            root,
            checkpoint_epochs=config.resources.checkpoint_epochs,
            wandb=config.resources.wandb,
        )
        threads = run.recipe.threads_per_process
        entry = entry_argv(architecture_file(run.architecture), threads, digest, root / run.model, flags)
        for node, processes in enumerate(parts):
            alone = len(parts) == 1
            host, port, address = (LOOPBACK, 0, LOOPBACK) if alone else ("NODE_0", PORT, f"NODE_{node}")
            meeting = Rendezvous(host, port, f"{digest}-0", len(parts), node)
            place = "" if alone else f", node {node}"
            yield f"{run.model}{place}: {shlex.join(torchrun_argv(processes, meeting, entry, address=address))}"
