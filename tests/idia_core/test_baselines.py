"""Simpler attacks beside the vote, against figures worked out by hand."""

import numpy as np
import pyarrow as pa
import pytest

from idia_core.attack import SIMILARITIES
from idia_core.baselines import BASELINES, baselines, decoy_threshold
from idia_core.evaluation import WINS
from idia_core.statistics import wilson_interval

PEOPLE = pa.table(
    {"identity": ["a", "b", "x", "y", "out"], "role": ["member", "member", "non_member", "non_member", "excluded"]}
)


def wins(model: str, won: dict[str, tuple[bool, bool, bool]]) -> pa.Table:
    """WINS of people who won in those of the three templates."""
    rows = [
        {"model": model, "identity": identity, "template": template, "pictures": 2, "votes": 2 * own, "won": own}
        for identity, flags in won.items()
        for template, own in zip(("t {0}", "s {0}", "u {0}"), flags, strict=True)
    ]
    return pa.Table.from_pylist(rows, WINS)


def similarities(model: str, cosines: dict[str, float], decoys: list[float]) -> pa.Table:
    """SIMILARITIES with the same decoys for everybody."""
    rows = [{"model": model, "identity": i, "cosine": cosine, "decoys": decoys} for i, cosine in cosines.items()]
    return pa.Table.from_pylist(rows, SIMILARITIES)


WON = wins(
    "m",
    {
        "a": (True, True, False),
        "b": (True, False, False),
        "x": (False, False, True),
        "y": (False, False, False),
        "out": (True, True, True),
    },
)


def cells(table: pa.Table) -> dict[tuple[str, str], tuple[int, ...]]:
    """tp, fn, fp and tn of each model and method."""
    return {(r["model"], r["method"]): (r["tp"], r["fn"], r["fp"], r["tn"]) for r in table.to_pylist()}


def test_the_vote_beside_each_template_alone() -> None:
    """With tau 1 any template will do, with tau 2 two must; a template alone says what its own majority says."""
    assert cells(baselines(WON, None, PEOPLE, 1, 0.99)) == {
        ("m", "idia"): (2, 0, 1, 1),
        ("m", "single: s {0}"): (1, 1, 0, 2),
        ("m", "single: t {0}"): (2, 0, 0, 2),
        ("m", "single: u {0}"): (0, 2, 1, 1),
    }
    assert cells(baselines(WON, None, PEOPLE, 2, 0.99))["m", "idia"] == (1, 1, 0, 2)


def test_rates_come_with_wilson_intervals() -> None:
    """Every row has both rates and their 95% intervals."""
    table = baselines(WON, None, PEOPLE, 1, 0.99)
    assert table.schema == BASELINES
    row = table.to_pylist()[0]
    assert (row["method"], row["tpr"], row["fpr"]) == ("idia", 1.0, 0.5)
    assert (row["tpr_low"], row["tpr_high"]) == wilson_interval(2, 2)
    assert (row["fpr_low"], row["fpr_high"]) == wilson_interval(1, 2)


def test_cosine_goes_by_the_decoys_of_the_people_under_test() -> None:
    """A cosine above the decoys' quantile is a finding, one equal to it is none; who is left out adds no decoys."""
    decoys = [0.1, 0.2, 0.3, 0.4]
    tested = similarities("m", {"a": 0.31, "b": 0.3, "x": 0.35, "y": 0.0}, decoys)
    left_out = similarities("m", {"out": 0.9}, [9.0] * 100)
    table = baselines(WON, pa.concat_tables([tested, left_out]), PEOPLE, 1, 0.75)
    assert [row["method"] for row in table.to_pylist()][:2] == ["idia", "cosine"]
    assert cells(table)["m", "cosine"] == (1, 1, 1, 1)
    assert cells(baselines(WON, tested, PEOPLE, 1, 0.5))["m", "cosine"] == (2, 0, 1, 1)
    assert cells(baselines(WON, tested, PEOPLE, 1, 0.99))["m", "cosine"] == (0, 2, 0, 2)


def test_a_black_box_has_no_cosine() -> None:
    """Of two models only the one with similarities has the row; without decoys there is no threshold."""
    both = pa.concat_tables([WON, wins("box", {"a": (True,) * 3, "x": (False,) * 3})])
    known = similarities("m", {"a": 0.5, "x": 0.1}, [0.2])
    found = cells(baselines(both, known, PEOPLE, 1, 0.99))
    assert found["m", "cosine"] == (1, 0, 0, 1)
    assert found["box", "idia"] == (1, 0, 0, 1)
    assert ("box", "cosine") not in found
    assert ("m", "cosine") not in cells(baselines(both, similarities("m", {"a": 0.5}, []), PEOPLE, 1, 0.99))


@pytest.mark.parametrize(("quantile", "threshold"), [(0.5, 50), (0.99, 99), (0.985, 99), (0.999, 100)])
def test_the_threshold_is_a_decoys_own(quantile: float, threshold: int) -> None:
    """Of 100 similarities the 99% quantile is the 99th: 99 do not exceed it."""
    assert decoy_threshold(np.arange(100, 0, -1, dtype=np.float32), quantile) == threshold
