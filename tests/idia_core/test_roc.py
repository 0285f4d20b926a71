"""The swept threshold, against figures worked out by hand."""

import polars as pl
import pyarrow as pa
import pytest

from idia_core.evaluation import WINS
from idia_core.roc import OPERATING_POINTS, ROC, operating_points, rated, roc, standings
from idia_core.statistics import wilson_interval

TEMPLATES = ("s", "t", "u")


def _wins(*people: tuple[str, list[int]], model: str = "m", pictures: int = 4) -> pa.Table:
    """WINS of people with so many votes in each template, of which more than two of four are a majority."""
    rows = [
        {"model": model, "identity": identity, "template": template, "pictures": pictures, "votes": n, "won": n > 2}
        for identity, votes in people
        for template, n in zip(TEMPLATES, votes, strict=True)
    ]
    return pa.Table.from_pylist(rows, WINS)


PEOPLE = pa.table(
    {
        "identity": ["a", "b", "c", "x", "y", "out", "unseen"],
        "role": ["member", "member", "member", "non_member", "non_member", "excluded", "member"],
    }
)
TABLE = _wins(
    ("a", [4, 4, 3]), ("b", [3, 0, 0]), ("c", [2, 2, 2]), ("x", [3, 1, 0]), ("y", [0, 0, 0]), ("out", [4] * 3)
)


def standing(members: list[tuple[int, float]], others: list[tuple[int, float]]) -> pl.DataFrame:
    """People of one model with those S and shares."""
    rows = [
        {"model": "m", "identity": f"{member}{i}", "member": member, "score": score, "share": share}
        for member, people in ((True, members), (False, others))
        for i, (score, share) in enumerate(people)
    ]
    return pl.DataFrame(rows, orient="row")


def test_standings_by_hand() -> None:
    """S counts the templates won, the share is that of all votes, and who is neither member nor other is left out."""
    columns = ("identity", "member", "images", "templates", "score", "share")
    assert standings(TABLE, PEOPLE).select(columns).rows() == [
        ("a", True, 4, 3, 3, 11 / 12),
        ("b", True, 4, 3, 1, 3 / 12),
        ("c", True, 4, 3, 0, 6 / 12),
        ("x", False, 4, 3, 1, 4 / 12),
        ("y", False, 4, 3, 0, 0.0),
    ]


def test_roc_sweeps_tau_from_everybody_to_nobody() -> None:
    """A row for each tau from 0 to one more than there are templates, for each model by itself."""
    other = _wins(("a", [0, 0, 0]), ("x", [0, 0, 0]), model="n", pictures=6)
    table = roc(standings(pa.concat_tables([other, TABLE]), PEOPLE))
    assert table.schema == ROC
    rows = table.to_pylist()
    cells = [(r["model"], r["images"], r["threshold"], r["tp"], r["fn"], r["fp"], r["tn"]) for r in rows]
    assert cells == [
        ("m", 4, 0, 3, 0, 2, 0),
        ("m", 4, 1, 2, 1, 1, 1),
        ("m", 4, 2, 1, 2, 0, 2),
        ("m", 4, 3, 1, 2, 0, 2),
        ("m", 4, 4, 0, 3, 0, 2),
        ("n", 6, 0, 1, 0, 1, 0),
        *(("n", 6, tau, 0, 1, 0, 1) for tau in (1, 2, 3, 4)),
    ]
    assert {row["group"] for row in rows} == {"all"}
    assert (rows[1]["tpr"], rows[1]["fpr"]) == (2 / 3, 1 / 2)
    assert (rows[1]["tpr_low"], rows[1]["tpr_high"]) == wilson_interval(2, 3)
    assert (rows[1]["fpr_low"], rows[1]["fpr_high"]) == wilson_interval(1, 2)


def test_rates_over_nobody_are_null() -> None:
    """Without non-members there is no false-positive rate, and its interval is all there is."""
    row = rated(pl.Series([True, False]), pl.Series([True, True]))
    assert (row["tp"], row["fn"], row["fp"], row["tn"]) == (1, 1, 0, 0)
    assert (row["tpr"], row["fpr"], row["fpr_low"], row["fpr_high"]) == (0.5, None, 0.0, 1.0)


def test_operating_points_take_the_lowest_threshold_that_keeps_to_the_target() -> None:
    """Of 100 non-members one may be accused at 1%, and none at 0.1%, which 100 cannot resolve; shares part equal S."""
    others = [(2, 0.30), (2, 0.20), (1, 0.90), *[(0, 0.01)] * 97]
    members = [(3, 0.1), (2, 0.30), (2, 0.25), (2, 0.20), (1, 0.95)]
    table = operating_points(standing(members, others))
    assert table.schema == OPERATING_POINTS
    strict, loose = table.to_pylist()
    assert (strict["target_fpr"], strict["threshold"], strict["threshold_share"]) == (0.001, 3, 0.1)
    assert (strict["tpr"], strict["fpr"], strict["resolved"]) == (1 / 5, 0.0, False)
    assert (loose["target_fpr"], loose["threshold"], loose["threshold_share"]) == (0.01, 2, 0.25)
    assert (loose["tpr"], loose["fpr"], loose["resolved"]) == (3 / 5, 0.01, True)
    assert (loose["tpr_low"], loose["tpr_high"]) == wilson_interval(3, 5)


@pytest.mark.parametrize(("others", "resolved"), [(99, [False, False]), (100, [False, True]), (1000, [True, True])])
def test_a_target_needs_enough_non_members(others: int, resolved: list[bool]) -> None:
    """0.1% is resolved from 1,000 non-members on, 1% from 100 on."""
    table = operating_points(standing([(1, 0.5)], [(0, 0.0)] * others))
    assert table["resolved"].to_pylist() == resolved
    assert table["tpr"].to_pylist() == [1.0, 1.0]


def test_a_false_positive_who_ties_with_the_best_leaves_nobody() -> None:
    """Where even the highest T is a non-member's too there is no threshold, and nobody is found."""
    for row in operating_points(standing([(2, 0.5), (1, 0.5)], [(2, 0.5), (0, 0.1)])).to_pylist():
        assert (row["threshold"], row["threshold_share"], row["tpr"], row["fpr"]) == (None, None, 0.0, 0.0)


def test_no_operating_point_without_members_or_others() -> None:
    """A rate over nobody is null: without non-members no threshold means anything."""
    for row in operating_points(standing([(2, 0.5)], [])).to_pylist():
        assert (row["threshold"], row["tpr"], row["tpr_low"], row["fpr"]) == (None, None, None, None)
        assert not row["resolved"]
    for row in operating_points(standing([], [(2, 0.5), (0, 0.1)])).to_pylist():
        assert (row["tpr"], row["fpr"]) == (None, 0.0)
