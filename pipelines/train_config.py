"""The settings of `train`, the runs that they make of a study's training sets, and where these work."""

import tempfile
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from idia_core.config import Resources, SeededConfig, Strict, suggest, validate
from idia_core.errors import ConfigError, InvalidInputError
from idia_core.exposure import Loader
from idia_core.extra_flags import check_extra_flags
from idia_core.manifest import WORK, digest_of
from idia_core.model_reference import architecture_file
from idia_core.storage import is_local
from idia_core.training import TrainingRecipe
from pipelines.stage import StageContext

Positive = Annotated[float, Field(gt=0)]
PAPER_ARCHITECTURES = ("ViT-B-32", "RN50", "RN50x4")
NOT_IN_A_RECIPE = {"architecture": "train.architectures", "seed": "train.seed"}
"""Fields of a recipe that the stage sets, and by what."""


class Override(Strict):
    """Another recipe for some of the runs."""

    architecture: str | None = None
    """The runs of this architecture; of all when not given."""
    images_per_member: int | None = None
    """The runs on the set of this K; on all when not given."""
    recipe: dict[str, Any] = Field(min_length=1)
    """The fields that are others there; of two overrides the later one counts."""

    @model_validator(mode="after")
    def _some_runs(self) -> Self:
        if self.architecture is None and self.images_per_member is None:
            raise ValueError("an override names an architecture, an images_per_member or both")
        return self

    def covers(self, architecture: str, images_per_member: int | None) -> bool:
        """Whether it is about that run."""
        return self.architecture in (None, architecture) and self.images_per_member in (None, images_per_member)


class TrainResources(Resources):
    """How runs are placed and kept alive."""

    workers: Annotated[int, Field(ge=1)] | None = None
    """Runs at once; as many as the cluster holds when not given."""
    cpus: Positive = 1
    """CPUs reserved for each process of a run; on a GPU it has four loaders besides."""
    gpus: Annotated[float, Field(ge=0)] = 0
    """GPUs that a run takes of one node: follows from the recipe."""
    nodes: Annotated[int, Field(ge=1)] | dict[str, Annotated[int, Field(ge=1)]] = 1
    """Nodes of a run, or those of each architecture, `{RN50x4: 2}`, the others having one."""
    placement: Literal["STRICT_PACK", "PACK", "SPREAD"] = "STRICT_PACK"
    """Ray's: all processes of a run on one node (STRICT_PACK), on few (PACK), or on as many as it has (SPREAD)."""
    max_restarts: Annotated[int, Field(ge=0)] = 3
    """How often a run goes on from its last checkpoint after a rank or a node was lost."""
    stall_seconds: Positive = 1800
    """A run that takes no step for so long is ended; the first step comes after the model and the loaders are there."""
    wait_seconds: Annotated[float, Field(ge=0)] = 600
    """How long a run that lost a node waits for it to come back, before it goes on with fewer processes."""
    checkpoint_epochs: Annotated[int, Field(ge=1)] = 1
    """Epochs from one checkpoint to the next; the two newest are kept until the stage is sealed."""
    shared_folder: str | None = None
    """Folder for checkpoints of unfinished runs, the same on all nodes; in the stage's own folder when not given."""
    pairs_per_second: Positive | dict[str, Positive] | None = None
    """Of one GPU (or CPU process), or those of each architecture: for --dry-run, and to start the longest run first."""
    wandb: bool = False
    """Report to Weights & Biases too; TensorBoard's files are always written."""

    def nodes_of(self, architecture: str) -> int:
        """The nodes of a run."""
        return self.nodes if isinstance(self.nodes, int) else self.nodes.get(architecture, 1)

    def rate_of(self, architecture: str) -> float | None:
        """Pairs a second of one process, if known."""
        rates = self.pairs_per_second
        return rates.get(architecture) if isinstance(rates, dict) else rates


