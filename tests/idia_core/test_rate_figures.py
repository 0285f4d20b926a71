"""Rates against training and attack pictures: the tables behind the figures, and what is drawn of them."""

import polars as pl
import pyarrow as pa
import pytest
from matplotlib.figure import Figure

from idia_core.evaluation import METRICS, rates
from idia_core.figures import to_pdf, to_png
from idia_core.rate_figures import (
    draw_attack_pictures,
    draw_heat_maps,
    draw_training_pictures,
    fold,
    group_models,
    most_pictures,
    short_rate,
    study_rates,
)


def metrics(models: list[str], counts: tuple[int, ...] = (1, 3)) -> pa.Table:
    """Two draws of each count: of four members the model finds as many as its place, and one more in the second."""
    rows = [
        {"model": model, "group": group, "images": images, "draw": draw}
        | {"tp": found, "fn": 4 - found, "fp": draw, "tn": 4 - draw}
        for place, model in enumerate(models)
        for images in counts
        for draw in (0, 1)
        for group in ("all", "F")
        if (found := min(4, place + draw)) >= 0
    ]
    return pa.Table.from_pylist(rows, METRICS)


def facts(models: list[str], architectures: list[str], sizes: list[int | None]) -> pa.Table:
    """What is known of the models."""
    return pa.table({"model": models, "architecture": architectures, "images_per_member": pa.array(sizes, pa.int64())})


MODELS = ["v1", "v25", "r1", "r25"]
RATES = study_rates(rates(metrics(MODELS)).to_arrow(), facts(MODELS, ["vit", "vit", "rn", "rn"], [1, 25, 1, 25]))


def lines(figure: Figure, panel: int) -> dict[str, list[float]]:
    """The labelled lines of a panel."""
    drawn = figure.axes[panel].lines
    return {line.get_label(): list(line.get_ydata()) for line in drawn if not line.get_label().startswith("_")}


def test_study_rates_are_everybodys_in_the_order_of_the_legend() -> None:
    """By architecture, then from the most training pictures down; groups of people are left out."""
    columns = ("model", "architecture", "images_per_member", "images", "tpr_mean", "draws")
    assert RATES.select(columns).rows() == [
        ("r25", "rn", 25, 1, 7 / 8, 2),
        ("r25", "rn", 25, 3, 7 / 8, 2),
        ("r1", "rn", 1, 1, 5 / 8, 2),
        ("r1", "rn", 1, 3, 5 / 8, 2),
        ("v25", "vit", 25, 1, 3 / 8, 2),
        ("v25", "vit", 25, 3, 3 / 8, 2),
        ("v1", "vit", 1, 1, 1 / 8, 2),
        ("v1", "vit", 1, 3, 1 / 8, 2),
    ]
    assert most_pictures(RATES)["images"].to_list() == [3, 3, 3, 3]


def test_models_are_grouped_by_architecture_where_their_training_is_known() -> None:
    """A group an architecture; models that nothing is known of, or that saw alike, go six to a group by their names."""
    assert [(g.title, g.models, g.ordered) for g in group_models(RATES)] == [
        ("rn", {"r25": "K = 25", "r1": "K = 1"}, True),
        ("vit", {"v25": "K = 25", "v1": "K = 1"}, True),
    ]
    many = [f"m{number}" for number in range(8)]
    alone = group_models(study_rates(rates(metrics(many)).to_arrow(), None))
    assert [(g.title, list(g.models.values()), g.ordered) for g in alone] == [
        ("", many[:6], False),
        ("", many[6:], False),
    ]
    alike = facts(["a", "b", "c"], ["vit", "vit", "rn"], [5, 5, None])
    mixed = group_models(study_rates(rates(metrics(["a", "b", "c"])).to_arrow(), alike))
    assert [list(g.models) for g in mixed] == [["c", "a", "b"]]


def test_attack_pictures_have_a_row_of_panels_for_each_group() -> None:
    """Lines are the means of a group's models, on both sides, and the legend names them."""
    figure = draw_attack_pictures(RATES)
    assert [panel.get_title(loc="left") for panel in figure.axes] == [
        "rn: true-positive rate",
        "rn: false-positive rate",
        "vit: true-positive rate",
        "vit: false-positive rate",
    ]
    assert lines(figure, 0) == {"K = 25": [7 / 8, 7 / 8], "K = 1": [5 / 8, 5 / 8]}
    assert lines(figure, 3) == {"K = 25": [1 / 8, 1 / 8], "K = 1": [1 / 8, 1 / 8]}
    assert [text.get_text() for text in figure.axes[3].get_legend().texts] == ["K = 25", "K = 1"]
    assert [panel.get_xlabel() for panel in figure.axes] == ["", "", *["attack pictures of each person"] * 2]


