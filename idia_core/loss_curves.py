"""How the loss fell while models were trained, from open_clip's own log: a table, and its figure."""

import re
from typing import Any

import polars as pl
import pyarrow as pa
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from idia_core.figures import STYLE, line_style
from idia_core.rate_figures import Group, fold, group_models

CURVES = pa.schema(
    [
        pa.field("model", pa.string(), nullable=False),
        pa.field("step", pa.int64(), nullable=False),  # optimiser steps done since the start of the training
        pa.field("epoch", pa.float64(), nullable=False),  # epochs done
        pa.field("loss", pa.float64(), nullable=False),  # of that step, on the first rank
        pa.field("learning_rate", pa.float64(), nullable=False),  # of that step, to six decimals
        pa.field("pairs_per_second", pa.float64(), nullable=False),  # of that step, over all ranks
        pa.field("data_wait", pa.float64()),  # share of the time since the line before that the first rank waited
    ]
)
POINTS = 200
"""Of a model's line in the figure; each is a mean, so that the figure of a long training stays small."""

_LINE = re.compile(
    r"Train Epoch: (?P<epoch>\d+) \[\s*(?P<done>\d+)/(?P<total>\d+) .*?"
    r"Data \(t\): (?P<data>\S+) Batch \(t\): (?P<batch>[^\s,]+), (?P<rate>[^\s/]+)/s,.*? "
    r"LR: (?P<learning_rate>\S+) .* Loss: (?P<loss>\S+) \("
)


def read_curves(log_text: str, model: str) -> pa.Table:
    """A row of CURVES for each line of progress in open_clip's `out.log`; none before the first step.

    A resumed training logs some steps again: its lines stand for those of the same steps and of all later ones.
    """
    found = [line.groupdict() for line in _LINE.finditer(log_text)]
    lines = pl.DataFrame(found, schema=dict.fromkeys(_LINE.groupindex, pl.String)).cast(
        {"epoch": pl.Int64, "done": pl.Int64, "total": pl.Int64}
    )
    numbers = pl.col("data", "batch", "rate", "learning_rate", "loss").cast(pl.Float64)
    batch = pl.col("done").min()  # the first step of every epoch is logged
    steps = lines.with_columns(numbers).select(
        step=pl.col("epoch") * (pl.col("total") // batch) + pl.col("done") // batch,
        epoch=pl.col("epoch") + pl.col("done") / (pl.col("total") // batch * batch),
        loss="loss",
        learning_rate="learning_rate",
        pairs_per_second="rate",
        data_wait=pl.when(pl.col("batch") > 0).then((pl.col("data") / pl.col("batch")).clip(0, 1)),
    )
    next_steps = pl.col("step").shift(-1, fill_value=2**62).cum_min(reverse=True)
    kept = steps.filter(pl.col("step") < next_steps).select(pl.lit(model).alias("model"), pl.all())
    return kept.to_arrow().cast(CURVES)


def draw_curves(curves: pa.Table, models: pa.Table, *, stacked: bool = False) -> Figure:
    """The loss over the epochs, a panel for each architecture and a line for each model, the smallest K first.

    `curves` has the columns of CURVES; `models` tells each model's architecture and images_per_member. A point is the
    mean over a 200th of the training. `stacked` puts the panels one below the other, for narrow pages.
    """
    lines = _thinned(pl.DataFrame(curves))
    order = ["architecture", "images_per_member", "model"]
    known = pl.DataFrame(models).filter(pl.col("model").is_in(lines["model"].unique().implode()))
    groups = group_models(known.sort(order))
    with rc_context(STYLE):
        figure, panels = _panels(groups, stacked=stacked)
        for panel, group in zip(panels, groups, strict=True):
            for number, (model, label) in enumerate(group.models.items()):
                own = lines.filter(pl.col("model") == model)
                style = line_style(number) | {"label": label, "marker": "", "linewidth": 1.3}
                panel.plot(own["epoch"], own["loss"], **style)
            panel.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))
            panel.set_xlim(left=0)
            panel.legend(loc="upper right", fontsize=8, handlelength=2.6)
        ends = lines.group_by("model", maintain_order=True).last()
        said = [f"{model}: {loss:.2f}" for model, loss in ends.select("model", "loss").rows()]
        figure.set_label(f"Loss by epoch of the training. At the end, {'; '.join(said)}.")
    return figure


def _thinned(curves: pl.DataFrame) -> pl.DataFrame:
    point = (pl.col("epoch") * POINTS / pl.col("epoch").max().over("model")).ceil().alias("point")
    means = curves.group_by("model", point, maintain_order=True).agg(pl.col("epoch", "loss").mean())
    return means.sort("model", "epoch")


def _panels(groups: list[Group], *, stacked: bool) -> tuple[Figure, list[Any]]:
    columns = 1 if stacked else min(3, len(groups))
    rows = -(-len(groups) // columns)
    figure = Figure(figsize=(3.5 if stacked else 9.6, 0.3 + (2.3 if stacked else 2.9) * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True, sharex=True)
    panels = list(grid.flat)
    for panel in panels[len(groups) :]:
        panel.set_axis_off()
    for panel, group in zip(panels, groups, strict=False):
        panel.set_title(fold(group.title, 40) or "Loss")
        panel.set_ylabel("loss" if group.title else "")
        panel.spines["left"].set_visible(False)
    for panel in panels[len(groups) - columns : len(groups)]:
        panel.set_xlabel("epochs")
        panel.tick_params(labelbottom=True)
    return figure, panels[: len(groups)]
