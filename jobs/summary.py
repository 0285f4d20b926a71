"""What a finished run says on the terminal: rates, and where the report is."""

from collections.abc import Mapping

import polars as pl
from rich.console import Console
from rich.table import Table

from idia_core.statistics import Reason
from jobs.findings import print_findings, say
from jobs.funnel import print_funnel
from jobs.plan import PlannedStage, State
from pipelines.pair_candidates import members_of

HINTS = {
    Reason.TOO_FEW_OTHERS: "Too few other people to compare with: give pictures of at least 200 with --panel.",
    Reason.TOO_FEW_DECOYS: "Too few other names to compare with: ask for more with --candidates.",
}
PAGES = {"report": ("Report", "report.html"), "evidence": ("Evidence", "index.html")}


def print_summary(plans: Mapping[str, PlannedStage], console: Console) -> None:
    """Print the funnel of pairs, the rates at the most attack pictures or an audit's findings, and where pages are."""
    done = {plan.stage.name: plan for plan in plans.values() if plan.state is State.DONE}  # of a stage's, the last one
    if pairs := done.get("pairs"):
        print_funnel(pairs.context().table("funnel"), members_of(pairs.context()), console)
    if evaluate := done.get("evaluate"):
        console.print(_rates(evaluate))
    if "evidence" in done and (judge := done.get("judge")):
        _print_findings(judge, console, redacted=done["evidence"].fingerprinted_config()["redact"])
    for stage, (title, page) in PAGES.items():
        if stage in done:
            console.print(f"{title}: {done[stage].folder / 'page' / page}", soft_wrap=True, highlight=False)


def _print_findings(judge: PlannedStage, console: Console, *, redacted: bool) -> None:
    verdicts = judge.context().table("verdicts").to_pylist()
    print_findings(verdicts, console, None if redacted else {row["identity"]: row["identity"] for row in verdicts})
    reasons = {row["reason"] for row in verdicts}
    for reason, hint in HINTS.items():
        if reason in reasons:
            say(console, hint)


def _rates(evaluate: PlannedStage) -> Table:
    rates = pl.DataFrame(evaluate.context().table("rates")).filter(pl.col("group") == "all")
    most = rates.filter(pl.col("images") == pl.col("images").max().over("model"))
    table = Table(box=None, pad_edge=False)
    for column in ("model", "attack pictures", "true-positive rate", "false-positive rate"):
        table.add_column(column, justify="right" if "rate" in column or "pictures" in column else "left")
    for row in most.sort("model").rows(named=True):
        table.add_row(row["model"], str(row["images"]), f"{row['tpr_mean']:.3f}", f"{row['fpr_mean']:.3f}")
    return table
