"""Rates over draws of pictures, against loops and figures worked out by hand."""

from collections import Counter
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idia_core.errors import InvalidInputError
from idia_core.evaluation import (
    METRICS,
    OUTCOMES,
    WINS,
    VoteGrid,
    confusion,
    draw_outcomes,
    draw_pictures,
    evaluate_identity,
    margins,
    picture_counts,
    rates,
    scores,
    template_wins,
    vote_grid,
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


def test_scores_leave_out_what_was_not_answered() -> None:
    """A picture without an answer to a template has no vote there, and a template without any has no majority."""
    predicted_PN = np.array([[7, -1, -1], [-1, -1, 9], [9, -1, 9]])
    chosen_RP = np.array([[1, 1, 1], [1, 1, 0], [0, 1, 1]])
    assert scores(predicted_PN, 7, chosen_RP).tolist() == [0, 1, 0]
    assert scores(predicted_PN, 9, chosen_RP).tolist() == [1, 1, 2]
    assert scores(predicted_PN, -1, chosen_RP).tolist() == [0, 0, 0]


def test_margins_are_the_lead_over_the_next_name() -> None:
    """A margin is positive for the only leader, nought for a tie, and negative for those behind."""
    predicted_PN = np.array([[1, 2], [1, 2], [1, 5], [5, 5]])
    everything_RP = np.ones((1, 4), np.int64)
    assert {name: margins(predicted_PN, name, everything_RP).tolist() for name in (1, 2, 5, 9)} == {
        1: [[2, -2]],
        2: [[-3, 0]],
        5: [[-2, 0]],
        9: [[-3, -2]],
    }


ANSWERS = {"1.jpg": ["Ann", "Bob"], "2.jpg": ["Ann", "Ann"], "3.jpg": ["Cyd Önal", "Ann"]}
TEMPLATES = ("a {0}", "the {0}")


def _votes(answers: dict[str, list[str]], identity: str = "ann") -> list[dict[str, str]]:
    return [
        {"identity": identity, "image": image, "template": template, "predicted": name}
        for image, names in answers.items()
        for template, name in zip(TEMPLATES, names, strict=True)
    ]


VOTES = pl.DataFrame([*_votes(ANSWERS), *_votes({"1.jpg": ["Bob", "Bob"]}, "bob")])
SHUFFLED = VOTES.sample(fraction=1, shuffle=True, seed=4)


def _read(grid: VoteGrid) -> dict[str, list[list[str | None]]]:
    """The grid's names, spelt out."""
    names = {place: name for name, place in grid.names.items()}
    return {person: [[names.get(v) for v in row] for row in rows.tolist()] for person, rows in grid.people.items()}


@pytest.mark.parametrize("votes", [VOTES, VOTES.reverse(), SHUFFLED])
def test_vote_grid_is_sorted_whatever_the_order_of_the_rows(votes: pl.DataFrame) -> None:
    """Pictures are rows and templates columns, each in order, and the numbers stand for the names voted for."""
    grid = vote_grid("m", votes)
    assert (grid.model, grid.templates) == ("m", list(TEMPLATES))
    assert _read(grid) == {"ann": list(ANSWERS.values()), "bob": [["Bob", "Bob"]]}


def test_vote_grid_of_some_answers_and_of_none() -> None:
    """What a picture has not answered is -1, and without votes there is nobody."""
    partial = VOTES.filter((pl.col("image") != "2.jpg") | (pl.col("template") == "a {0}"))
    assert _read(vote_grid("m", partial))["ann"] == [["Ann", "Bob"], ["Ann", None], ["Cyd Önal", "Ann"]]
    assert vote_grid("m", VOTES.clear()).people == {}


def test_vote_grid_refuses_a_second_answer() -> None:
    """A picture that answers a template twice would count double."""
    with pytest.raises(InvalidInputError, match="twice"):
        vote_grid("m", pl.concat([VOTES, VOTES.head(1)]))


def _evaluated(name: str, counts: list[int], draws: int, seed: list[int]) -> list[list[int]]:
    grid = vote_grid("m", VOTES)
    return evaluate_identity(grid.people["ann"], grid.names.get(name, -1), counts, draws, seed).tolist()


def test_evaluate_identity_tries_every_count_there_is() -> None:
    """Each count up to the number of pictures has all its draws; a larger one is left out."""
    rows = _evaluated("Ann", [1, 3, 5, 30], 4, [0, 0])
    assert [row[:2] for row in rows] == [[count, draw] for count in (1, 3) for draw in range(4)]
    assert {score for count, _, score in rows if count == 3} == {2}
    assert {score for count, _, score in rows if count == 1} <= {1, 2}
    assert _evaluated("Ann", [5, 30], 4, [0, 0]) == []


@pytest.mark.parametrize("name", ["Ann", "Bob", "Cyd Önal", "Nobody", ""])
def test_evaluate_identity_scores_by_the_rule(name: str) -> None:
    """With a single picture a draw's score is that picture's own, and all pictures come up."""
    singles = {_score_by_hand([names], name) for names in ANSWERS.values()}
    assert {score for _, _, score in _evaluated(name, [1], 60, [3])} == singles
    everything = _score_by_hand(list(ANSWERS.values()), name)
    assert {score for _, _, score in _evaluated(name, [3], 5, [3])} == {everything}


def test_evaluate_identity_is_a_function_of_votes_and_seed() -> None:
    """Which other counts are tried does not matter; another seed draws others."""
    predicted_PN = np.array([[0 if (i * 7 + t * 3) % 5 < 2 else 1 for t in range(6)] for i in range(20)])
    first = evaluate_identity(predicted_PN, 0, [3, 7], 30, [1, 2]).tolist()
    assert evaluate_identity(predicted_PN, 0, [3, 7], 30, [1, 2]).tolist() == first
    assert evaluate_identity(predicted_PN, 0, [7], 30, [1, 2]).tolist() == first[30:]
    assert evaluate_identity(predicted_PN, 0, [3, 7], 30, [1, 3]).tolist() != first
    assert evaluate_identity(predicted_PN, 0, [3, 7], 30, [2, 2]).tolist() != first


def test_outcomes_are_each_persons_own() -> None:
    """Everybody with votes has a row for each count and draw, seeded with the place among the people."""
    grid = vote_grid("m", SHUFFLED)
    people = [("bob", "Bob"), ("nobody", "No Body"), ("ann", "Ann")]
    table = draw_outcomes(grid, people, [1, 3], 4, 9)
    assert table.schema == OUTCOMES
    expected = [["m", "bob", 1, draw, 2] for draw in range(4)]
    expected += [["m", "ann", *row] for row in _evaluated("Ann", [1, 3], 4, [9, 2])]
    assert [list(row.values()) for row in table.to_pylist()] == expected
    assert draw_outcomes(grid, [("nobody", "No Body")], [1], 4, 9).to_pylist() == []


def test_template_wins_by_hand() -> None:
    """For every person and template: the pictures, the votes for the real name, and whether it alone has the most."""
    answers = {"1.jpg": ["Ann", "Ann"], "2.jpg": ["Ann", "Bob"], "3.jpg": ["Cyd", "Cyd"], "4.jpg": ["Cyd", "Ann"]}
    votes = pl.DataFrame([*_votes(answers), *_votes({"1.jpg": ["Cyd", "Ann"]}, "zoe")])
    table = template_wins(vote_grid("m", votes), [("zoe", "Zoe"), ("gone", "Ann"), ("ann", "Ann")])
    assert table.schema == WINS
    assert [tuple(row.values()) for row in table.to_pylist()] == [
        ("m", "zoe", "a {0}", 1, 0, False),
        ("m", "zoe", "the {0}", 1, 0, False),
        ("m", "ann", "a {0}", 4, 2, False),
        ("m", "ann", "the {0}", 4, 2, True),
    ]


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
