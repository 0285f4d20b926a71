"""The one driver: fingerprint, skip what is sealed, run, seal."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from rich.console import Console
from upath import UPath

from idia_core.config import StageConfig, Study
from idia_core.errors import BusyError, MissingInputError, SealError, UsageError
from idia_core.manifest import (
    FINGERPRINT,
    RECEIPTS,
    WORK,
    Manifest,
    Receipt,
    all_facts,
    provenance,
    total_counts,
    write_manifest,
)
from idia_core.storage import as_path, move_tree, remove_temporaries, remove_tree, sole_writer, write_text
from jobs.local_ray import ray_when_needed
from jobs.plan import (
    ATTEMPT,
    KEPT_DIGITS,
    PlannedStage,
    State,
    check_stage_names,
    describe,
    needed_stages,
    plan_if_possible,
    plan_stage,
    plan_study,
    present_fingerprint,
    with_new_attempt,
)
from jobs.site import served_to
from jobs.stages import ERASING, KEPT, stage_configs
from pipelines.dataflow import run_phase
from pipelines.progress import Progress


def run_study(
    study: Study,
    console: Console,
    only: Sequence[str] = (),
    address: str | None = None,
    *,
    retry_failed: bool = False,
) -> dict[str, PlannedStage]:
    """Run the stages of a study that are not sealed yet, or those of them in `only`; returns all the plans.

    With `retry_failed` sealed stages that fetch try once more what failed and may have changed.
    Raises `IdiaError` for the first stage that fails; what was done stays, and the next run goes on from there.
    """
    configs = stage_configs(study)
    check_stage_names(study, only)
    check_erasures(as_path(study.out))
    if retry_failed:
        check_retries(study, configs, only)
    needed, plans = needed_stages(configs, only), dict[str, PlannedStage]()
    plan_study(study, only)  # so that what is missing for a late stage is said before an early one takes an hour
    with sole_writer(as_path(study.out)), ray_when_needed(address) as start_ray:
        for name in study.stages:
            plan = plan_if_possible(study, name, configs, plans, needed)
            if plan is None:
                continue
            if not only or name in only:
                plan = with_new_attempt(plan) if retry_failed else plan
                if make_room(plan, console):
                    plan = plan_stage(study, name, configs, plans)
                with served_to(plan, study.serve, plans):
                    plan = _done(plan, start_ray, console)
            plans[name] = plan
    return plans


def check_erasures(out: UPath) -> None:
    """Raise `BusyError` where an erasure was interrupted: what it has not yet erased would be used again."""
    if out.exists() and list(out.glob(f"{ERASING}*")):
        fix = "Finish it: run the same `idia erase` once more."
        raise BusyError("people are being erased, and that was interrupted", str(out), fix)


def check_retries(study: Study, configs: Mapping[str, StageConfig], only: Sequence[str]) -> None:
    """Raise `UsageError` where no stage can try anew what failed."""
    if not any(ATTEMPT in type(config).model_fields for name, config in configs.items() if not only or name in only):
        fix = "Name a stage such as 'download', or leave the option out."
        raise UsageError("there is no stage that fetches", f"study {study.name}, --retry-failed", fix)


def _done(plan: PlannedStage, start_ray: Callable[[float], None], console: Console) -> PlannedStage:
    name = plan.name
    if plan.state is State.WAITS:
        upstream = plan.why.removeprefix("for ")
        raise MissingInputError(f"stage '{upstream}' is not done", f"stage {name}", f"Run '{upstream}' first.")
    if plan.state is State.DONE:
        _clear(plan)
        console.print(f"[dim]{name:<14} done already, {plan.why}[/dim]", soft_wrap=True, highlight=False)
        return plan
    manifest = _run_stage(plan, start_ray, console)
    console.print(f"[bold]{name:<14}[/bold] {describe(manifest)}", soft_wrap=True, highlight=False)
    return replace(plan, state=State.DONE, why="just now", manifest=manifest)


def _run_stage(plan: PlannedStage, start_ray: Callable[[float], None], console: Console) -> Manifest:
    write_text(plan.folder / RECEIPTS / FINGERPRINT, str(plan.fingerprint))
    remove_temporaries(plan.folder)
    start_ray(plan.config.resources.gpus)
    started, began = datetime.now(UTC).isoformat(), time.monotonic()
    context, progress, receipts = plan.context(), Progress(console, plan.folder), list[Receipt]()
    for phase in plan.stage.phases:
        receipts += run_phase(phase, context, plan.config.resources, progress)
    manifest = Manifest(
        stage=plan.stage.name,
        version=plan.stage.version,
        fingerprint=str(plan.fingerprint),
        config=plan.fingerprinted_config(),
        resources=plan.config.resources.model_dump(mode="json"),
        inputs=plan.input_records(),
        counts=total_counts(receipts),
        facts=all_facts(receipts),
        receipts=tuple(receipts),
        provenance=provenance(sys.argv, started, time.monotonic() - began, receipts),
    )
    write_manifest(plan.folder, manifest)
    _clear(plan)
    return manifest


def _clear(plan: PlannedStage) -> None:
    """Remove what a sealed stage no longer needs, and what workers that its driver had lost wrote meanwhile."""
    remove_temporaries(plan.folder)
    for name in (RECEIPTS, WORK):
        remove_tree(plan.folder / name)
    if plan.stage.works_in:
        remove_tree(UPath(plan.stage.works_in(plan.context())))


def make_room(plan: PlannedStage, console: Console) -> bool:
    """Keep aside what another fingerprint left in the folder; True where earlier output of this one came back."""
    folder, name = plan.folder, plan.name
    if plan.state is State.CHANGED:
        aside = _kept(plan, str(present_fingerprint(folder)))
        remove_tree(aside)
        move_tree(folder, aside)
        console.print(f"{name}: {plan.why}; the old output is kept in {aside}", soft_wrap=True, highlight=False)
    elif plan.state is State.TO_DO and _holds_files(folder):
        raise SealError("the stage's folder holds files that no run of it wrote", str(folder), "Move it away.")
    if plan.state in (State.CHANGED, State.TO_DO) and (kept := _kept(plan, str(plan.fingerprint))).exists():
        move_tree(kept, folder)
        console.print(
            f"{name}: earlier output with these settings is back from {kept}", soft_wrap=True, highlight=False
        )
        return True
    return False


def _holds_files(folder: UPath) -> bool:
    remove_temporaries(folder)  # a run may have been killed before it wrote anything else
    return folder.exists() and any(path.is_file() for path in folder.rglob("*"))


def _kept(plan: PlannedStage, fingerprint: str) -> UPath:
    return plan.folder.parent / KEPT / f"{plan.name}-{fingerprint[:KEPT_DIGITS]}"
