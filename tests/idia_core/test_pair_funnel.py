"""Which candidates become pairs, in which order they are looked at, and what the funnel makes of it."""

import io
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from idia_core.drawing import draw_face, invent_people
from idia_core.face_detection import Box, Face
from idia_core.face_search import Looked, NamedFace
from idia_core.fetch_status import FetchStatus
from idia_core.leakage import MAX_DISTANCE, AttackPictures
from idia_core.pair_funnel import (
    FUNNEL,
    STEPS,
    Candidate,
    Fault,
    PairSieve,
    Rejection,
    _face_fault,
    fewest_first,
    funnel_row,
    largest_k,
    totals,
)
from idia_core.recognition import Recognition

ANN, BOB = "Ann Lee", "Bob Ray"
PERSON = invent_people(1, 3, ["F"])[0]
RETRIEVED = {"identity": ANN, "retrieved": 90, "name_in_caption": 12, "unique": 9, "kept": 8}


def encoded(picture: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    """A file."""
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def face(number: int) -> Image.Image:
    """A picture of the person."""
    return Image.fromarray(draw_face(PERSON, [3, number]))


def candidates(*contents: bytes | FetchStatus, identity: str = ANN) -> list[Candidate]:
    """One for each file, or for each reason why there is none."""
    return [
        Candidate(identity, place, "ok", "", memoryview(what))
        if isinstance(what, bytes)
        else Candidate(identity, place, str(what), "why", None)
        for place, what in enumerate(contents)
    ]


def sift(*contents: bytes | FetchStatus, attack: Sequence[bytes] = (), distance: int = MAX_DISTANCE) -> list[str]:
    """The reason of each; nothing for pairs."""
    pictures = AttackPictures([(f"attack {place}", content) for place, content in enumerate(attack)], distance)
    return [fault.reason if fault else "" for fault in PairSieve(pictures, distance).sift(candidates(*contents))]


VIEWS = {
    "PNG": partial(encoded, kind="PNG"),
    "quality": partial(encoded, quality=40),
    "smaller": lambda picture: encoded(picture.resize((90, 90), Image.Resampling.LANCZOS)),
    "grey": lambda picture: encoded(picture.convert("L")),
    "mirrored": lambda picture: encoded(ImageOps.mirror(picture)),
    "mirrored and smaller": lambda picture: encoded(ImageOps.mirror(picture).resize((100, 100)), quality=60),
}


@pytest.mark.parametrize("view", VIEWS)
def test_a_near_duplicate_of_an_earlier_picture_is_no_pair(view: str) -> None:
    """Whatever it was made of it; other pictures of the same person are pairs."""
    again = VIEWS[view](face(0))
    assert sift(encoded(face(0)), encoded(face(1)), again) == ["", "", "near_duplicate"]
    assert sift(again, encoded(face(1)), encoded(face(0))) == ["", "", "near_duplicate"]
    assert sift(again, encoded(face(1)), attack=[encoded(face(0))]) == ["attack_picture", ""]


def test_the_same_picture_may_serve_two_people() -> None:
    """Repetition is a matter of a person's own pictures."""
    content = encoded(face(0))
    mine, others = candidates(content, content), candidates(content, content, identity=BOB)
    faults = PairSieve(AttackPictures([]), MAX_DISTANCE).sift([*mine, *others])
    assert faults == [None, Fault(Rejection.IDENTICAL_FILE, "of place 0")] * 2


def test_flat_pictures_are_told_apart_by_their_files() -> None:
    """They have no hash."""
    red, blue = (encoded(Image.new("RGB", (40, 40), colour)) for colour in ("red", "blue"))
    assert sift(red, blue, red, attack=[blue]) == ["", "attack_picture", "identical_file"]


def test_the_first_reason_counts() -> None:
    """What repeats a picture is not compared with attack pictures, even if that picture is one."""
    attack = encoded(face(0))
    found = sift(b"none", FetchStatus.TIMEOUT, attack, encoded(face(0), quality=50), attack=[attack])
    assert found == ["unreadable", "timeout", "attack_picture", "near_duplicate"]


def looked(*named: str | None) -> Looked[int]:
    """What was seen on a picture: a face for each, and whose it is."""
    box, crop = Face(Box(0, 0, 9, 9), None), Image.new("RGB", (9, 9))
    return Looked(0, "ok", 40, 40, [NamedFace(box, Recognition(identity, 0.75), crop) for identity in named])


def test_one_of_the_faces_must_be_the_persons() -> None:
    """Whoever else is there; of others it is told whose they are."""
    assert _face_fault(looked(BOB, ANN), ANN) is None
    assert _face_fault(looked(), ANN) == Fault(Rejection.NO_FACE, "")
    assert _face_fault(looked(BOB, None), ANN) == Fault(Rejection.OTHER_FACE, f"{BOB} 0.75, nobody known 0.75")


REASONS = [str(reason) for reasons in STEPS.values() for reason in reasons]


@given(st.lists(st.none() | st.sampled_from(REASONS), max_size=30))
def test_the_funnel_narrows_to_the_pairs(found: list[str | None]) -> None:
    """Each number is at most the one before, every reason is taken off once, and the last one counts the pairs."""
    faults = [None if reason is None else Fault(reason, "") for reason in found]
    row = funnel_row({**RETRIEVED, "kept": len(found)}, faults, verified=True)
    assert list(row) == FUNNEL.names
    steps = [len(found), *(row[step] for step in STEPS)]
    assert steps == sorted(steps, reverse=True)
    lost = [before - after for before, after in pairwise(steps)]
    assert lost == [sum(reason in reasons for reason in found) for reasons in STEPS.values()]
    assert row["achieved_k"] == row["face_verified"] == found.count(None)
    assert funnel_row({**RETRIEVED, "kept": len(found)}, faults, verified=False)["face_verified"] is None


def test_every_reason_belongs_to_one_step() -> None:
    """Statuses of fetching and rejections have no value in common, and none is forgotten."""
    assert len(set(REASONS)) == len(REASONS) == len(FetchStatus) - 1 + len(Rejection)


def funnel(*pairs: tuple[str, int], verified: bool = False) -> pa.Table:
    """A funnel of people with so many pairs, each with 9 candidates or more."""
    return pa.Table.from_pylist([row(identity, pairs, verified) for identity, pairs in pairs], FUNNEL)


def row(identity: str, pairs: int, verified: bool) -> dict[str, Any]:
    """A row of it, in which all pictures that were fetched are pairs."""
    kept = max(pairs, 9)
    faults = [None] * pairs + [Fault("timeout", "")] * (kept - pairs)
    return funnel_row(RETRIEVED | {"identity": identity, "unique": kept, "kept": kept}, faults, verified=verified)


def test_the_person_with_the_fewest_pairs_comes_first() -> None:
    """Of equals the first by name."""
    found = fewest_first(funnel(("b", 5), ("c", 0), ("a", 5), ("d", 80)))
    assert [person["identity"] for person in found] == ["c", "a", "b", "d"]


def test_totals_are_sums_over_everybody() -> None:
    """Without the step that nobody made."""
    steps = [name for name in FUNNEL.names[1:] if name != "face_verified"]
    assert totals(funnel(("a", 5), ("b", 3))) == dict(zip(steps, [180, 24, 18, 18, 8, 8, 8, 8], strict=True))
    assert list(totals(funnel(("a", 5), verified=True))) == FUNNEL.names[1:]


def test_the_fewest_pairs_of_a_member_decide_what_can_be_built() -> None:
    """Others need none; without roles everybody counts; somebody without any pair is said to be so."""
    made = funnel(("a", 80), ("b", 75), ("c", 1), ("d", 0))
    assert largest_k(made, {"a", "b"}) == "Every member has 75 pairs or more: K can be up to 75."
    assert largest_k(made, {"a", "c"}) == "Every member has 1 pair or more: K can be up to 1."
    assert largest_k(made) == "1 of 4 people have no pair: no training set can have pairs of all of them."
    assert largest_k(made.slice(0, 1)) == "Everybody has 80 pairs or more: K can be up to 80."
    assert largest_k(made, set()) == "There are no members."
