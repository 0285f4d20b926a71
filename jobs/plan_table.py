"""What `idia plan` prints: a line for each stage, the totals, the rates counted with, and what is not known."""

import math
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from idia_core.config import Study
from idia_core.rates import Prices
from idia_core.sizes import told_bytes, told_count
from jobs.costs import Cluster, StageCost, Taken
from jobs.findings import say
from jobs.plan import State

UNKNOWN = "?"
COLUMNS = ("splits", "reads", "CPU-hours", "GPU-hours", "time")


def print_costs(study: Study, costs: Sequence[StageCost], cluster: Cluster, prices: Prices, console: Console) -> None:
    """Print what each stage costs, and all of them; those that are done cost nothing."""
    say(console, f"{study.name} in {study.out}, on {cluster.cpus:g} CPUs and {cluster.gpus:g} GPUs")
    priced = prices != Prices(currency=prices.currency)
    rows = [_row(cost, priced=priced) for cost in costs]
    console.print(_table(rows, _total(costs), prices.currency if priced else None), crop=False)
    _print_rest(costs, prices, console)


def _table(rows: list[list[str | Text]], total: StageCost, currency: str | None) -> Table:
    """The rows under their heads and above their sum; no figure is cut off, however narrow the terminal is."""
    table = Table(box=None, pad_edge=False, collapse_padding=True, show_footer=True, footer_style="bold")
    table.add_column("stage", "total", no_wrap=True)
    table.add_column("state", overflow="fold", min_width=12)
    footers = ["", "", _told(total.taken.cpu_hours), _told(total.taken.gpu_hours), _length(total.taken.hours)]
    names = [*COLUMNS, currency] if currency else COLUMNS
    for place, (name, footer) in enumerate(zip(names, [*footers, _told(total.money, "{:,.2f}")], strict=False), 2):
        width = max(len(name), len(footer), *(len(row[place]) for row in rows if place < len(row)), 0)
        table.add_column(name, footer, justify="right", no_wrap=True, min_width=width)
    for row in rows:
        table.add_row(*row)
    return table


def _row(cost: StageCost, *, priced: bool) -> list[str | Text]:
    if cost.plan.state is State.DONE:
        return [cost.plan.name, Text(f"done {cost.plan.seal().provenance.started[:10]}", style="dim")]
    taken, reads = cost.taken, told_bytes(cost.reads) + ("+" if cost.reads_more and not math.isnan(cost.reads) else "")
    state = Text(_state(cost))
    row: list[str | Text] = [cost.plan.name, state, told_count(cost.splits), reads, _told(taken.cpu_hours)]
    row += [_told(taken.gpu_hours), _length(taken.hours)]
    return [*row, _told(cost.money, "{:,.2f}")] if priced else row


def _state(cost: StageCost) -> str:
    plan = cost.plan
    match plan.state:
        case State.WAITS:
            return f"after {plan.why.removeprefix('for ')}"
        case State.LACKS:
            return "input not here"
        case State.TO_DO:
            return "will run"
        case _:
            return f"will run, {plan.why}"


def _told(value: float, form: str = "") -> str:
    if math.isnan(value):
        return UNKNOWN
    if form:
        return form.format(value)
    return "0" if not value else f"{value:,.2f}" if value >= 0.01 else "<0.01"


def _length(hours: float) -> str:
    if math.isnan(hours):
        return UNKNOWN
    if hours >= 48:
        return f"{hours / 24:,.1f} d"
    return (
        f"{hours:,.1f} h" if hours >= 1 else f"{hours * 60:,.0f} min" if hours * 60 >= 1 else f"{hours * 3600:,.0f} s"
    )


def _total(costs: Sequence[StageCost]) -> StageCost:
    """All that is known, added up; what is not is left out."""
    taken = [cost.taken for cost in costs]
    sums = (sum(value for value in values if not math.isnan(value)) for values in zip(*taken, strict=True))
    money = [cost.money for cost in costs if not math.isnan(cost.money)]
    return StageCost(costs[0].plan, taken=Taken(*sums), money=sum(money))


def _print_rest(costs: Sequence[StageCost], prices: Prices, console: Console) -> None:
    rates = {(rate.work, rate.told): rate.source for cost in costs for rate in cost.rates}
    if rates:
        say(console, "\nCounted with")
    for (work, told), source in rates.items():
        say(console, f"  {work}: {told} ({source})")
    say(console, "\nNot known, or not counted")
    say(
        console,
        "  Amounts are of a run from scratch. The start of workers and of machines, storage and traffic are left out.",
    )
    unknown = [cost.plan.name for cost in costs if math.isnan(cost.taken.hours) or math.isnan(cost.taken.cpu_hours)]
    if unknown:
        say(console, f"  The totals are without what is not known: {', '.join(unknown)}.")
    if prices == Prices(currency=prices.currency):
        say(console, "  Money: give prices with --cpu-price and --gpu-price, or in a file of --rates.")
    if absent := list(dict.fromkeys(source for cost in costs for source in cost.absent)):
        say(console, f"  Not here, so counted as declared, if they are: {', '.join(absent)}.")
    _print_missing(costs, console)
    for cost in costs:
        for note in cost.notes:
            say(console, f"  {cost.plan.name}: {note}")


def _print_missing(costs: Sequence[StageCost], console: Console) -> None:
    """The rates that nobody gives, each once with the stages that want it."""
    wanted = dict[str, list[str]]()
    for cost in costs:
        for rate in cost.missing:
            wanted.setdefault(rate, []).append(cost.plan.name)
    if wanted:
        say(console, "  No rate, so give it in a file of --rates, or measure it by benchmarks/rates.py:")
    for rate, stages in wanted.items():
        say(console, f"    {rate} ({', '.join(stages)})")
