"""In what a spelling that was found differs from the name, in words such as 'last_first+case'."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache, reduce

from idia_core.spellings import APOSTROPHES, BASES, DIGRAPHS, HYPHENS, strict_pattern


def _without_accents(text: str) -> str:
    apart = unicodedata.normalize("NFD", text)
    return "".join(BASES.get(c, c) for c in apart if not unicodedata.combining(c))


def _with_digraphs(text: str) -> str:
    def written(match: re.Match[str]) -> str:
        digraph = DIGRAPHS[match[0].lower()]
        if match[0].islower():
            return digraph
        beside = text[max(0, match.start() - 1) : match.start()] + text[match.end() : match.end() + 1]
        return digraph.upper() if any(map(str.isupper, beside)) else digraph.capitalize()

    return re.sub("|".join(DIGRAPHS), written, text, flags=re.IGNORECASE)


def _collapsed(text: str) -> str:
    """The text with neither accents nor digraphs, whichever there was."""
    bare = _without_accents(_with_digraphs(_reduced(text, (label for label in DIFFERENCES if label != "accents"))))
    return re.sub("|".join(DIGRAPHS.values()), lambda match: match[0][0], bare)


DIFFERENCES: dict[str, Callable[[str], str]] = {
    "composition": lambda text: unicodedata.normalize("NFC", text),
    "case": lambda text: text.lower(),
    "digraph": _with_digraphs,
    "accents": _without_accents,
    "apostrophe": lambda text: re.sub(rf"[{APOSTROPHES}]\s?", "", text),
    "hyphen": lambda text: re.sub(rf"\s*[{HYPHENS}]\s*", " ", text),
    "period": lambda text: re.sub(r"\.", "", text),
    "comma": lambda text: re.sub(r",", "", text),
    "space": lambda text: re.sub(r"\s+", "", text),
}
"""What a spelling may differ in, each with what makes two texts equal that differ in it alone."""


ATTEMPTS = [
    [label for label in DIFFERENCES if label not in left_out]
    for left_out in ({"accents", "digraph"}, {"digraph"}, {"accents"}, set[str]())
]
"""Which differences may be at work, the likeliest first: of "Zoë", "Zoe" has lost an accent and holds no digraph."""


@lru_cache(maxsize=65_536)
def variant(name: str, aliases: tuple[str, ...], found: str) -> str:
    """In what a spelling found by the strict rule differs from the name: 'exact', or such as 'last_first+case'.

    'other' is a mixture that these do not explain.
    """
    orders = [(found, ()), *((text, ("last_first",)) for text in _straightened(found))]
    for base, kind in ((name, ()), *((alias, ("alias",)) for alias in aliases)):
        for text, order in orders:
            for labels in ATTEMPTS:
                if _reduced(text, labels) == _reduced(base, labels):
                    return "+".join((*kind, *order, *_needed(text, base, labels))) or "exact"
            if _collapsed(text) == _collapsed(base):
                return "+".join((*kind, *order, "digraph", "accents"))
    return "other"


def _needed(text: str, base: str, labels: Sequence[str]) -> list[str]:
    """The differences without any one of which the two texts would not be equal, or else the one that is enough."""
    needed = []
    for label in labels:
        others = [other for other in labels if other != label]
        if _reduced(text, others) != _reduced(base, others):
            needed.append(label)
    if needed or text == base:
        return needed
    return [label for label in labels if _reduced(text, [label]) == _reduced(base, [label])][:1]


def _straightened(found: str) -> Iterator[str]:
    """The first words first again: of "Hamm, Jon" it is "Jon Hamm", of "Downey, Robert, Jr." "Robert Downey Jr."."""
    parts = re.split(r",\s*", found)
    if len(parts) > 1:
        yield " ".join([parts[1], parts[0], *parts[2:]])


def _reduced(text: str, labels: Iterable[str]) -> str:
    """The text with those differences taken away."""
    return reduce(lambda reduced, label: DIFFERENCES[label](reduced), labels, text)


def examples(name: str, aliases: Iterable[str] = ()) -> list[str]:
    """Some of the spellings that the strict rule finds, beside those in another case: for people to look at."""
    parts = [DIFFERENCES[label] for label in ("hyphen", "apostrophe", "period")]
    changes: list[Callable[[str], str]] = [str, _without_accents, _with_digraphs, *parts]
    texts = [unicodedata.normalize("NFC", change(text)) for text in (name, *aliases) for change in changes]
    words = name.split()
    turned = [f"{' '.join(words[i:])}, {' '.join(words[:i])}" for i in range(1, len(words))]
    rule = strict_pattern([name, *aliases])
    return [text for text in dict.fromkeys([*texts, *turned]) if rule.fullmatch(text)]
