"""What a finished run says on the terminal: rates, and where the report is."""

from collections.abc import Mapping

import polars as pl
from rich.console import Console
from rich.table import Table

from jobs.plan import PlannedStage, State


def print_summary(plans: Mapping[str, PlannedStage], console: Console) -> None:
    """Print the rates at the most attack pictures and the report's place, as far as the study has them."""
    evaluate, report = plans.get("evaluate"), plans.get("report")
    if evaluate and evaluate.state is State.DONE:
        console.print(_rates(evaluate))
    if report and report.state is State.DONE:
        console.print(f"Report: {report.folder / 'page' / 'report.html'}", soft_wrap=True, highlight=False)


def _rates(evaluate: PlannedStage) -> Table:
    rates = pl.DataFrame(evaluate.context().table("rates")).filter(pl.col("group") == "all")
    most = rates.filter(pl.col("images") == pl.col("images").max().over("model"))
    table = Table(box=None, pad_edge=False)
    for column in ("model", "attack pictures", "true-positive rate", "false-positive rate"):
        table.add_column(column, justify="right" if "rate" in column or "pictures" in column else "left")
    for row in most.sort("model").rows(named=True):
        table.add_row(row["model"], str(row["images"]), f"{row['tpr_mean']:.3f}", f"{row['fpr_mean']:.3f}")
    return table
