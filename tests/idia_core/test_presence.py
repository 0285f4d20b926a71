"""How often people are in the base: every count against a planted truth."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idia_core.errors import InvalidInputError
from idia_core.presence import (
    AGREEMENT,
    CANDIDATES,
    FACES,
    PRESENCE,
    check_people,
    faces_of_people,
    faces_on_candidates,
    presence_among_candidates,
    presence_in_all,
)
from idia_core.statistics import wilson_interval

PEOPLE = ["ann", "ben", "cay"]
Candidate = tuple[str, int, int]
Seen = tuple[int, int, int, str | None]


def candidates_of(rows: Sequence[Candidate]) -> pa.Table:
    """A table of candidates from whose they are, part and row."""
    filled = [
        {"identity": who, "picture": f"{i}.jpg", "rank": i + 1, "similarity": 0.5, "source": "a.tar"}
        | {"part": part, "row": row, "key": f"{part}/{row}"}
        for i, (who, part, row) in enumerate(rows)
    ]
    return pa.Table.from_pylist(filled, CANDIDATES)


def faces_of(rows: Sequence[Seen]) -> pa.Table:
    """A table of faces from part, row, place in the picture, and whom each was taken for."""
    box = {"x": 1, "y": 1, "width": 40, "height": 40, "detector": "haar", "source": "a.tar"}
    filled: list[dict[str, Any]] = [
        box | {"key": f"{part}/{row}", "part": part, "row": row, "face": face, "identity": who, "identity_score": 0.9}
        for part, row, face, who in rows
    ]
    return pa.Table.from_pylist(filled, FACES)


def agreement_of(rows: Sequence[tuple[str, int, int, str | None]]) -> pa.Table:
    """A table of CLIP's answers from whose candidate it is, part, row, and whom CLIP chose."""
    filled = [
        {"identity": who, "key": f"{part}/{row}", "part": part, "row": row, "clip_identity": chosen}
        for who, part, row, chosen in rows
    ]
    return pa.Table.from_pylist(filled, AGREEMENT)


def counted(
    candidates: Sequence[Candidate], faces: Sequence[Seen], agreement: pa.Table | None = None, batches: int = 1
) -> dict[str, dict[str, Any]]:
    """The presence of everybody, the faces coming in some batches."""
    table = candidates_of(candidates)
    found = faces_on_candidates((faces_of(faces[i::batches]) for i in range(batches)), table)
    presence = presence_among_candidates(PEOPLE, table, found, agreement)
    assert presence.schema == PRESENCE
    assert presence["identity"].to_pylist() == PEOPLE
    return {row["identity"]: row for row in presence.to_pylist()}


def test_a_planted_truth_is_counted_to_the_digit() -> None:
    """Ann is on 2 of her 4 pictures, found by several of her own; Ben on none of 1; Cay has no candidates."""
    candidates = [*[("ann", 0, row) for row in range(3)], ("ann", 1, 0), *[("ann", 0, 1)] * 5, ("ben", 0, 1)]
    faces: list[Seen] = [
        (0, 0, 0, "ann"),  # twice on one picture: the picture counts once
        (0, 0, 1, "ann"),
        (0, 1, 0, "ann"),
        (0, 1, 1, None),
        (1, 0, 0, "ben"),  # not among Ben's candidates
        (1, 1, 0, "ann"),  # among nobody's
    ]
    told_twice = ("ann", 0, 0, "ann")
    others = [("ann", 0, 1, "ben"), ("ann", 0, 2, None), ("ann", 1, 0, "ann"), ("ben", 0, 1, "ben")]
    agreement = agreement_of([told_twice, told_twice, *others])
    presence = counted(candidates, faces, agreement)
    low, high = wilson_interval(2, 4)
    assert presence["ann"] == {
        "identity": "ann", "candidates": 4, "faces": 5, "hits": 2, "hit_rate": 0.5,
        "hit_rate_low": low, "hit_rate_high": high, "clip_hits": 2, "clip_rate": 0.5,
    }  # fmt: skip
    assert (presence["ben"]["candidates"], presence["ben"]["faces"], presence["ben"]["hits"]) == (1, 2, 0)
    assert (presence["ben"]["hit_rate"], presence["ben"]["clip_rate"]) == (0.0, 1.0)
    nothing = dict.fromkeys(PRESENCE.names) | {"identity": "cay", "candidates": 0, "faces": 0, "hits": 0}
    assert presence["cay"] == nothing | {"clip_hits": 0}


