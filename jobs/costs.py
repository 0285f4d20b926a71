"""What a study costs before it runs: for each stage CPU- and GPU-hours, time on a cluster, and money."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from idia_core.config import StageConfig, Study
from idia_core.errors import InvalidInputError, MissingInputError
from idia_core.rates import Device, Known, Prices, Rates
from idia_core.sizes import UNKNOWN, Size
from idia_core.storage import find_files
from jobs.counting import counted
from jobs.estimates import Estimate, Inputs, Work
from jobs.measured import Measured, matching
from jobs.plan import PlannedStage, State
from jobs.stage_costs import ESTIMATORS
from jobs.stages import stage_configs, stage_of, upstream_of
from pipelines.train_config import Run, TrainConfig, length_of
from pipelines.train_preview import schedule_on

HOUR, ABSENT = 3600.0, Size(files=0)
NODE_GPUS = 8
KEPT_ROWS = {"select": "selection"}
"""Of a sealed stage, the table of whose people it counts as `rows_kept` those who take part."""


class Cluster(NamedTuple):
    """What there is to work with."""

    cpus: float
    gpus: float


class Taken(NamedTuple):
    """What work takes."""

    cpu_hours: float = 0.0
    gpu_hours: float = 0.0
    hours: float = 0.0
    """On the cluster."""


class UsedRate(NamedTuple):
    """A rate that was counted with."""

    work: str
    told: str
    source: str


@dataclass(frozen=True)
class StageCost:
    """What a stage costs."""

    plan: PlannedStage
    reads: float = 0.0
    """Bytes of its inputs."""
    reads_more: bool = False
    """Whether it has inputs, too, of which nobody knows the size."""
    splits: float = 0.0
    taken: Taken = field(default_factory=Taken)
    money: float = 0.0
    rates: tuple[UsedRate, ...] = ()
    missing: tuple[str, ...] = ()
    """Rates that nobody gives."""
    absent: tuple[str, ...] = ()
    """Sources that are not here."""
    notes: tuple[str, ...] = ()


@dataclass
class _Count:
    """What a stage takes, and what that was counted with."""

    taken: Taken = field(default_factory=Taken)
    rates: list[UsedRate] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Terms:
    """What costs are counted with."""

    rates: Rates
    measured: Sequence[Measured]
    sizes: Mapping[str, Size]
    """What is declared, by source."""
    cluster: Cluster


def study_costs(study: Study, plans: Mapping[str, PlannedStage], terms: Terms) -> list[StageCost]:
    """The costs of the planned stages of a study, in its order; of those that are done, nothing."""
    configs, costs = stage_configs(study), list[StageCost]()
    tables, external = dict[str, dict[str, Size]](), _External(terms.sizes)
    for name in study.stages:
        sizes = {}
        for name_of_input, source in configs[name].inputs.items():
            upstream, table = upstream_of(source), source.partition(".")[2]
            if upstream in tables:
                declared, made = terms.sizes.get(source, Size()), tables[upstream].get(table, Size())
                sealed = upstream in plans and plans[upstream].manifest is not None
                sizes[name_of_input] = made.or_else(declared) if sealed else declared.or_else(made)
            else:
                sizes[name_of_input] = external.size(source, stage_of(study, name).inputs[name_of_input].patterns)
        beside = {f: tables.get(upstream_of(source), {}) for f, source in configs[name].inputs.items()}
        estimate = ESTIMATORS[study.kind(name)](configs[name], Inputs(sizes, beside))
        tables[name] = dict(estimate.makes)
        if plan := plans.get(name):
            tables[name] |= _sealed(plan, estimate)
            unknown = _unknown_inputs(study, configs[name], sizes)
            absent = [source for source in configs[name].inputs.values() if external.is_absent(source)]
            costs.append(replace(_cost(plan, sizes, estimate, unknown, terms), absent=tuple(absent)))
    return costs


class _External:
    """The sizes of inputs from outside of a study: counted where they are there, else as they are declared."""

    def __init__(self, declared: Mapping[str, Size]) -> None:
        self._declared, self._counted = declared, dict[str, Size]()

    def size(self, source: str, patterns: Sequence[str]) -> Size:
        if source not in self._counted:
            try:
                self._counted[source] = counted(find_files(source, patterns, "idia plan"))
            except MissingInputError:
                self._counted[source] = ABSENT
        found = self._counted[source]
        return (Size() if found is ABSENT else found).or_else(self._declared.get(source, Size()))

    def is_absent(self, source: str) -> bool:
        """Whether it was looked for and is not here."""
        return self._counted.get(source) is ABSENT


def _sealed(plan: PlannedStage, estimate: Estimate) -> dict[str, Size]:
    """The sizes of the tables of a stage that is done: what its seal says, and what follows from its inputs."""
    if plan.manifest is None:
        return {}
    found = dict[str, Size]()
    for table in plan.manifest.tables():
        entries = plan.manifest.files(table)
        rows = [entry.rows for entry in entries if entry.rows is not None]
        size = Size(sum(rows) if len(rows) == len(entries) else UNKNOWN, sum(e.bytes for e in entries), len(entries))
        found[table] = size.or_else(estimate.makes.get(table, Size()))
    if plan.stage.name in KEPT_ROWS and "rows_kept" in plan.manifest.counts:
        table = KEPT_ROWS[plan.stage.name]
        found[table] = replace(found[table], people=float(plan.manifest.counts["rows_kept"]))
    return found


def _unknown_inputs(study: Study, config: StageConfig, sizes: Mapping[str, Size]) -> list[str]:
    """The sources from outside of the study of which nobody says how many rows they have."""
    own = {source for source in config.inputs.values() if upstream_of(source) in study.stages}
    return [s for f, s in config.inputs.items() if s not in own and math.isnan(sizes[f].rows)]


def _cost(
    plan: PlannedStage, sizes: Mapping[str, Size], estimate: Estimate, unknown: Sequence[str], terms: Terms
) -> StageCost:
    if plan.state is State.DONE:
        return StageCost(plan)
    known = [size.bytes for size in sizes.values() if not math.isnan(size.bytes)]
    reads = sum(known) if known or not sizes else UNKNOWN
    count = _count(plan, estimate, terms)
    if math.isnan(sum(work.amount for work in estimate.work)):
        count.notes += [f"give the size of its input: --size '{source}=... rows'" for source in unknown]
        count.notes += [] if unknown else ["how much there is to do is seen when the stages before it are done"]
    elif not math.isnan(count.taken.cpu_hours):
        count.notes = [*estimate.notes, *count.notes]
    return StageCost(
        plan,
        reads,
        len(known) < len(sizes),
        _splits(estimate),
        count.taken,
        price_of(count.taken, terms.rates.prices),
        tuple(count.rates),
        tuple(count.missing),
        notes=tuple(count.notes),
    )


def _splits(estimate: Estimate) -> float:
    """The pieces of the largest phase: work of one kind is done beside each other, whatever model it is for."""
    kinds = Counter[str]()
    for work in estimate.work:
        kinds[work.rate.partition(".")[0]] += work.splits  # type: ignore[assignment]  # some are unknown, so floats
    return max([float(len(estimate.runs)), *kinds.values()])


def price_of(taken: Taken, prices: Prices) -> float:
    """What it costs; nan without a price, and what has none is free where the other has one."""
    if prices.cpu_hour is None and prices.gpu_hour is None:
        return UNKNOWN
    return taken.cpu_hours * (prices.cpu_hour or 0) + taken.gpu_hours * (prices.gpu_hour or 0)


def _count(plan: PlannedStage, estimate: Estimate, terms: Terms) -> _Count:
    if estimate.runs:
        return _trainings(plan.config, estimate.runs, terms)
    count, parts = _Count(), list[tuple[float, float]]()
    said = estimate.work and all(terms.rates.given(work.rate, work.device) for work in estimate.work)
    earlier = None if said else matching(terms.measured, plan.stage.name, plan.config)
    seconds = earlier.seconds(estimate.rows_in, plan.config) if earlier else None
    if earlier and seconds is not None and not math.isnan(seconds):
        told = f"{1 / earlier.seconds_a_row:,.4g} rows/s of a worker"
        count.rates.append(UsedRate(plan.stage.name, told, earlier.where))
        parts.append((seconds, _splits(estimate)))
    else:
        for work in estimate.work:
            known = terms.rates.of(work.rate, work.device)
            parts.append((_seconds(work, known, plan.config), work.splits))
            if known:
                count.rates.append(_used(work.rate, known, work.device))
            elif work.amount and not math.isnan(work.amount):
                count.missing.append(f"{work.rate} on a {work.device.upper()}")
    _on_cluster(plan, parts, estimate, terms.cluster, count)
    return count


def _used(work: str, known: Known, device: Device) -> UsedRate:
    per = "core" if device == "cpu" else "GPU"
    return UsedRate(work, f"{known.per_second:,.4g} {known.unit}/s of a {per}", known.source)


def _seconds(work: Work, known: Known | None, config: StageConfig) -> float:
    """How long one worker would take."""
    if not work.amount:
        return 0.0
    if known is None:
        return UNKNOWN
    units = config.resources.cpus if work.device == "cpu" else config.resources.gpus
    return work.amount / known.per_second / (units or 1)


def _on_cluster(
    plan: PlannedStage, parts: Sequence[tuple[float, float]], estimate: Estimate, cluster: Cluster, count: _Count
) -> None:
    """Enter what parts, seconds of a worker and pieces each, take of a cluster."""
    resources = plan.config.resources
    seconds = sum(part for part, _ in parts) + estimate.waits
    room = [cluster.cpus // resources.cpus, resources.workers or math.inf]
    if resources.gpus:
        room.append(cluster.gpus // resources.gpus)
    if (slots := min(room)) < 1:
        what = f"a worker takes {resources.cpus:g} CPUs and {resources.gpus:g} GPUs: the cluster has no room"
        count.notes.append(what)
        slots = UNKNOWN
    hours = (sum(_length(part, pieces, slots) for part, pieces in parts) + estimate.waits) / HOUR
    count.taken = Taken(seconds * resources.cpus / HOUR, seconds * resources.gpus / HOUR, hours)


def _length(seconds: float, pieces: float, slots: float) -> float:
    """How long so many pieces take, so many at once."""
    if not seconds:
        return 0.0
    if math.isnan(pieces) or math.isnan(slots):
        return seconds / slots
    return seconds / pieces * math.ceil(pieces / slots)


def _trainings(config: StageConfig, runs: Sequence[Run], terms: Terms) -> _Count:
    """What trainings take, counted as `train` itself counts for --dry-run."""
    if not isinstance(config, TrainConfig):
        raise TypeError(config)
    device: Device = "gpu" if config.recipe.device == "cuda" else "cpu"
    count, speeds = _Count(Taken(UNKNOWN, UNKNOWN, UNKNOWN)), dict[str, float]()
    for architecture in config.architectures:
        work = f"train.{architecture}"
        known = terms.rates.of(work, device)
        if given := config.resources.rate_of(architecture):
            known = Known(given, "pairs", "train.resources.pairs_per_second")
        if known is None:
            count.missing.append(f"{work} on a {device.upper()}")
        else:
            speeds[architecture] = known.per_second
            count.rates.append(_used(work, known, device))
    if count.missing:
        return count
    timed = config.model_copy(update={"resources": config.resources.model_copy(update={"pairs_per_second": speeds})})
    ordered = sorted(runs, key=lambda run: -length_of(run, timed))
    hours = sum(run.hours(speeds[run.architecture]) * run.recipe.processes for run in ordered)
    length = _schedule(ordered, timed, terms.cluster, count)
    count.taken = Taken(hours * config.resources.cpus, hours if device == "gpu" else 0.0, length)
    return count


def _schedule(runs: Sequence[Run], config: TrainConfig, cluster: Cluster, count: _Count) -> float:
    """How many hours trainings take, which start as soon as they fit; unknown where one never would."""
    places = int(cluster.gpus if config.recipe.device == "cuda" else cluster.cpus // config.resources.cpus)
    node = max(1, min(NODE_GPUS, places) if config.recipe.device == "cuda" else places)
    try:
        return schedule_on(runs, config, [node] * (places // node)).length
    except InvalidInputError as error:
        count.notes.append(error.what)
        return UNKNOWN
