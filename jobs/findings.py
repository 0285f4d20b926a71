"""Findings on the terminal, as `idia audit` and `idia judge` print them."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from idia_core.evidence import p_text, visible
from idia_core.statistics import Finding

ORDER = (Finding.MEMBER, Finding.INCONCLUSIVE, Finding.NO_EVIDENCE)
SHOWN = 20
"""The most people of a model that are printed, the strongest evidence first."""


def print_findings(
    verdicts: Iterable[Mapping[str, Any]], console: Console, names: Mapping[str, str] | None = None
) -> None:
    """Print the rows of `verdicts`, model by model, and how many there are of each finding.

    `names` are what identities are shown as; nobody is shown without them.
    """
    models: dict[str, list[Mapping[str, Any]]] = {}
    for row in verdicts:
        models.setdefault(row["model"], []).append(row)
    for model, rows in models.items():
        if names is not None:
            if len(models) > 1:
                say(console, str(visible(model)))
            console.print(_table(sorted(rows, key=_strength), names))
        counts, paper = Counter(row["finding"] for row in rows), sum(bool(row["member"]) for row in rows)
        said = ", ".join(f"{counts[finding]:,} {finding}" for finding in ORDER)
        people = f"{len(rows):,} {'person' if len(rows) == 1 else 'people'}"
        member = f"{paper:,} {'member' if paper == 1 else 'members'}"
        say(console, f"{visible(model)}: {people}: {said}; by the paper's rule {member}.")


def say(console: Console, text: str) -> None:
    """Print a line as it is; the terminal folds it."""
    console.print(Text(text), soft_wrap=True)


def _strength(row: Mapping[str, Any]) -> tuple[int, float, float, int, str]:
    q, p = (2.0 if row[column] is None else row[column] for column in ("q_value", "p_value"))
    return ORDER.index(row["finding"]), q, p, -row["score"], row["identity"]


def _table(rows: list[Mapping[str, Any]], names: Mapping[str, str]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("person", "finding", "why"):
        table.add_column(column, overflow="fold", no_wrap=column == "finding")
    for column in ("S", "p, names", "p, faces", "q"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows[:SHOWN]:
        cells = [names[row["identity"]], row["finding"], row["reason"].replace("_", " "), row["score"]]
        cells += [p_text(row[column]) for column in ("p_name", "p_face", "q_value")]
        # As text, so that brackets are no markup, and without characters that could steer the terminal.
        table.add_row(*(Text(str(visible(str(cell)))) for cell in cells))
    if len(rows) > SHOWN:
        table.caption = f"and {len(rows) - SHOWN:,} more"
    return table
