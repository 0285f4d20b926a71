"""`idia plan`, `status` and `watch`: what a study costs, how far it is, and how it gets on."""

import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from upath import UPath

from jobs import options

if TYPE_CHECKING:
    from idia_core.rates import Rates, RatesFile
    from idia_core.sizes import Size
    from jobs.measured import Measured
    from jobs.plan import PlannedStage

Files = Annotated[
    list[str] | None,
    typer.Option(metavar="FILE.yaml", help="Rates and prices of yours; of two the first counts. May be repeated."),
]
Others = Annotated[
    list[str] | None,
    typer.Option(metavar="FOLDER", help="What another study wrote: its seals tell how fast it was. May be repeated."),
]
Sizes = Annotated[
    list[str] | None,
    typer.Option(metavar="FILE.yaml", help="Sizes of inputs that are not here; `paper` has those of the paper's."),
]
OneSize = Annotated[
    list[str] | None,
    typer.Option("--size", metavar="SOURCE=SIZE", help="'cc3m/*.tar=2.8e6 rows, 76 GB, 331 files'. May be repeated."),
]


def plan(  # noqa: PLR0913, PLR0917 - the options of a command
    study: options.StudyFile,
    stages: Annotated[list[str] | None, typer.Argument(help="Only these stages.")] = None,
    settings: options.Settings = None,
    sizes: Sizes = None,
    size: OneSize = None,
    rates: Files = None,
    measured: Others = None,
    cpus: Annotated[float | None, typer.Option(min=0, help="CPUs of the cluster; this machine's if not given.")] = None,
    gpus: Annotated[float | None, typer.Option(min=0, help="Its GPUs; this machine's if not given.")] = None,
    cpu_price: Annotated[float | None, typer.Option(min=0, help="Of an hour of a CPU core.")] = None,
    gpu_price: Annotated[float | None, typer.Option(min=0, help="Of an hour of a GPU.")] = None,
) -> None:
    """Say what each stage would read, take and cost, before anything is spent."""
    from idia_core.rates import Prices, RatesFile  # noqa: PLC0415 - `--help` should not wait for pipelines
    from jobs.costs import Cluster, Terms, study_costs  # noqa: PLC0415
    from jobs.plan import check_stage_names, plan_loosely  # noqa: PLC0415
    from jobs.plan_table import print_costs  # noqa: PLC0415

    loaded = options.load(study, settings)
    check_stage_names(loaded, stages or [])
    plans = plan_loosely(loaded, stages or [])
    prices = RatesFile(prices=Prices(cpu_hour=cpu_price, gpu_hour=gpu_price))
    known = _rates(rates or [], prices)
    cluster = Cluster(_cpus() if cpus is None else cpus, _gpus() if gpus is None else gpus)
    terms = Terms(known, _measured(plans, measured or []), _sizes(sizes or [], size or []), cluster)
    print_costs(loaded, study_costs(loaded, plans, terms), cluster, known.prices, Console())


def status(study: options.StudyFile, settings: options.Settings = None) -> None:
    """Show how far a study is, from what it has written: no run needs to be alive, and no cluster."""
    from jobs.status import print_status  # noqa: PLC0415

    print_status(options.load(study, settings), Console())


def watch(study: options.StudyFile, settings: options.Settings = None) -> None:
    """Show how a study gets on until it is done, on one screen; Ctrl-C ends the view and not the run.

    Where the output is no terminal it is as `idia status`.
    """
    from jobs.status import watch_study  # noqa: PLC0415

    watch_study(options.load(study, settings), Console())


def _rates(files: list[str], given: "RatesFile") -> "Rates":
    """What is given on the command line, in files, and with idia, in this order."""
    from idia_core.rates import Rates, read_rates  # noqa: PLC0415

    own = [(file, read_rates(UPath(file))) for file in files]
    return Rates([("the command line", given), *own], read_rates(_shipped("rates.yaml")))


def _measured(plans: "Mapping[str, PlannedStage]", folders: list[str]) -> "list[Measured]":
    """What the seals of the study, and of others that are named, tell of how fast stages are."""
    from idia_core.storage import as_path  # noqa: PLC0415
    from jobs.measured import measured, stage_folders  # noqa: PLC0415

    own = [plan.folder for plan in plans.values()]
    return measured([*own, *(folder for out in folders for folder in stage_folders(as_path(out)))])


def _sizes(files: list[str], given: list[str]) -> "dict[str, Size]":
    """What is declared of inputs, by source: what options say counts more than what files say."""
    from idia_core.sizes import given_sizes, read_sizes  # noqa: PLC0415

    found = dict[str, "Size"]()
    for file in reversed(files):
        shipped = _shipped(f"{file}.yaml")
        found |= read_sizes(shipped if not UPath(file).exists() and shipped.exists() else UPath(file))
    return found | given_sizes(given)


def _shipped(name: str) -> UPath:
    return UPath(str(resources.files("jobs") / "numbers" / name))


def _cpus() -> int:
    return len(os.sched_getaffinity(0))


def _gpus() -> int:
    """This machine's GPUs, as NVIDIA's driver lists them: torch would take seconds to say it."""
    return len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
