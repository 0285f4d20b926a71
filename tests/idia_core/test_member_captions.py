"""Members' captions are confirmed to name their own person or written from templates, and who has too few is told."""

from collections.abc import Sequence
from random import Random

import pyarrow as pa
import pytest

from idia_core.errors import InvalidInputError
from idia_core.identities import IDENTITIES
from idia_core.member_captions import MEMBER_CAPTIONS, SHORTFALL, check_templates, member_captions, shortfall
from idia_core.spellings import strict_pattern

PEOPLE = pa.Table.from_pylist(
    [
        {"identity": "p1", "name": "Zoë Ash", "aliases": ["The Ash"]},
        {"identity": "p2", "name": "Bo Birk", "aliases": None},
        {"identity": "p3", "name": "José N. de Peña", "aliases": []},
    ],
    IDENTITIES,
)
TEMPLATES = ("a photo of {name}", "{name}", "{name}, smiling")


def _pairs(*rows: tuple[str, str, str | bytes | None], kind: pa.DataType | None = None) -> pa.Table:
    identities, keys, captions = zip(*rows, strict=True)
    return pa.table([identities, keys, pa.array(captions, kind)], ["identity", "key", "caption"])


def _told(table: pa.Table) -> list[tuple[str, ...]]:
    return [tuple(row.values())[2:] for row in table.to_pylist()]


@pytest.mark.parametrize(
    ("identity", "caption", "status"),
    [
        ("p1", "Zoë Ash at home", "ok"),
        ("p1", "ASH, ZOE at home", "ok"),
        ("p1", "the ash's house", "ok"),
        ("p1", "Zoë Ashley at home", "name_not_in_caption"),
        ("p1", "Bo Birk at home", "name_not_in_caption"),
        ("p2", "Zoë Ash at home", "name_not_in_caption"),
        ("p2", "Zoë Ash and Bo Birk at home", "ok"),
        ("p3", "Jose N de Pena", "ok"),
        ("p3", "Jose Pena", "name_not_in_caption"),
    ],
)
def test_a_caption_must_name_its_own_person(identity: str, caption: str, status: str) -> None:
    """Any spelling of the name or an alias counts; another member's name or a longer one does not."""
    table = member_captions(_pairs((identity, "k", caption)), PEOPLE)
    assert table.schema == MEMBER_CAPTIONS
    assert table.to_pylist() == [
        {"identity": identity, "key": "k", "caption": caption, "caption_source": "retrieved", "status": status}
    ]


ABSENT = _pairs(("p1", "a", None), ("p2", "b", ""), ("p3", "c", " \n\u00a0"), ("p1", "d", "a tree"))


def test_absent_captions_are_told_apart() -> None:
    """Without templates a missing caption, an empty one and one of white space keep the pair out."""
    assert _told(member_captions(ABSENT, PEOPLE)) == [
        ("", "retrieved", "no_caption"),
        ("", "retrieved", "empty_caption"),
        (" \n\u00a0", "retrieved", "empty_caption"),
        ("a tree", "retrieved", "name_not_in_caption"),
    ]


def test_templates_stand_for_absent_captions_alone() -> None:
    """With templates these are written with the person's own name and recorded; a caption that is there is kept."""
    table = member_captions(ABSENT, PEOPLE, templates=["a photo of {name}"])
    assert _told(table) == [
        ("a photo of Zoë Ash", "template", "ok"),
        ("a photo of Bo Birk", "template", "ok"),
        ("a photo of José N. de Peña", "template", "ok"),
        ("a tree", "retrieved", "name_not_in_caption"),
    ]


def _chosen(keys: Sequence[str], seed: int) -> dict[str, str]:
    table = member_captions(_pairs(*(("p2", key, None) for key in keys)), PEOPLE, templates=TEMPLATES, seed=seed)
    return dict(zip(table["key"].to_pylist(), table["caption"].to_pylist(), strict=True))


def test_which_template_depends_on_seed_and_key_alone() -> None:
    """Neither order nor neighbours matter; each template gets its share, and another seed chooses anew."""
    keys = [f"pair{i:04d}" for i in range(1200)]
    whole = _chosen(keys, seed=0)
    assert _chosen(Random(0).sample(keys, 300), seed=0).items() <= whole.items()
    assert [whole[key] for key in keys[:4]] == ["Bo Birk, smiling", "Bo Birk", "Bo Birk", "Bo Birk"]
    shares = [list(whole.values()).count(template.replace("{name}", "Bo Birk")) for template in TEMPLATES]
    assert sum(shares) == 1200
    assert all(350 < share < 450 for share in shares)
    other = _chosen(keys, seed=1)
    assert 300 < sum(whole[key] == other[key] for key in keys) < 500


