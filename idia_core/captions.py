r"""Finding names in captions, and counting how often each occurs (Section 5.1 of the paper).

Two rules. The paper's: pandas `Series.str.contains(name)`, that is case-sensitive, anywhere in the caption, the name
read as a regular expression, so that "B." matches "Bo" and "Jon Hamm" is in "Jon Hammond". The strict one: a spelling
of the name, as `idia_core.spellings` knows them, between word boundaries. Either rule counts a caption once.

The needles of all names are found in the bytes of the Arrow column in one pass; Python sees only what was hit. For a
name of ASCII letters alone a needle is a whole spelling, and all is settled on arrays of hits. A caption that holds a
needle of another name is tried with that name's patterns. The pattern of a name with special characters of regular
expressions (`\ ^ $ * + ? { } [ ] ( ) |`), or of dots alone, is tried on every caption: right but slow.
"""

import enum
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import regex

from idia_core.errors import InvalidInputError
from idia_core.names import check_names
from idia_core.needles import NeedleIndex, needle_of
from idia_core.spellings import form_needles, forms, is_simple, simple_needles, strict_pattern
from idia_core.surroundings import between_words, holds_texts, in_longer_names
from idia_core.text_columns import BLOCK_BYTES, TextBlock, broken_rows, in_characters, string_parts, text_blocks
from idia_core.variants import variant

MATCHES = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("variant", pa.string(), nullable=False),  # 'exact', 'last_first+case', ...; 'paper' where not strict
        pa.field("start", pa.int32(), nullable=False),  # in characters; of the strict rule's first hit if it has one
        pa.field("paper", pa.bool_(), nullable=False),  # at least one of the two rules holds
        pa.field("strict", pa.bool_(), nullable=False),
        pa.field("longer", pa.bool_(), nullable=False),  # a strict hit that seems part of a longer name
        pa.field("caption", pa.string(), nullable=False),
        pa.field("url", pa.string()),
    ]
)
PAPER_ONLY = "paper"

SPECIAL = re.compile(r"[\\^$*+?{}\[\]()|]")
CONFIRM, STRAIGHT = -1, 0
"""What a needle is of a name: what its patterns must confirm, or the name itself; from 1 up, its other spellings."""
FOUND = np.dtype(
    [("row", "i8"), ("name", "i8"), ("paper", "?"), ("strict", "?"), ("exact", "?"), ("start", "i8"), ("stop", "i8")]
)
"""A caption that holds a name; start and stop, of the strict rule's first hit if it has one, in bytes of the block."""


class CaptionStatus(enum.StrEnum):
    """What became of a caption."""

    SEARCHED = "searched"
    NULL_CAPTION = "null_caption"
    NOT_UTF8 = "not_utf8"


class ScanResult(NamedTuple):
    """The matches (MATCHES without URLs, by row, then in the names' order), and the captions by status."""

    matches: pa.Table
    captions: Counter[CaptionStatus]