class TrainConfig(SeededConfig):
    """Settings of `train`: each architecture is trained on each training set."""

    architectures: tuple[str, ...] = Field(default=PAPER_ARCHITECTURES, min_length=1)
    """Model names of open_clip's, or `idia-rn-tiny`."""
    recipe: TrainingRecipe = TrainingRecipe()
    """What decides the weights of all runs."""
    overrides: tuple[Override, ...] = ()
    """Other recipes for some runs."""
    equal_steps: bool = False
    """Train on every set for as many steps as on the largest, so that K alone varies; pairs are then shown more than
    once in some epochs, and `exactly_once` must be false."""
    exactly_once: bool = True
    """Refuse a set that would not be shown exactly once an epoch; otherwise `exposures` says how often it is."""
    resources: TrainResources = TrainResources()
    """How runs are placed and kept alive; none of it decides the weights."""

    @field_validator("architectures")
    @classmethod
    def _known(cls, architectures: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(architectures)) < len(architectures):
            raise ValueError("an architecture is given twice")
        for architecture in architectures:
            architecture_file(architecture)  # an unknown one is told before the shards are built
        return architectures

    @field_validator("recipe")
    @classmethod
    def _set_by_the_stage(cls, recipe: TrainingRecipe) -> TrainingRecipe:
        _check_fields(recipe.model_fields_set, "train.recipe")
        return recipe

    @model_validator(mode="after")
    def _steps_or_exposures(self) -> Self:
        if self.equal_steps and self.exactly_once:
            what = "with equal_steps some pairs are shown more than once an epoch"
            raise ConfigError(what, "train.equal_steps", "Set train.exactly_once to false.")
        return self

    @model_validator(mode="after")
    def _runs_are_possible(self) -> Self:
        for number, override in enumerate(self.overrides):
            where = f"train.overrides.{number}"
            _check_fields(override.recipe, f"{where}.recipe")
            validate(TrainingRecipe, {**self.recipe.model_dump(), **override.recipe}, f"{where}.recipe")
            _check_known([override.architecture] if override.architecture else [], self.architectures, where)
        for field in ("nodes", "pairs_per_second"):
            named = getattr(self.resources, field)
            _check_known(named if isinstance(named, dict) else (), self.architectures, f"train.resources.{field}")
        ks = {None, *(override.images_per_member for override in self.overrides)}
        recipes = [self.recipe_of(architecture, k) for architecture in self.architectures for k in ks]
        gpus = max(self._gpus_of_a_node(recipe) for recipe in recipes)
        if self.resources.wandb and find_spec("wandb") is None:
            fix = "Install it, pip install wandb, or leave wandb false: TensorBoard's files are always written."
            raise ConfigError("the package wandb is not installed", "train.resources.wandb", fix)
        if "gpus" in self.resources.model_fields_set and self.resources.gpus != gpus:
            raise ValueError(f"resources.gpus follows from the recipe: it is {gpus}")
        # The model is frozen once it is there; jobs/run.py reads the GPUs from where all stages have them.
        object.__setattr__(self, "resources", self.resources.model_copy(update={"gpus": gpus}))
        return self

    def _gpus_of_a_node(self, recipe: TrainingRecipe) -> int:
        """The GPUs of one node's part of a run; `ConfigError` where no cluster could hold the run."""
        nodes = self.resources.nodes_of(recipe.architecture)
        if recipe.processes % nodes:
            what = f"{recipe.processes} processes of {recipe.architecture} do not divide among {nodes} nodes"
            raise ConfigError(what, "train.resources.nodes", "Change recipe.processes or the nodes.")
        if nodes > 1 and self.resources.placement == "STRICT_PACK":
            fix = "STRICT_PACK keeps a run on one node; use SPREAD."
            raise ConfigError(f"a run of {recipe.architecture} takes {nodes} nodes", "train.resources.placement", fix)
        if recipe.extra_flags:
            check_extra_flags(recipe)
        return recipe.processes // nodes if recipe.device == "cuda" else 0

    def recipe_of(self, architecture: str, images_per_member: int | None) -> TrainingRecipe:
        """The recipe of a run, with all overrides that are about it."""
        fields = self.recipe.model_dump()
        for override in self.overrides:
            if override.covers(architecture, images_per_member):
                fields |= override.recipe
        return TrainingRecipe.model_validate(fields | {"architecture": architecture, "seed": self.seed or 0})


