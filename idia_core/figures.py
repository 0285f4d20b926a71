"""The study's figures, and the rates that they draw.

Every figure is a matplotlib `Figure` made without pyplot, so nothing global is kept. In a page, lines and labels take
the colour of the text around them (`currentColor`). A page may set `--series-1` to `--series-4`; where it does not, the
series colours have a contrast of at least 3 to 1 on white and on near-black.
Axes: `tpr` is the true-positive rate, tp / (tp + fn); `fpr` is the false-positive rate, fp / (fp + tn).
"""

import dataclasses
import hashlib
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import polars as pl
import pyarrow as pa
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from idia_core import evaluation
from idia_core.errors import InvalidInputError
from idia_core.statistics import wilson_interval

SERIES = ("#0072b2", "#d55e00", "#009e73", "#b8629a")  # after Okabe and Ito, told apart in common colour blindness
MARKERS = ("o", "s", "^", "D", "v")
LINES = ("-", "--", "-.")
RIGHT, WRONG = SERIES[0], SERIES[1]
INK = "#010203"  # stands for the page's own text colour; `to_svg` writes currentColor in its place
ALL = "all"  # the group of everybody in a metrics table
STYLE: Any = {
    "axes.axisbelow": True,
    "axes.edgecolor": INK,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "figure.facecolor": "none",
    "font.family": ["DejaVu Sans"],  # ships with matplotlib, so the layout is the same on every machine
    "font.size": 9,
    "grid.alpha": 0.14,
    "grid.color": INK,
    "grid.linewidth": 0.7,
    "hatch.linewidth": 0.8,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "idia",
    "text.color": INK,
    "text.parse_math": False,  # a dollar sign in a model's name is a dollar sign
    "xtick.color": INK,
    "xtick.major.size": 3,
    "ytick.color": INK,
    "ytick.major.size": 0,
}
Cell = tuple[str, str, float]
"""What stands in a cell of a confusion matrix, large and small, and how dark it is, from 0 to 1."""


@dataclass(frozen=True)
class Counts:
    """How many people fell in each cell of a confusion matrix."""

    tp: int
    fn: int
    fp: int
    tn: int

    @property
    def members(self) -> int:
        """People who were in the training data."""
        return self.tp + self.fn

    @property
    def others(self) -> int:
        """People who were not."""
        return self.fp + self.tn

    @property
    def tpr(self) -> float:
        """The true-positive rate; NaN where there are no members."""
        return self.tp / self.members if self.members else math.nan

    @property
    def fpr(self) -> float:
        """The false-positive rate; NaN where there are no others."""
        return self.fp / self.others if self.others else math.nan


@dataclass(frozen=True)
class ModelCounts:
    """One model's confusion matrix, with the K pictures that each member had in its training data."""

    model: str
    architecture: str
    images_per_member: int
    counts: Counts


@dataclass(frozen=True)
class DrawnRates:
    """Means and sample standard deviations of a model's rates over the draws of `images` attack pictures."""

    model: str
    images: int
    draws: int
    tpr_mean: float
    tpr_sd: float
    fpr_mean: float
    fpr_sd: float


def rates_over_draws(metrics: pa.Table, group: str = ALL) -> list[DrawnRates]:
    """Summarise a `metrics` table, a row for each model (in order of appearance) and number of attack pictures.

    Raises InvalidInputError where the table holds no row of the group.
    """
    frame = evaluation.rates(metrics).filter(pl.col("group") == group)
    if frame.is_empty():
        raise InvalidInputError(f"no row has the group {group!r}", "table metrics", "Check the evaluate stage.")
    fields = [field.name for field in dataclasses.fields(DrawnRates)]
    models = metrics["model"].unique().to_pylist()
    found = [DrawnRates(*row) for row in frame.select(fields).rows()]
    return sorted(found, key=lambda row: (models.index(row.model), row.images))


