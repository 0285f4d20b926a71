"""What a second of a CPU or GPU does, and what an hour of it costs: the figures that `idia plan` counts with."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field
from upath import UPath

from idia_core.config import Strict, parse_yaml, validate
from idia_core.errors import MissingInputError

Device = Literal["cpu", "gpu"]
Positive = Annotated[float, Field(gt=0)]
Cost = Annotated[float, Field(ge=0)]


class Rate(Strict):
    """What one CPU core, and one GPU, does in a second."""

    unit: str = "units"
    """What is counted."""
    cpu: Positive | None = None
    """Units a second of one core."""
    gpu: Positive | None = None
    """Units a second of one GPU."""
    measured: str = ""
    """On what."""


class Prices(Strict):
    """What is paid."""

    cpu_hour: Cost | None = None
    """For an hour of one CPU core."""
    gpu_hour: Cost | None = None
    """For an hour of one GPU."""
    currency: str = "USD"
    """In which money."""


class RatesFile(Strict):
    """A file of rates."""

    prices: Prices = Prices()
    """What is paid."""
    rates: dict[str, Rate] = Field(default={})
    """By the kind of work."""


@dataclass(frozen=True)
class Known:
    """A rate and where it is from."""

    per_second: float
    unit: str
    source: str


class Rates:
    """Rates from several places; of two for the same work the one of the earlier place counts, what is shipped last."""

    def __init__(self, given: Iterable[tuple[str, RatesFile]], shipped: RatesFile) -> None:
        self._given = list(given)
        self._files = [*self._given, ("shipped", shipped)]

    def of(self, work: str, device: Device) -> Known | None:
        """How fast that kind of work is done on one core or GPU; None where nobody says."""
        return self._first(self._files, work, device)

    def given(self, work: str, device: Device) -> Known | None:
        """What the user says of it."""
        return self._first(self._given, work, device)

    def _first(self, files: Iterable[tuple[str, RatesFile]], work: str, device: Device) -> Known | None:
        for source, file in files:
            rate = file.rates.get(work)
            if rate and (value := rate.cpu if device == "cpu" else rate.gpu):
                return Known(value, self._unit(work), rate.measured or source)
        return None

    def _unit(self, work: str) -> str:
        units = (file.rates[work].unit for _, file in self._files if work in file.rates)
        return next((unit for unit in units if unit != Rate().unit), Rate().unit)

    @property
    def prices(self) -> Prices:
        """The prices of the first place that gives any."""
        given: Mapping[str, Prices] = {source: file.prices for source, file in self._files}
        return next((prices for prices in given.values() if prices != Prices()), Prices())


def read_rates(path: UPath) -> RatesFile:
    """The rates and prices of a YAML file; `MissingInputError` or `ConfigError` where they cannot be read."""
    try:
        document = parse_yaml(path.read_text(encoding="utf-8"), str(path))
    except (FileNotFoundError, IsADirectoryError):
        raise MissingInputError(f"no rates at '{path}'", "--rates", "Give the path of a YAML file.") from None
    return validate(RatesFile, document or {}, f"rates {path}")
