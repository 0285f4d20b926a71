"""How a name may be spelt in a caption: the strict rule, an auditor's reading of "this name occurs here".

A spelling may differ from the name in letter case, white space, the composition of accents, dropped accents, German ae,
oe, ue and ss, hyphens (another kind, a space, none), apostrophes (another kind, none), periods (none, or without the
space behind them), a comma before Jr. and the like, and in the order "Last, First"; an alias may stand for the name. It
stands between word boundaries. A name without accents does not match a spelling with them: that is another name.
"""

import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import regex

from idia_core.needles import needle_of

HYPHENS, APOSTROPHES = "-\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "'\u2019\u2018\u02bc`\u00b4\u2032\u02b9\uff07"
DIGRAPHS = {"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "ø": "oe", "å": "aa", "æ": "ae", "œ": "oe", "þ": "th"}
# Letters that Unicode does not decompose, and what they are without their stroke.
BASES = {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "ı": "i", "ħ": "h"}
BASES |= {letter.upper(): base.upper() for letter, base in BASES.items() if letter != "ı"}
SAME_LETTERS = ("ßẞ", "σς")
"""Letters that case does not lead from one to the other."""
SUFFIXES = frozenset({"jr", "sr", "ii", "iii", "iv"})
SCRIPTS_WITH_BASES = ("LATIN", "GREEK")
MOST_NEEDLES = 64  # of one form of a name

_UNSPACED = r"\p{Thai}\p{Lao}\p{Myanmar}\p{Khmer}\p{Hiragana}\p{Katakana}\u30fc\uff70\p{Han}"
"""Scripts that put no spaces between words: any name beside a letter of theirs stands alone."""
_JOINING = rf"[[\w\p{{M}}]--[{_UNSPACED}]]"
JOINING = regex.compile(rf"(?V1){_JOINING}")
"""A character that belongs to the word beside it."""

PIECE = regex.compile(rf"\s+|[{HYPHENS}]|[{APOSTROPHES}]\s?|\.\s*|,\s*|.\p{{M}}*", regex.DOTALL)
SIMPLE = re.compile(r"[A-Za-z]+( [A-Za-z]+)*")


class Atom(NamedTuple):
    """A piece of a form: the pattern of its spellings, and these one by one, or None where there are too many."""

    pattern: str
    texts: tuple[str, ...] | None


Form = tuple[Atom, ...]
COMMA = Atom(r",\s+", (", ",))
SUFFIX_GAP = Atom(r"(?:,\s*|\s+)", (", ", ",", " "))


def is_simple(name: str) -> bool:
    """Whether the name is of ASCII letters and single spaces alone, so that its forms differ in case and space only."""
    return SIMPLE.fullmatch(name) is not None and SUFFIXES.isdisjoint(name.lower().split())


def simple_needles(name: str) -> list[bytes]:
    """The needles of a simple name: the whole of each of its forms, the straight one first."""
    words = name.lower().encode().split()
    return [b" ".join(words), *(b" ".join(words[i:]) + b", " + b" ".join(words[:i]) for i in range(1, len(words)))]


def forms(name: str) -> list[Form]:
    """The name as it is, and with its last words first: "Hamm, Jon", "Downey Jr., Robert", "Downey, Robert, Jr."."""
    words = unicodedata.normalize("NFC", name).split()
    suffix = words[-1:] if len(words) > 1 and words[-1].lower().rstrip(".") in SUFFIXES else []
    core = words[: len(words) - len(suffix)]
    found = [_phrase(core, suffix)]
    for i in range(1, len(core)):
        found.append((*_phrase(core[i:], suffix), COMMA, *_phrase(core[:i])))
        if suffix:
            found.append((*_phrase(core[i:]), COMMA, *_phrase(core[:i], suffix)))
    return found


def _phrase(words: Sequence[str], suffix: Sequence[str] = ()) -> Form:
    atoms = tuple(_atom(piece) for piece in PIECE.findall(" ".join(words).rstrip(",")))
    return (*atoms, SUFFIX_GAP, *_phrase(suffix)) if suffix else atoms


def _atom(piece: str) -> Atom:
    if piece.isspace():
        return Atom(r"\s+", (" ",))
    if piece in HYPHENS:
        return Atom(rf"(?:\s*[{HYPHENS}]\s*|\s+|)", None)
    if piece[0] in APOSTROPHES:
        return Atom(rf"(?:[{APOSTROPHES}]\s?|\s)?", None)
    if piece[0] == ".":
        return Atom(r"(?:\.\s*|\s+)", (". ", ".", " ")) if piece[1:] else Atom(r"\.?", (".", ""))
    if piece[0] == ",":
        return SUFFIX_GAP
    texts = letters(piece)
    pattern = "".join(texts) if piece.isascii() and piece.isalpha() else ""
    pattern = f"[{pattern}]" if pattern else f"(?:{'|'.join(map(regex.escape, texts))})"
    return Atom(pattern, tuple(dict.fromkeys(_lowered(text) for text in texts)))


def _lowered(text: str) -> str:
    """The text with its ASCII letters lowered, as needles have them."""
    return text.encode().lower().decode()


@lru_cache(maxsize=4096)
def letters(cluster: str) -> tuple[str, ...]:
    """The ways to write a letter with its marks, the longest first; of an ASCII letter, its two cases."""
    small = cluster.lower()
    bare = "".join(c for c in unicodedata.normalize("NFD", small) if not unicodedata.combining(c))
    plain = {BASES.get(bare, bare)} if unicodedata.name(small[0], "").startswith(SCRIPTS_WITH_BASES) else set()
    digraph = {DIGRAPHS[small]} if small in DIGRAPHS else set()
    others = next((set(same) for same in SAME_LETTERS if small in same), set())
    found = {cluster, small, *plain, *digraph, *others}
    found |= {text.upper() for text in found} | {text.capitalize() for text in digraph}
    found |= {form for text in found for form in _compositions(text)}
    return tuple(sorted(found, key=lambda text: (-len(text), text.swapcase())))


def _compositions(text: str) -> Iterator[str]:
    """The canonically equivalent ways to write a letter with marks: none, some or all of these composed with it."""
    apart = unicodedata.normalize("NFD", text)
    for i in range(1, len(apart) + 1):
        yield unicodedata.normalize("NFC", apart[:i]) + apart[i:]


def strict_pattern(names: Iterable[str]) -> regex.Pattern[str]:
    """What the strict rule looks for, for a name and its aliases."""
    patterns = dict.fromkeys("".join(atom.pattern for atom in form) for name in names for form in forms(name))
    return regex.compile(f"(?V1)(?<!{_JOINING})(?:{'|'.join(patterns)})(?!{_JOINING})")


def form_needles(form: Form) -> set[bytes]:
    """Texts of which every spelling of the form holds one, few and long; empty when there is none to rely on."""
    windows = [window for i in range(len(form)) for window in _windows(form[i:])]
    best = max(windows, key=_worth, default=())
    needles = {needle_of("".join(texts)) for texts in product(*(atom.texts or () for atom in best))}
    return set() if b"" in needles else needles


def _windows(form: Form) -> Iterator[Form]:
    """The beginnings of a form whose spellings can be told one by one and are not too many."""
    count = 1
    for i, atom in enumerate(form):
        count *= len(atom.texts or ())
        if not 0 < count <= MOST_NEEDLES:
            return
        yield form[: i + 1]


def _worth(window: Form) -> float:
    """Long needles are found seldom, few are found fast, and a space within makes them faster still."""
    shortest = sum(min(len(text.encode()) for text in atom.texts or ()) for atom in window)
    count = math.prod(len(atom.texts or ()) for atom in window)
    spaced = any(" " in (atom.texts or ()) or ", " in (atom.texts or ()) for atom in window[1:-1])
    return shortest - math.log2(count) + (4 if spaced else 0)
