"""`idia path`, `export` and `erase`: what a study has written."""

from typing import Annotated

import typer
from rich.console import Console

from jobs import options


def path(study: options.StudyFile, table: options.Table, settings: options.Settings = None) -> None:
    """Print the folder in which a table lies."""
    from jobs.plan import table_folder  # noqa: PLC0415 - loads Ray, which `--help` should not wait for

    typer.echo(str(table_folder(options.load(study, settings), table)))


def export(
    study: options.StudyFile,
    table: options.Table,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="Where to write: a path or URL that ends in .tsv, .csv or .parquet.")
    ],
    settings: options.Settings = None,
) -> None:
    """Write a table of a study to a file for other tools; what `download` and `pairs` take may come back from there."""
    from jobs.export import export_table  # noqa: PLC0415

    export_table(options.load(study, settings), table, file, Console())


def erase(
    study: options.StudyFile,
    identity: Annotated[list[str], typer.Option(metavar="NAME", help="Whom to erase; may be repeated.")],
    settings: options.Settings = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be erased; erase nothing.")] = False,
) -> None:
    """Take people out of everything that a study has written, and record that it was done.

    Run it again if it is interrupted. What lies outside of the study's folder is named, not touched.
    """
    from jobs.erase import erase_people  # noqa: PLC0415

    erase_people(options.load(study, settings), identity, Console(), dry_run=dry_run)
