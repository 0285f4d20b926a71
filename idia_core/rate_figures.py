"""The rates of a study with their spread over draws: the paper's Figures 4, 5 to 8 and 10.

Axes: K pictures of each member in the training data, A attack pictures of each person.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from idia_core.figures import ALL, INK, MARKERS, RIGHT, STYLE, WRONG, draw_band, line_style, rate_axis

TITLES = {"tpr": "true-positive rate", "fpr": "false-positive rate"}
LINES_A_PANEL = 6
NAME_WIDTH = 24  # characters of a model's name in a line


@dataclass(frozen=True)
class Group:
    """Models whose lines share a panel: those of one architecture, or simply a few."""

    title: str
    models: dict[str, str]
    """Model -> its label in the legend."""
    ordered: bool
    """Whether the models are in the order of their training pictures."""


def study_rates(rates: pa.Table, models: pa.Table | None) -> pl.DataFrame:
    """Everybody's rates with each model's architecture and K, null where `models` does not tell: a row for each A.

    `rates` has the columns of evaluation's rates; sorted by architecture, K (largest first), model and A.
    """
    frame = pl.DataFrame(rates).filter(pl.col("group") == ALL).drop("group")
    if models is None:
        facts = pl.DataFrame(schema={"model": pl.String, "architecture": pl.String, "images_per_member": pl.Int64})
    else:
        facts = pl.DataFrame(models).select("model", "architecture", "images_per_member")
    joined = frame.join(facts, on="model", how="left", maintain_order="left")
    first = ["model", "architecture", "images_per_member"]
    order = ["architecture", "images_per_member", "model", "images"]
    return joined.select(*first, pl.exclude(first)).sort(order, descending=[False, True, False, False], nulls_last=True)


def group_models(rates: pl.DataFrame) -> list[Group]:
    """A group for each architecture whose models' K are all known; the others six at a time, in order."""
    models = rates.select("model", "architecture", "images_per_member").unique(maintain_order=True)
    groups, rest = list[Group](), list[str]()
    for (architecture,), own in models.group_by("architecture", maintain_order=True):
        sizes = own["images_per_member"]
        if architecture is not None and sizes.null_count() == 0 and sizes.is_unique().all():
            labels = {model: f"K = {size}" for model, size in zip(own["model"], sizes, strict=True)}
            groups.append(Group(str(architecture), labels, ordered=True))
        else:
            rest += own["model"].to_list()
    for start in range(0, len(rest), LINES_A_PANEL):
        some = rest[start : start + LINES_A_PANEL]
        groups.append(Group("", {model: fold(model) for model in some}, ordered=False))
    return groups


def fold(name: str, width: int = NAME_WIDTH) -> str:
    """A name in at most three lines of that width; what is longer loses its middle, as ends tell names apart."""
    lines = textwrap.wrap(name, width)
    if len(lines) > 3:
        lines = [lines[0], f"{lines[1][: width - 1]}…", name[-width:]]
    return "\n".join(lines)


def draw_attack_pictures(rates: pl.DataFrame) -> Figure:
    """Both rates against A, a line for each model, a row for each group: mean over draws, band of one sd (Fig. 4)."""
    groups = group_models(rates)
    with rc_context(STYLE):
        figure, rows = group_panels(groups, "attack pictures of each person")
        for panels, group in zip(rows, groups, strict=True):
            for number, (model, label) in enumerate(group.models.items()):
                own = rates.filter(pl.col("model") == model)
                for panel, rate in zip(panels, TITLES, strict=True):
                    drawn = own.drop_nulls(f"{rate}_mean")
                    pairs = list(zip(drawn[f"{rate}_mean"], drawn[f"{rate}_sd"], strict=True))
                    draw_band(panel, drawn["images"].to_list(), pairs, group_style(group, number) | {"label": label})
            for panel in panels:
                panel.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))
            name_lines(panels[1])
    return figure


def draw_training_pictures(rates: pl.DataFrame) -> Figure:
    """Both rates against K with the most attack pictures, a line for each architecture: mean and sd (Fig. 5 and 8)."""
    known = most_pictures(rates.drop_nulls("images_per_member"))
    sizes = sorted(known["images_per_member"].unique())
    architectures = known.partition_by("architecture", maintain_order=True)
    with rc_context(STYLE):
        figure, (panels,) = group_panels(
            [Group("", {}, ordered=False)], "pictures of each member in the training data (K)"
        )
        for number, own in enumerate(architectures):
            places = own["images_per_member"] * 1.06 ** (number - (len(architectures) - 1) / 2)  # bars side by side
            style = line_style(number)
            for panel, rate in zip(panels, TITLES, strict=True):
                mean, sd = own[f"{rate}_mean"].cast(pl.Float64), own[f"{rate}_sd"].cast(pl.Float64)
                low, high = (mean - sd).clip(0, 1), (mean + sd).clip(0, 1)
                panel.vlines(places, low, high, color=style["color"], alpha=0.65, lw=2.2)
                panel.plot(places, mean, **style, label=fold(own["architecture"][0]))
        for panel in panels:
            panel.set_xscale("log")
            panel.set_xticks(sizes, [str(size) for size in sizes])
            panel.set_xticks([], minor=True)
            panel.set_xlim(sizes[0] / 1.35, sizes[-1] * 1.35)
        name_lines(panels[1])
    return figure


