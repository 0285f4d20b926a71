"""Whom captions name, among people whose names may hold each other."""

from collections.abc import Sequence

import pyarrow as pa
import pytest

from idia_core.caption_names import CaptionNames, Named
from idia_core.errors import DuplicateNameError, InvalidInputError

ANN, SMITH, BOB = (
    Named("a", "Ann Lee", ("Annie L.",)),
    Named("b", "Ann Lee Smith"),
    Named("c", "Bob B. Ray", ("Bo Ann Lee",)),
)


def judged(names: CaptionNames, identity: str, captions: Sequence[str]) -> tuple[list[bool], list[bool]]:
    """Both answers, as lists."""
    named, other = names.judge(identity, captions)
    return named.tolist(), other.tolist()


@pytest.mark.parametrize(
    ("caption", "named", "other"),
    [
        ("Ann Lee", True, False),
        ("ANN  LEE's boat", True, False),
        ("Lee, Ann", True, False),
        ("annie l at sea", True, False),
        ("Joann Lee", False, False),
        ("Ann Lee Smith", False, True),
        ("Smith, Ann Lee", False, True),
        ("Ann LEE smith and Ann Lee", True, False),
        ("Ann Ann Lee Smith Lee", False, True),
        ("Ann Lee Jones", True, False),
        ("bo ann lee", False, True),
        ("Bo Ann Lee Smith", False, True),
        ("", False, False),
    ],
)
def test_who_is_named(caption: str, named: bool, other: bool) -> None:
    """By any spelling of the name or an alias, unless each place is a part of another person's."""
    assert judged(CaptionNames([ANN, SMITH, BOB]), "a", [caption]) == ([named], [other])
    alone = CaptionNames([ANN])
    assert judged(alone, "a", [caption]) == ([named or other], [False])


def test_the_paper_s_rule() -> None:
    """To the letter: any place, this case, no aliases, a dot is any character, longer names count."""
    names = CaptionNames([ANN, SMITH, BOB], strict=False)
    captions = ["Ann Leeds", "Joann Lee", "ANN LEE", "Ann Lee Smith", "Annie L.", "Bob Bo Ray", "Bob B. Ray"]
    assert judged(names, "a", captions) == ([True, False, False, True, False, False, False], [False] * 7)
    assert judged(names, "c", captions)[0] == [False, False, False, False, False, True, True]


def test_captions_that_name_anybody() -> None:
    """Their places, and the captions that could not be searched, by why not."""
    captions = pa.array([b"a boat", b"Annie L", None, b"Ann Lee \xff", b"Bob B. Ray and Ann Lee Smith"], pa.binary())
    places, statuses = CaptionNames([ANN, SMITH, BOB]).naming_anybody(captions)
    assert places.tolist() == [1, 4]
    assert statuses == {"searched": 3, "null_caption": 1, "not_utf8": 1}


@pytest.mark.parametrize(
    ("people", "message"),
    [
        ([ANN, Named("x", "ann LEE")], r"'ann LEE' is the same name as 'Ann Lee' \(identity a and identity x\)"),
        ([ANN, Named("x", "Jo Fox", ("Annie L.",))], r"'Annie L.' is given twice \(identity a and identity x\)"),
        ([Named("x", "Jo Fox", ("Ann Lee",)), ANN], r"'Ann Lee' is given twice \(identity x and identity a\)"),
    ],
)
def test_two_people_of_one_name(people: list[Named], message: str) -> None:
    """No caption tells which of them it names, so it is an error that says who they are."""
    with pytest.raises(DuplicateNameError, match=message):
        CaptionNames(people)


def test_names_that_cannot_be_looked_for() -> None:
    """A blank name, and nobody."""
    with pytest.raises(InvalidInputError, match=r"a name is blank \(identity x\)"):
        CaptionNames([Named("x", " ")])
    with pytest.raises(InvalidInputError, match="no name to search for"):
        CaptionNames([])


def test_an_alias_that_is_the_name_again() -> None:
    """Is no other person's, and changes nothing."""
    names = CaptionNames([Named("a", "Ann Lee", ("ann lee", "Ann Lee")), BOB])
    assert judged(names, "a", ["Ann Lee", "Bo Ann Lee"]) == ([True, False], [False, True])
