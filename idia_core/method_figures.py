"""A study's verdicts with the most pictures: confusion matrices (the paper's Figure 7), ROC curves, simpler attacks."""

import math
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from idia_core.baselines import COSINE, IDIA, SINGLE
from idia_core.figures import ALL, INK, SERIES, STYLE, Cell, draw_matrix, rate_axis
from idia_core.rate_figures import TITLES, Group, fold, group_panels, group_style, most_pictures, name_lines

RATE_TICKS = (
    {0: "0", 0.25: ".25", 0.5: ".5", 0.75: ".75", 1: "1"},
    {0: "0", 0.025: ".025", 0.05: ".05", 0.075: ".075", 0.1: ".1"},
)
METHODS = {
    IDIA: "vote over all templates (IDIA)",
    COSINE: "cosine similarity",
    SINGLE: "one template alone (bar: mean, dots: each)",
}


def drawn_matrices(metrics: pa.Table) -> pl.DataFrame:
    """Each model's confusion matrix with the most attack pictures: mean and sample sd of every cell over the draws.

    Columns: model, images, draws, then mean and sd of tp, fn, fp and tn; `metrics` has evaluation's METRICS.
    """
    frame = most_pictures(pl.DataFrame(metrics).filter(pl.col("group") == ALL))
    cells = ("tp", "fn", "fp", "tn")
    means = [pl.col(cell).mean().alias(f"{cell}_mean") for cell in cells]
    spreads = [pl.col(cell).std().fill_null(0.0).alias(f"{cell}_sd") for cell in cells]
    grouped = frame.group_by("model", "images", maintain_order=True)
    return grouped.agg(pl.len().cast(pl.Int64).alias("draws"), *means, *spreads)


def draw_matrices(matrices: pl.DataFrame) -> Figure:
    """A matrix of people for each model, mean and standard deviation over the draws, four a row (Fig. 7)."""
    models = matrices.to_dicts()
    columns = min(len(models), 4)
    rows = math.ceil(len(models) / columns)
    with rc_context(STYLE):
        layout = ConstrainedLayoutEngine(wspace=0.06, hspace=0.06)
        figure = Figure(figsize=(2.35 * columns + 0.2, 2.35 * rows), layout=layout)
        panels = figure.subplots(rows, columns, squeeze=False).flat
        for place, panel in enumerate(panels):
            if place < len(models):
                title = fold(models[place]["model"])
                draw_matrix(panel, title, _drawn_cells(models[place]), name_rows=place % columns == 0)
            else:
                panel.set_axis_off()
    return figure


def _drawn_cells(model: dict[str, Any]) -> list[Cell]:
    cells = []
    for cell, rest in (("tp", "fn"), ("fn", "tp"), ("fp", "tn"), ("tn", "fp")):
        mean, sd, people = model[f"{cell}_mean"], model[f"{cell}_sd"], model[f"{cell}_mean"] + model[f"{rest}_mean"]
        text = f"{mean:.0f}" if mean == round(mean) else f"{mean:.1f}"
        cells.append((text, f"± {sd:.1f} of {people:.0f}", mean / people if people else 0.0))
    return cells


def draw_roc(roc: pl.DataFrame, groups: list[Group]) -> Figure:
    """True against false positives as tau is swept, whole and up to a false-positive rate of 10%; a row a group.

    A marker stands at tau = 1, with the 95% Wilson intervals of both rates. `roc` has the columns of ROC.
    """
    titles = ("true-positive rate", "true-positive rate, enlarged")
    with rc_context(STYLE):
        figure, rows = group_panels(groups, "false-positive rate (marker: tau = 1)", titles)
        for panels, group in zip(rows, groups, strict=True):
            for number, (model, label) in enumerate(group.models.items()):
                curve = roc.filter(pl.col("model") == model).sort("threshold", descending=True)
                for panel in panels:
                    _draw_curve(panel, curve, group_style(group, number) | {"label": label})
            for panel, ticks in zip(panels, RATE_TICKS, strict=True):
                panel.plot([0, 1], [0, 1], color=INK, alpha=0.4, lw=0.8, linestyle=":")
                panel.set_xlim(-0.02 * max(ticks), 1.02 * max(ticks))
                panel.set_xticks(list(ticks), list(ticks.values()))
            name_lines(panels[1])
    return figure


def _draw_curve(panel: Axes, curve: pl.DataFrame, style: dict[str, Any]) -> None:
    known = curve.drop_nulls(["tpr", "fpr"])  # without members or without others there is no curve
    panel.plot(known["fpr"], known["tpr"], **style, markevery=(known["threshold"] == 1).to_list())
    thin: dict[str, Any] = {"color": style["color"], "alpha": 0.5, "lw": 1}
    for at in known.filter(pl.col("threshold") == 1).iter_rows(named=True):
        panel.vlines(at["fpr"], at["tpr_low"], at["tpr_high"], **thin)
        panel.hlines(at["tpr"], at["fpr_low"], at["fpr_high"], **thin)


def draw_baselines(baselines: pl.DataFrame) -> Figure:
    """Both rates of the attack and of simpler ones for each model, with 95% Wilson intervals.

    Of the templates alone the bar is the mean, and each has a dot. `baselines` has the columns of BASELINES.
    """
    models = baselines["model"].unique(maintain_order=True).to_list()
    with rc_context(STYLE | {"axes.grid.axis": "x"}):
        figure = Figure(figsize=(9.6, 1.1 + 0.62 * len(models)), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for panel, (rate, title) in zip(panels, TITLES.items(), strict=True):
            for number, (method, label) in enumerate(METHODS.items()):
                _draw_bars(panel, baselines, rate, models, (method, label, number))
            rate_axis(panel, title.capitalize(), "")
            panel.set_xlim(-0.01, 1.03)
            panel.set_xticks(list(RATE_TICKS[0]), list(RATE_TICKS[0].values()))
            panel.set_ylim(len(models) - 0.45, -0.55)
            panel.set_yticks(range(len(models)), [fold(model) for model in models])
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=3)
    return figure


def _draw_bars(
    panel: Axes, baselines: pl.DataFrame, rate: str, models: list[str], series: tuple[str, str, int]
) -> None:
    method, label, number = series
    own = baselines.filter(pl.col("method").str.starts_with(method) & pl.col(rate).is_not_null())
    if own.is_empty():
        return
    place = {model: row + (number - 1) * 0.26 for row, model in enumerate(models)}
    means = own.group_by("model", maintain_order=True).agg(pl.col(rate).mean())
    panel.barh([place[m] for m in means["model"]], means[rate], height=0.24, color=SERIES[number], label=label)
    rows = np.array([place[model] for model in own["model"]])
    if method == SINGLE:
        panel.plot(own[rate], rows, ".", color=INK, alpha=0.35, markersize=4, markeredgewidth=0)
    else:
        panel.hlines(rows, own[f"{rate}_low"], own[f"{rate}_high"], color=INK, alpha=0.6, lw=1.1)
