"""`idia`, the command line."""

import json
import sys
from importlib import resources
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from upath import UPath

from idia_core.config import Study, load_study
from idia_core.errors import IdiaError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Was this person's face and name in the data a vision-language model was trained on?",
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted. What is done stays: run again to go on.",
)
StudyFile = Annotated[
    str, typer.Argument(metavar="STUDY.yaml", help="A study: path, URL, or one of idia's own by name.")
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="STAGE.FIELD=VALUE", help="Change a field; may be repeated.")
]
Address = Annotated[str | None, typer.Option(help="A running Ray cluster; Ray is started here when not given.")]
Tolerate = Annotated[
    int | None,
    typer.Option(
        "--tolerate-failed-inputs", metavar="N", min=0, help="Let `scan` end without up to N files that cannot be read."
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would run, and why; run nothing.")]


@app.command(epilog="Example: idia run demo.yaml scan select --set select.max_occurrences=100")
def run(
    study: StudyFile,
    stages: Annotated[list[str] | None, typer.Argument(help="Only these stages.")] = None,
    settings: Settings = None,
    tolerate: Tolerate = None,
    dry_run: DryRun = False,
    address: Address = None,
) -> None:
    """Run the stages of a study that are not done yet."""
    own = [] if tolerate is None else [f"scan.tolerate_failed_inputs={tolerate}"]
    _run(_load(study, [*(settings or []), *own]), stages or [], dry_run, address)


@app.command(epilog="Example: idia status demo.yaml")
def status(study: StudyFile, settings: Settings = None) -> None:
    """Show how far a study is."""
    _show_plan(_load(study, settings), [])


@app.command(epilog="Example: duckdb -c \"select * from '$(idia path demo.yaml attack.verdicts)/*.parquet'\"")
def path(
    study: StudyFile,
    table: Annotated[str, typer.Argument(metavar="STAGE.TABLE", help="For example attack.verdicts.")],
    settings: Settings = None,
) -> None:
    """Print the folder in which a table lies."""
    from jobs.plan import table_folder  # noqa: PLC0415 - loads Ray, which `--help` should not wait for

    typer.echo(str(table_folder(_load(study, settings), table)))


@app.command(epilog="Example: idia names 'Jörg Müller' Sting · idia names --list people.csv")
def names(
    given: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Names to look at.")] = None,
    lists: Annotated[
        list[str] | None, typer.Option("--list", metavar="FILE", help="Parquet, CSV or text; may be repeated.")
    ] = None,
    show: Annotated[int, typer.Option(min=1, help="How many names to print.")] = 20,
) -> None:
    """Show how names will be searched for, before millions of captions are read."""
    from jobs.names import print_names  # noqa: PLC0415

    print_names(given or [], lists or [], show, Console())


@app.command(epilog="Example: idia demo --people my_pictures/ --out out/mine")
def demo(
    people: Annotated[
        str | None, typer.Option(help="Your own people: a folder with a sub-folder of pictures for each.")
    ] = None,
    out: Annotated[str | None, typer.Option(help="Where to write; out/demo when not given.")] = None,
    seed: Annotated[int, typer.Option(help="Another seed, another world.")] = 0,
    settings: Settings = None,
    dry_run: DryRun = False,
) -> None:
    """Train models that know some people and not others, attack them, and say who was in the training data."""
    own = [f"seed={seed}"]
    if out:
        own.append(f"out={json.dumps(out)}")
    if people:
        own.append(f"people.inputs.folder={json.dumps(people)}")
    study = _load("own_people.yaml" if people else "demo.yaml", [*own, *(settings or [])])
    _run(study, [], dry_run, None)


def _load(study: str, settings: list[str] | None) -> Study:
    given = UPath(study)
    if not given.exists() and "/" not in study:
        shipped = UPath(str(resources.files("jobs") / "studies" / f"{study.removesuffix('.yaml')}.yaml"))
        given = shipped if shipped.exists() else given
    return load_study(given, settings or [])


def _run(study: Study, stages: list[str], dry_run: bool, address: str | None) -> None:
    if dry_run:
        _show_plan(study, stages)
        return
    from jobs.run import run_study  # noqa: PLC0415
    from jobs.summary import print_summary  # noqa: PLC0415

    plans = run_study(study, Console(stderr=True), stages, address)
    print_summary(plans, Console())


def _show_plan(study: Study, stages: list[str]) -> None:
    from jobs.plan import plan_study  # noqa: PLC0415
    from jobs.run import check_stage_names, describe  # noqa: PLC0415

    check_stage_names(study, stages)
    table = Table(title=f"{study.name} in {study.out}", title_justify="left", box=None, pad_edge=False)
    for column in ("stage", "does", "state", "why", "what it did"):
        table.add_column(column, overflow="fold")
    for name, plan in plan_study(study, stages).items():
        if not stages or name in stages:
            did = describe(plan.manifest) if plan.manifest else ""
            table.add_row(name, plan.stage.summary, str(plan.state), plan.why, did)
    Console().print(table)


def main() -> None:
    """Run the command line; an error of ours is one line, and decides the exit code."""
    try:
        app()
    except IdiaError as error:
        typer.echo(f"{type(error).__name__}: {error}", err=True)
        sys.exit(error.exit_code)
