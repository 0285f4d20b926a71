"""`idia run STUDY train --launcher slurm`: every training run as a Slurm job, printed or submitted.

The jobs leave checkpoints; the same command without `--launcher` finds them, and seals what they trained.
"""

from collections.abc import Iterator

import typer
from rich.console import Console

from cluster.slurm import SlurmRun, sbatch_script, submit
from cluster.torchrun import entry_argv
from idia_core.config import Study
from idia_core.errors import MissingInputError, UsageError
from idia_core.manifest import RECEIPTS
from idia_core.model_reference import architecture_file
from idia_core.storage import as_path, sole_writer, write_text
from jobs.plan import FINGERPRINT, PlannedStage, State, plan_study
from jobs.run import make_room
from pipelines.train_config import Run, TrainConfig, runs, work_root
from pipelines.training_run import Training, flags_of, submitted
from pipelines.training_sets import FETCHED, TrainingSets

STAGE = "train"


def train_by_slurm(study: Study, console: Console, options: tuple[str, ...], *, send: bool) -> None:
    """Print the script of each run that has no last checkpoint yet, or submit it and print the job's number.

    `options` are more options of sbatch. Raises `MissingInputError` while the shards are not verified.
    """
    if STAGE not in study.stages:
        raise UsageError(f"the study has no stage '{STAGE}'", "--launcher slurm")
    plan = plan_study(study, [STAGE])[STAGE]
    if plan.state is State.WAITS:
        upstream = plan.why.removeprefix("for ")
        raise MissingInputError(f"stage '{upstream}' is not done", f"stage {STAGE}", f"Run '{upstream}' first.")
    if plan.state is State.DONE:
        console.print(f"{STAGE} is done already, {plan.why}", highlight=False)
        return
    if not send:
        for _, script in _scripts(plan, options):
            typer.echo(script)
        return
    with sole_writer(as_path(study.out)):
        make_room(plan, console)
        write_text(plan.folder / RECEIPTS / FINGERPRINT, str(plan.fingerprint))
        for training, script in _scripts(plan, options):
            if submitted(training) is None:
                TrainingSets(plan.context()).fetch(training.run.set, training.root / FETCHED)
                job = submit(script, training.folder)
                write_text(as_path(str(training.folder / "slurm-job")), job)
            console.print(f"{training.run.model}: job {submitted(training)}", highlight=False)


def _scripts(plan: PlannedStage, options: tuple[str, ...]) -> Iterator[tuple[Training, str]]:
    """Each run that is not trained to its end, and its script."""
    context = plan.context()
    config: TrainConfig = context.config
    sets, root = TrainingSets(context), work_root(context)
    for run in runs(config, sets.sizes()):
        training = Training(run, root, run.digest(sets.digest(run.set)))
        found, _ = training.newest()
        if found and found.record.epoch == run.recipe.epochs:
            continue
        flags = flags_of(training, sets.train_data(run.set, root / FETCHED), config.resources)
        yield training, sbatch_script(_job(run, training, flags, config, options))


def _job(run: Run, training: Training, flags: list[str], config: TrainConfig, options: tuple[str, ...]) -> SlurmRun:
    recipe, resources = run.recipe, config.resources
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