def test_training_pictures_have_a_line_for_each_architecture() -> None:
    """Points are the means with the most attack pictures, bars one standard deviation, cut at 0 and 1."""
    figure = draw_training_pictures(RATES)
    assert lines(figure, 0) == {"rn": [7 / 8, 5 / 8], "vit": [3 / 8, 1 / 8]}
    spread = (2 * (1 / 8) ** 2) ** 0.5
    low, high = (end[1] for end in figure.axes[0].collections[1].get_segments()[1])
    assert (low, high) == pytest.approx((max(0.0, 1 / 8 - spread), 1 / 8 + spread))
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["1", "25"]


def test_heat_maps_show_a_rate_for_each_pair() -> None:
    """Two maps an architecture: training pictures upwards, attack pictures to the right, the rate in each cell."""
    figure = draw_heat_maps(RATES)
    true, false = figure.axes[:2]
    assert true.get_title(loc="left") == "rn: true-positive rate"
    assert true.collections[0].get_array().tolist() == [[5 / 8, 5 / 8], [7 / 8, 7 / 8]]
    assert [text.get_text() for text in true.texts] == [".62", ".62", ".88", ".88"]
    assert [text.get_text() for text in false.texts] == [".12"] * 4
    assert [label.get_text() for label in true.get_yticklabels()] == ["1", "25"]
    assert [label.get_text() for label in true.get_xticklabels()] == ["1", "3"]


def test_what_was_not_measured_stays_blank() -> None:
    """A pair without a model has no number, and a rate over nobody no line."""
    partial = RATES.filter((pl.col("model") != "r1") | (pl.col("images") == 1)).with_columns(fpr_mean=None, fpr_sd=None)
    partial = partial.with_columns(pl.col("fpr_mean", "fpr_sd").cast(pl.Float64))
    true, false = draw_heat_maps(partial).axes[:2]
    assert (len(true.texts), len(false.texts)) == (3, 0)
    assert lines(draw_attack_pictures(partial), 1) == {"K = 25": [], "K = 1": []}


@pytest.mark.parametrize(
    ("name", "folded"),
    [
        ("K025", "K025"),
        ("a-name-of-so-many-letters", "a-name-of-so-many-\nletters"),
        ("x" * 72, "\n".join(["x" * 24] * 3)),
        ("x" * 50 + "y" * 50, f"{'x' * 24}\n{'x' * 23}…\n{'y' * 24}"),
    ],
)
def test_long_names_are_folded_and_keep_their_ends(name: str, folded: str) -> None:
    """At most three lines; what does not fit is left out of the middle."""
    assert fold(name) == folded


def test_short_rates() -> None:
    """Two decimals, and none of a round number."""
    assert [short_rate(rate) for rate in (0, 0.004, 0.125, 0.9, 0.999, 1)] == ["0", "0", ".12", ".90", "1", "1"]


@pytest.mark.parametrize("draw", [draw_attack_pictures, draw_training_pictures, draw_heat_maps])
def test_a_second_drawing_is_the_same(draw: object) -> None:
    """PNG and PDF are the same bytes each time."""
    assert [to_png(draw(RATES)), to_pdf(draw(RATES))] == [to_png(draw(RATES)), to_pdf(draw(RATES))]


@pytest.mark.parametrize("count", [1, 3, 18])
def test_names_and_panels_keep_out_of_each_others_way(count: int) -> None:
    """However many models and however long their names: legends and panels lie within the figure and do not overlap."""
    names = [f"hf-hub:laboratory/CLIP-ViT-B-32-laion2B-s34B-b79K-finetuned-{number:02d}" for number in range(count)]
    figure = draw_attack_pictures(study_rates(rates(metrics(names)).to_arrow(), None))
    to_png(figure, dots_per_inch=50)  # lays it out
    boxes = [panel.get_window_extent() for panel in figure.axes]
    boxes += [panel.get_legend().get_window_extent() for panel in figure.axes if panel.get_legend()]
    whole = figure.bbox
    assert all(whole.x0 <= box.x0 and box.x1 <= whole.x1 and whole.y0 <= box.y0 and box.y1 <= whole.y1 for box in boxes)
    assert not any(a.overlaps(b) for place, a in enumerate(boxes) for b in boxes[:place])
