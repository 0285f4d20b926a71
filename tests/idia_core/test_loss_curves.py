"""The loss curves of trainings: what is read of open_clip's log, and what is drawn of it."""

import pyarrow as pa
import pytest
from matplotlib.figure import Figure

from idia_core.figures import to_png, to_svg
from idia_core.loss_curves import CURVES, POINTS, draw_curves, read_curves

START = "2026-11-24,23:46:31 | INFO | Start epoch 0\n"
LINE = (
    "2026-11-24,23:46:31 | INFO | Train Epoch: {epoch} [ {done}/240 (17%)] Data (t): 0.045 Batch (t): 0.900, "
    "{rate}/s, 33.1983/s/gpu LR: 0.000075 Logit Scale: 14.286 Contrastive_loss: 9.9999 (9.9999) Loss: {loss} (9.9999)\n"
)


def log(*lines: tuple[int, int, float]) -> str:
    """A log of epochs of five steps of 48 pairs: epoch, pairs shown and loss of each line."""
    return START + "".join(LINE.format(epoch=e, done=d, loss=loss, rate="66.3966") for e, d, loss in lines)


def curves(**losses: list[float]) -> pa.Table:
    """Models' losses, one an epoch."""
    rows = [
        {"model": model, "step": 10 * (i + 1), "epoch": i + 1.0, "loss": loss, "learning_rate": 0.001}
        | {"pairs_per_second": 100.0, "data_wait": 0.0}
        for model, all_losses in losses.items()
        for i, loss in enumerate(all_losses)
    ]
    return pa.Table.from_pylist(rows, CURVES)


def facts(*rows: tuple[str, str, int]) -> pa.Table:
    """What is known of the models."""
    names = ("model", "architecture", "images_per_member")
    return pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows])


def drawn(figure: Figure, panel: int) -> dict[str, list[float]]:
    """The losses of a panel's lines, by their labels."""
    return {str(line.get_label()): list(line.get_ydata()) for line in figure.axes[panel].lines}


def test_a_line_of_the_log_is_a_row() -> None:
    """Steps and epochs are those done by then, the loss is the total, the wait the data's share of a batch's time."""
    table = read_curves(log((0, 48, 4.5), (0, 240, 3.5), (1, 48, 3.25)), "K075")
    assert table.schema == CURVES
    first, second, third = table.to_pylist()
    assert first == {
        "model": "K075",
        "step": 1,
        "epoch": 0.2,
        "loss": 4.5,
        "learning_rate": 0.000075,
        "pairs_per_second": 66.3966,
        "data_wait": pytest.approx(0.05),
    }
    assert (second["step"], second["epoch"], second["loss"]) == (5, 1.0, 3.5)
    assert (third["step"], third["epoch"], third["loss"]) == (6, 1.2, 3.25)


def test_a_resumed_training_replaces_what_came_after_its_checkpoint() -> None:
    """Steps logged twice count as the last time, and steps that a lost attempt was ahead by do not count at all."""
    before = [(0, 48, 4.0), (0, 240, 3.0), (1, 48, 2.0), (1, 192, 9.0), (1, 240, 9.0)]
    table = read_curves(log(*before, (1, 48, 2.5), (1, 144, 1.5)), "m")
    assert list(zip(table["step"].to_pylist(), table["loss"].to_pylist(), strict=True)) == [
        (1, 4.0),
        (5, 3.0),
        (6, 2.5),
        (8, 1.5),
    ]


def test_a_loss_that_is_not_a_number_is_kept() -> None:
    """It is what one looks for in a curve of a training that went wrong; a fast rate may have an exponent."""
    text = LINE.format(epoch=0, done=48, loss="nan", rate="1.25e+06")
    (row,) = read_curves(text, "m").to_pylist()
    assert row["loss"] != row["loss"]
    assert row["pairs_per_second"] == 1_250_000


@pytest.mark.parametrize("text", ["", START, LINE[:90]])
def test_before_the_first_step_there_is_no_row(text: str) -> None:
    """A log that grows is read at any time, also in the middle of a line."""
    table = read_curves(text, "m")
    assert table.schema == CURVES
    assert table.num_rows == 0


@pytest.mark.parametrize("stacked", [False, True])
def test_each_architecture_has_a_panel_and_each_model_a_line(stacked: bool) -> None:
    """Models are named by K, smallest first; the text alternative tells where they ended."""
    table = curves(v1=[4.0, 2.0], v25=[3.0, 1.0], r1=[5.0, 3.0])
    figure = draw_curves(table, facts(("v25", "vit", 25), ("v1", "vit", 1), ("r1", "rn", 1)), stacked=stacked)
    assert [panel.get_title(loc="left") for panel in figure.axes] == ["rn", "vit"]
    assert drawn(figure, 0) == {"K = 1": [5.0, 3.0]}
    assert list(drawn(figure, 1).items()) == [("K = 1", [4.0, 2.0]), ("K = 25", [3.0, 1.0])]
    assert figure.get_label() == "Loss by epoch of the training. At the end, r1: 3.00; v1: 2.00; v25: 1.00."


def test_a_model_without_a_curve_has_no_line() -> None:
    """A model that was trained elsewhere is in the study all the same."""
    figure = draw_curves(curves(v1=[4.0, 2.0]), facts(("v1", "vit", 1), ("w5", "vit", 5)))
    assert drawn(figure, 0) == {"K = 1": [4.0, 2.0]}


def test_a_long_training_is_drawn_by_means() -> None:
    """However often it was logged, a line has no more than so many points, and they keep the level."""
    figure = draw_curves(curves(m=[1.0, 3.0] * 1000), facts(("m", "vit", 1)))
    (line,) = figure.axes[0].lines
    assert list(line.get_ydata()) == [2.0] * POINTS
    assert (line.get_xdata()[0], line.get_xdata()[-1]) == (5.5, 1995.5)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_panels_lie_within_the_figure(count: int) -> None:
    """However many architectures there are, no panel or title reaches into another or out of the figure."""
    names = [f"architecture-{number}" for number in range(count)]
    figure = draw_curves(curves(**{n: [4.0, 2.0] for n in names}), facts(*((n, n, 1) for n in names)))
    to_png(figure, dots_per_inch=50)  # lays it out
    boxes = [panel.get_tightbbox() for panel in figure.axes if panel.axison]
    assert len(boxes) == count
    whole = figure.bbox
    assert all(whole.x0 <= box.x0 and box.x1 <= whole.x1 and whole.y0 <= box.y0 and box.y1 <= whole.y1 for box in boxes)
    assert not any(a.overlaps(b) for place, a in enumerate(boxes) for b in boxes[:place])


def test_drawn_twice_it_is_the_same() -> None:
    """The SVG for the page is the same bytes each time."""
    arguments = curves(m=[4.0, 2.0]), facts(("m", "vit", 1))
    assert to_svg(draw_curves(*arguments)) == to_svg(draw_curves(*arguments))
