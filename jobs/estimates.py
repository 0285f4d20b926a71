"""What the work of a stage is made of, before anything is read: amounts, pieces, the sizes of what it makes."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from idia_core.rates import Device
from idia_core.sizes import UNKNOWN, Size
from pipelines.train_config import Run

BLACK_BOX = "black box"


@dataclass(frozen=True)
class Work:
    """An amount of work of one kind."""

    rate: str
    """What kind it is, as rates call it."""
    amount: float
    """In the rate's unit."""
    splits: float = 1
    """The pieces that can be done beside each other."""
    device: Device = "cpu"


@dataclass(frozen=True)
class Estimate:
    """What a stage has to do."""

    work: tuple[Work, ...] = ()
    makes: Mapping[str, Size] = field(default_factory=dict)
    """The sizes of its tables, as far as they follow from those of its inputs."""
    runs: tuple[Run, ...] = ()
    """Trainings, which are counted as `train` counts them itself."""
    waits: float = 0.0
    """Seconds that it waits for others, such as a service that answers so many questions a second."""
    rows_in: float = UNKNOWN
    """What its seal will count as `rows_in`, so that how fast an earlier run was can be told from its seal."""
    notes: tuple[str, ...] = ()


class Inputs:
    """The sizes of a stage's inputs, by field; of one that the study does not give, nothing is known."""

    def __init__(self, sizes: Mapping[str, Size], beside: Mapping[str, Mapping[str, Size]]) -> None:
        self._sizes, self._beside = sizes, beside

    def all(self) -> Iterable[Size]:
        """The sizes of all inputs, in the order of the study."""
        return self._sizes.values()

    def beside(self, field: str, table: str) -> Size:
        """The size of another table of the stage that made an input."""
        return self._beside.get(field, {}).get(table, Size())

    def __contains__(self, field: str) -> bool:
        return field in self._sizes

    def __getitem__(self, field: str) -> Size:
        return self._sizes.get(field, Size())

    def tested(self) -> float:
        """The people who take part: those of the selection, or everybody."""
        people = self["identities"].rows
        return self["selection"].people if "selection" in self else people

    def pictures(self) -> float:
        """Pictures of the people who take part, if everybody has as many."""
        return self["pictures"].rows * self.tested() / self["identities"].rows


def pieces(amount: float, each: float) -> float:
    """How many pieces of at most `each` make up an amount; nan where that is unknown."""
    return amount if math.isnan(amount) else max(1.0, float(math.ceil(amount / each)))


def pieces_of_files(size: Size, each: float) -> float:
    """How many pieces of at most `each` rows equal files are cut into."""
    return size.files * pieces(size.rows / size.files, each)


def architecture_of(model: str) -> str:
    """The architecture that a model's name begins with."""
    return BLACK_BOX if model.startswith(("http://", "https://")) else model.partition(":")[0]


def device_of(config: Any) -> Device:
    """Whether a stage's networks run on GPUs."""
    return "gpu" if str(config.device).startswith("cuda") else "cpu"


Estimator = Callable[[Any, Inputs], Estimate]
"""Tells from a stage's config and its inputs what it has to do."""
