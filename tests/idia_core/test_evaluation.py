"""Rates over draws of pictures, against loops and figures worked out by hand."""

from collections import Counter
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idia_core.evaluation import (
    METRICS,
    OUTCOMES,
    confusion,
    draw_pictures,
    evaluate_identity,
    picture_counts,
    rates,
    scores,
)


@pytest.mark.parametrize(
    ("most", "counts"),
    [(30, [*range(1, 30, 2), 30]), (1, [1]), (2, [1, 2]), (3, [1, 3]), (8, [1, 3, 5, 7, 8])],
)
def test_picture_counts(most: int, counts: list[int]) -> None:
    """The odd numbers and the most itself, as in the paper's 1, 3, ..., 29, 30."""
    assert picture_counts(most) == counts


@pytest.mark.parametrize(("pictures", "count"), [(1, 1), (5, 1), (5, 3), (5, 5), (30, 29)])
def test_draws_are_exact(pictures: int, count: int) -> None:
    """Every draw takes exactly so many different pictures."""
    chosen_RP = draw_pictures(pictures, count, 50, np.random.default_rng(1))
    assert (chosen_RP.shape, chosen_RP.dtype) == ((50, pictures), np.int64)
    assert set(np.unique(chosen_RP)) <= {0, 1}
    assert (chosen_RP.sum(axis=1) == count).all()


def test_draws_are_even_and_repeatable() -> None:
    """Each of the ten ways to take two of five pictures comes up equally often; a seed gives the same draws again."""
    chosen_RP = draw_pictures(5, 2, 10_000, np.random.default_rng(0))
    ways = Counter(tuple(np.flatnonzero(row).tolist()) for row in chosen_RP)
    assert len(ways) == 10
    assert all(900 < times < 1100 for times in ways.values())
    np.testing.assert_array_equal(chosen_RP, draw_pictures(5, 2, 10_000, np.random.default_rng(0)))
    assert (chosen_RP != draw_pictures(5, 2, 10_000, np.random.default_rng(1))).any()


