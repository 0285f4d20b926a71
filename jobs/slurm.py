"""`idia run STUDY train --launcher slurm`: every training run as a Slurm job, printed or submitted.

The jobs leave checkpoints; the same command without `--launcher` finds them, and seals what they trained.
"""

from collections.abc import Iterator
from contextlib import nullcontext

import typer
from rich.console import Console

from cluster.slurm import JOB, SlurmRun, sbatch_script, submit
from cluster.torchrun import entry_argv
from idia_core.config import Study
from idia_core.errors import MissingInputError, UsageError
from idia_core.manifest import FINGERPRINT, RECEIPTS
from idia_core.model_reference import architecture_file
from idia_core.storage import as_path, sole_writer, write_text
from jobs.plan import PlannedStage, State, plan_study
from jobs.run import make_room
from pipelines.train_config import TrainConfig, check_work_root, runs, work_root
from pipelines.training_run import Training, flags_of, leave_to_slurm, submitted
from pipelines.training_sets import FETCHED, TrainingSets

STAGE = "train"


def train_by_slurm(
    study: Study, console: Console, options: tuple[str, ...] = (), *, send: bool = False, dry: bool = False
) -> None:
    """Print the script of each run that has no last checkpoint yet, or submit it and print the job's number.

    `options` are more options of sbatch. A script that is printed can be submitted by hand, and is then not to be
    submitted here as well; with `dry` nothing at all is written. Raises `MissingInputError` while the shards are not
    verified.
    """
    if STAGE not in study.stages:
        raise UsageError(f"the study has no stage '{STAGE}'", "--launcher slurm")
    with nullcontext() if dry else sole_writer(as_path(study.out)):
        plan = _plan(study)
        if not dry and make_room(plan, console):
            plan = _plan(study)
        if plan.state is State.DONE:
            console.print(f"{STAGE} is done already, {plan.why}", highlight=False)
            return
        check_work_root(plan.context(), machines=2)  # this one, and those of the job
        for training, flags in _unfinished(plan):
            script = sbatch_script(_job(training, flags, plan.context().config, options))
            if not dry:
                _make_ready(training, flags, plan)
            if send and not dry:
                _submit(training, script, console)
            else:
                typer.echo(script)


def _plan(study: Study) -> PlannedStage:
    plan = plan_study(study, [STAGE])[STAGE]
    if plan.state is State.WAITS:
        upstream = plan.why.removeprefix("for ")
        raise MissingInputError(f"stage '{upstream}' is not done", f"stage {STAGE}", f"Run '{upstream}' first.")
    return plan


def _unfinished(plan: PlannedStage) -> Iterator[tuple[Training, list[str]]]:
    """Each run that is not trained to its end, and open_clip's flags for it."""
    context = plan.context()
    config: TrainConfig = context.config
    sets, root = TrainingSets(context), work_root(context)
    for run in runs(config, sets.sizes()):
        training = Training(run, root, run.digest(sets.digest(run.set)))
        # What lies there under another fingerprint would be kept aside first.
        found = None if plan.state is State.CHANGED else training.newest()[0]
        if found is None or found.record.epoch < run.recipe.epochs:
            yield training, flags_of(training, sets.train_data(run.set, root / FETCHED), config.resources)


def _make_ready(training: Training, flags: list[str], plan: PlannedStage) -> None:
    """Have all there that the script needs, and what tells `idia run` later what came of it."""
    write_text(plan.folder / RECEIPTS / FINGERPRINT, str(plan.fingerprint))
    TrainingSets(plan.context()).fetch(training.run.set, training.root / FETCHED)
    leave_to_slurm(training, flags, plan.context().config.resources)


def _submit(training: Training, script: str, console: Console) -> None:
    """Submit the script unless a job trains the run already; say the job's number."""
    if job := submitted(training):
        console.print(f"{training.run.model}: job {job}, submitted earlier", highlight=False)
        return
    job = submit(script, training.folder)
    write_text(as_path(str(training.folder / JOB)), job)
    console.print(f"{training.run.model}: job {job}", highlight=False)


def _job(training: Training, flags: list[str], config: TrainConfig, options: tuple[str, ...]) -> SlurmRun:
    run, recipe, resources = training.run, training.run.recipe, config.resources
    nodes, threads = resources.nodes_of(run.architecture), recipe.threads_per_process
    entry = entry_argv(architecture_file(run.architecture), threads, training.digest, training.folder, flags)
    return SlurmRun(
        name=f"idia-{run.model}",
        architecture=run.architecture,
        run=training.digest,
        work=training.folder,
        entry=tuple(entry),
        nodes=nodes,
        processes_per_node=recipe.processes // nodes,
        cpus=resources.cpus,
        threads=threads,
        device=recipe.device,
        max_restarts=resources.max_restarts,
        wandb=resources.wandb,
        options=options,
    )
