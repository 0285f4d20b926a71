"""How many people occur how often: the paper's Figure 9."""

from collections.abc import Sequence

import pyarrow as pa
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from idia_core.figures import SERIES, STYLE
from idia_core.occurrences import BINS, people_in_bins

HISTOGRAM = pa.schema(
    [
        pa.field("bin", pa.string(), nullable=False),
        pa.field("people_paper", pa.int64(), nullable=False),
        pa.field("people_strict", pa.int64(), nullable=False),
    ]
)


def histogram(occurrences: pa.Table) -> pa.Table:
    """How many names fall in each bin under either rule, as HISTOGRAM, from OCCURRENCES."""
    counts = [people_in_bins(occurrences[rule].to_numpy()) for rule in ("count_paper", "count_strict")]
    return pa.table([pa.array(BINS), *(pa.array(people, pa.int64()) for people in counts)], schema=HISTOGRAM)


def draw_histogram(table: pa.Table) -> Figure:
    """A HISTOGRAM as bars, two a bin: by the paper's rule and by the strict rule."""
    rules = {"paper's rule": table["people_paper"].to_pylist(), "strict rule": table["people_strict"].to_pylist()}
    with rc_context(STYLE):
        figure = Figure(figsize=(9.6, 3.4), layout="constrained")
        panel = figure.subplots()
        for number, (rule, people) in enumerate(rules.items()):
            _draw_bars(panel, people, number, rule)
        panel.set_xticks(range(len(BINS)), [name.replace("-", "–") for name in BINS], fontsize=7.5)
        panel.set_xlabel("captions that hold the name")
        panel.set_ylabel("people")
        panel.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        panel.spines["left"].set_visible(False)
        figure.legend(*panel.get_legend_handles_labels(), loc="outside upper left", ncols=2)
    return figure


def _draw_bars(panel: Axes, people: Sequence[int], number: int, rule: str) -> None:
    places = [place + (number - 0.5) * 0.4 for place in range(len(people))]
    bars = panel.bar(places, people, width=0.38, color=SERIES[number], label=rule)
    panel.bar_label(bars, [str(count or "") for count in people], fontsize=7, padding=1)
