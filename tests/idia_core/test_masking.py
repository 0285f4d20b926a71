"""Names are replaced by hypernyms wherever the strict rule finds them, and nothing else of a caption changes."""

from itertools import chain
from random import Random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idia_core.captions import NameMatcher
from idia_core.errors import DuplicateNameError, InvalidInputError
from idia_core.masking import NameMask

ASH, LEE, PENA = ("Ann Ash", ("The Ash",), "actor"), ("Ann Ash-Lee", (), "singer"), ("José Peña", (), "person")
KIM, OLSEN = ("김민수", (), "politician"), ("Robert Olsen Jr.", ("Bob Olsen", "Robert Olsen"), "author")
PEOPLE = [ASH, LEE, PENA, KIM, OLSEN]

CASES = {
    "alone": ("Ann Ash", "actor"),
    "in a sentence": ("a photo of Ann Ash, at home", "a photo of actor, at home"),
    "every occurrence": ("Ann Ash! ann ash; Ann  Ash", "actor! actor; actor"),
    "possessive": ("Ann Ash's dog and Ann Ash’s cat", "actor's dog and actor’s cat"),
    "capitals": ("ANN ASH 2019", "actor 2019"),
    "last name first": ("Ash, Ann (1970)", "actor (1970)"),
    "alias": ("the ash in London", "actor in London"),
    "without its accents": ("Jose Pena", "person"),
    "decomposed": ("Jose\u0301 Pen\u0303a", "person"),
    "longer name": ("Ann Ashley and Joann Ash", "Ann Ashley and Joann Ash"),
    "hyphenated name of another": ("Ann Ash-Lee", "singer"),
    "hyphenated name of nobody": ("Ann Ash-Roe", "actor-Roe"),
    "both": ("Ann Ash met Ann Ash-Lee", "actor met singer"),
    "first of overlapping hits": ("Ann Ash, Ann Roe", "actor, Ann Roe"),
    "last name first behind another's first name": ("Roe Ash, Ann", "Roe actor"),
    "longest of one person": ("Robert Olsen, Jr. and Bob Olsen", "author and author"),
    "unspaced script": ("写真김민수写真", "写真politician写真"),
    "between emoji and lines": ("😀Ann Ash😀\nAnn\tAsh", "😀actor😀\nactor"),
    "nobody": ("Ann and Ash", "Ann and Ash"),
    "empty": ("", ""),
}


@pytest.mark.parametrize(("caption", "masked"), CASES.values(), ids=CASES)
def test_names_become_hypernyms(caption: str, masked: str) -> None:
    """Every strict hit is replaced by its person's hypernym; of hits that overlap, by that of the first and longest."""
    found, changed = NameMask(PEOPLE).apply(pa.array(["x", caption]))
    assert found.to_pylist() == ["x", masked]
    assert changed.tolist() == [False, masked != caption]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_columns_keep_their_kind_their_nulls_and_their_other_rows(kind: pa.DataType) -> None:
    """Chunks and slices are one column afterwards, of the same type; a caption that is not UTF-8 is left alone."""
    raw = pa.array([b"x", b"Ann Ash", None, b"\xff Ann Ash", b"tree", b"by Ann Ash"], pa.large_binary())
    texts = raw.cast(pa.large_string(), safe=False).cast(kind, safe=False)
    expected = [b"actor", None, b"\xff Ann Ash", b"tree", b"by actor"]
    for column in (texts[1:], pa.chunked_array([texts[1:2], texts[:0], texts[2:]])):
        masked, changed = NameMask(PEOPLE).apply(column)
        assert masked.type == kind
        assert masked.cast(pa.large_binary()).to_pylist() == expected
        assert changed.tolist() == [True, False, False, False, True]
    nothing, changed = NameMask(PEOPLE).apply(pa.chunked_array([], kind))
    assert (nothing, changed.tolist()) == (pa.array([], kind), [])


def test_a_name_that_a_hypernym_makes_takes_it_in() -> None:
    """Where the hypernym and its neighbours are somebody's name, all of it is masked."""
    mask = NameMask([("Ann", (), "star"), ("Star Trek", (), "series"), ("Big Series", (), "person")])
    captions = ["Ann Trek", "big Ann Trek now", "Star Trek, trek Ann"]
    assert mask.apply(pa.array(captions))[0].to_pylist() == ["series", "person now", "series, trek star"]


def test_hypernyms_that_make_names_again_and_again_come_to_an_end() -> None:
    """A rule by which captions would grow without end replaces what it has replaced before."""
    mask = NameMask([("a b", (), "b b a a")])
    assert mask.apply(pa.array(["a b b b", "a a b b"]))[0].to_pylist() == ["b b a a", "b b a a"]


