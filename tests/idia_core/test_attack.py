"""The attack against its own definition, written out in plain Python."""

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idia_core.attack import VERDICTS, VOTES, judge, majorities, predict

MODELS, IDENTITIES, TEMPLATES, NAMES = ("m2", "m1"), ("p3", "p1", "p2"), ("t1", "t2", "t3"), ("Ann", "Bob", "Cyd")
PEOPLE = pa.schema(
    [
        ("model", pa.string()),
        ("identity", pa.string()),
        ("name", pa.string()),
        ("images_used", pa.int64()),
        ("images_failed", pa.int64()),
    ]
)
PICTURES = st.lists(st.lists(st.sampled_from(NAMES), min_size=3, max_size=3), max_size=5)
"""What a model says to each of a person's pictures under each template."""


def _judged_by_hand(votes: list[dict[str, Any]], person: dict[str, Any], threshold: int) -> tuple[int, bool | None]:
    """S and the verdict as the paper defines them; a tie for the most votes is no majority."""
    score = 0
    for template in TEMPLATES:
        names = [v["predicted"] for v in votes if (v["model"], v["identity"]) == (person["model"], person["identity"])
                 and v["template"] == template]  # fmt: skip
        ranking = Counter(names).most_common()
        if ranking and ranking[0][0] == person["name"] and (len(ranking) == 1 or ranking[0][1] > ranking[1][1]):
            score += 1
    return score, (score >= threshold if person["images_used"] else None)


def _votes(model: str, identity: str, pictures: list[list[str]]) -> list[dict[str, Any]]:
    return [
        {"model": model, "identity": identity, "image": f"{i}.jpg", "template": template, "predicted": name}
        for i, names in enumerate(pictures)
        for template, name in zip(TEMPLATES, names, strict=True)
    ]


def _person(model: str, identity: str, name: str, used: int, failed: int = 0) -> dict[str, Any]:
    values = (model, identity, name, used, failed)
    return dict(zip(PEOPLE.names, values, strict=True))


def _verdicts(votes: list[dict[str, Any]], people: list[dict[str, Any]], threshold: int = 1) -> list[dict[str, Any]]:
    table = judge(pa.Table.from_pylist(votes, VOTES), pa.Table.from_pylist(people, PEOPLE), threshold)
    assert table.schema == VERDICTS
    return table.to_pylist()


@settings(max_examples=300, deadline=None)
@given(
    shown=st.fixed_dictionaries({(model, identity): PICTURES for model in MODELS for identity in IDENTITIES}),
    names=st.permutations(NAMES),
    threshold=st.integers(1, 4),
    seed=st.integers(0, 2**32 - 1),
)
def test_judge_is_the_papers_rule(
    shown: dict[tuple[str, str], list[list[str]]], names: list[str], threshold: int, seed: int
) -> None:
    """For two models and three people with none to five pictures, score and verdict are what the definition says."""
    votes = [vote for (model, identity), pictures in shown.items() for vote in _votes(model, identity, pictures)]
    people = [
        _person(model, identity, name, len(shown[model, identity]), len(name))
        for model in MODELS
        for identity, name in zip(IDENTITIES, names, strict=True)
    ]
    np.random.default_rng(seed).shuffle(votes)  # type: ignore[arg-type]
    expected = []
    for person in people:
        score, member = _judged_by_hand(votes, person, threshold)
        kept = {key: value for key, value in person.items() if key != "name"}
        expected.append(kept | {"score": score, "threshold": threshold, "member": member})
    assert _verdicts(votes, people, threshold) == expected


@pytest.mark.parametrize(
    ("answers", "score"),
    [
        (["Ann"], 1),
        (["Bob"], 0),
        (["Ann", "Bob"], 0),
        (["Ann", "Ann", "Bob", "Bob"], 0),
        (["Ann", "Ann", "Bob", "Cyd"], 1),
        (["Ann", "Bob", "Cyd"], 0),
        (["Ann", "Ann", "Bob", "Bob", "Cyd"], 0),
        (["Ann", "Bob", "Bob"], 0),
        (["ann", "Ann", "ANN", "Ann"], 1),
    ],
)
def test_majority_of_one_template(answers: list[str], score: int) -> None:
    """More votes than any other name, not more than half of them; a tie, also of three, is no majority."""
    votes = [vote for vote in _votes("m", "p", [[name] * 3 for name in answers]) if vote["template"] == "t1"]
    assert _verdicts(votes, [_person("m", "p", "Ann", len(answers))])[0]["score"] == score


