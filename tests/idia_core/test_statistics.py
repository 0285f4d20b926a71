"""Scores against the paper's definition, p-values against counting by hand, and the findings drawn from them."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idia_core.attack import ASKED, PANEL, PANEL_VOTES, VOTES
from idia_core.errors import InvalidInputError
from idia_core.nulls import Audit
from idia_core.statistics import (
    FAVOURITES,
    VERDICTS,
    Finding,
    Reason,
    Rules,
    benjamini_hochberg,
    favourites,
    judge,
    majorities,
    wilson_interval,
)

IDENTITIES, TEMPLATES, NAMES = ("p3", "p1", "p2"), ("t1", "t2", "t3"), ("Ann", "Bob", "Cyd")
Answers = Sequence[Sequence[str]]
"""What a model says to each of a person's pictures under each template."""
PICTURES = st.lists(st.lists(st.sampled_from(NAMES), min_size=3, max_size=3), max_size=5)


def votes_on(identity: str, answers: Answers, model: str = "m") -> list[dict[str, Any]]:
    """The rows of VOTES of one person."""
    return [
        {"model": model, "identity": identity, "image": f"{i}.jpg", "template": template, "predicted": name}
        for i, names in enumerate(answers)
        for template, name in zip(TEMPLATES, names, strict=False)
    ]


def audit_of(
    tested: dict[str, tuple[str, str | None, Answers]],
    decoys: dict[str, str | None],
    panel: dict[str, tuple[str | None, Answers]] | None = None,
) -> Audit:
    """An audit of one model: people with name, sex and answers; other names with sexes; the panel like the people."""
    asked = [
        {"identity": identity, "name": name, "sex": sex, "pool": "all", "pictures": len(answers)}
        for identity, (name, sex, answers) in tested.items()
    ]
    real = [{"pool": "all", "name": name, "sex": sex, "tested": True} for name, sex, _ in tested.values()]
    others = [{"pool": "all", "name": name, "sex": sex, "tested": False} for name, sex in decoys.items()]
    panel = panel or {}
    return Audit(
        models=["m"],
        votes=pa.Table.from_pylist([vote for i, (_, _, a) in tested.items() for vote in votes_on(i, a)], VOTES),
        asked=pa.Table.from_pylist(asked, ASKED),
        names=pa.Table.from_pylist(real + others),
        panel_votes=pa.Table.from_pylist(
            [{"pool": "all"} | vote for i, (_, a) in panel.items() for vote in votes_on(i, a)], PANEL_VOTES
        ),
        panel=pa.Table.from_pylist([{"identity": i, "sex": sex} for i, (sex, _) in panel.items()], PANEL),
    )


def judged(audit: Audit, **rules: Any) -> dict[str, dict[str, Any]]:
    """The verdict of each identity."""
    return {row["identity"]: row for row in judge(audit, Rules(**rules)).to_pylist()}


def score_by_hand(votes: list[dict[str, Any]], name: str) -> tuple[int, list[str | None]]:
    """S of one person, and each template's majority name, as the paper defines them; a tie is no majority."""
    winners: list[str | None] = []
    for template in TEMPLATES:
        ranking = Counter(vote["predicted"] for vote in votes if vote["template"] == template).most_common()
        if ranking:
            tie = len(ranking) > 1 and ranking[0][1] == ranking[1][1]
            winners.append(None if tie else ranking[0][0])
    return winners.count(name), winners


