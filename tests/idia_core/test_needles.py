"""Many short texts found in bytes at once, against a search by regular expressions, one at a time."""

import re
import string
from collections.abc import Sequence
from random import Random

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idia_core.needles import HIT, NeedleIndex, needle_of

WHITE_SPACE = "\t\n\v\f\r \u0085\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028"
WHITE_SPACE += "\u2029\u202f\u205f\u3000"
FOLD = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)

# Beside plain letters: NUL and "@", which a window takes for a space and a backtick, and characters that share bytes
# with white space: "à" (ends in A0), "、" (E3 80 81), the zero-width space (E2 80 8B) and the braille blank (E2 A0 80).
LETTERS = ["a", "b", "c", "A", "B", "é", "à", "日", "、", "\u200b", "\u2800", "\0", "@", "."]
SPACES = [" ", "\u00a0", "\u3000", "\t", "\n", "\u2003", "\u1680"]

Hit = tuple[int, int, int, int]


def _as_block(captions: Sequence[bytes]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    ends = np.cumsum([len(caption) for caption in captions])
    return np.frombuffer(b"".join(captions), dtype=np.uint8), np.concatenate([[0], ends]).astype(np.int64)


def _search(needles: Sequence[bytes], captions: Sequence[bytes], searched: Sequence[bool] | None = None) -> list[Hit]:
    data, offsets = _as_block(captions)
    which = np.ones(len(captions), dtype=bool) if searched is None else np.array(searched, dtype=bool)
    hits = NeedleIndex(needles).search(data, offsets, which)
    assert hits.dtype == HIT
    return sorted(hits.tolist())


def _expected(needles: Sequence[bytes], captions: Sequence[str], searched: Sequence[bool]) -> list[Hit]:
    """The hits by `re`, character by character."""
    found, base = [], 0
    for row, caption in enumerate(captions):
        for i, needle in enumerate(needles):
            words = map(re.escape, needle.decode().split(" "))
            pattern = re.compile(f"(?=({f'[{WHITE_SPACE}]+'.join(words)}))")
            for match in pattern.finditer(caption.translate(FOLD)) if searched[row] else ():
                start, stop = (base + len(caption[:place].encode()) for place in match.span(1))
                found.append((row, i, start, stop))
        base += len(caption.encode())
    return sorted(found)


def _word(random: Random) -> str:
    return "".join(random.choices(LETTERS, k=random.randint(1, 5)))


def _spelt(random: Random, needle: str) -> str:
    """A needle with white space of any kind, and sometimes in capitals."""
    spaced = re.sub(" ", lambda _: "".join(random.choices(SPACES, k=random.choice([1, 1, 2, 3]))), needle)
    return spaced.upper() if random.random() < 0.3 else spaced


def _case(random: Random) -> tuple[list[bytes], list[str], list[bool]]:
    """Different needles; captions of them, letters and white space, some empty; and which of these are searched."""
    drawn = [
        " ".join(_word(random) for _ in range(random.choice([1, 2, 2, 3, 3, 4]))) for _ in range(random.randint(1, 12))
    ]
    needles = sorted({needle_of(text) for text in drawn})
    captions = []
    for _ in range(random.randint(0, 8)):
        spelt = [_spelt(random, random.choice(needles).decode()) for _ in range(3)]
        pieces = [*spelt, *random.choices(SPACES, k=3), *random.choices(LETTERS, k=2)]
        captions.append("".join(random.choices(pieces, k=random.randint(0, 6))))
    return needles, captions, [random.random() < 0.9 for _ in captions]


@settings(max_examples=1500, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_search_equals_a_search_by_re(seed: int) -> None:
    """Every occurrence, and nothing else, is found, wherever it stands, overlapping ones too."""
    needles, captions, searched = _case(Random(seed))
    assert _search(needles, [c.encode() for c in captions], searched) == _expected(needles, captions, searched)


@pytest.mark.parametrize("seed", range(3))
def test_search_among_very_many_needles(seed: int) -> None:
    """Beside more needles than can be looked up by their shortest windows, each is found as among few."""
    fillers = [f"q{i % 97}rst vw{i}xy" for i in range(20_000)]
    cases = [_case(Random(1000 * seed + i)) for i in range(40)]
    needles = sorted({needle for some, _, _ in cases for needle in some})
    captions = [caption for _, some, _ in cases for caption in (*some, fillers[len(some)].upper())]
    expected = _expected(needles, captions, [True] * len(captions))
    hits = _search([*needles, *map(needle_of, fillers)], [caption.encode() for caption in captions])
    assert len(expected) > 200
    assert [hit for hit in hits if hit[1] < len(needles)] == expected
    assert len(hits) == len(expected) + len(cases)


LOOK_UPS = {
    "a short word behind": ("ab cd ef", ["ab cd  ef", "ab cd\u00a0ef", "AB\u3000\tCD\nEF", "xab cd ef"]),
    "a short word before": ("cd ab efgh", ["cd  ab efgh", "cd\u00a0ab efgh", "cd ab  efgh"]),
    "short words around": ("x ab cd y", ["x  ab cd  y", "x\u00a0ab\u00a0cd\u00a0y", "x ab cd y"]),
    "many letters alone": ("b a b a b", ["b a b a b a b", "B\u00a0A\u00a0B A  b"]),
    "a far look-up": ("a b c defg hijk", ["a\u3000b c defg  hijk", "a b c defg hij", "a b c defg hijk"]),
}


@pytest.mark.parametrize(("needle", "captions"), LOOK_UPS.values(), ids=LOOK_UPS)
def test_white_space_near_the_look_up(needle: str, captions: list[str]) -> None:
    """Long white space beside the words by which a needle is looked up does not hide it."""
    searched = [True] * len(captions)
    hits = _search([needle.encode()], [caption.encode() for caption in captions])
    assert hits == _expected([needle.encode()], captions, searched)
    assert len(hits) >= len(captions) - 1


@pytest.mark.parametrize("before", ["", "x", "Zoë ", " " * 9, "\u3000"], ids=repr)
@pytest.mark.parametrize("after", ["", "x", " ë", " " * 9, "\u00a0"], ids=repr)
@pytest.mark.parametrize("needle", [b"ab", b"a b", b"ab cd", b"jon hamm", b"a bc def", "日 本".encode()], ids=repr)
def test_the_edges_of_the_data(before: str, after: str, needle: bytes) -> None:
    """A needle at the first and last bytes of the data is found, in one caption and between empty ones."""
    caption = (before + needle.decode() + after).encode()
    start = len(before.encode())
    expected = [(0, 0, start, start + len(needle))]
    assert _search([needle], [caption]) == expected
    assert _search([needle], [b"", caption, b"", b""]) == [(1, *expected[0][1:])]
    assert _search([needle], [caption, caption])[1] == (1, 0, len(caption) + start, len(caption) + start + len(needle))


@pytest.mark.parametrize("needle", [b"hamm", b"jon hamm", b"j hamm", b"m m"], ids=repr)
def test_captions_do_not_join(needle: bytes) -> None:
    """A needle that begins in one caption and ends in another is not found, wherever they are cut."""
    for cut in range(1, len(needle)):
        assert _search([needle], [needle[:cut], needle[cut:]]) == []
        assert _search([needle], [b"a" + needle[:cut], b"", needle[cut:] + b" a"]) == []
    first, space, last = needle.partition(b" ")
    assert not space or _search([needle], [first + b" ", b" ", b" " + last]) == []


def test_every_white_space_is_one() -> None:
    """All of Unicode's white space, alone and in runs, stands for a needle's space; no other character does."""
    others = [
        "\x1c",
        "\x1f",
        "\u180e",
        "\u200b",
        "\u2060",
        "\ufeff",
        "\u0084",
        "\u00a1",
        "\u2027",
        "\u3001",
        "\0",
        "_",
        "",
    ]
    for needle in (b"ab cd", b"a b"):
        left, right = needle.decode().split(" ")
        for space in WHITE_SPACE:
            for run in (space, space * 3, f" {space}", f"{space} ", f"\u3000{space}\u00a0"):
                caption = f"{left}{run}{right}".encode()
                assert _search([needle], [caption]) == [(0, 0, 0, len(caption))], repr(run)
        assert _search([needle], [f"{left}{other}{right}".encode() for other in others]) == []
        assert _search([needle], [f"{left} {other}{right}".encode() for other in others[:-1]]) == []


def test_thousands_of_needles_that_share_windows() -> None:
    """Needles that are alike around their spaces are told apart, and those inside others are found in them."""
    rng = np.random.default_rng(0)
    lasts = sorted({"smit" + "".join(rng.choice(list("hyers"), rng.integers(0, 7))) for _ in range(800)})
    firsts = ["anna", "joanna", "rosanna", "mary anna", "x anna"]
    needles = [f"{first} {last}" for last in lasts for first in firsts]
    assert len(needles) > 2000
    captions = [f"A photo of {needle.title()}, {i}" for i, needle in enumerate(needles)]
    hits = _search([needle.encode() for needle in needles], [caption.encode() for caption in captions])
    folded = [caption.lower() for caption in captions]
    expected = {(row, i) for i, needle in enumerate(needles) for row, caption in enumerate(folded) if needle in caption}
    assert len(hits) == len(expected) > 2 * len(needles)
    assert {(row, i) for row, i, _, _ in hits} == expected
    joined = "".join(folded)
    assert all(joined[start:stop] == needles[i] for _, i, start, stop in hits)


def test_many_hits_of_many_needles() -> None:
    """Where the hits outgrow the memory first set aside for them, none is lost."""
    assert len(_search([b"ab ab", b"ab ab ab"], [b"ab " * 4000])) == 3999 + 3998
    assert len(_search([b"a"], [b"ab " * 4000])) == 4000


def test_bytes_that_are_not_text_do_no_harm() -> None:
    """Captions that are not searched may hold any bytes; what stands in the others beside them is found."""
    rng = np.random.default_rng(1)
    noise = [rng.integers(0, 256, rng.integers(0, 40), dtype=np.uint8).tobytes() for _ in range(300)]
    cut = [b"jon \xc2", b"jon\xe2\x80", b"\xa0 hamm", b"\x80hamm", b"jon hamm", b"jon \xe3"]
    captions = [text for pair in zip([*cut * 50], noise, strict=True) for text in (*pair, b" Jon Hamm")]
    searched = [caption == b" Jon Hamm" for caption in captions]
    hits = _search([b"jon hamm", b"hamm"], captions, searched)
    assert [hit[:2] for hit in hits] == [(row, i) for row in range(2, 900, 3) for i in (0, 1)]


def test_needle_of() -> None:
    """ASCII letters are lowered, others kept; white space is that of Unicode, single, and not at the ends."""
    assert needle_of("  Jon \u00a0\u3000 HAMM\n") == b"jon hamm"
    assert needle_of("Jörg ÖZ") == "jörg Öz".encode()
    assert needle_of("\u2003\t") == b""
    assert needle_of("Jon\x1cHamm") == b"jon\x1chamm"


def test_an_index_serves_many_blocks() -> None:
    """One index searches blocks of any size one after another, each as if it were the only one."""
    index = NeedleIndex([b"jon hamm", b"sting"])
    for captions in ([b"Sting"], [], [b"x" * 100_000 + b" Jon  Hamm"], [b""], [b"Jon Hamm"]):
        hits = index.search(*_as_block(captions), np.ones(len(captions), dtype=bool))
        assert sorted(hits.tolist()) == _search([b"jon hamm", b"sting"], captions)
