"""Names in captions replaced by their hypernyms, as CC3M was anonymised (Sharma et al. 2018, Conceptual Captions).

A hypernym says what the named person is, "actor" or simply "person": "Ann Ash's dog" becomes "actor's dog".
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import regex

from idia_core.captions import NameMatcher
from idia_core.errors import InvalidInputError
from idia_core.spellings import strict_pattern

WHERE = "mask_names"


class NamedPerson(NamedTuple):
    """Whose name is masked, and by what."""

    name: str
    aliases: Sequence[str]
    hypernym: str


class _Hit(NamedTuple):
    """Where in a caption, in characters, what is to be masked stands."""

    start: int
    stop: int
    hypernym: str


class NameMask:
    """Replaces people's names and aliases, in every spelling of the strict rule, by their hypernyms.

    Raises what a `NameMatcher` of the names raises, and InvalidInputError for a hypernym that is blank or holds one of
    the names, and for a name or alias that is of punctuation alone.
    """

    def __init__(self, people: Sequence[tuple[str, Sequence[str], str]]) -> None:
        self._people = {name: NamedPerson(name, aliases, hypernym) for name, aliases, hypernym in people}
        self._matcher = NameMatcher([name for name, _, _ in people], [aliases for _, aliases, _ in people])
        self._patterns: dict[str, regex.Pattern[str]] = {}
        self._check()

    def apply(self, captions: pa.Array | pa.ChunkedArray) -> tuple[pa.Array, npt.NDArray[np.bool_]]:
        """The captions with every name masked, and which of them changed; nothing else of a caption does.

        `captions` are strings or large strings. A name inside a longer one goes with it. `NameMatcher` finds no name in
        what comes back: where a hypernym and what stands beside it make one, that is masked with the hypernym in it.
        """
        column = captions.combine_chunks() if isinstance(captions, pa.ChunkedArray) else captions
        changed: npt.NDArray[np.bool_] = np.zeros(len(column), dtype=np.bool_)
        hits = self._named(column)
        drafts = {row: list(column[row].as_py()) for row in hits}
        changed[list(drafts)] = True
        while hits:
            for row, people in hits.items():
                _mask(drafts[row], self._found("".join(drafts[row]), people))
            rows = list(hits)
            again = self._named(pa.array(["".join(drafts[row]) for row in rows], pa.string()))
            hits = {rows[place]: people for place, people in again.items()}
        masked = pa.array(["".join(drafts[row]) for row in sorted(drafts)], column.type)
        return pc.replace_with_mask(column, pa.array(changed), masked), changed

    def _named(self, captions: pa.Array) -> dict[int, list[NamedPerson]]:
        """The captions that hold names, and whose."""
        matches = self._matcher.scan(captions).matches
        named: dict[int, list[NamedPerson]] = {}
        for row, name, strict in zip(*(matches[field].to_pylist() for field in ("row", "name", "strict")), strict=True):
            if strict:
                named.setdefault(row, []).append(self._people[name])
        return named

    def _found(self, caption: str, people: Iterable[NamedPerson]) -> list[_Hit]:
        """The longest hit of each person at every place where one begins."""
        return [
            _Hit(match.start(), match.end(), person.hypernym)
            for person in people
            for match in self._pattern(person).finditer(caption, overlapped=True)
        ]

    def _pattern(self, person: NamedPerson) -> regex.Pattern[str]:
        if person.name not in self._patterns:
            strict = strict_pattern([person.name, *person.aliases])
            self._patterns[person.name] = regex.compile(f"(?p){strict.pattern}")  # (?p): the longest, not the first
        return self._patterns[person.name]

    def _check(self) -> None:
        """Raise unless masking ends: no hypernym is blank or holds a name, no name is found in nothing."""
        texts = ["", *dict.fromkeys(person.hypernym for person in self._people.values())]
        for row, people in self._named(pa.array(texts, pa.string())).items():
            name, hypernym = people[0].name, texts[row]
            if not hypernym:
                what = f"{name!r} or one of its aliases is of punctuation alone"
                raise InvalidInputError(what, WHERE, "Write it in letters or take it out.")
            raise InvalidInputError(f"the hypernym {hypernym!r} holds the name {name!r}", WHERE, "Choose another word.")
        for person in self._people.values():
            if not person.hypernym.strip():
                raise InvalidInputError(f"the hypernym of {person.name!r} is blank", WHERE, "Write 'person'.")


def _mask(draft: list[str], hits: Iterable[_Hit]) -> None:
    """Put hypernyms in place of hits in a draft of characters and, from earlier rounds, hypernyms.

    Of overlapping hits the first counts, of those that begin in one place the longest. A hit that reaches into a
    hypernym replaces all of it, so that each round leaves less of the caption.
    """
    parts = [place for place, part in enumerate(draft) for _ in part]
    chosen: list[_Hit] = []
    for hit in sorted(hits, key=lambda hit: (hit.start, -hit.stop)):
        start, stop = parts[hit.start], parts[hit.stop - 1] + 1
        if not chosen or start >= chosen[-1].stop:
            chosen.append(_Hit(start, stop, hit.hypernym))
    for start, stop, hypernym in reversed(chosen):
        draft[start:stop] = [hypernym]
