"""Checking names, and inventing candidates."""

import hashlib
import subprocess
import sys
import unicodedata

import pytest

from idia_core.errors import DuplicateNameError, InvalidInputError
from idia_core.names import (
    CANDIDATE_NAMES,
    FIRST_NAMES,
    LAST_NAMES,
    candidate_names,
    check_names,
    invent_names,
    name_from_folder,
    name_key,
)


def test_check_names_accepts_different_names() -> None:
    """Names that differ in more than case, spaces and composition pass."""
    check_names(["Jon Hamm", "Jon Hammond", "Jörg", "Jorg"])


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


@pytest.mark.parametrize("blank", ["", " ", "\t\u00a0\n"])
def test_check_names_refuses_a_blank(blank: str) -> None:
    """A blank name is an error that says which."""
    with pytest.raises(InvalidInputError, match=r"blank \(name number 2\)"):
        check_names(["Jon Hamm", blank])


def test_name_from_folder() -> None:
    """Underscores are spaces, and decomposed letters (as macOS stores them) are composed."""
    assert name_from_folder("Jon_Hamm") == "Jon Hamm"
    assert name_from_folder("Johannes_B._Kerner") == "Johannes B. Kerner"
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


def test_candidates_hold_every_tested_name_and_fill_up_equally() -> None:
    """1,000 candidates: every tested name once, as many invented women as men, all different."""
    tested = [*invent_names(46, seed=7), "Jon Hamm", "Zoë Ball"]
    table = candidate_names(tested, total=1000, seed=7)
    assert table.schema == CANDIDATE_NAMES
    rows = table.to_pylist()
    assert sorted(row["name"] for row in rows if row["tested"]) == sorted(tested)
    assert [row["sex"] for row in rows if row["tested"]] == [None] * 48
    assert [sum(row["sex"] == sex for row in rows) for sex in "FM"] == [476, 476]
    assert len({name_key(row["name"]) for row in rows}) == 1000
    assert not all(row["tested"] for row in rows[:48])


def test_candidates_are_a_function_of_the_seed() -> None:
    """The same seed gives the same table, another seed another one."""
    assert candidate_names(["Jon Hamm"], 50, seed=1) == candidate_names(["Jon Hamm"], 50, seed=1)
    assert candidate_names(["Jon Hamm"], 50, seed=1) != candidate_names(["Jon Hamm"], 50, seed=2)


def test_more_tested_names_than_candidates_is_an_error() -> None:
    """The error says how many are needed."""
    with pytest.raises(InvalidInputError, match="at least 3 candidate"):
        candidate_names(["A B", "C D", "E F"], total=2, seed=0)
    assert candidate_names(["A B", "C D"], total=2, seed=0)["tested"].to_pylist() == [True, True]


def test_importing_is_light() -> None:
    """The text side loads neither ray nor torch nor pandas."""
    code = (
        "import sys, idia_core.names, idia_core.prompts, idia_core.captions, idia_core.synthetic;"
        "print({'ray', 'torch', 'open_clip', 'pandas'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