def test_majorities_lists_every_template() -> None:
    """A row for each model, identity and template that was voted on, null where there is a tie."""
    votes = _votes("m", "p", [["Ann", "Ann", "Bob"], ["Ann", "Bob", "Bob"]])
    rows = majorities(pa.Table.from_pylist(votes, VOTES)).sort("template").rows()
    assert rows == [("m", "p", "t1", "Ann"), ("m", "p", "t2", None), ("m", "p", "t3", "Bob")]


def test_the_threshold_is_reached_not_passed() -> None:
    """A score of two is a member's for tau 1 and 2, and no longer for 3."""
    votes = _votes("m", "p", [["Ann", "Ann", "Bob"]])
    said = [_verdicts(votes, [_person("m", "p", "Ann", 1)], tau)[0] for tau in (1, 2, 3, 22)]
    assert [(row["score"], row["threshold"], row["member"]) for row in said] == [
        (2, 1, True),
        (2, 2, True),
        (2, 3, False),
        (2, 22, False),
    ]


def test_without_a_usable_picture_there_is_no_verdict() -> None:
    """Nobody is called a non-member for want of pictures; one who was asked about and never named is a non-member."""
    people = [_person("m", "p1", "Ann", 0, 4), _person("m", "p2", "Bob", 1, 0)]
    rows = _verdicts(_votes("m", "p2", [["Ann", "Cyd", "Ann"]]), people)
    assert [(row["score"], row["member"], row["images_failed"]) for row in rows] == [(0, None, 4), (0, False, 0)]
    assert [row["member"] for row in _verdicts([], people)] == [None, False]
    assert _verdicts([], []) == []


def test_the_rows_keep_the_order_of_the_people() -> None:
    """Verdicts come in the order asked for, whatever the order of the votes; votes about others are passed over."""
    people = [_person(model, f"p{i}", "Ann", 1) for i in (7, 3, 9, 1, 5) for model in ("z", "a")]
    votes = [vote for person in reversed(people) for vote in _votes(person["model"], person["identity"], [["Ann"] * 3])]
    rows = _verdicts(votes + _votes("z", "stranger", [["Ann"] * 3]), people)
    assert [(row["model"], row["identity"]) for row in rows] == [(p["model"], p["identity"]) for p in people]
    assert {row["score"] for row in rows} == {3}


def test_more_columns_about_people_do_no_harm() -> None:
    """Tables with a role, or large strings as polars makes them, are judged the same."""
    people = pa.Table.from_pylist([_person("m", "p", "Ann", 1)], PEOPLE).append_column("role", pa.array(["member"]))
    people = people.set_column(1, "identity", people["identity"].cast(pa.large_string()))
    votes = pa.Table.from_pylist(_votes("m", "p", [["Ann"] * 3]), VOTES)
    assert judge(votes, people, 1).to_pylist()[0]["score"] == 3


@settings(max_examples=100, deadline=None)
@given(
    sizes=st.tuples(st.integers(0, 4), st.integers(1, 3), st.integers(1, 6), st.integers(1, 5)),
    seed=st.integers(0, 2**32 - 1),
)
def test_predict_is_the_nearest_prompt(sizes: tuple[int, int, int, int], seed: int) -> None:
    """For each picture and template, in that order, the candidate with the largest cosine."""
    pictures, templates, candidates, dimensions = sizes
    rng = np.random.default_rng(seed)
    # Small whole numbers: the dot products are exact, so that the loop's ties are the matrix product's.
    images_PD = rng.integers(-3, 4, (pictures, dimensions)).astype(np.float32)
    texts_NKD = rng.integers(-3, 4, (templates, candidates, dimensions)).astype(np.float32)
    predicted_PN = predict(images_PD, texts_NKD)
    assert (predicted_PN.shape, predicted_PN.dtype) == ((pictures, templates), np.int64)
    for p in range(pictures):
        for n in range(templates):
            similarities = [float(sum(images_PD[p] * texts_NKD[n, k])) for k in range(candidates)]
            assert predicted_PN[p, n] == similarities.index(max(similarities))