def test_braces_of_a_name_are_no_placeholders() -> None:
    """A name is put in as it is, whatever it holds."""
    people = pa.Table.from_pylist([{"identity": "p", "name": "Ann {name} {0} Lee"}], IDENTITIES)
    table = member_captions(_pairs(("p", "k", None)), people, templates=["a photo of {name}."])
    assert _told(table) == [("a photo of Ann {name} {0} Lee.", "template", "ok")]


@pytest.mark.parametrize(
    ("template", "fault"),
    [
        ("a photo", "has not one place for a name"),
        ("", "has not one place for a name"),
        ("a photo of {0}", "has not one place for a name"),
        ("{name} and {name}", "has not one place for a name"),
        ("photos of {name}s", "joins the name to a word"),
        ("photo_{name}", "joins the name to a word"),
    ],
)
def test_templates_are_checked(template: str, fault: str) -> None:
    """A template without one free place for the name is refused by name, even where no caption is absent."""
    with pytest.raises(InvalidInputError) as caught:
        member_captions(_pairs(("p1", "k", "Zoë Ash")), PEOPLE, templates=["{name}", template])
    assert str(caught.value).startswith(f"the template {template!r} {fault} (templates). ")


def test_what_a_template_writes_is_confirmed_by_the_strict_rule() -> None:
    """Punctuation and unspaced scripts beside the name leave it to be found."""
    for template in ("'{name}'", "({name})", "{name}'s photo", "写真{name}写真", "{name}\n"):
        check_templates([template])
        for name in PEOPLE["name"].to_pylist():
            assert strict_pattern([name]).search(template.replace("{name}", name)), template


def test_a_caption_that_is_not_utf8_is_told() -> None:
    """It keeps its pair out, also in a column of bytes, and can be read with a replacement character."""
    table = _pairs(("p1", "a", b"Zo\xeb Ash"), ("p2", "b", b"Bo Birk"), ("p2", "c", b"Bo Birk \xff"), kind=pa.binary())
    assert _told(member_captions(table, PEOPLE, templates=TEMPLATES)) == [
        ("Zo\ufffd Ash", "retrieved", "not_utf8"),
        ("Bo Birk", "retrieved", "ok"),
        ("Bo Birk \ufffd", "retrieved", "not_utf8"),
    ]


def test_a_pair_of_an_unknown_person_is_an_error() -> None:
    """It is named, with its person, instead of being left out."""
    with pytest.raises(InvalidInputError) as caught:
        member_captions(_pairs(("p1", "a", "Zoë Ash"), ("p9", "b", "Zoë Ash")), PEOPLE)
    assert str(caught.value).startswith("the pair 'b' is of 'p9', who is not among the people.")


def test_no_pairs_are_no_rows() -> None:
    """An empty table, and one whose captions are all null, go through."""
    empty = pa.table({"identity": pa.array([], pa.string()), "key": pa.array([], pa.string()), "caption": pa.nulls(0)})
    assert member_captions(empty, PEOPLE) == MEMBER_CAPTIONS.empty_table()
    nulls = _pairs(("p1", "a", None), ("p2", "b", None), kind=pa.null())
    assert _told(member_captions(nulls, PEOPLE)) == [("", "retrieved", "no_caption")] * 2


def test_who_has_too_few_usable_pairs_is_told() -> None:
    """Only pairs that are ok count, against the largest K; the fewest come first, and nobody else's pairs are told."""
    statuses = {"p1": ["ok", "ok", "broken"], "p2": ["ok", "ok", "ok", "no_caption"], "p4": ["ok"], "p5": ["ok"] * 2}
    rows = [{"identity": identity, "status": status} for identity, own in statuses.items() for status in own]
    short = shortfall(pa.Table.from_pylist(rows), ["p5", "p1", "p3", "p2"], [1, 3, 2])
    assert short.schema == SHORTFALL
    assert [tuple(row.values()) for row in short.to_pylist()] == [("p3", 0, 3, 3), ("p1", 2, 3, 1), ("p5", 2, 3, 1)]


def test_nobody_may_be_short() -> None:
    """Where everybody has enough, and where there is nobody, the table is empty."""
    pairs = pa.table({"identity": ["p1", "p1"], "status": ["ok", "ok"]})
    assert shortfall(pairs, ["p1"], [2, 1]) == SHORTFALL.empty_table()
    assert shortfall(pairs, [], [2]) == SHORTFALL.empty_table()
    assert shortfall(pairs.slice(2), ["p1"], [1])["missing"].to_pylist() == [1]