def test_the_interval_is_wilsons() -> None:
    """15 of 100 pictures: 9.31% to 23.28%, as Wilson's formula has it."""
    faces: list[Seen] = [(0, row, 0, "ann" if row < 15 else "ben") for row in range(100)]
    ann = counted([("ann", 0, row) for row in range(100)], faces)["ann"]
    assert ann["hit_rate"] == 0.15
    assert ann["hit_rate_low"] == pytest.approx(0.0931, abs=5e-5)
    assert ann["hit_rate_high"] == pytest.approx(0.2328, abs=5e-5)


def test_without_clip_there_is_no_clip_rate() -> None:
    """Where CLIP was not asked its columns are null, not 0."""
    ann = counted([("ann", 0, 0)], [(0, 0, 0, "ann")])["ann"]
    assert (ann["hits"], ann["clip_hits"], ann["clip_rate"]) == (1, None, None)


def test_answers_of_another_run_are_refused() -> None:
    """A candidate that CLIP was not asked about is an error that names it, not a silent "no"."""
    with pytest.raises(InvalidInputError, match="2 candidates are not in it, first that of 'ann' in part 0, row 1"):
        counted([("ann", 0, row) for row in range(3)], [], agreement_of([("ann", 0, 0, "ann")]))


def test_all_of_a_base_is_the_same_denominator_for_everybody() -> None:
    """Of four pictures with six faces, one of them told twice, Ann is on two and Ben on one; nobody is Cay."""
    faces = faces_of(
        [(0, 0, 0, "ann"), (0, 0, 1, "ann"), (0, 1, 0, "ann"), (0, 1, 1, "ben"), (1, 0, 0, None), (1, 1, 0, "dan")]
    )
    seen = faces_of_people([faces, faces.slice(2, 1)], PEOPLE)
    assert (seen.pictures, seen.all_faces, seen.faces.num_rows) == (4, 6, 4)
    rows = presence_in_all(PEOPLE, seen).to_pylist()
    found = [(row["identity"], row["candidates"], row["faces"], row["hits"], row["hit_rate"]) for row in rows]
    assert found == [("ann", 4, 6, 2, 0.5), ("ben", 4, 6, 1, 0.25), ("cay", 4, 6, 0, 0.0)]
    assert [row["clip_rate"] for row in rows] == [None] * 3


def test_an_empty_base_says_nothing() -> None:
    """Where no face was found anywhere no rate is known, however it was looked for."""
    (row, *_) = presence_in_all(PEOPLE, faces_of_people([], PEOPLE)).to_pylist()
    assert (row["candidates"], row["hits"], row["hit_rate"]) == (0, 0, None)
    assert counted([("ann", 0, 0)], [])["ann"]["hit_rate"] == 0.0


def test_nobody_and_somebody_twice() -> None:
    """No people, or one of them twice, is an error."""
    check_people(PEOPLE, "here")
    with pytest.raises(InvalidInputError, match="there is nobody to look for"):
        check_people([], "here")
    with pytest.raises(InvalidInputError, match="'ben' is there 2 times"):
        check_people(["ann", "ben", "ben"], "here")


WHO = st.sampled_from([*PEOPLE, "dan"])
PLACE = st.tuples(st.integers(0, 1), st.integers(0, 4))
SOME_FACES = st.dictionaries(st.tuples(PLACE, st.integers(0, 2)), st.none() | WHO, max_size=20)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(WHO, PLACE), max_size=30), SOME_FACES, st.integers(1, 4))
def test_what_a_loop_over_all_would_count(
    candidates: list[tuple[str, tuple[int, int]]], faces: dict[Any, str | None], batches: int
) -> None:
    """However candidates repeat and faces are batched, told twice too, the counts are those of plain sets."""
    rows: list[Seen] = [(*place, face, who) for (place, face), who in faces.items()]
    presence = counted([(who, *place) for who, place in candidates], rows + rows[:3], batches=batches)
    whole = faces_of_people([faces_of(rows[i::batches]) for i in range(batches)], PEOPLE)
    everywhere = {row["identity"]: row["hits"] for row in presence_in_all(PEOPLE, whole).to_pylist()}
    assert whole.pictures == len({place for place, _ in faces})
    for person in PEOPLE:
        own = {place for who, place in candidates if who == person}
        shows = {place for (place, _), who in faces.items() if who == person}
        row = presence[person]
        assert (row["candidates"], row["hits"], everywhere[person]) == (len(own), len(own & shows), len(shows))
        assert row["faces"] == sum(place in own for place, _ in faces)
        assert row["hit_rate"] == (len(own & shows) / len(own) if own else None)