def draw_heat_maps(rates: pl.DataFrame) -> Figure:
    """Both rates for each K and A, a row of two maps for each architecture (Fig. 6 and 10)."""
    known = rates.drop_nulls("images_per_member")
    architectures = known.partition_by("architecture", maintain_order=True)
    heights = [0.85 + 0.29 * max(3, own["images_per_member"].n_unique()) for own in architectures]
    with rc_context(STYLE):
        figure = Figure(figsize=(9.6, sum(heights)), layout="constrained")
        rows = figure.subplots(len(architectures), 2, squeeze=False, height_ratios=heights)
        for panels, own in zip(rows, architectures, strict=True):
            for panel, (rate, title), colour in zip(panels, TITLES.items(), (RIGHT, WRONG), strict=True):
                panel.set_title(f"{fold(own['architecture'][0], 40)}: {title}")
                _draw_map(panel, own, rate, colour)
            panels[0].set_ylabel("training pictures (K)")
        for panel in rows[-1]:
            panel.set_xlabel("attack pictures of each person")
    return figure


def _draw_map(panel: Axes, rates: pl.DataFrame, rate: str, colour: str) -> None:
    sizes, counts = (sorted(rates[column].unique()) for column in ("images_per_member", "images"))
    map_KA: npt.NDArray[np.float64] = np.full((len(sizes), len(counts)), np.nan)
    for size, count, mean in rates.select("images_per_member", "images", f"{rate}_mean").iter_rows():
        map_KA[sizes.index(size), counts.index(count)] = np.nan if mean is None else mean
    shades = LinearSegmentedColormap.from_list(rate, ["#ffffff", colour])
    panel.pcolormesh(map_KA, cmap=shades, vmin=0, vmax=1, edgecolors="white", linewidth=0.6)
    for (row, column), mean in np.ndenumerate(map_KA):
        if not np.isnan(mean):
            ink = "white" if mean > 0.8 else INK
            panel.text(column + 0.5, row + 0.48, short_rate(mean), ha="center", va="center", fontsize=6.5, color=ink)
    panel.set_xticks(np.arange(len(counts)) + 0.5, [str(count) for count in counts], fontsize=7.5)
    panel.set_yticks(np.arange(len(sizes)) + 0.5, [str(size) for size in sizes])
    panel.grid(visible=False)
    panel.spines[:].set_visible(False)
    panel.tick_params(length=0)


def short_rate(rate: float) -> str:
    """A rate in two decimals without the nought before the point."""
    text = f"{rate:.2f}"
    return {"0.00": "0", "1.00": "1"}.get(text, text[1:])


def most_pictures(rates: pl.DataFrame) -> pl.DataFrame:
    """The rows of each model's largest number of attack pictures."""
    return rates.filter(pl.col("images") == pl.col("images").max().over("model"))


def group_panels(
    groups: Sequence[Group], x_label: str, titles: Sequence[str] = tuple(TITLES.values())
) -> tuple[Figure, Any]:
    """A figure with a row of two panels of rates for each group."""
    figure = Figure(figsize=(9.6, 0.3 + 2.8 * len(groups)), layout="constrained")
    rows = figure.subplots(len(groups), 2, squeeze=False)
    for panels, group in zip(rows, groups, strict=True):
        for panel, title in zip(panels, titles, strict=True):
            words = f"{fold(group.title, 40)}: {title}" if group.title else title.capitalize()
            rate_axis(panel, words, "")
    for panel in rows[-1]:
        panel.set_xlabel(x_label)
    return figure, rows


def group_style(group: Group, number: int) -> dict[str, Any]:
    """The look of one model's line; with ordered models the darkest saw the most training pictures."""
    style = line_style(number)
    if group.ordered:
        shade = 0.72 * number / max(1, len(group.models) - 1)
        style |= {"color": colormaps["viridis"](shade), "marker": MARKERS[number % len(MARKERS)], "linestyle": "-"}
    return style


def name_lines(panel: Axes) -> None:
    """A legend to the right of a panel."""
    panel.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, handlelength=2.6)
