"""What `idia status` and `--dry-run` print: how far a study is, and what its next stages would write."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.table import Table

from idia_core.config import Study
from jobs.findings import say
from jobs.plan import PlannedStage, State, describe


def print_plan(study: Study, plans: Iterable[PlannedStage], console: Console, *, previews: bool) -> None:
    """Print the state of each stage and, with `previews`, what those would write that are not done."""
    plans = list(plans)
    say(console, f"{study.name} in {study.out}")
    table = Table(box=None, pad_edge=False)
    for column in ("stage", "does", "state", "why", "what it did"):
        table.add_column(column, overflow="fold")
    for plan in plans:
        did = describe(plan.manifest) if plan.manifest else ""
        table.add_row(plan.name, plan.stage.summary, str(plan.state), plan.why, did)
    console.print(table)
    for plan in plans if previews else ():
        if plan.state is not State.DONE and plan.inputs is not None:
            _print_preview(plan, console)


def _print_preview(plan: PlannedStage, console: Console) -> None:
    if plan.stage.preview is None:
        return
    found = plan.stage.preview(plan.context())
    table = Table(title=f"{plan.name} would write", title_justify="left", box=None, pad_edge=False)
    for column in found.rows[0]:
        table.add_column(column.replace("_", " "), justify="left" if column in ("set", "model") else "right")
    for row in found.rows:
        table.add_row(*map(_cell, row.values()))
    console.print(table)
    for note in found.notes:
        say(console, note)


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
