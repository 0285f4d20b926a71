"""Reading, checking and inventing names."""

import hashlib
import subprocess
import sys
import unicodedata

import pytest

from idia_core.errors import DuplicateNameError, InvalidInputError
from idia_core.names import (
    FIRST_NAMES,
    LAST_NAMES,
    check_names,
    invent_names,
    name_from_folder,
    name_key,
    tidy_name,
)


def test_check_names_accepts_different_names() -> None:
    """Names that differ in more than case, spaces and composition pass; one more that differs in case does not."""
    different = ["Jon Hamm", "Jon Hammond", "Jörg", "Jorg"]
    check_names(different)
    with pytest.raises(DuplicateNameError, match="name number 5"):
        check_names([*different, "JÖRG"])


@pytest.mark.parametrize(
    "other",
    ["Jörg Straße", "jörg straße", "JÖRG STRASSE", " Jörg  Straße ", "Jörg\u00a0Straße", "Jo\u0308rg\tStraße"],
    ids=["same", "lower", "upper", "spaces", "no-break space", "decomposed"],
)
def test_check_names_finds_one_name_in_two_spellings(other: str) -> None:
    """The same name twice is an error that shows it and where it stands."""
    with pytest.raises(DuplicateNameError, match="name number 3") as caught:
        check_names(["Jörg Straße", "Jon Hamm", other])
    assert repr(other) in caught.value.what


def test_check_names_says_both_places() -> None:
    """Where places are given, the error shows where the name is for the first and for the second time."""
    with pytest.raises(DuplicateNameError, match=r"\(a\.csv, row 1 and b\.csv, row 9\)"):
        check_names(["Jon Hamm", "Sting", "JON HAMM"], ["a.csv, row 1", "a.csv, row 2", "b.csv, row 9"])


@pytest.mark.parametrize("blank", ["", " ", "\t\u00a0\n"])
def test_check_names_refuses_a_blank(blank: str) -> None:
    """A blank name is an error that says which."""
    with pytest.raises(InvalidInputError, match=r"blank \(name number 2\)"):
        check_names(["Jon Hamm", blank])


def test_name_from_folder() -> None:
    """Underscores are spaces, and decomposed letters (as macOS stores them) are composed."""
    assert name_from_folder("Jon_Hamm") == "Jon Hamm"
    assert name_from_folder("Johannes_B._Kerner") == "Johannes B. Kerner"
    assert tidy_name(" Jon\t Hamm_\u00a0") == "Jon Hamm_"
    assert name_from_folder(unicodedata.normalize("NFD", "Jörg_Zeta-Jones")) == "Jörg Zeta-Jones"


def test_name_lists_are_those_the_figures_were_made_with() -> None:
    """Faker's lists have not changed: another release would silently change every candidate list."""
    text = "\n".join([*FIRST_NAMES["F"], *FIRST_NAMES["M"], *LAST_NAMES])
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "e96332aaab9e829c"


def test_invented_names_are_pinned() -> None:
    """A seed gives these names for ever, on any version of numpy."""
    assert invent_names(4, seed=0) == ["Kari Frazier", "Adam Banks", "Becky Harper", "Don Potts"]


def test_invented_names_do_not_depend_on_the_count() -> None:
    """The first n names are the same however many are asked for."""
    assert invent_names(500, seed=5)[:40] == invent_names(40, seed=5)
    assert invent_names(40, seed=6) != invent_names(40, seed=5)


def test_invented_names_take_the_sexes_in_turn() -> None:
    """The i-th name has a first name of the sex that stands at i."""
    names = invent_names(60, seed=1, sexes="MMF")
    assert all(name.split()[0] in FIRST_NAMES["MMF"[i % 3]] for i, name in enumerate(names))


def test_invented_names_avoid_what_they_are_told_to() -> None:
    """No invented name is one to avoid, in any letter case, and none comes twice."""
    avoid = [name.upper() for name in invent_names(300, seed=2)]
    names = invent_names(300, seed=2, avoid=avoid)
    assert not {name_key(name) for name in names} & {name_key(name) for name in avoid}
    assert len({name_key(name) for name in names}) == 300


def test_inventing_more_than_there_are_is_an_error() -> None:
    """Running out of names says how many there were."""
    possible = len(FIRST_NAMES["M"]) * len(LAST_NAMES)
    with pytest.raises(InvalidInputError, match=f"only {possible} of {possible + 1} names"):
        invent_names(possible + 1, seed=0, sexes="M")


def test_inventing_from_other_lists_takes_every_pair_once() -> None:
    """All pairs of lists of 2 x 3 names come, each once; a seventh cannot be invented."""
    lists = {"F": (("Ada", "Ida"), ("Lee", "Ray", "Moss")), "M": (("Bob",), ("Ball",))}
    names = invent_names(6, seed=3, sexes="F", lists=lists)
    assert sorted(names) == ["Ada Lee", "Ada Moss", "Ada Ray", "Ida Lee", "Ida Moss", "Ida Ray"]
    with pytest.raises(
        InvalidInputError, match=r"only 6 of 7 names can be invented\. Ask for fewer names, or give long"
    ):
        invent_names(7, seed=3, sexes="F", lists=lists)


def test_a_name_to_avoid_leaves_the_others_as_they_are() -> None:
    """Avoiding some names takes exactly those out, and puts the next ones in."""
    names = invent_names(200, seed=4)
    others = invent_names(200, seed=4, avoid=[names[0], names[77]])
    assert set(names) - set(others) == {names[0], names[77]}
    assert set(others) - set(names) <= set(invent_names(204, seed=4)[200:])


def test_importing_is_light() -> None:
    """The text side loads neither ray nor torch nor pandas."""
    code = (
        "import sys, idia_core.candidates, idia_core.prompts, idia_core.captions, idia_core.synthetic;"
        "print({'ray', 'torch', 'open_clip', 'pandas'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
