"""Counting matches, the paper's bins, and what makes a name ambiguous."""

import polars as pl
import pyarrow as pa
import pytest

from idia_core.captions import MATCHES, NameMatcher
from idia_core.occurrences import (
    BINS,
    COUNTS,
    OCCURRENCES,
    count_matches,
    names_inside,
    occurrences,
    people_in_bins,
)


def _occurrences(names: list[str], captions: list[str]) -> dict[str, dict[str, object]]:
    matches = NameMatcher(names).scan(pa.array(captions, pa.string())).matches
    table = occurrences(names, pl.DataFrame(matches).lazy())
    assert table.schema == OCCURRENCES
    assert table["name"].to_pylist() == names
    return {row["name"]: row for row in table.to_pylist()}


def test_counts_are_of_captions() -> None:
    """A caption counts once for each rule however often it holds the name; a name never found has a row of zeros."""
    names = ["Zoë Ball", "Jon Hamm", "Nobody Here"]
    captions = ["Jon Hamm and Jon Hamm", "jon hamm", "Jon Hammett", "Zoe Ball", "Hamm, Jon"]
    rows = _occurrences(names, captions)
    assert [(row["count_paper"], row["count_strict"], row["bin"]) for row in rows.values()] == [
        (0, 1, "0"),
        (2, 3, "1-25"),
        (0, 0, "0"),
    ]
    assert [row["share_affected"] for row in rows.values()] == [0.0, 0.25, None]
    counts = count_matches(NameMatcher(names).scan(pa.array(captions)).matches, names)
    assert counts.schema == COUNTS
    assert counts.to_pydict() == {"name": names, "count_paper": [0, 2, 0], "count_strict": [1, 3, 0]}


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, "0"),
        (1, "1-25"),
        (25, "1-25"),
        (26, "26-50"),
        (275, "251-275"),
        (276, "276-300"),
        (300, "276-300"),
        (301, ">300"),
    ],
)
def test_bins_are_the_papers(count: int, expected: str) -> None:
    """Bins are 25 wide up to 300, with one for none and one for more."""
    matches = NameMatcher(["Jon Hamm", "Zoë Ball"]).scan(pa.array(["Jon Hamm"] * count)).matches
    (first, second) = occurrences(["Jon Hamm", "Zoë Ball"], pl.DataFrame(matches).lazy()).to_pylist()
    assert (first["bin"], second["bin"]) == (expected, "0")
    assert people_in_bins([count]) == [int(name == expected) for name in BINS]


def test_a_single_word_is_ambiguous() -> None:
    """A name of one word may mean anything, however many of its matches look right."""
    row = _occurrences(["Sting"], ["a photo of Sting", "Stingray", "sting", "a photo of Sting Ray Jones"])["Sting"]
    assert (row["ambiguous"], row["ambiguity"], row["share_affected"]) == (True, "single_word", 0.5)


def test_a_name_inside_another_is_ambiguous() -> None:
    """Matches in captions that hold the longer tested name are affected; the longer name itself is not ambiguous."""
    names = ["Jon Hamm", "Jon Hamm Smith", "Jon Hammond"]
    captions = ["JON HAMM SMITH", "jon hamm", "Jon Hammond", "Jon Hamm", "Jon Hammond met Jon Hamm"]
    assert names_inside(names).rows() == [("Jon Hamm", "Jon Hamm Smith"), ("Jon Hamm", "Jon Hammond")]
    rows = _occurrences(names, captions)
    first = rows["Jon Hamm"]
    assert (first["ambiguity"], first["count_paper"], first["count_strict"]) == ("inside_other_name", 3, 4)
    assert first["share_affected"] == pytest.approx(3 / 5)
    assert [rows[name]["ambiguous"] for name in names] == [True, False, False]


def test_a_name_mostly_part_of_longer_names_is_ambiguous() -> None:
    """More than half of the matches beside another capitalised word make the name ambiguous; half do not."""
    longer, alone = "a photo of Jon Hamm Smith", "a photo of Jon Hamm at home"
    most = _occurrences(["Jon Hamm"], [longer, longer, alone])["Jon Hamm"]
    assert (most["ambiguous"], most["ambiguity"]) == (True, "in_longer_names")
    assert most["share_affected"] == pytest.approx(2 / 3)
    half = _occurrences(["Jon Hamm"], [longer, alone])["Jon Hamm"]
    assert (half["ambiguous"], half["ambiguity"], half["share_affected"]) == (False, "", 0.5)


def test_reasons_add_up() -> None:
    """A name may be ambiguous for several reasons."""
    row = _occurrences(["Sting", "Sting Jones"], ["a photo of Sting Jones"] * 2)["Sting"]
    assert row["ambiguity"] == "single_word, inside_other_name, in_longer_names"
    assert row["share_affected"] == 1.0


def test_the_same_row_of_another_source_is_another_caption() -> None:
    """Whether a longer tested name is beside a match is looked up in its own caption, whatever the order of matches."""
    names = ["Jon Hamm", "Mary Jon Hamm"]
    matcher = NameMatcher(names)
    captions = {"a": ["MARY JON HAMM", "JON HAMM"], "b": ["JON HAMM", "JON HAMM"]}
    tables = [matcher.scan(pa.array(some), source=source).matches for source, some in captions.items()]
    for parts in (tables, tables[::-1]):
        table = occurrences(names, pl.DataFrame(pa.concat_tables(parts)).lazy())
        assert table["count_strict"].to_pylist() == [4, 1]
        assert table["share_affected"].to_pylist() == [0.25, 0.0]


def test_nothing_found() -> None:
    """From no match at all every name has its row, in the names' order, and what it is inside of is known still."""
    names = ["Zoë Ball", "Sting", "Ball", "Ann Lee"]
    rows = _occurrences(names, [])
    assert [(row["count_paper"], row["count_strict"], row["share_affected"]) for row in rows.values()] == [
        (0, 0, None)
    ] * 4
    assert [row["ambiguity"] for row in rows.values()] == ["", "single_word", "single_word, inside_other_name", ""]
    assert count_matches(MATCHES.empty_table(), names).to_pylist() == [
        {"name": name, "count_paper": 0, "count_strict": 0} for name in names
    ]


def test_names_inside_by_either_rule() -> None:
    """A name is inside another when the pattern of the paper or a spelling of it by the strict rule is."""
    names = ["Jo. Hamm", "Jon Hamm", "ann lee", "Lee Ann Lee", "Zoë Ball", "Zoe Ball Jones", "An"]
    assert set(names_inside(names).rows()) == {
        ("Jo. Hamm", "Jon Hamm"),
        ("ann lee", "Lee Ann Lee"),
        ("Zoë Ball", "Zoe Ball Jones"),
        ("An", "Lee Ann Lee"),
    }


def test_people_in_bins() -> None:
    """Each count falls in one bin, and none is lost."""
    people = people_in_bins([0, 0, 1, 25, 26, 300, 301, 10**12])
    assert dict(zip(BINS, people, strict=True)) == dict.fromkeys(BINS, 0) | {
        "0": 2,
        "1-25": 2,
        "26-50": 1,
        "276-300": 1,
        ">300": 2,
    }
    assert people_in_bins([]) == [0] * len(BINS)
    assert len(BINS) == 14