def _check_fields(fields: Iterable[str], where: str) -> None:
    for field in fields:
        if field in NOT_IN_A_RECIPE:
            raise ConfigError(f"'{field}' is not set in a recipe", where, f"Set {NOT_IN_A_RECIPE[field]}.")


def _check_known(named: Iterable[str], architectures: Sequence[str], where: str) -> None:
    for name in named:
        if name not in architectures:
            raise ConfigError(f"no run has the architecture '{name}'", where, suggest(name, architectures))


class Run(Strict):
    """One model to train; `Run.model_validate(run.model_dump(mode="json"))` is the run again."""

    model: str
    """Its name in all tables and files."""
    architecture: str
    set: str
    """The training set's name."""
    images_per_member: int
    pairs: int
    """Of the set."""
    samples: int
    """Pairs of an epoch: more than the set has where steps are equal."""
    recipe: TrainingRecipe

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run, as open_clip counts them."""
        recipe = self.recipe
        loader = Loader(recipe.batch_size_per_process, recipe.processes, recipe.loader_processes, recipe.seed)
        return recipe.epochs * loader.batches_per_worker(self.samples) * loader.workers_per_rank

    def digest(self, data: str) -> str:
        """What tells its checkpoints from those of any other run; `data` is the digest of the set's tars."""
        return digest_of({"run": self.model_dump(mode="json"), "data": data})

    def hours(self, pairs_per_second: float) -> float:
        """How long it takes where one process trains so many pairs a second."""
        return self.samples * self.recipe.epochs / (pairs_per_second * self.recipe.processes) / 3600


def runs(config: TrainConfig, sets: Sequence[tuple[str, int, int]]) -> list[Run]:
    """The runs on these sets (name, K, pairs): those of the most pairs first, equal ones in the config's order.

    How fast they are plays no part, as their places name the files of the results; `length_of` says what starts first.
    Raises `ConfigError` for an override about a K that no set has.
    """
    ks = [str(k) for _, k, _ in sets]
    for number, override in enumerate(config.overrides):
        if override.images_per_member is not None and str(override.images_per_member) not in ks:
            where = f"train.overrides.{number}.images_per_member"
            raise ConfigError(f"no set has K = {override.images_per_member}", where, f"There are {', '.join(ks)}.")
    largest = max((pairs for _, _, pairs in sets), default=0)
    found = [
        Run(
            model=name if len(config.architectures) == 1 else f"{architecture}_{name}",
            architecture=architecture,
            set=name,
            images_per_member=k,
            pairs=pairs,
            samples=largest if config.equal_steps else pairs,
            recipe=config.recipe_of(architecture, k),
        )
        for architecture in config.architectures
        for name, k, pairs in sets
    ]
    return sorted(found, key=lambda run: -run.samples * run.recipe.epochs)


def length_of(run: Run, config: TrainConfig) -> float:
    """How long a run takes beside the others: its hours where every architecture's rate is known, else its pairs."""
    rates = {architecture: config.resources.rate_of(architecture) for architecture in config.architectures}
    rate = rates[run.architecture]
    return run.hours(rate) if rate and all(rates.values()) else run.samples * run.recipe.epochs


def work_root(context: StageContext) -> Path:
    """The folder that holds one for each run, with its checkpoints; the driver and all nodes of a run must see it."""
    config: TrainConfig = context.config
    name = f"idia-{digest_of([str(context.folder), context.fingerprint])[:12]}"
    if config.resources.shared_folder:
        return Path(config.resources.shared_folder) / name
    if is_local(context.folder):
        return Path(context.folder.path) / WORK
    return Path(tempfile.gettempdir()) / name


def check_work_root(context: StageContext, machines: int) -> None:
    """Raise `InvalidInputError` where so many machines would not all see the folder of `work_root`."""
    if machines > 1 and not (context.config.resources.shared_folder or is_local(context.folder)):
        fix = "Set train.resources.shared_folder to one that all nodes see."
        raise InvalidInputError(f"training on {machines} machines needs a shared folder", str(context.folder), fix)
