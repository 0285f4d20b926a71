"""Sizes as people declare them."""

import math
from pathlib import Path

import pytest
from upath import UPath

from idia_core.errors import ConfigError, MissingInputError
from idia_core.sizes import Size, given_sizes, parse_size, read_sizes, told_bytes, told_count


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2.8e6 rows, 300 GB, 331 files", Size(rows=2.8e6, bytes=300e9, files=331.0)),
        ("413_871_335 rows", Size(rows=413_871_335.0)),
        ("413,871,335 rows,54 gb", Size(rows=413_871_335.0, bytes=54e9)),
        ("530 people, 100 members", Size(people=530.0, members=100.0)),
    ],
)
def test_a_size_is_read_as_people_write_it(text: str, size: Size) -> None:
    """Numbers in any usual form, units in any letter case; what is not said stays unknown."""
    assert repr(parse_size(text, "here")) == repr(size)  # nan equals nothing, itself neither


@pytest.mark.parametrize("text", ["", "many rows", "12", "12 lines", "1 rows, 2 rows", "1 GB, 1 TB", "1.2.3 rows"])
def test_what_is_no_size_is_an_error(text: str) -> None:
    """The error says how a size is written or what is wrong with the number."""
    with pytest.raises(ConfigError, match=r"is no size|is no number|given twice"):
        parse_size(text, "here")


def test_what_is_known_of_one_comes_before_what_another_tells() -> None:
    """Field by field, the other one fills only what is missing."""
    both = Size(rows=5, bytes=10).or_else(Size(rows=7, files=2, architectures=("RN50",)))
    assert (both.rows, both.bytes, both.files, both.architectures) == (5, 10, 2, ("RN50",))
    assert math.isnan(both.people)


def test_sizes_of_a_file_and_of_options(tmp_path: Path) -> None:
    """A source may hold `=` and glob characters; a number alone in the file is no size."""
    file = UPath(tmp_path / "sizes.yaml")
    file.write_text("cc3m/*.tar: 2.8e6 rows\nretrieve.candidates: 10 rows  # a table\n")
    assert {source: size.rows for source, size in read_sizes(file).items()} == {
        "cc3m/*.tar": 2_800_000,
        "retrieve.candidates": 10,
    }
    assert given_sizes(["s3://b/a=1/*.parquet=3 rows"])["s3://b/a=1/*.parquet"].rows == 3
    with pytest.raises(ConfigError, match="SOURCE"):
        given_sizes(["3 rows"])
    file.write_text("cc3m: 12\n")
    with pytest.raises(ConfigError, match="'12' is no size"):
        read_sizes(file)
    with pytest.raises(MissingInputError, match="--sizes"):
        read_sizes(UPath(tmp_path / "none.yaml"))


def test_sizes_are_told_in_units_that_suit() -> None:
    """What is unknown is a question mark."""
    assert [told_bytes(count) for count in (12.0, 54e9, 1.25e12, 300e9, math.nan)] == [
        "12 B",
        "54.0 GB",
        "1.2 TB",
        "300 GB",
        "?",
    ]
    assert [told_count(count) for count in (0.0, 1234.2, math.nan)] == ["0", "1,235", "?"]
