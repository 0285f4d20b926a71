"""The rates that the figures draw, and the figures as SVG and PNG."""

import io
import math
import re
import xml.etree.ElementTree as ET

import pyarrow as pa
import pytest
from PIL import Image

from idia_core.errors import InvalidInputError
from idia_core.figures import (
    Counts,
    DrawnRates,
    ModelCounts,
    confusion_matrices,
    rates_by_attack_pictures,
    rates_by_training_pictures,
    rates_over_draws,
    to_png,
    to_svg,
)
from idia_core.statistics import wilson_interval

MODELS = [
    ModelCounts("K001", "vit", 1, Counts(tp=2, fn=22, fp=0, tn=24)),
    ModelCounts("K025", "vit", 25, Counts(tp=24, fn=0, fp=1, tn=23)),
]
RATES = [
    DrawnRates("K001", 1, 20, 0.1, 0.05, 0.02, 0.01),
    DrawnRates("K001", 3, 20, 0.2, 0.05, 0.01, 0.01),
    DrawnRates("K025", 1, 20, 0.8, 0.1, 0.0, 0.0),
    DrawnRates("K025", 3, 20, 0.95, 0.1, 0.0, 0.0),
]


def metrics(*rows: tuple[str, str, int, int, int, int, int, int]) -> pa.Table:
    """A metrics table with the given rows."""
    names = ("model", "group", "images", "draw", "tp", "fn", "fp", "tn")
    return pa.table({name: [row[place] for row in rows] for place, name in enumerate(names)})


def test_counts_give_rates_and_nan_where_there_is_no_one() -> None:
    """The rates divide by members and by others; without any there is no rate."""
    counts = Counts(tp=3, fn=1, fp=1, tn=7)
    assert (counts.tpr, counts.fpr, counts.members, counts.others) == (0.75, 0.125, 4, 8)
    assert math.isnan(Counts(0, 0, 1, 1).tpr)
    assert math.isnan(Counts(1, 1, 0, 0).fpr)


def test_rates_over_draws_are_means_and_sample_standard_deviations() -> None:
    """Each model and number of pictures is summarised over its draws, in order, other groups left out."""
    table = metrics(
        ("b", "all", 3, 0, 4, 0, 0, 4),
        ("b", "all", 1, 0, 1, 3, 0, 4),
        ("b", "all", 1, 1, 2, 2, 1, 3),
        ("b", "all", 1, 2, 3, 1, 2, 2),
        ("b", "rare", 1, 0, 0, 4, 4, 0),
        ("a", "all", 1, 0, 2, 2, 0, 4),
    )
    rates = rates_over_draws(table)
    assert [(rate.model, rate.images, rate.draws) for rate in rates] == [("b", 1, 3), ("b", 3, 1), ("a", 1, 1)]
    assert rates[0] == DrawnRates("b", 1, 3, 0.5, 0.25, 0.25, 0.25)
    assert (rates[1].tpr_mean, rates[1].tpr_sd) == (1.0, 0.0)


def test_rates_over_draws_refuse_a_group_that_is_not_there() -> None:
    """A metrics table without the group is an error that names it."""
    with pytest.raises(InvalidInputError, match="'all'"):
        rates_over_draws(metrics(("a", "rare", 1, 0, 1, 1, 1, 1)))


def test_training_figure_draws_rates_with_their_intervals() -> None:
    """The left panel holds the true-positive rates, the right one the false-positive rates, with Wilson bars."""
    left, right = rates_by_training_pictures(MODELS).axes
    assert list(left.lines[0].get_xdata()) == [1, 25]
    assert list(left.lines[0].get_ydata()) == pytest.approx([2 / 24, 1.0])
    assert list(right.lines[0].get_ydata()) == pytest.approx([0, 1 / 24])
    bars = [tuple(end[1] for end in bar) for bar in left.collections[0].get_segments()]
    assert bars == [pytest.approx(wilson_interval(2, 24)), pytest.approx(wilson_interval(24, 24))]


def test_attack_figure_draws_a_line_and_a_band_for_each_model() -> None:
    """Lines are the means; bands reach one standard deviation either way and stay within 0 and 1."""
    left, right = rates_by_attack_pictures(RATES).axes
    assert [list(line.get_ydata()) for line in left.lines] == [[0.1, 0.2], [0.8, 0.95]]
    assert [list(line.get_ydata()) for line in right.lines] == [[0.02, 0.01], [0.0, 0.0]]
    heights = left.collections[1].get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == pytest.approx((0.7, 1.0))


@pytest.mark.parametrize("stacked", [False, True])
def test_confusion_figure_shows_every_count(stacked: bool) -> None:
    """A panel holds a model's four counts, and is named after it."""
    panels = [panel for panel in confusion_matrices(MODELS, stacked=stacked).axes if panel.axison]
    assert [panel.get_title(loc="left") for panel in panels] == ["K001", "K025"]
    assert [text.get_text() for text in panels[1].texts][::2] == ["24", "0", "1", "23"]


@pytest.mark.parametrize("stacked", [False, True])
def test_svgs_are_deterministic_and_share_no_id(stacked: bool) -> None:
    """Drawn twice the bytes are equal; different figures can lie in one page; references lead to ids that are there."""
    draws = [
        lambda: to_svg(rates_by_training_pictures(MODELS, stacked=stacked)),
        lambda: to_svg(rates_by_attack_pictures(RATES, stacked=stacked)),
        lambda: to_svg(confusion_matrices(MODELS, stacked=stacked)),
    ]
    svgs = [draw() for draw in draws]
    assert svgs == [draw() for draw in draws]
    ids = [re.findall(r' id="([^"]+)"', svg) for svg in svgs]
    everywhere = [name for own in ids for name in own]
    assert len(everywhere) == len(set(everywhere)) > 0
    for svg, own in zip(svgs, ids, strict=True):
        assert set(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg)) == set(own)


def test_svg_takes_the_pages_colours_and_keeps_text_as_text() -> None:
    """An SVG holds currentColor, readable text and an alternative, and neither dates nor rules for the whole page."""
    svg = to_svg(rates_by_training_pictures(MODELS))
    root = ET.fromstring(svg)  # noqa: S314 - made here
    texts = {"".join(node.itertext()).strip() for node in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"True-positive rate", "False-positive rate", "25", "vit"} <= texts
    assert "currentColor" in svg
    assert "var(--series-1, #0072b2)" in svg
    assert root.get("role") == "img"
    assert "K025: 1.00 and 0.04" in str(root.get("aria-label"))
    assert not re.search(r"<style|<metadata|#010203|DejaVu", svg)


def test_hostile_names_stay_text() -> None:
    """A model named in markup or mathematics appears as written."""
    name = '<b onload="x">$\\frac{1}$'
    svg = to_svg(confusion_matrices([ModelCounts(name, "vit", 1, Counts(1, 1, 1, 1))]))
    assert "<b onload" not in svg
    assert name in "".join(ET.fromstring(svg).itertext())  # noqa: S314 - made here


def test_png_is_a_picture_on_white() -> None:
    """The PNG opens, has the figure's size, and is white in the corner; drawn twice it is the same."""
    figure = rates_by_training_pictures(MODELS)
    with Image.open(io.BytesIO(to_png(figure, dots_per_inch=50))) as picture:
        assert picture.size == (480, 165)
        assert picture.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
    assert to_png(figure) == to_png(rates_by_training_pictures(MODELS))