@settings(max_examples=1000, deadline=None)
@given(
    shown=st.fixed_dictionaries(dict.fromkeys(IDENTITIES, PICTURES)),
    names=st.permutations(NAMES),
    threshold=st.integers(1, 4),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_verdict_is_the_papers(
    shown: dict[str, list[list[str]]], names: list[str], threshold: int, seed: int
) -> None:
    """For three people with none to five pictures, majorities, S and member are as the paper defines them."""
    audit = audit_of({i: (name, None, shown[i]) for i, name in zip(IDENTITIES, names, strict=True)}, {})
    votes = audit.votes.take(np.random.default_rng(seed).permutation(len(audit.votes)))
    found = majorities(votes).sort("template")
    rows = judge(Audit(["m"], votes, audit.asked, audit.names), Rules(threshold=threshold)).to_pylist()
    for row, identity, name in zip(rows, IDENTITIES, names, strict=True):
        score, winners = score_by_hand(votes_on(identity, shown[identity]), name)
        assert (row["identity"], row["images_used"], row["images_failed"]) == (identity, len(shown[identity]), 0)
        assert (row["score"], row["threshold"]) == (score, threshold)
        assert row["member"] == (score >= threshold if shown[identity] else None)
        assert found.filter(identity=identity)["majority"].to_list() == winners


def test_pictures_that_failed_are_counted() -> None:
    """Of seven pictures given, four without a vote could not be used."""
    audit = audit_of({"p": ("Ann", None, [["Ann"] * 3] * 7)}, {})
    votes = audit.votes.filter(pa.compute.less(audit.votes["image"], "3.jpg"))
    row = judge(Audit(["m"], votes, audit.asked, audit.names), Rules()).to_pylist()[0]
    assert (row["images_used"], row["images_failed"]) == (3, 4)


@pytest.mark.parametrize(
    ("answers", "score", "share"),
    [
        (["Ann"], 1, 1.0),
        (["Bob"], 0, 0.0),
        (["Ann", "Bob"], 0, 0.5),
        (["Ann", "Ann", "Bob", "Bob"], 0, 0.5),
        (["Ann", "Ann", "Bob", "Cyd"], 1, 0.5),
        (["Ann", "Bob", "Cyd"], 0, 1 / 3),
        (["Ann", "Ann", "Bob", "Bob", "Cyd"], 0, 0.4),
        (["Ann", "Bob", "Bob"], 0, 1 / 3),
    ],
)
def test_one_template(answers: list[str], score: int, share: float) -> None:
    """More votes than any other name win, not more than half; a tie, also of three, is nobody's win."""
    row = judged(audit_of({"p": ("Ann", None, [[name] for name in answers])}, {"Bob": None, "Cyd": None}))["p"]
    assert (row["score"], row["share"]) == (score, share)


def test_the_name_null_counts_decoys_that_do_as_well() -> None:
    """Wins count before votes; names with as many of both count against, and so do all without a vote for one."""
    answers = [["Ann", "Ann", "Bob"], ["Ann", "Bob", "Bob"], ["Ann", "Cyd", "Dan"]]
    decoys = dict.fromkeys(["Cyd", "Dan", "Eve", "Fay", "Gil", "Hal", "Ida"])
    # Ann wins t1 with 4 of 9 votes; Bob t3 with 3; Cyd and Dan have a vote each, the other five none.
    expected = {"Ann": (1, 1 / 9), "Bob": (1, 2 / 9), "Cyd": (0, 4 / 9), "Eve": (0, 1.0)}
    for name, (score, p_name) in expected.items():
        others = {"Ann": None, "Bob": None} | decoys
        others.pop(name)
        row = judged(audit_of({"p": (name, None, answers)}, others))["p"]
        assert (row["score"], row["decoys"], row["p_name"]) == (score, 8, p_name)


def test_the_face_null_counts_others_for_whom_the_name_does_as_well() -> None:
    """The audit's other people and the panel are counted, who ties among them; who never got the name is not."""
    tested = {
        "p1": ("Ann", None, [["Ann", "Ann", "Bob"]] * 3),
        "p2": ("Bob", None, [["Ann", "Ann", "Ann"]] * 3),
        "p3": ("Cyd", None, [["Dan", "Dan", "Dan"]] * 3),
    }
    panel = {
        "x1": (None, [["Ann", "Ann", "Cyd"]] * 3),
        "x2": (None, [["Ann", "Dan", "Dan"]] * 3),
        "x3": (None, [["Dan", "Dan", "Dan"]] * 3),
    }
    rows = judged(audit_of(tested, {"Dan": None}, panel))
    assert [(row["others"], row["p_face"]) for row in rows.values()] == [(5, 3 / 6), (5, 1.0), (5, 1.0)]
    assert [row["p_value"] for row in rows.values()] == [max(row["p_name"], row["p_face"]) for row in rows.values()]
    alone = judged(audit_of({"p1": tested["p1"]}, {"Bob": None}))["p1"]
    assert (alone["others"], alone["p_face"]) == (0, 1.0)


def test_names_and_faces_are_matched_on_sex() -> None:
    """Of a known sex, the same and the unknown are counted; of an unknown one, the worse of women and men."""
    answers = [["Ann", "Ann", "Bob"]] * 3
    decoys = {"Bob": "M", "Dan": "M", "Eve": "F", "Fay": "F", "Kim": None}
    same, never = [["Ann", "Ann", "Ann"]] * 3, [["Eve", "Eve", "Eve"]] * 3
    panel = {"x1": ("F", never), "x2": ("F", never), "x3": ("M", same), "x4": (None, never)}
    expected = {"F": (3, 1 / 4, 3, 1 / 4), "M": (3, 1 / 4, 2, 2 / 3), None: (3, 1 / 4, 2, 2 / 3)}
    for sex, numbers in expected.items():
        row = judged(audit_of({"p": ("Ann", sex, answers)}, decoys, panel))["p"]
        assert (row["decoys"], row["p_name"], row["others"], row["p_face"]) == numbers
    unsexed = audit_of(
        {"p": ("Ann", None, answers)}, dict.fromkeys(decoys), {i: (None, a) for i, (_, a) in panel.items()}
    )
    row = judged(unsexed)["p"]
    assert (row["decoys"], row["p_name"], row["others"], row["p_face"]) == (5, 1 / 6, 4, 2 / 5)
    row = judged(audit_of({"p": ("Ann", "F", answers)}, {"Bob": "M", "Eve": "M"}, {"x": ("M", never)}))["p"]
    assert (row["decoys"], row["p_name"], row["others"], row["p_face"]) == (0, 1.0, 0, 1.0)


def test_people_are_compared_by_equally_many_pictures() -> None:
    """A name that wins only because there are more pictures to vote for it is no evidence.

    It gets two votes of three, and one of two of the others' pictures: with all six pictures it wins everywhere, with
    two of them, as few as the others have, it wins or ties by chance.
    """
    tested = {"p": ("Ann", None, [["Ann"] * 3] * 4 + [["Bob"] * 3] * 2)}
    panel = {f"x{i}": (None, [["Ann"] * 3, ["Bob"] * 3]) for i in range(60)}
    p_faces = [
        judged(audit_of(tested, {"Bob": None}, panel), seed=seed, min_pictures=2)["p"]["p_face"] for seed in range(8)
    ]
    # Two of the six pictures drawn are both Ann with chance 6/15; else the others do as well.
    assert set(p_faces) == {1 / 61, 1.0}
    alike = judged(audit_of(tested | {"q": ("Cyd", None, tested["p"][2])}, {"Bob": None}))
    assert alike["p"]["p_face"] == 1.0


def test_who_has_more_pictures_is_compared_by_some_of_them() -> None:
    """Of a panel person with ten pictures only three are looked at beside one with three."""
    tested = {"p": ("Ann", None, [["Ann", "Ann", "Bob"]] * 3)}
    panel = {"x": (None, [["Ann", "Ann", "Ann"]] * 2 + [["Bob", "Bob", "Bob"]] * 8)}
    p_faces = {judged(audit_of(tested, {"Bob": None}, panel), seed=seed)["p"]["p_face"] for seed in range(40)}
    assert p_faces == {0.5, 1.0}  # in one choice of fifteen both pictures of Ann are among the three


def test_people_with_too_few_pictures_are_neither_judged_nor_compared_with() -> None:
    """They have p-values, but no q-value, and a favourite shown by a single picture counts for nothing."""
    tested = {"p": ("Ann", None, [["Ann"] * 3] * 3), "q": ("Bob", None, [["Ann"] * 3] * 2), "r": ("Cyd", None, [])}
    panel = {"x": (None, [["Ann"] * 3] * 2), "y": (None, [["Bob"] * 3] * 4)}
    rows = judged(audit_of(tested, dict.fromkeys(f"D{i}" for i in range(30)), panel))
    assert (rows["p"]["others"], rows["p"]["p_face"]) == (1, 1 / 2)
    assert (rows["q"]["others"], rows["q"]["p_value"], rows["q"]["q_value"]) == (2, 1.0, None)
    empty = {key for key, value in rows["r"].items() if value is None}
    assert empty == {"share", "member", "decoys", "p_name", "others", "p_face", "p_value", "q_value"}
    assert {(row["finding"], row["reason"]) for row in (rows["q"], rows["r"])} == {("inconclusive", "too_few_pictures")}
    judged_anyway = judged(audit_of(tested, {}, panel), min_pictures=1)
    assert judged_anyway["q"]["q_value"] == 1.0
    assert judged_anyway["p"]["others"] == 3


def _panel(answers: Answers, people: int) -> dict[str, tuple[str | None, Answers]]:
    return {f"x{i:02}": (None, answers) for i in range(people)}


DECOYS: dict[str, str | None] = dict.fromkeys(f"D{i:02}" for i in range(30))
OWN, NOBODY = [["Ann", "Ann", "Ann"]] * 3, [["D00", "D00", "D01"]] * 3


@pytest.mark.parametrize(
    ("answers", "decoys", "panel", "rules", "finding", "reason"),
    [
        (OWN, DECOYS, _panel(NOBODY, 30), {}, Finding.MEMBER, Reason.NAMED),
        (OWN, DECOYS, _panel(NOBODY, 19), {}, Finding.MEMBER, Reason.NAMED),
        (OWN, DECOYS, _panel(NOBODY, 18), {}, Finding.INCONCLUSIVE, Reason.TOO_FEW_OTHERS),
        (OWN, dict.fromkeys(["D00", "D01"]), _panel(NOBODY, 30), {}, Finding.INCONCLUSIVE, Reason.TOO_FEW_DECOYS),
        (OWN, DECOYS, _panel(NOBODY, 30), {"alpha": 0.01}, Finding.INCONCLUSIVE, Reason.TOO_FEW_OTHERS),
        (OWN, DECOYS, _panel(NOBODY, 30), {"threshold": 3}, Finding.MEMBER, Reason.NAMED),
        (OWN, DECOYS, _panel(NOBODY, 30), {"threshold": 4}, Finding.NO_EVIDENCE, Reason.BELOW_THRESHOLD),
        (OWN, DECOYS, _panel(NOBODY, 30), {"min_pictures": 4}, Finding.INCONCLUSIVE, Reason.TOO_FEW_PICTURES),
        (NOBODY, DECOYS, _panel(NOBODY, 18), {}, Finding.NO_EVIDENCE, Reason.BELOW_THRESHOLD),
        (OWN, DECOYS, _panel(OWN, 30), {}, Finding.NO_EVIDENCE, Reason.OTHER_FACES_DO_AS_WELL),
        (
            [["D00", "Ann", "D02"]] * 3,
            DECOYS,
            _panel(NOBODY, 30),
            {},
            Finding.NO_EVIDENCE,
            Reason.OTHER_NAMES_DO_AS_WELL,
        ),
    ],
)
def test_findings(  # noqa: PLR0917 - a case is six things
    answers: Answers,
    decoys: dict[str, str | None],
    panel: dict[str, tuple[str | None, Answers]],
    rules: dict[str, Any],
    finding: Finding,
    reason: Reason,
) -> None:
    """A member is found where nothing else explains the name; what cannot be told apart is inconclusive."""
    row = judged(audit_of({"p": ("Ann", None, answers)}, decoys, panel), **rules)["p"]
    assert (row["finding"], row["reason"]) == (finding, reason)
    assert (row["q_value"] is not None and row["q_value"] <= rules.get("alpha", 0.05)) == (finding == Finding.MEMBER)


def test_a_rare_answer_is_expected_among_many_people() -> None:
    """Two in 65 are rare for one person, and no finding beside three others about whom nothing is known."""
    tested = {"p": ("Ann", None, OWN)} | {f"q{i}": (f"D3{i}", None, NOBODY) for i in range(3)}
    row = judged(audit_of(tested, DECOYS, _panel(NOBODY, 60) | {"y": (None, OWN)}))["p"]
    assert row["p_value"] == 2 / 65
    assert row["q_value"] == 8 / 65
    assert (row["finding"], row["reason"]) == (Finding.NO_EVIDENCE, Reason.EXPECTED_AMONG_SO_MANY)


def test_where_nobody_does_as_well_more_people_to_compare_with_are_wanted() -> None:
    """No other face was given the name; that only 33 were asked is why q is too large beside three more tests."""
    tested = {"p": ("Ann", None, OWN)} | {f"q{i}": (f"D3{i}", None, NOBODY) for i in range(3)}
    row = judged(audit_of(tested, DECOYS, _panel(NOBODY, 30)))["p"]
    assert (row["p_value"], row["q_value"]) == (1 / 34, 4 / 34)
    assert (row["finding"], row["reason"]) == (Finding.INCONCLUSIVE, Reason.TOO_FEW_OTHERS)


def test_who_is_below_the_threshold_lends_no_weight_to_others() -> None:
    """q_values are as if p were 1 for people of too low a score, however small it is: they are never findings."""
    weak = [["D00", "D00", name] for name in ("Ann", "Ann", "Ann")]
    strong = [["Bob", "Bob", "Bob"]] * 3
    tested = {"p": ("Ann", None, weak), "q": ("Bob", None, strong)}
    decoys = {"D00": "M"} | dict.fromkeys((f"D{i:02}" for i in range(1, 40)), "F")
    tested = {identity: (name, "F", answers) for identity, (name, _, answers) in tested.items()}
    rows = judged(audit_of(tested, decoys, _panel([["D00"] * 3] * 3, 30)), threshold=2)
    assert [(rows[i]["score"], rows[i]["p_value"], rows[i]["q_value"]) for i in "pq"] == [
        (1, 1 / 32, 1.0),
        (3, 1 / 32, 2 / 32),
    ]


def test_pools_and_models_are_judged_apart() -> None:
    """Nobody is compared with people who were asked under other names; the panel's answers are those under the pool."""
    asked = [("p1", "Ann", "all"), ("p2", "Bea", "all"), ("p3", "Jörg", "de_DE")]
    names = [("all", "Ann"), ("all", "Bea"), ("all", "Dan"), ("de_DE", "Jörg"), ("de_DE", "Uwe")]
    panel_votes = [{"pool": "all"} | vote for vote in votes_on("x", [["Ann"] * 3] * 3)]
    panel_votes += [{"pool": "de_DE"} | vote for vote in votes_on("x", [["Uwe"] * 3] * 3)]
    shown = {"p1": "Ann", "p2": "Dan", "p3": "Jörg"}
    audit = Audit(
        ["b", "m"],
        pa.Table.from_pylist([vote for i, name in shown.items() for vote in votes_on(i, [[name] * 3] * 3)], VOTES),
        pa.Table.from_pylist(
            [dict(zip(ASKED.names, (i, name, None, pool, 3), strict=True)) for i, name, pool in asked], ASKED
        ),
        pa.table(
            {
                "pool": [p for p, _ in names],
                "name": [n for _, n in names],
                "sex": pa.nulls(5, pa.string()),
                "tested": [True] * 5,
            }
        ),
        pa.Table.from_pylist(panel_votes, PANEL_VOTES),
        pa.Table.from_pylist([{"identity": "x", "sex": None}], PANEL),
    )
    rows = judge(audit, Rules()).to_pylist()
    assert [(row["model"], row["identity"]) for row in rows] == [(m, i) for m in ("b", "m") for i in shown]
    assert {row["images_used"] for row in rows[:3]} == {0}
    assert [(row["decoys"], row["p_name"], row["others"], row["p_face"]) for row in rows[3:]] == [
        (2, 1 / 3, 2, 2 / 3),
        (2, 1.0, 2, 1.0),
        (1, 1 / 2, 1, 1 / 2),
    ]


def _random_audit(seed: int) -> Audit:
    rng = np.random.default_rng(seed)
    names = [f"N{k:02}" for k in range(40)]

    def answers() -> list[list[str]]:
        liked = rng.choice(names, 4)
        return [[str(name) for name in rng.choice(liked, 3)] for _ in range(rng.integers(0, 6))]

    tested: dict[str, tuple[str, str | None, Answers]] = {
        f"p{i}": (names[i], ("F", "M", None)[i % 3], answers()) for i in range(25)
    }
    panel: dict[str, tuple[str | None, Answers]] = {f"x{i}": (("F", "M", None)[i % 3], answers()) for i in range(10)}
    return audit_of(tested, {name: ("F", "M", None)[k % 3] for k, name in enumerate(names[25:])}, panel)


def test_the_order_of_rows_does_not_matter() -> None:
    """Votes, names and panel in any order give the same bytes, and the verdicts keep the order of the people."""
    audit, rng = _random_audit(0), np.random.default_rng(1)

    def mixed(table: pa.Table) -> pa.Table:
        return table.take(rng.permutation(len(table)))

    again = Audit(
        ["m"], mixed(audit.votes), audit.asked, mixed(audit.names), mixed(audit.panel_votes), mixed(audit.panel)
    )
    assert judge(again, Rules()).equals(judge(audit, Rules()), check_metadata=True)
    assert favourites(again, Rules()).equals(favourites(audit, Rules()), check_metadata=True)
    backwards = Audit(["m"], audit.votes, audit.asked[::-1], audit.names, audit.panel_votes, audit.panel)
    assert judge(backwards, Rules()).to_pylist() == judge(audit, Rules()).to_pylist()[::-1]


@pytest.mark.parametrize("seed", range(8))
def test_p_values_are_what_counting_pair_by_pair_gives(seed: int) -> None:
    """With equal numbers of pictures both p-values are what a loop over names and people finds."""
    whole = _random_audit(seed)
    votes = whole.votes.filter(pa.compute.is_in(whole.votes["image"], pa.array(["0.jpg", "1.jpg", "2.jpg"])))
    enough = pl.DataFrame(votes).group_by("identity").len().filter(pl.col("len") == 9)["identity"]
    audit = Audit(["m"], votes, whole.asked, whole.names)
    answers = {i: [v for v in votes.to_pylist() if v["identity"] == i] for i in enough}

    def standing(identity: str, name: str) -> tuple[int, int]:
        cast = answers[identity]
        return score_by_hand(cast, name)[0], sum(vote["predicted"] == name for vote in cast)

    sex_of = {person["identity"]: person["sex"] for person in whole.asked.to_pylist()}
    rows, compared = judged(audit), 0
    for person in whole.asked.to_pylist():
        i, z, sex = person["identity"], person["name"], person["sex"]
        if i not in answers or sex is None:
            continue
        compared += 1
        decoys = [n["name"] for n in whole.names.to_pylist() if n["name"] != z and n["sex"] in {sex, None}]
        others = [j for j in answers if j != i and sex_of[j] in {sex, None}]
        as_well = (
            sum(standing(i, d) >= standing(i, z) for d in decoys),
            sum(standing(j, z) >= standing(i, z) for j in others),
        )
        assert (rows[i]["p_name"], rows[i]["decoys"]) == ((1 + as_well[0]) / (1 + len(decoys)), len(decoys))
        assert (rows[i]["p_face"], rows[i]["others"]) == ((1 + as_well[1]) / (1 + len(others)), len(others))
    assert compared > 3


def test_favourites_win_for_people_who_are_not_called_so() -> None:
    """A tested name's own bearer is left out of all three figures; names that win nothing are not listed."""
    tested = {"p": ("Ann", None, [["Ann"] * 3] * 3), "q": ("Bob", None, [["Ann", "Bob", "Cyd"]] * 3)}
    panel = {"x": (None, [["Ann", "Ann", "Dan"]] * 4), "y": (None, [["Ann"] * 3] * 2), "z": (None, [])}
    table = favourites(audit_of(tested, {"Cyd": None, "Dan": None, "Eve": None}, panel), Rules())
    assert table.schema == FAVOURITES
    assert [tuple(row.values())[2:] for row in table.to_pylist()] == [
        ("Ann", True, 2, 2, 11 / 21),
        ("Dan", False, 1, 3, 4 / 30),
        ("Cyd", False, 1, 3, 3 / 30),
    ]


def test_an_audit_of_nobody_is_an_empty_table() -> None:
    """No people, no votes or no model make tables without rows, of the right schema."""
    nobody = audit_of({}, {"Ann": None})
    assert judge(nobody, Rules()).schema == VERDICTS
    assert judge(nobody, Rules()).num_rows == favourites(nobody, Rules()).num_rows == 0
    unasked = judged(audit_of({"p": ("Ann", None, [])}, {"Bob": None}))["p"]
    assert (unasked["images_used"], unasked["member"], unasked["finding"]) == (0, None, "inconclusive")


def test_tables_that_do_not_fit_together_are_refused() -> None:
    """A vote for no candidate, a vote cast twice and a tested name that could not be chosen are errors with a place."""
    audit = audit_of({"p": ("Ann", None, [["Ann", "Zed", "Ann"]])}, {})
    with pytest.raises(InvalidInputError, match=r"'Zed', which is no candidate \(table votes, identity 'p'\)"):
        judge(audit, Rules())
    good = audit_of({"p": ("Ann", None, [["Ann"] * 3])}, {})
    twice = Audit(["m"], pa.concat_tables([good.votes, good.votes[:1]]), good.asked, good.names)
    with pytest.raises(InvalidInputError, match="two votes under one template"):
        judge(twice, Rules())
    with pytest.raises(InvalidInputError, match=r"'Ann' is tested but no candidate \(table names, pool 'all'\)"):
        judge(Audit(["m"], good.votes, good.asked, good.names[:0]), Rules())


def test_an_answer_that_is_missing_counts_for_nothing() -> None:
    """Shares are of the answers that there are; a picture without some templates still votes under the others."""
    row = judged(audit_of({"p": ("Ann", None, [["Ann", "Ann"], ["Ann", "Bob", "Bob"], ["Bob"]])}, {"Bob": None}))["p"]
    assert (row["images_used"], row["score"], row["share"]) == (3, 1, 3 / 6)


def test_benjamini_hochberg_equals_a_worked_example() -> None:
    """The q-values are m p / rank, the least of it and those of larger p; order and ties make no difference."""
    p_values = np.array([0.04, 0.01, 0.5, 0.03, 0.02, 0.03])
    expected = [0.048, 0.045, 0.5, 0.045, 0.045, 0.045]  # 6p/rank: .06/1, .12/2, .18/3, .18/4, .24/5, 3/6
    assert benjamini_hochberg(p_values) == pytest.approx(expected)
    assert benjamini_hochberg(np.array([])).tolist() == []
    assert benjamini_hochberg(np.array([0.2])).tolist() == [0.2]


@pytest.mark.parametrize(
    ("hits", "total", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),  # Newcombe 1998, table I, and R's prop.test without correction
        (1, 29, 0.0061, 0.1718),
        (15, 148, 0.0624, 0.1605),
        (81, 263, 0.2553, 0.3662),
        (24, 24, 0.8620, 1.0),
        (0, 0, 0.0, 1.0),
    ],
)
def test_wilson_interval_equals_published_values(hits: int, total: int, low: float, high: float) -> None:
    """The 95% interval equals the values in the literature, and nothing is known of no one."""
    assert wilson_interval(hits, total) == pytest.approx((low, high), abs=1e-4)
