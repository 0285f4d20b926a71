"""What a study would do: every stage's inputs, fingerprint and state, without running any."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from upath import UPath

from idia_core.config import StageConfig, Study, suggest
from idia_core.errors import MissingInputError, SealError, UsageError
from idia_core.manifest import (
    FAILED,
    FINGERPRINT,
    RECEIPTS,
    InputRecord,
    Manifest,
    digest_of,
    failed_files,
    fingerprint,
    missing_files,
    read_manifest,
)
from idia_core.storage import as_path, find_files, identity_of
from jobs.stages import KEPT, stage_configs, stage_of, upstream_of
from pipelines.stage import Input, ResolvedInput, Stage, StageContext

KEPT_DIGITS = 12
ANY_FILE = Input("a file that the config names", patterns=("*",))
TOLERATED = "tolerate_failed_inputs"
"""The field of a config that may let a run end without some of its inputs."""
ATTEMPT = "attempt"
"""The field of a config that counts how often what failed was tried anew; a run may have raised it."""
MOST_ATTEMPTS = 100


class State(StrEnum):
    """How far a stage is."""

    DONE = "done"
    BEGUN = "begun"
    CHANGED = "changed"
    TO_DO = "to do"
    WAITS = "waits"
    LACKS = "lacks input"


@dataclass(frozen=True)
class PlannedStage:
    """A stage of a study: what it is, where it writes, and what is there already."""

    stage: Stage
    config: StageConfig
    folder: UPath
    state: State
    why: str
    fingerprint: str | None = None
    """None while an earlier stage is not done: the fingerprint covers its output."""
    inputs: Mapping[str, ResolvedInput] | None = None
    manifest: Manifest | None = None

    @property
    def name(self) -> str:
        """What the study calls it: the stage's own name, unless the study has it several times."""
        return self.folder.name

    def seal(self) -> Manifest:
        """The manifest of a stage that is done."""
        if self.manifest is None:
            raise MissingInputError(f"stage '{self.name}' is not done", str(self.folder), "Run it first.")
        return self.manifest

    def context(self) -> StageContext:
        """What the stage's phases get."""
        kept = tuple(sorted((self.folder.parent / KEPT).glob(f"{self.name}-*"), key=str))
        return StageContext(self.name, self.config, self.inputs or {}, self.folder, kept, self.fingerprint)

    def at_attempt(self, attempt: int) -> "PlannedStage":
        """The same with another attempt."""
        return replace(self, config=self.config.model_copy(update={ATTEMPT: attempt}))

    def wanted_fingerprint(self) -> str:
        """What the output will depend on; the inputs must be there."""
        digests = {field: found.digest for field, found in (self.inputs or {}).items()}
        return fingerprint(self.stage.name, self.stage.version, self.fingerprinted_config(), digests)

    def fingerprinted_config(self) -> dict[str, Any]:
        """The config without what only concerns speed, is covered by the inputs' digests, or is checked at each run."""
        return self.config.model_dump(mode="json", exclude={"resources", "inputs", TOLERATED})

    def input_records(self) -> dict[str, InputRecord]:
        """The inputs as the manifest keeps them."""
        found = self.inputs or {}
        return {k: InputRecord(source=v.source, digest=v.digest, files=len(v.files)) for k, v in found.items()}


def plan_stage(
    study: Study, name: str, configs: Mapping[str, StageConfig], earlier: Mapping[str, PlannedStage]
) -> PlannedStage:
    """The plan of one stage, given the plans of those before it.

    Raises `MissingInputError` for a path that matches nothing and `SealError` for a sealed output that is damaged.
    """
    stage, config, folder = stage_of(study, name), configs[name], as_path(study.out) / name
    unready = [upstream_of(source) for source in config.inputs.values()]
    unready = [upstream for upstream in unready if upstream in earlier and earlier[upstream].state is not State.DONE]
    named = {
        field: _resolve(path, ANY_FILE, {}, f"stage {name}, {field}")
        for field, path in stage.named_files(config).items()
    }
    if unready:
        return PlannedStage(stage, config, folder, State.WAITS, f"for {unready[0]}")
    inputs = named | {
        field: _resolve(source, stage.inputs[field], earlier, f"stage {name}, input {field}")
        for field, source in config.inputs.items()
    }
    planned = _as_it_is_there(PlannedStage(stage, config, folder, State.TO_DO, "", inputs=inputs))
    state, why, manifest = _state(folder, planned.wanted_fingerprint())
    if manifest:
        _check_failed_inputs(manifest, config, folder)
    return replace(planned, state=state, why=why, fingerprint=planned.wanted_fingerprint(), manifest=manifest)


def _as_it_is_there(plan: PlannedStage) -> PlannedStage:
    """The plan with a higher attempt, where that is all that parts it from what is in its folder or was kept of it."""
    first = getattr(plan.config, ATTEMPT, None)
    if first is None:
        return plan
    present = present_fingerprint(plan.folder) or ""
    kept = {path.name.removeprefix(f"{plan.name}-") for path in plan.context().kept}
    tried = {plan.at_attempt(first + more).wanted_fingerprint(): first + more for more in range(MOST_ATTEMPTS)}
    there = [attempt for found, attempt in tried.items() if found[:KEPT_DIGITS] in kept]
    return plan.at_attempt(tried.get(present, max(there, default=first)))


def with_new_attempt(plan: PlannedStage) -> PlannedStage:
    """The plan of a stage that is done, so that it tries anew what failed; others stay as they are."""
    attempt = getattr(plan.config, ATTEMPT, None)
    if attempt is None or plan.state is not State.DONE:
        return plan
    raised = plan.at_attempt(attempt + 1)
    return replace(
        raised,
        state=State.CHANGED,
        why="what failed is tried anew",
        fingerprint=raised.wanted_fingerprint(),
        manifest=None,
    )


