"""Whom captions name, among people some of whose names may be parts of others'."""

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import regex

from idia_core.captions import NameMatcher, check_searchable
from idia_core.names import check_names, name_key
from idia_core.spellings import strict_pattern

NO_WORD = "\ufffc"
"""Stands for a name that was taken out of a caption; it belongs to no word, and no name holds it."""
Flags = npt.NDArray[np.bool_]


class Named(NamedTuple):
    """A person's identity, name and other names."""

    identity: str
    name: str
    aliases: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """All names, each once."""
        return list({name_key(name): name for name in reversed((self.name, *self.aliases))}.values())


def check_people(people: Sequence[Named]) -> None:
    """Raise what `CaptionNames` raises of these people, without building one."""
    names = [(name, f"identity {person.identity}") for person in people for name in person.names]
    check_names([name for name, _ in names], [place for _, place in names])
    check_searchable([person.name for person in people])


class CaptionNames:
    """Tells which captions name whom, by the matcher of `scan`: its strict rule, or the paper's.

    Under the strict rule a name that a caption holds only as a part of another person's ("Ann Lee" in "Ann Lee Smith")
    names nobody but the other. The paper's rule is kept to the letter, and knows no aliases.

    Raises `DuplicateNameError` where two people share a name or an alias, as no caption could tell which of them it
    names, and `InvalidInputError` for names that cannot be looked for.
    """

    def __init__(self, people: Sequence[Named], strict: bool = True) -> None:
        check_people(people)
        self._people = {person.identity: person for person in people}
        self._rule = "strict" if strict else "paper"
        self._everybody = NameMatcher([person.name for person in people], [person.aliases for person in people])
        self._of = lru_cache(maxsize=64)(self._matchers)

    def naming_anybody(self, captions: pa.Array | pa.ChunkedArray) -> tuple[npt.NDArray[np.int64], Counter[str]]:
        """The places of the captions that name at least one of the people, and all captions by their status."""
        found, statuses = self._everybody.scan(captions)
        rows = found.filter(found[self._rule])["row"].to_numpy()
        return np.unique(rows), Counter({str(status): count for status, count in statuses.items()})

    def judge(self, identity: str, captions: Sequence[str]) -> tuple[Flags, Flags]:
        """Of each caption: whether it names the person; whether it does not, as the name is a part of another's."""
        named_N, other_N = np.zeros((2, len(captions)), np.bool_)
        matcher, own, longer = self._of(identity)
        matches, _ = matcher.scan(pa.array(captions, pa.large_string()))
        for n in matches.filter(matches[self._rule])["row"].to_pylist():
            within_others = longer is not None and not own.search(longer.sub(NO_WORD, captions[n]))
            (other_N if within_others else named_N)[n] = True
        return named_N, other_N

    def _matchers(self, identity: str) -> tuple[NameMatcher, regex.Pattern[str], regex.Pattern[str] | None]:
        """What finds a person's names; and what finds the others' that hold one of these, if there are any."""
        person = self._people[identity]
        matcher = NameMatcher([person.name], [person.aliases])
        others = [name for other in self._people.values() if other is not person for name in other.names]
        longer = list[str]()
        if self._rule == "strict" and others:
            matches, _ = matcher.scan(pa.array(others, pa.large_string()))
            longer = [others[place] for place in pc.unique(matches.filter(matches["strict"])["row"]).to_pylist()]
        return matcher, strict_pattern(person.names), strict_pattern(longer) if longer else None
