"""Confusion matrices over draws, ROC curves and baselines: the tables behind them, and what is drawn."""

from collections.abc import Callable

import polars as pl
import pyarrow as pa
import pytest
from matplotlib.figure import Figure

from idia_core.baselines import BASELINES
from idia_core.evaluation import METRICS
from idia_core.figures import to_pdf, to_png
from idia_core.method_figures import draw_baselines, draw_matrices, draw_roc, drawn_matrices
from idia_core.rate_figures import Group
from idia_core.roc import ROC, rated


def _metrics(*rows: tuple[str, str, int, int, int, int, int, int]) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(METRICS.names, row, strict=True)) for row in rows], METRICS)


MATRICES = drawn_matrices(
    _metrics(
        ("m", "all", 1, 0, 0, 4, 4, 0),
        ("m", "all", 3, 0, 2, 2, 0, 4),
        ("m", "all", 3, 1, 4, 0, 0, 4),
        ("m", "F", 3, 0, 0, 4, 4, 0),
        ("n", "all", 5, 0, 1, 0, 0, 0),
    )
)


def _rated(said: list[bool], member: list[bool]) -> dict[str, int | float | None]:
    return rated(pl.Series(said), pl.Series(member))


WHO = [True, True, False, False]
SAID = {0: [True] * 4, 1: [True, True, True, False], 2: [True, False, False, False], 3: [False] * 4}
CURVE = pl.DataFrame(
    pa.Table.from_pylist(
        [
            {"model": "m", "group": "all", "images": 3, "threshold": threshold} | _rated(said, WHO)
            for threshold, said in SAID.items()
        ],
        ROC,
    )
)
METHODS = {"idia": [True] * 2 + [False] * 2, "cosine": SAID[1], "single: a": SAID[2], "single: b": SAID[0]}
BARS = pl.DataFrame(
    pa.Table.from_pylist(
        [
            {"model": model, "method": method} | _rated(said, WHO)
            for model in ("m", "n")
            for method, said in METHODS.items()
            if (model, method) != ("n", "cosine")
        ],
        BASELINES,
    )
)
GROUPS = [Group("", {"m": "m"}, ordered=False)]


def test_matrices_are_means_over_the_draws_of_most_pictures() -> None:
    """Each model's largest number of pictures counts, everybody together, with the sample standard deviation."""
    first, second = MATRICES.sort("model").to_dicts()
    assert (first["model"], first["images"], first["draws"]) == ("m", 3, 2)
    assert (first["tp_mean"], first["fn_mean"], first["fp_mean"], first["tn_mean"]) == (3.0, 1.0, 0.0, 4.0)
    assert (first["tp_sd"], first["fp_sd"]) == (pytest.approx(2**0.5), 0.0)
    assert (second["images"], second["draws"], second["tp_sd"]) == (5, 1, 0.0)


def test_matrices_say_mean_spread_and_of_how_many() -> None:
    """A panel a model, with its name, and in each cell the mean, its spread and the people of that row."""
    panels = [panel for panel in draw_matrices(MATRICES.sort("model")).axes if panel.axison]
    assert [panel.get_title(loc="left") for panel in panels] == ["m", "n"]
    texts = [text.get_text() for text in panels[0].texts]
    assert texts == ["3", "± 1.4 of 4", "1", "± 1.4 of 4", "0", "± 0.0 of 4", "4", "± 0.0 of 4"]


def test_the_roc_runs_from_nobody_to_everybody_with_a_mark_at_one() -> None:
    """The curve has a point for each threshold, from the strictest; its marker and intervals stand at tau = 1."""
    whole, enlarged = draw_roc(CURVE, GROUPS).axes
    line = whole.lines[0]
    assert list(line.get_xdata()) == [0, 0, 0.5, 1]
    assert list(line.get_ydata()) == [0, 0.5, 1, 1]
    assert line.get_markevery() == [False, False, True, False]
    row = CURVE.row(1, named=True)
    upright, level = (collection.get_segments()[0].tolist() for collection in whole.collections)
    assert upright == [[0.5, row["tpr_low"]], [0.5, row["tpr_high"]]]
    assert level == [[row["fpr_low"], 1.0], [row["fpr_high"], 1.0]]
    assert enlarged.get_xlim()[1] == pytest.approx(0.102)
    assert [text.get_text() for text in enlarged.get_legend().texts] == ["m"]


def test_without_non_members_there_is_no_curve() -> None:
    """A model that only members were tested on has no line, and the figure can be drawn."""
    alone = CURVE.with_columns(fpr=pl.lit(None, pl.Float64))
    whole, _ = draw_roc(alone, GROUPS).axes
    assert [list(line.get_xdata()) for line in whole.lines] == [[], [0, 1]]  # none, and the diagonal
    assert to_png(draw_roc(alone, GROUPS)).startswith(b"\x89PNG")


def test_baselines_are_bars_with_intervals_and_a_dot_for_each_template() -> None:
    """For each model the vote, the cosine where it is known, and the templates' mean; their rates, on both sides."""
    true, false = draw_baselines(BARS).axes
    assert [[bar.get_width() for bar in bars] for bars in true.containers] == [[1.0, 1.0], [1.0], [0.75, 0.75]]
    assert [[bar.get_width() for bar in bars] for bars in false.containers] == [[0.0, 0.0], [0.5], [0.5, 0.5]]
    assert list(true.lines[0].get_xdata()) == [0.5, 1.0, 0.5, 1.0]
    idia = BARS.row(0, named=True)
    assert true.collections[0].get_segments()[0][:, 0].tolist() == [idia["tpr_low"], idia["tpr_high"]]
    assert [label.get_text() for label in true.get_yticklabels()] == ["m", "n"]


@pytest.mark.parametrize(
    "draw",
    [
        lambda: draw_matrices(MATRICES.sort("model")),
        lambda: draw_roc(CURVE, GROUPS),
        lambda: draw_baselines(BARS),
    ],
)
def test_a_second_drawing_is_the_same(draw: Callable[[], Figure]) -> None:
    """PNG and PDF are the same bytes each time."""
    assert [to_png(draw()), to_pdf(draw())] == [to_png(draw()), to_pdf(draw())]
