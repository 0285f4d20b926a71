"""The names that a model chooses from: every tested one and invented ones beside them."""

import unicodedata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from idia_core.candidates import ALL, CANDIDATE_NAMES, LOCALES, NameSource, candidate_names, pool_of
from idia_core.config import validate
from idia_core.errors import ConfigError, DuplicateNameError, InvalidInputError
from idia_core.identities import IDENTITIES
from idia_core.names import FIRST_NAMES, LAST_NAMES, invent_names, name_key

PLAIN = NameSource()


def people(*names: str, **columns: Any) -> pa.Table:
    """People of those names; `columns` holds one value for all."""
    return pa.Table.from_pylist([{"identity": name, "name": name, **columns} for name in names], IDENTITIES)


def invented(table: pa.Table) -> set[str]:
    """The names that nobody tested has."""
    return {row["name"] for row in table.to_pylist() if not row["tested"]}


def test_every_tested_name_is_there_and_the_rest_is_equally_women_and_men() -> None:
    """1,000 candidates: every tested name once with its sex, as many invented women as men, all different, mixed."""
    tested = people(*invent_names(46, seed=7), "Jon Hamm", "Zoë Ball").set_column(
        2, IDENTITIES.field("sex"), pa.array([*"FM" * 23, "M", None], pa.string())
    )
    table = candidate_names(tested, 1000, 7, PLAIN)
    assert table.schema == CANDIDATE_NAMES
    rows = table.to_pylist()
    assert {row["name"]: row["sex"] for row in rows if row["tested"]} == dict(
        zip(tested["name"].to_pylist(), tested["sex"].to_pylist(), strict=True)
    )
    assert [sum(row["sex"] == sex for row in rows if not row["tested"]) for sex in "FM"] == [476, 476]
    assert len({name_key(row["name"]) for row in rows}) == 1000
    assert {row["pool"] for row in rows} == {ALL}
    assert not all(row["tested"] for row in rows[:48])
    for row in rows:
        first, _, last = row["name"].partition(" ")
        assert row["tested"] or (first in FIRST_NAMES[row["sex"]] and last in LAST_NAMES)


def test_candidates_are_pinned_and_a_function_of_the_seed() -> None:
    """A seed gives this list for ever; another seed gives another one."""
    table = candidate_names(people("Jon Hamm"), 5, 1, PLAIN)
    assert table["name"].to_pylist() == ["Amanda Pineda", "Leonard Cortez", "Jon Hamm", "Selena Cook", "Alan Campbell"]
    assert candidate_names(people("Jon Hamm"), 50, 1, PLAIN) == candidate_names(people("Jon Hamm"), 50, 1, PLAIN)
    assert candidate_names(people("Jon Hamm"), 50, 1, PLAIN) != candidate_names(people("Jon Hamm"), 50, 2, PLAIN)


@pytest.mark.parametrize("locale", [None, "de_DE", "ja_JP"])
def test_other_people_leave_the_invented_names_as_they_are(locale: str | None) -> None:
    """Other people under test change no invented name but those that are theirs; fewer decoys are a part of more."""
    few = candidate_names(people("Jon Hamm", "Zoë Ball", locale=locale), 102, 5, PLAIN)
    clash = min(invented(few))
    others = candidate_names(people(clash.upper(), "Ida Moss", locale=locale), 102, 5, PLAIN)
    assert invented(few) - invented(others) == {clash}
    more = candidate_names(people("Jon Hamm", "Zoë Ball", locale=locale), 202, 5, PLAIN)
    assert invented(few) < invented(more)


@pytest.mark.parametrize("locale", [None, "fr_FR"])
def test_no_invented_name_is_an_alias(locale: str | None) -> None:
    """A name that a tested person is also known by is nobody else's, in any letter case."""
    wanted = sorted(invented(candidate_names(people("Jon Hamm", locale=locale), 60, 2, PLAIN)))
    aliases = [name.upper() for name in wanted[:20]]
    table = candidate_names(people("Jon Hamm", locale=locale, aliases=aliases), 60, 2, PLAIN)
    assert len(invented(table)) == 59
    assert not {name_key(name) for name in invented(table)} & {name_key(name) for name in aliases}


def test_more_tested_names_than_candidates_is_an_error() -> None:
    """The error says how many are needed."""
    with pytest.raises(InvalidInputError, match=r"3 people are tested among only 2 .* at least 3 candidate"):
        candidate_names(people("A B", "C D", "E F"), 2, 0, PLAIN)
    assert candidate_names(people("A B", "C D"), 2, 0, PLAIN)["tested"].to_pylist() == [True, True]


def test_a_name_that_is_tested_twice_is_an_error() -> None:
    """Two people of one name cannot be told apart by their name."""
    with pytest.raises(DuplicateNameError, match="'JON HAMM'"):
        candidate_names(people("Jon Hamm", "JON HAMM"), 10, 0, PLAIN)