def test_two_people_of_one_spelling_give_the_first_ones_hypernym() -> None:
    """An alias of two people is masked for the first of them, always in the same way."""
    mask = NameMask([("Zed Poe", ("Sting",), "actor"), ("Amy Roe", ("Sting",), "person")])
    assert mask.apply(pa.array(["Sting live"]))[0].to_pylist() == ["actor live"]


@pytest.mark.parametrize(
    ("people", "what"),
    [
        ([("Ann Ash", (), " ")], "the hypernym of 'Ann Ash' is blank (mask_names). Write 'person'."),
        ([("Ann Ash", (), "")], "the hypernym of 'Ann Ash' is blank (mask_names). Write 'person'."),
        (
            [ASH, ("Bo Birk", ("Actor",), "person")],
            "the hypernym 'actor' holds the name 'Bo Birk' (mask_names). Choose another word.",
        ),
        (
            [("Ann Ash", ("...",), "actor")],
            "'Ann Ash' or one of its aliases is of punctuation alone (mask_names). Write it in letters or take it out.",
        ),
    ],
    ids=["white space", "empty", "a name in a hypernym", "punctuation"],
)
def test_what_cannot_be_masked_is_refused(people: list[tuple[str, tuple[str, ...], str]], what: str) -> None:
    """A blank hypernym, one that holds a name, and a name that is found in nothing are errors that say so."""
    with pytest.raises(InvalidInputError) as caught:
        NameMask(people)
    assert str(caught.value) == what


def test_names_are_checked_as_the_matcher_does() -> None:
    """No name at all, and one given twice, are refused."""
    with pytest.raises(InvalidInputError, match="there is no name"):
        NameMask([])
    with pytest.raises(DuplicateNameError):
        NameMask([ASH, ("ann ash", (), "actor")])


WORDS = ["Ann", "Ash", "Lee", "José", "Peña", "B.", "O'Neil", "Jr.", "日本", "Star"]
HYPERNYMS = ["actor", "person", "star of lee", "日", "[name]"]
BESIDE = [" ", " ", " ", ", ", "-", "'s ", "", "\u0301", "\u00a0", "😀", ". "]


def _name(random: Random) -> str:
    return " ".join(random.choices(WORDS, k=random.choice([1, 2, 2, 3])))


def _text(random: Random, pieces: list[str]) -> str:
    text = "".join(random.choice(pieces) + random.choice(BESIDE) for _ in range(5))
    return random.choice([str, str, str.upper, str.lower])(text)


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_no_name_is_left_and_nothing_else_changes(seed: int) -> None:
    """Of any people and captions the strict rule finds nothing afterwards; captions without a name stay as they are."""
    random = Random(seed)
    names = list(dict.fromkeys(_name(random) for _ in range(random.randint(1, 5))))
    people = [(name, [_name(random)] * random.randint(0, 1), random.choice(HYPERNYMS)) for name in names]
    matcher = NameMatcher(names, [aliases for _, aliases, _ in people])
    holding = matcher.scan(pa.array([hypernym for _, _, hypernym in people])).matches
    if any(holding["strict"].to_pylist()):
        with pytest.raises(InvalidInputError, match="holds the name"):
            NameMask(people)
        return
    pieces = [*names, *chain(*(aliases for _, aliases, _ in people)), *WORDS, "actor", "at home"]
    texts = [
        "".join(chain(*zip(random.choices(pieces, k=5), random.choices(BESIDE, k=5), strict=True))) for _ in range(30)
    ]
    texts = [random.choice([str, str, str.upper, str.lower])(text) for text in texts]
    before = matcher.scan(pa.array(texts)).matches
    masked, changed = NameMask(people).apply(pa.array(texts))
    assert not any(matcher.scan(masked).matches["strict"].to_pylist())
    hit = {match["row"] for match in before.to_pylist() if match["strict"]}
    assert set(np.flatnonzero(changed).tolist()) == hit
    assert all(
        (old == new) == (row not in hit) for row, (old, new) in enumerate(zip(texts, masked.to_pylist(), strict=True))
    )


MASK = NameMask(PEOPLE)
APART = {"Ann Ash": "actor", "ASH, ANN": "actor", "José Peña": "person", "김민수": "politician"}


@settings(max_examples=100, deadline=None)
@given(
    pieces=st.lists(
        st.sampled_from(["Ann Ash", "ASH, ANN", "José Peña", "김민수", "at home", "a star", "Annie"]), max_size=8
    )
)
def test_what_stands_between_names_is_kept(pieces: list[str]) -> None:
    """Names apart from each other are replaced one for one, and the text between them is kept to the letter."""
    expected = " | ".join(APART.get(piece, piece) for piece in pieces)
    assert MASK.apply(pa.array([" | ".join(pieces)]))[0].to_pylist() == [expected]