def _score_by_hand(answers: list[list[Any]], name: Any) -> int:
    """S of some pictures' answers: the templates in which `name` alone has the most votes."""
    score = 0
    for votes in zip(*answers, strict=True):
        ranking = Counter(votes).most_common()
        score += ranking[0][0] == name and (len(ranking) == 1 or ranking[0][1] > ranking[1][1])
    return score


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 7), st.integers(1, 4), st.integers(1, 4), st.data())
def test_scores_are_the_papers_rule(pictures: int, templates: int, names: int, data: st.DataObject) -> None:
    """For any votes and choice of pictures the score is the loop's, ties included, also of a name never voted for."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    predicted_PN = rng.integers(0, names, (pictures, templates)) * 17
    chosen_RP = draw_pictures(pictures, data.draw(st.integers(1, pictures)), 6, rng)
    for name in [*range(0, names * 17, 17), 5, -1]:
        found_R = scores(predicted_PN, name, chosen_RP)
        expected = [_score_by_hand(predicted_PN[row == 1].tolist(), name) for row in chosen_RP]
        assert found_R.tolist() == expected


def test_scores_of_ties() -> None:
    """Two against two is no majority; without one of the four there is one."""
    predicted_PN = np.array([[7], [7], [9], [9]])
    chosen_RP = np.array([[1, 1, 1, 1], [1, 1, 1, 0], [0, 1, 1, 1], [1, 0, 1, 0], [1, 1, 0, 0]])
    assert scores(predicted_PN, 7, chosen_RP).tolist() == [0, 1, 0, 0, 1]
    assert scores(predicted_PN, 9, chosen_RP).tolist() == [0, 0, 1, 0, 0]


ANSWERS = {"1.jpg": ["Ann", "Bob"], "2.jpg": ["Ann", "Ann"], "3.jpg": ["Cyd Önal", "Ann"]}
VOTES = pl.DataFrame(
    [
        {"image": image, "template": template, "predicted": name}
        for image, names in ANSWERS.items()
        for template, name in zip(("a {0}", "the {0}"), names, strict=True)
    ]
)


def test_evaluate_identity_tries_every_count_there_is() -> None:
    """Each count up to the number of pictures has all its draws; a larger one is left out."""
    rows = evaluate_identity(VOTES, "Ann", [1, 3, 5, 30], 4, [0, 0])
    assert [row[:2] for row in rows] == [(count, draw) for count in (1, 3) for draw in range(4)]
    assert {score for count, _, score in rows if count == 3} == {2}
    assert {score for count, _, score in rows if count == 1} <= {1, 2}


@pytest.mark.parametrize("name", ["Ann", "Bob", "Cyd Önal", "Nobody", ""])
def test_evaluate_identity_scores_by_the_rule(name: str) -> None:
    """With a single picture a draw's score is that picture's own, and all pictures come up."""
    singles = {_score_by_hand([names], name) for names in ANSWERS.values()}
    assert {score for _, _, score in evaluate_identity(VOTES, name, [1], 60, [3])} == singles
    everything = _score_by_hand(list(ANSWERS.values()), name)
    assert {score for _, _, score in evaluate_identity(VOTES, name, [3], 5, [3])} == {everything}


def test_evaluate_identity_is_a_function_of_votes_and_seed() -> None:
    """The order of the votes does not matter, nor which other counts are tried; another seed draws others."""
    many = pl.DataFrame(
        [
            {"image": f"{i:02d}", "template": str(t), "predicted": "Ann" if (i * 7 + t * 3) % 5 < 2 else "Bob"}
            for i in range(20)
            for t in range(6)
        ]
    )
    first = evaluate_identity(many, "Ann", [3, 7], 30, [1, 2])
    assert evaluate_identity(many.sample(fraction=1, shuffle=True, seed=4), "Ann", [3, 7], 30, [1, 2]) == first
    assert evaluate_identity(many, "Ann", [7], 30, [1, 2]) == first[30:]
    assert evaluate_identity(many, "Ann", [3, 7], 30, [1, 3]) != first
    assert evaluate_identity(many, "Ann", [3, 7], 30, [2, 2]) != first


PEOPLE = pa.table(
    {
        "identity": ["a", "b", "c", "d", "e", "f", "x", "absent"],
        "role": ["member", "member", "member", "non_member", "non_member", "non_member", "excluded", "member"],
        "sex": ["F", "F", "M", "F", "M", None, "F", "M"],
    }
)


def _outcomes(*draws: dict[str, int], model: str = "m", images: int = 3) -> pa.Table:
    rows = [
        {"model": model, "identity": identity, "images": images, "draw": draw, "score": score}
        for draw, scored in enumerate(draws)
        for identity, score in scored.items()
    ]
    return pa.Table.from_pylist(rows, OUTCOMES)


TWO_DRAWS = _outcomes(
    {"a": 2, "b": 1, "c": 0, "d": 0, "e": 3, "f": 1, "x": 9},
    {"a": 2, "b": 2, "c": 2, "d": 0, "e": 0, "f": 0, "x": 9},
)


def test_confusion_counts_by_hand() -> None:
    """With tau 1: who is excluded counts nowhere, who has no known sex only among all."""
    table = confusion(TWO_DRAWS, PEOPLE, 1)
    assert table.schema == METRICS
    assert [tuple(row.values()) for row in table.to_pylist()] == [
        ("m", "F", 3, 0, 2, 0, 0, 1),
        ("m", "F", 3, 1, 2, 0, 0, 1),
        ("m", "M", 3, 0, 0, 1, 1, 0),
        ("m", "M", 3, 1, 1, 0, 0, 1),
        ("m", "all", 3, 0, 2, 1, 2, 1),
        ("m", "all", 3, 1, 3, 0, 0, 3),
    ]


def test_confusion_with_a_higher_threshold() -> None:
    """With tau 2 a score of one is not enough, on either side."""
    rows = [row for row in confusion(TWO_DRAWS, PEOPLE, 2).to_pylist() if row["group"] == "all"]
    assert [tuple(row[cell] for cell in ("tp", "fn", "fp", "tn")) for row in rows] == [(1, 2, 1, 2), (3, 0, 0, 3)]


def test_confusion_keeps_models_and_counts_apart() -> None:
    """Each model and number of pictures has its own rows, in order."""
    outcomes = pa.concat_tables(
        [_outcomes({"a": 1}, model="m2"), _outcomes({"a": 0}, model="m1"), _outcomes({"a": 1}, model="m2", images=1)]
    )
    rows = [row for row in confusion(outcomes, PEOPLE, 1).to_pylist() if row["group"] == "all"]
    assert [(row["model"], row["images"], row["tp"], row["fn"]) for row in rows] == [
        ("m1", 3, 0, 1),
        ("m2", 1, 1, 0),
        ("m2", 3, 1, 0),
    ]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.null()])
def test_confusion_without_sexes(kind: pa.DataType) -> None:
    """A column of sexes that is empty throughout, of whatever type, leaves only the group of all."""
    people = PEOPLE.set_column(2, "sex", pa.nulls(len(PEOPLE), kind))
    assert confusion(TWO_DRAWS, people, 1)["group"].to_pylist() == ["all", "all"]


def test_rates_by_hand() -> None:
    """Mean and sample standard deviation over the draws; the one of a single draw is zero."""
    (row,) = rates(confusion(TWO_DRAWS, PEOPLE, 1)).filter(pl.col("group") == "all").to_dicts()
    assert (row["model"], row["images"]) == ("m", 3)
    by_draw = {"tpr": (2 / 3, 1), "fnr": (1 / 3, 0), "fpr": (2 / 3, 0), "tnr": (1 / 3, 1), "accuracy": (1 / 2, 1)}
    for name, (first, second) in by_draw.items():
        assert row[f"{name}_mean"] == pytest.approx((first + second) / 2)
        assert row[f"{name}_sd"] == pytest.approx(abs(first - second) / 2**0.5)
    single = rates(confusion(_outcomes({"a": 1, "d": 0}), PEOPLE, 1)).to_dicts()
    assert {(row["tpr_mean"], row["tpr_sd"], row["tnr_sd"]) for row in single} == {(1.0, 0.0, 0.0)}


def test_a_rate_over_nobody_is_null() -> None:
    """A study without non-members has no false-positive rate, and its accuracy is that over the members."""
    table = rates(confusion(_outcomes({"a": 1, "b": 0}), PEOPLE, 1))
    (row,) = table.filter(pl.col("group") == "all").to_dicts()
    assert (row["tpr_mean"], row["fnr_mean"], row["accuracy_mean"]) == (0.5, 0.5, 0.5)
    assert (row["fpr_mean"], row["tnr_mean"], row["fpr_sd"], row["tnr_sd"]) == (None, None, None, None)