def test_mixed_names_have_accents_hyphens_and_initials() -> None:
    """The built-in world's list holds names of every form that its people have, and keeps its draw."""
    names = invented(candidate_names(people("Jon Hamm"), 500, 0, NameSource(mixed=True)))
    assert len(names) == 499
    for form in ("-", "."):
        assert sum(form in name for name in names) > 20
    assert sum(not name.isascii() for name in names) > 50
    pinned = candidate_names(people("Jon Hamm"), 4, 0, NameSource(mixed=True))["name"].to_pylist()
    assert sorted(pinned) == ["Colleen Dickerson", "Donald Garner", "Jon Hamm", "Wanda Reyes"]


def test_names_come_from_the_files(tmp_path: Path) -> None:
    """Of the most common two first names of each sex and three last names, all twelve pairs are made."""
    (tmp_path / "yob2000.txt").write_text("Ada,F,9\nIda,F,8\nEva,F,1\nBob,M,9\nTim,M,8\nJon,M,1\n")
    (tmp_path / "last.csv").write_text("name,rank,count\nMOSS,1,90\nLEE,2,80\nRAY,3,70\nHOLM,4,1\n")
    source = NameSource(first_names=str(tmp_path / "yob2000.txt"), last_names=str(tmp_path / "last.csv"), most_common=2)
    names = invented(candidate_names(people("Zoë Ball"), 9, 0, source))
    assert names == {f"{first} {last}" for first in ("Ada", "Ida", "Bob", "Tim") for last in ("Moss", "Lee")}
    with pytest.raises(InvalidInputError, match=r"only 8 of 9 names can be invented.*longer lists"):
        candidate_names(people("Zoë Ball"), 10, 0, source)


def test_mixed_names_are_not_made_from_files() -> None:
    """The config says which of the two to leave out."""
    with pytest.raises(ConfigError, match="leave out first_names and last_names, or mixed"):
        validate(NameSource, {"mixed": True, "last_names": "x.csv"}, "test")


def test_people_with_a_locale_have_a_list_of_their_own() -> None:
    """Each locale's list is complete, holds all tested names, and names of that locale beside them."""
    table = pa.concat_tables([people("Jon Hamm"), people("Jörg Ott", locale="de_DE"), people("李娜", locale="zh_CN")])
    pools: dict[str, list[dict[str, Any]]] = {}
    for row in candidate_names(table, 200, 3, PLAIN).to_pylist():
        pools.setdefault(row["pool"], []).append(row)
    assert {pool: len(rows) for pool, rows in pools.items()} == {ALL: 200, "de_DE": 200, "zh_CN": 200}
    for rows in pools.values():
        assert {row["name"] for row in rows if row["tested"]} == {"Jon Hamm", "Jörg Ott", "李娜"}
        assert len({name_key(row["name"]) for row in rows}) == 200
        assert [sum(row["sex"] == sex for row in rows) for sex in "FM"] == [99, 98]
    decoys = [row["name"] for row in pools["zh_CN"] if not row["tested"]]
    assert all(unicodedata.name(letter).startswith("CJK") for name in decoys for letter in name)
    assert sum("ß" in row["name"] or "ü" in row["name"] or "ö" in row["name"] for row in pools["de_DE"]) > 10


def test_everybody_is_in_one_list_when_locales_are_off() -> None:
    """`by_locale: false` is the paper's setting; `pool_of` says the same for each person."""
    off = NameSource(by_locale=False)
    assert set(candidate_names(people("Jörg Ott", locale="de_DE"), 20, 3, off)["pool"].to_pylist()) == {ALL}
    assert [pool_of("de_DE", off), pool_of("de_DE", PLAIN), pool_of(None, PLAIN), pool_of("", PLAIN)] == [
        ALL,
        "de_DE",
        ALL,
        ALL,
    ]


@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.filterwarnings("ignore:fr_QC locale is deprecated")
def test_every_locale_gives_whole_names(locale: str) -> None:
    """Whatever lists Faker has for a locale, names are composed, tidy and without fields left open."""
    names = invented(candidate_names(people("Jon Hamm", locale=locale), 41, 1, PLAIN))
    assert len(names) == 40
    for name in names:
        assert name == unicodedata.normalize("NFC", " ".join(name.split()))
        assert not set(name) & set("{}_,")
        assert len(name) >= 2


def test_lists_without_sexes_leave_the_sex_open() -> None:
    """Lithuanian names are in one list at Faker, so nobody says that they are a woman's or a man's."""
    table = candidate_names(people("Jon Hamm", locale="lt_LT", sex="M"), 30, 1, PLAIN)
    assert {(row["tested"], row["sex"]) for row in table.to_pylist()} == {(True, "M"), (False, None)}


def test_an_unknown_locale_is_an_error_with_the_nearest() -> None:
    """Faker would give English names for a locale that it has no names for."""
    with pytest.raises(InvalidInputError, match=r"no names for the locale 'de_ED'.*Did you mean 'de_"):
        candidate_names(people("Jon Hamm", locale="de_ED"), 10, 0, PLAIN)


def test_a_locale_with_too_few_names_is_an_error_with_the_numbers() -> None:
    """Faker's Vietnamese lists hold 150 women's names."""
    with pytest.raises(InvalidInputError, match=r"female names .* 'vi_VN' are used up: 300 of 999"):
        candidate_names(people("Jon Hamm", locale="vi_VN"), 1000, 0, PLAIN)