def _resolve(source: str, declared: Input, earlier: Mapping[str, PlannedStage], where: str) -> ResolvedInput:
    upstream, table = upstream_of(source), source.partition(".")[2]
    if upstream in earlier:
        folder, manifest = earlier[upstream].folder, earlier[upstream].seal()
        files = tuple(folder / entry.path for entry in manifest.files(table))
        return ResolvedInput(source, folder / table, files, manifest.digest(table))
    try:
        files = tuple(find_files(source, declared.patterns, where))
    except MissingInputError as error:
        if "/" in source or not upstream or not earlier:
            raise
        raise MissingInputError(error.what, where, suggest(upstream, list(earlier))) from None
    return ResolvedInput(source, as_path(source), files, digest_of([identity_of(file) for file in files]))


def _state(folder: UPath, wanted: str) -> tuple[State, str, Manifest | None]:
    present, manifest = present_fingerprint(folder), read_manifest(folder)
    if present is None:
        return State.TO_DO, "not run yet", None
    if present != wanted:
        return State.CHANGED, "its config, inputs or version changed", None
    if manifest is None:
        return State.BEGUN, "was interrupted", None
    if lost := missing_files(folder, (entry for receipt in manifest.receipts for entry in receipt.files)):
        fix = "Put it back, or delete the folder to make it again."
        raise SealError(f"{len(lost)} sealed files are gone or cut short, first '{lost[0].path}'", str(folder), fix)
    return State.DONE, f"sealed {manifest.provenance.started[:19]}", manifest


def _check_failed_inputs(manifest: Manifest, config: StageConfig, folder: UPath) -> None:
    facts, tolerated = manifest.facts.get(FAILED, ()), getattr(config, TOLERATED, 0)
    if len(failed := failed_files(facts)) > tolerated:
        what = f"it was made without {len(failed)} inputs that could not be read, first {facts[0]}"
        fix = f"Fetch them again or delete the folder, or run with --tolerate-failed-inputs {len(failed)}."
        raise SealError(what, str(folder), fix)


def present_fingerprint(folder: UPath) -> str | None:
    """The fingerprint of what is in a stage's folder, sealed or begun; None where no run began."""
    if manifest := read_manifest(folder):
        return manifest.fingerprint
    begun = folder / RECEIPTS / FINGERPRINT
    return begun.read_text(encoding="utf-8") if begun.exists() else None


def needed_stages(configs: Mapping[str, StageConfig], only: Sequence[str]) -> set[str]:
    """The stages in `only` and those that they are made from; all of them where it is empty."""
    needed = set(only or configs)
    for name in reversed(list(configs)):  # what a stage is made from comes before it
        if name in needed:
            needed |= {upstream_of(source) for source in configs[name].inputs.values()}
    return needed & set(configs)


def plan_if_possible(
    study: Study,
    name: str,
    configs: Mapping[str, StageConfig],
    earlier: Mapping[str, PlannedStage],
    needed: set[str],
) -> PlannedStage | None:
    """The plan of one stage, given those before it; None where it is not needed and an input of its own is missing."""
    try:
        return plan_stage(study, name, configs, earlier)
    except MissingInputError:
        if name in needed:
            raise
    return None


def plan_study(study: Study, only: Sequence[str] = ()) -> dict[str, PlannedStage]:
    """The plans of all stages in order; those that `only` does not need are left out where an input is missing."""
    configs = stage_configs(study)
    needed, plans = needed_stages(configs, only), dict[str, PlannedStage]()
    for name in study.stages:
        if plan := plan_if_possible(study, name, configs, plans, needed):
            plans[name] = plan
    return plans


def plan_loosely(study: Study, only: Sequence[str] = ()) -> dict[str, PlannedStage]:
    """The plans of the stages in `only`, or of all: where an input is not here, a plan that says so, and no error."""
    configs, plans = stage_configs(study), dict[str, PlannedStage]()
    needed = needed_stages(configs, only)
    for name in study.stages:
        if name not in needed:
            continue
        try:
            plans[name] = plan_stage(study, name, configs, plans)
        except MissingInputError as error:
            folder = as_path(study.out) / name
            plans[name] = PlannedStage(stage_of(study, name), configs[name], folder, State.LACKS, error.what)
    return {name: plan for name, plan in plans.items() if not only or name in only}


def check_stage_names(study: Study, only: Sequence[str]) -> None:
    """Raise `UsageError` for a stage that the study does not have."""
    for name in only:
        if name not in study.stages:
            fix = suggest(name, list(study.stages))
            raise UsageError(f"the study has no stage '{name}'", f"study {study.name}", fix)


def table_folder(study: Study, table: str) -> UPath:
    """The folder of `stage.table`; `UsageError` when the study has no such table."""
    name, _, wanted = table.partition(".")
    if name not in study.stages:
        raise UsageError(f"the study has no stage '{name}'", "STAGE.TABLE", suggest(name, list(study.stages)))
    if wanted not in (tables := stage_of(study, name).tables):
        raise UsageError(f"stage '{name}' has no table '{wanted}'", "STAGE.TABLE", suggest(wanted, tables))
    return as_path(study.out) / name / wanted


def describe(manifest: Manifest) -> str:
    """What a sealed stage did, in a line: rows in, kept and dropped by reason, and the seconds it took."""
    counts = dict(manifest.counts)
    parts = [f"{counts.pop(key):,} {word}" for key, word in (("rows_in", "in"), ("rows_kept", "kept")) if key in counts]
    parts += [f"{count:,} {reason}" for reason, count in counts.items() if count]
    return f"{', '.join(parts) or 'done'}  ({manifest.provenance.seconds:.1f} s)"
