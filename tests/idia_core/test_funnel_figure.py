"""The funnel as a picture: what is written, to what scale, and that no texts lie over each other."""

import io
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from PIL import Image

from idia_core.figures import RIGHT, WRONG, to_png, to_svg
from idia_core.funnel_figure import NOT_TO_SCALE, WIDEST, draw_funnel, funnel_steps
from idia_core.pair_funnel import FUNNEL

PAPER = (14_985_000, 61_200, 58_013, 50_000, 34_120, 31_004, 30_998, 27_411, 27_411)


def drawn(*counts: int, stacked: bool = False) -> Figure:
    """The picture of the sums of a funnel's columns."""
    return draw_funnel(funnel_steps(dict(zip(FUNNEL.names[1:], counts, strict=True))), stacked=stacked)


def texts(figure: Figure) -> list[str]:
    """What is written, line by line."""
    return [text.get_text() for text in figure.axes[0].texts]


def patches(figure: Figure, colour: str) -> list[PathPatch]:
    """The areas of a colour."""
    wanted = tuple(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return [p for p in figure.axes[0].patches if isinstance(p, PathPatch) and p.get_facecolor()[:3] == wanted]


@pytest.mark.parametrize("stacked", [False, True])
def test_every_step_and_every_loss_has_its_count(stacked: bool) -> None:
    """And each loss its reason; where nothing is lost there is no branch."""
    figure = drawn(500, 500, 500, 400, 400, 399, 399, 398, 398, stacked=stacked)
    found = " ".join(" ".join(texts(figure)).split())
    for said in ("500 unique", "100 lost: more than are wanted", "1 lost: near-duplicate or unreadable", "398 pairs"):
        words = said.split(" ", 1) if not stacked and "lost" not in said else [said]
        assert all(word in found for word in words), said
    assert len(patches(figure, WRONG)) == 3
    assert len(patches(figure, RIGHT)) == 8 + 7
    assert str(figure.get_label()).endswith("399 distinct pictures, 399 no attack pictures, 398 pairs.")


def test_the_flow_is_to_scale_but_for_a_first_step_that_is_much_larger() -> None:
    """Heights are shares of the largest step after the first, which is cut and said to be."""
    figure = drawn(*PAPER)
    bars = [patch.get_path().get_extents() for patch in patches(figure, RIGHT)][::2]
    assert bars[0].height == WIDEST
    assert [bar.height for bar in bars[1:]] == pytest.approx([count / 61_200 for count in (*PAPER[1:7], PAPER[8])])
    assert NOT_TO_SCALE in texts(figure)[1]
    assert NOT_TO_SCALE not in " ".join(texts(drawn(100, 95, 90, 80, 60, 55, 50, 40, 40)))


def test_faces_that_nobody_looked_at_are_no_step() -> None:
    """The pairs are what the last check left."""
    sums = {name: count for name, count in zip(FUNNEL.names[1:], PAPER, strict=True) if name != "face_verified"}
    steps = funnel_steps(sums)
    assert [(step.label, step.left) for step in steps[-2:]] == [("distinct\npictures", 31_004), ("pairs", 30_998)]


LOSSES = st.lists(st.sampled_from([0, 0, 1, 7, 300, 10**6, 10**9]), min_size=8, max_size=8)


@settings(max_examples=25, deadline=None)
@given(LOSSES, st.booleans())
def test_no_texts_overlap(losses: list[int], stacked: bool) -> None:
    """Whatever is lost, nothing or nearly everything; and no text leaves the picture."""
    counts = list(itertools.accumulate(reversed(losses)))[::-1]
    figure = drawn(*counts, counts[-1], stacked=stacked)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    boxes = [text.get_window_extent(canvas.get_renderer()) for text in figure.axes[0].texts]
    for one, other in itertools.combinations(boxes, 2):
        across = min(one.x1, other.x1) - max(one.x0, other.x0)
        down = min(one.y1, other.y1) - max(one.y0, other.y0)
        assert min(across, down) <= 1, (one, other)
    for box in boxes:
        assert box.x0 >= -1
        assert box.y0 >= -1
        assert box.x1 <= figure.bbox.width + 1
        assert box.y1 <= figure.bbox.height + 1


def test_the_same_counts_give_the_same_bytes() -> None:
    """As SVG for pages, and as a picture."""
    assert to_svg(drawn(*PAPER)) == to_svg(drawn(*PAPER))
    assert Image.open(io.BytesIO(to_png(drawn(*PAPER), 50))).size == (480, 180)