def rates_by_training_pictures(models: Sequence[ModelCounts], *, stacked: bool = False) -> Figure:
    """Both rates against K, the pictures a member had in the training data; a line for each architecture.

    Bars are 95% Wilson intervals over people. `stacked` puts the panels one below the other, for narrow pages.
    """
    architectures = list(dict.fromkeys(model.architecture for model in models))
    sizes = sorted({model.images_per_member for model in models})
    with rc_context(STYLE):
        figure, panels = _rate_panels("pictures of each member in the training data (K)", stacked=stacked)
        for number, architecture in enumerate(architectures):
            chosen = sorted((m for m in models if m.architecture == architecture), key=lambda m: m.images_per_member)
            # Side by side, so that bars of the same K do not hide each other.
            places = [m.images_per_member * 1.06 ** (number - (len(architectures) - 1) / 2) for m in chosen]
            hits = ([(m.counts.tp, m.counts.members) for m in chosen], [(m.counts.fp, m.counts.others) for m in chosen])
            for panel, pairs in zip(panels, hits, strict=True):
                _draw_intervals(panel, places, pairs, line_style(number) | {"label": architecture})
        for panel in panels:
            panel.set_xscale("log")
            panel.set_xticks(sizes, [str(size) for size in sizes])
            panel.set_xticks([], minor=True)
            panel.set_xlim(sizes[0] / 1.35, sizes[-1] * 1.35)
        _name_series(figure, panels[0], architectures, stacked=stacked)
        points = [f"{m.model}: {m.counts.tpr:.2f} and {m.counts.fpr:.2f}" for m in models]
        figure.set_label(f"True-positive and false-positive rate by training pictures. {'; '.join(points)}.")
    return figure


def rates_by_attack_pictures(rates: Sequence[DrawnRates], *, stacked: bool = False) -> Figure:
    """Both rates against the number of attack pictures, a line for each model: mean over draws, band of one sd."""
    models = list(dict.fromkeys(rate.model for rate in rates))
    ends: list[str] = []
    with rc_context(STYLE):
        figure, panels = _rate_panels("attack pictures of each person", stacked=stacked)
        for number, model in enumerate(models):
            chosen = sorted((rate for rate in rates if rate.model == model), key=lambda rate: rate.images)
            images = [rate.images for rate in chosen]
            style = line_style(number) | {"label": model}
            draw_band(panels[0], images, [(rate.tpr_mean, rate.tpr_sd) for rate in chosen], style)
            draw_band(panels[1], images, [(rate.fpr_mean, rate.fpr_sd) for rate in chosen], style)
            last = chosen[-1]
            ends.append(f"{model} with {last.images}: {last.tpr_mean:.2f} and {last.fpr_mean:.2f}")
        for panel in panels:
            panel.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))
        _name_series(figure, panels[0], models, stacked=stacked)
        figure.set_label(f"True-positive and false-positive rate by attack pictures. {'; '.join(ends)}.")
    return figure


def confusion_matrices(models: Sequence[ModelCounts], *, stacked: bool = False) -> Figure:
    """A two-by-two matrix of people for each model: truth in rows, verdict in columns, wrong cells hatched."""
    columns = min(len(models), 2 if stacked else 4)
    rows = math.ceil(len(models) / columns)
    width = (3.5 if stacked else 9.4) * (columns / (2 if stacked else 4)) + (0 if stacked else 0.2)
    with rc_context(STYLE):
        figure = Figure(figsize=(width, 2.15 * rows), layout=ConstrainedLayoutEngine(wspace=0.06, hspace=0.06))
        panels = figure.subplots(rows, columns, squeeze=False).flat
        for place, panel in enumerate(panels):
            if place < len(models):
                model, name_rows = models[place], place % columns == 0
                draw_matrix(panel, model.model, _cells(model.counts), name_rows=name_rows, break_labels=stacked)
            else:
                panel.set_axis_off()
        cells = [f"{m.model}: {m.counts.tp} found, {m.counts.fn} missed, {m.counts.fp} accused" for m in models]
        figure.set_label(f"Confusion matrices. {'; '.join(cells)}.")
    return figure


def to_svg(figure: Figure) -> str:
    """The figure as an `<svg>` element to put into a page: the same bytes each time, no id that another figure has.

    Text stays text in the page's font, and INK becomes `currentColor`; the figure's label is its text alternative.
    """
    stream = io.StringIO()
    with rc_context(STYLE):
        figure.savefig(stream, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    for number, colour in enumerate(SERIES, start=1):
        svg = svg.replace(colour, f"var(--series-{number}, {colour})")
    svg = svg.replace("'DejaVu Sans'", "system-ui, 'Segoe UI', Roboto, sans-serif")
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)  # its rules would reach the whole page
    prefix = f"f{hashlib.sha256(svg.encode()).hexdigest()[:8]}-"
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda found: f' id="{prefix}{found[1]}"' if found[1] in used else "", svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\g<1>{prefix}", svg)
    return svg.replace(
        "<svg", f'<svg role="img" stroke-linejoin="round" aria-label="{escape(str(figure.get_label()))}"', 1
    ).strip()


def to_png(figure: Figure, dots_per_inch: int = 160) -> bytes:
    """The figure as a PNG on white."""
    stream = io.BytesIO()
    with rc_context(STYLE):
        figure.savefig(stream, format="png", dpi=dots_per_inch, facecolor="white", metadata={"Software": None})
    return stream.getvalue()