class NameMatcher:
    """Searches captions for many names at once, `aliases[i]` counting as spellings of `names[i]`.

    Raises InvalidInputError when there is no name, one is blank, of one letter, or not a valid regular expression, and
    DuplicateNameError when one is there twice.
    """

    def __init__(self, names: Sequence[str], aliases: Sequence[Sequence[str]] | None = None) -> None:
        check_searchable(names)
        self.names = tuple(names)
        self._aliases = tuple(map(tuple, aliases)) if aliases else ((),) * len(names)
        self._column = pa.array(self.names, pa.string())
        self._texts = string_parts(self._column)
        self._patterns: dict[int, tuple[re.Pattern[str], regex.Pattern[str]]] = {}
        self._everywhere: list[int] = []
        entries: dict[bytes, list[tuple[int, int]]] = {}
        for i, name in enumerate(self.names):
            for needle, kind in _needles(name, self._aliases[i]):
                if needle:
                    entries.setdefault(needle, []).append((i, kind))
                elif i not in self._everywhere[-1:]:
                    self._everywhere.append(i)
        self._index = NeedleIndex(list(entries)) if entries else None
        counts = [len(found) for found in entries.values()]
        self._begin = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self._entries = np.array([e for found in entries.values() for e in found], dtype=np.int64).reshape(-1, 2)

    def scan(self, captions: pa.Array | pa.ChunkedArray, *, source: str = "", first_row: int = 0) -> ScanResult:
        """Find every name in every caption of a column; see `scan_batches`."""
        return self.scan_batches([(first_row, captions)], source=source)

    def scan_batches(
        self, batches: Iterable[tuple[int, pa.Array | pa.ChunkedArray]], *, source: str = ""
    ) -> ScanResult:
        """Find every name in every caption of columns that come with the number in `source` of their first rows.

        A column is of strings, large strings or bytes (those that are not UTF-8 are counted, not searched). One match
        is one caption with one name. The few captions that hold a needle are put together, and judged when they are
        many. Raises InvalidInputError for a column that is not text.
        """
        tables, statuses = [MATCHES.empty_table()], Counter[CaptionStatus](dict.fromkeys(CaptionStatus, 0))
        kept, rows, size = list[pa.Array](), list[npt.NDArray[np.int64]](), 0
        for first, block in _numbered_blocks(batches):
            searched = _searched(block, statuses)
            held = self._held(block, searched)
            if len(held):
                kept.append(block.array.take(pa.array(held)))
                rows.append(held + first)
                size += kept[-1].nbytes
            if size > BLOCK_BYTES:
                tables += self._judged(kept, rows, source)
                kept, rows, size = [], [], 0
        return ScanResult(pa.concat_tables([*tables, *self._judged(kept, rows, source)]), statuses)

    def _held(self, block: TextBlock, searched: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """The rows of those captions that may hold a name."""
        if self._everywhere or self._index is None:
            return np.flatnonzero(searched)
        return np.unique(self._index.search(block.data, block.offsets, searched)["row"])

    def _judged(
        self, captions: Sequence[pa.Array], rows: Sequence[npt.NDArray[np.int64]], source: str
    ) -> Iterator[pa.Table]:
        """The matches of captions that may hold a name, given their rows in the source."""
        if not captions:
            return
        done, numbers = 0, np.concatenate(rows)
        for block in text_blocks(pa.concat_arrays(captions)):
            found = self._find(block)
            if len(found):
                yield self._matches(block, found, source, numbers[done:])
            done += len(block.array)

    def _matches(
        self, block: TextBlock, found: npt.NDArray[np.void], source: str, numbers: npt.NDArray[np.int64]
    ) -> pa.Table:
        """What was found in one block, as MATCHES; `numbers` are those of the block's rows in the source."""
        count = len(found)
        begins = block.offsets[found["row"]]
        columns = {
            "source": pa.repeat(source, count),
            "row": numbers[found["row"]],
            "name": self._column.take(pa.array(found["name"])),
            "variant": self._variants(block, found),
            "start": in_characters(block, found["row"], found["start"] - begins).astype(np.int32),
            "paper": found["paper"],
            "strict": found["strict"],
            "longer": in_longer_names(block, found) & found["strict"],
            "caption": block.array.take(pa.array(found["row"])).cast(pa.string()),
            "url": pa.nulls(count, pa.string()),
        }
        return pa.table(columns, schema=MATCHES)

    def _variants(self, block: TextBlock, found: npt.NDArray[np.void]) -> list[str]:
        """In what each spelling that was found differs from the name."""
        variants = np.where(found["strict"], "exact", PAPER_ONLY).astype(object)
        for i in np.flatnonzero(found["strict"] & ~found["exact"]):
            name, text = found["name"][i], block.data[found["start"][i] : found["stop"][i]].tobytes().decode()
            variants[i] = variant(self.names[name], self._aliases[name], text)
        return [str(label) for label in variants]

    def _find(self, block: TextBlock) -> npt.NDArray[np.void]:
        """One FOUND a caption and name, by row and name; rows count from the block's beginning."""
        pairs = [(row, name) for name in self._everywhere for row in range(len(block.array))]
        if self._index is None:
            return self._confirmed(block, sorted(pairs))
        hits = self._index.search(block.data, block.offsets, np.ones(len(block.array), dtype=np.bool_))
        counts = self._begin[hits["needle"] + 1] - self._begin[hits["needle"]]
        which = np.repeat(self._begin[hits["needle"]] - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        hits, (names, kinds) = np.repeat(hits, counts), self._entries[which].T
        confirm = kinds == CONFIRM
        pairs += zip(hits["row"][confirm].tolist(), names[confirm].tolist(), strict=True)
        whole = ~confirm
        found = self._whole_spellings(block, hits[whole], names[whole], kinds[whole])
        if pairs:
            found = np.concatenate([found, self._confirmed(block, sorted(set(pairs)))])
            found = found[np.lexsort((found["name"], found["row"]))]
        return found

    def _whole_spellings(
        self,
        block: TextBlock,
        hits: npt.NDArray[np.void],
        names: npt.NDArray[np.int64],
        kinds: npt.NDArray[np.int64],
    ) -> npt.NDArray[np.void]:
        """One FOUND for each caption and name among hits of whole spellings: the first strict one, else the first."""
        found: npt.NDArray[np.void] = np.zeros(len(hits), dtype=FOUND)
        for field in ("row", "start", "stop"):
            found[field] = hits[field]
        found["name"], found["strict"] = names, between_words(block, hits)
        found["exact"] = holds_texts(block, hits, self._texts, names) & (kinds == STRAIGHT)
        found = found[np.lexsort((kinds, found["start"], ~found["strict"], found["name"], found["row"]))]
        found = found[found["strict"] | found["exact"]]
        first = np.ones(len(found), dtype=bool)
        first[1:] = (found["row"][1:] != found["row"][:-1]) | (found["name"][1:] != found["name"][:-1])
        places = np.flatnonzero(first)
        paper = np.logical_or.reduceat(found["exact"], places) if len(places) else np.zeros(0, dtype=bool)
        found = found[places]
        found["paper"] = paper
        return found

    def _rules(self, name: int) -> tuple[re.Pattern[str], regex.Pattern[str]]:
        """The paper's rule and the strict rule as patterns."""
        if name not in self._patterns:
            text = self.names[name]
            self._patterns[name] = (_paper_pattern(text), strict_pattern([text, *self._aliases[name]]))
        return self._patterns[name]

    def _confirmed(self, block: TextBlock, pairs: Sequence[tuple[int, int]]) -> npt.NDArray[np.void]:
        """The pairs of row and name that hold under a rule, by trying the name's patterns on the caption."""
        found: list[tuple[int, int, bool, bool, bool, int, int]] = []
        for row, name in pairs:
            begin = int(block.offsets[row])
            caption = block.data[begin : block.offsets[row + 1]].tobytes().decode()
            paper, strict = (pattern.search(caption) for pattern in self._rules(name))
            if first := strict or paper:
                start = begin + len(caption[: first.start()].encode())
                stop = start + len(first[0].encode())
                exact = first[0] == self.names[name]
                found.append((row, name, paper is not None, strict is not None, exact, start, stop))
        return np.array(found, dtype=FOUND)


def _numbered_blocks(
    batches: Iterable[tuple[int, pa.Array | pa.ChunkedArray]],
) -> Iterator[tuple[int, TextBlock]]:
    for first, captions in batches:
        done = first
        for block in text_blocks(captions):
            yield done, block
            done += len(block.array)


def _searched(block: TextBlock, statuses: Counter[CaptionStatus]) -> npt.NDArray[np.bool_]:
    """Which captions of the block are searched; all are counted."""
    broken = broken_rows(block)
    searched: npt.NDArray[np.bool_] = np.ones(len(block.array), dtype=np.bool_)
    if block.array.null_count:
        searched = block.array.is_valid().to_numpy(zero_copy_only=False).copy()
    searched[broken] = False
    statuses[CaptionStatus.SEARCHED] += int(searched.sum())
    statuses[CaptionStatus.NULL_CAPTION] += block.array.null_count
    statuses[CaptionStatus.NOT_UTF8] += len(broken)
    return searched


def check_searchable(names: Sequence[str]) -> None:
    """Raise what a `NameMatcher` of these names would raise, without building one."""
    if not names:
        raise InvalidInputError("there is no name to search for", fix="Give at least one name.")
    check_names(names)
    for name in filter(SPECIAL.search, names):
        _paper_pattern(name)


def _needles(name: str, aliases: Sequence[str]) -> list[tuple[bytes, int]]:
    """The needles of a name and what each is; an empty one where every caption must be tried."""
    if all(map(is_simple, (name, *aliases))):
        needles = dict.fromkeys(needle for text in (name, *aliases) for needle in simple_needles(text))
        return [(needle, kind) for kind, needle in enumerate(needles, STRAIGHT)]
    found = {_paper_needle(name)}
    for form in (form for text in (name, *aliases) for form in forms(text)):
        found |= form_needles(form) or {b""}
    return [(needle, CONFIRM) for needle in sorted(found)]


def _paper_needle(name: str) -> bytes:
    """The longest text that every caption under the paper's rule must hold; empty when there is none to rely on."""
    return b"" if SPECIAL.search(name) else max((needle_of(piece) for piece in name.split(".")), key=len)


def _paper_pattern(name: str) -> re.Pattern[str]:
    try:
        with warnings.catch_warnings(action="ignore", category=FutureWarning):  # brackets that may change their meaning
            return re.compile(name)
    except re.error as error:
        raise InvalidInputError(
            f"the name {name!r} is not a valid regular expression, as which the paper's rule reads it: {error}",
            fix="Take the special characters out of the name.",
        ) from error