def to_pdf(figure: Figure) -> bytes:
    """The figure as a PDF, the same bytes each time."""
    stream = io.BytesIO()
    with rc_context(STYLE):
        figure.savefig(stream, format="pdf", facecolor="white", metadata={"CreationDate": None, "Producer": None})
    return stream.getvalue()


def line_style(number: int) -> dict[str, Any]:
    """How the line of that number is drawn, told apart by colour, marker and, after a few, by its dashes."""
    return {
        "color": SERIES[number % len(SERIES)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": LINES[number // len(SERIES) % len(LINES)],
        "markersize": 4.5,
        "linewidth": 1.6,
    }


def _rate_panels(x_label: str, *, stacked: bool) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(3.5, 5.0) if stacked else (9.6, 3.3), layout="constrained")
    grid = figure.subplots(2 if stacked else 1, 1 if stacked else 2, sharey=True, squeeze=False)
    panels: list[Axes] = list(grid.flat)
    for panel, title in zip(panels, ("True-positive rate", "False-positive rate"), strict=True):
        rate_axis(panel, title, x_label)
    return figure, panels


def rate_axis(panel: Axes, title: str, x_label: str) -> None:
    """Give a panel the title and an axis of rates, from 0 to 1."""
    panel.set_title(title)
    panel.set_ylim(-0.03, 1.03)
    panel.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".5", ".75", "1"])
    panel.spines["left"].set_visible(False)
    panel.tick_params(labelleft=True)
    panel.set_xlabel(x_label)


def _name_series(figure: Figure, panel: Axes, names: Sequence[str], *, stacked: bool) -> None:
    columns = min(len(names), 2 if stacked else 6)
    figure.legend(list(panel.lines), names, loc="outside upper left", ncols=columns, handlelength=2.6)


def _draw_intervals(panel: Axes, x: list[float], pairs: list[tuple[int, int]], style: dict[str, Any]) -> None:
    rates = [hits / total if total else math.nan for hits, total in pairs]
    bounds = [wilson_interval(hits, total) for hits, total in pairs]
    panel.vlines(x, [low for low, _ in bounds], [high for _, high in bounds], color=style["color"], alpha=0.65, lw=2.2)
    panel.plot(x, rates, **style)


def draw_band(panel: Axes, x: list[int], mean_sd: list[tuple[float, float]], style: dict[str, Any]) -> None:
    """A line of the means, in a band that reaches one standard deviation either way."""
    low = [max(0.0, mean - sd) for mean, sd in mean_sd]
    high = [min(1.0, mean + sd) for mean, sd in mean_sd]
    panel.fill_between(x, low, high, color=style["color"], alpha=0.2, linewidth=0)
    panel.plot(x, [mean for mean, _ in mean_sd], **style)


def draw_matrix(
    panel: Axes, title: str, cells: Sequence[Cell], *, name_rows: bool = True, break_labels: bool = False
) -> None:
    """A two-by-two matrix of the cells tp, fn, fp and tn: truth in rows, verdict in columns, wrong cells hatched."""
    for number, (text, note, shade) in enumerate(cells):
        row, column = divmod(number, 2)
        colour = RIGHT if row == column else WRONG
        place = (column + 0.02, row + 0.02)
        panel.add_patch(Rectangle(place, 0.96, 0.96, facecolor=colour, alpha=0.06 + 0.34 * shade))
        if row != column and shade:
            hatched: Any = {"facecolor": "none", "edgecolor": colour, "hatch": "///", "alpha": 0.55, "linewidth": 0}
            panel.add_patch(Rectangle(place, 0.96, 0.96, **hatched))
        centre: Any = {"x": column + 0.5, "ha": "center", "va": "center"}
        panel.text(y=row + 0.45, s=text, fontsize=15, fontweight="bold", **centre)
        panel.text(y=row + 0.78, s=note, fontsize=8, **centre)
    panel.set(xlim=(0, 2), ylim=(2, 0), title=title)
    panel.grid(visible=False)
    panel.spines[:].set_visible(False)
    panel.tick_params(length=0)
    panel.set_xticks([0.5, 1.5], ["says\nmember", "says\nnot"] if break_labels else ["says member", "says not"])
    panel.set_yticks([0.5, 1.5], ["member", "not"] if name_rows else ["", ""])


def _cells(counts: Counts) -> list[Cell]:
    members, others = counts.members, counts.others
    pairs = ((counts.tp, members), (counts.fn, members), (counts.fp, others), (counts.tn, others))
    return [(str(count), f"of {total}", count / total if total else 0.0) for count, total in pairs]
