r"""Finding names in captions, and counting how often each occurs (Section 5.1 of the paper).

Two rules. The paper's: pandas `Series.str.contains(name)`, that is case-sensitive, anywhere in the caption, the name
read as a regular expression, so that "B." matches "Bo" and "Jon Hamm" is in "Jon Hammond". The strict one: the exact
name with no word character (`\w`) at either side. Either rule counts a caption once.

Names are found by one Aho-Corasick automaton over the bytes of the Arrow column; Python sees only the captions that
were hit. A name with dots is searched by its longest piece between dots and confirmed with `re`. A name with any other
special character (`\ ^ $ * + ? { } [ ] ( ) |`), or of dots alone, is tried with `re` on every caption: right but slow.
"""

import enum
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import ahocorasick_rs
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from idia_core.errors import InvalidInputError
from idia_core.names import check_names
from idia_core.text_columns import TextBlock, broken_rows, in_characters, readable, text_blocks

MATCHES = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("variant", pa.string(), nullable=False),  # the spelling that was found: 'exact'
        pa.field("start", pa.int32(), nullable=False),  # in characters; of the strict rule's first hit if it has one
        pa.field("paper", pa.bool_(), nullable=False),  # at least one of the two rules holds
        pa.field("strict", pa.bool_(), nullable=False),
        pa.field("caption", pa.string(), nullable=False),
        pa.field("url", pa.string()),
    ]
)
COUNTS = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("count_paper", pa.int64(), nullable=False),
        pa.field("count_strict", pa.int64(), nullable=False),
    ]
)
OCCURRENCES = pa.schema(
    [*COUNTS, pa.field("ambiguous", pa.bool_(), nullable=False), pa.field("bin", pa.string(), nullable=False)]
)
BIN_WIDTH, BIN_END = 25, 300
BINS: tuple[str, ...] = ("0", *(f"{low}-{low + BIN_WIDTH - 1}" for low in range(1, BIN_END, BIN_WIDTH)), f">{BIN_END}")
"""The paper's bins of occurrences: none, 25 wide up to 300, more."""

DFA_NAMES = 2_000  # up to here the faster, larger automaton is a few megabytes
SPECIAL = re.compile(r"[\\^$*+?{}\[\]()|]")
WORD_BYTE = np.array([re.match(r"\w", chr(byte), re.ASCII) is not None for byte in range(256)])
HIT = np.dtype([("row", "i8"), ("name", "i8"), ("start", "i8"), ("stop", "i8")])  # start and stop in bytes
FOUND = np.dtype([("row", "i8"), ("name", "i8"), ("paper", "?"), ("strict", "?"), ("start", "i8")])


class CaptionStatus(enum.StrEnum):
    """What became of a caption."""

    SEARCHED = "searched"
    NULL_CAPTION = "null_caption"
    NOT_UTF8 = "not_utf8"


class ScanResult(NamedTuple):
    """The matches (MATCHES, by row, then in the names' order) and how many captions had which status."""

    matches: pa.Table
    captions: Counter[CaptionStatus]


class NameMatcher:
    """Searches captions for many names at once.

    Raises InvalidInputError when there is no name, one is blank, or one is not a valid regular expression, and
    DuplicateNameError when one is there twice.
    """

    def __init__(self, names: Sequence[str]) -> None:
        check_names(names)
        if not names:
            raise InvalidInputError("there is no name to search for", fix="Give at least one name.")
        self.names = tuple(names)
        self._names = pa.array(self.names, pa.string())
        needles = [_needle(name) for name in names]
        self._needle_names = np.array([i for i, needle in enumerate(needles) if needle], dtype=np.int64)
        self._everywhere = [i for i, needle in enumerate(needles) if not needle]  # tried on every caption
        self._patterns = {i: _rules(name) for i, name in enumerate(names) if needles[i] != name.encode()}
        self._to_confirm = np.isin(np.arange(len(names)), list(self._patterns))
        kind = ahocorasick_rs.Implementation.DFA if len(names) <= DFA_NAMES else None
        automaton = ahocorasick_rs.BytesAhoCorasick([needle for needle in needles if needle], implementation=kind)
        self._search: Callable[..., list[tuple[int, int, int]]] = automaton.find_matches_as_indexes

    def scan(
        self,
        captions: pa.Array | pa.ChunkedArray,
        urls: pa.Array | pa.ChunkedArray | None = None,
        *,
        source: str = "",
        first_row: int = 0,
    ) -> ScanResult:
        """Find every name in every caption, by both rules.

        `captions` is a string, large_string or binary column (bytes that are not UTF-8 are counted, not searched),
        `urls` the column beside it; `first_row` is the number in `source` of the first caption. One match is one
        caption with one name. Raises InvalidInputError for a column that is not text.
        """
        tables = [MATCHES.empty_table()]
        statuses: Counter[CaptionStatus] = Counter(dict.fromkeys(CaptionStatus, 0))
        done = 0
        for block in text_blocks(captions):
            broken = broken_rows(block.array)
            searched = block.array.is_valid().to_numpy(zero_copy_only=False).copy()
            searched[broken] = False
            statuses[CaptionStatus.SEARCHED] += int(searched.sum())
            statuses[CaptionStatus.NULL_CAPTION] += block.array.null_count
            statuses[CaptionStatus.NOT_UTF8] += len(broken)
            found = self._find(block, searched)
            if len(found):
                links = None if urls is None else readable(urls.take(pa.array(found["row"] + done)))
                tables.append(self._matches(block, found, links, source, first_row + done))
            done += len(block.array)
        return ScanResult(pa.concat_tables(tables), statuses)

    def _matches(
        self, block: TextBlock, found: npt.NDArray[np.void], links: list[str | None] | None, source: str, first_row: int
    ) -> pa.Table:
        """What was found in one block, as MATCHES."""
        count = len(found)
        columns = {
            "source": pa.repeat(source, count),
            "row": found["row"] + first_row,
            "name": self._names.take(pa.array(found["name"])),
            "variant": pa.repeat("exact", count),
            "start": found["start"].astype(np.int32),
            "paper": found["paper"],
            "strict": found["strict"],
            "caption": block.array.take(pa.array(found["row"])).cast(pa.string()),
            "url": pa.nulls(count, pa.string()) if links is None else links,
        }
        return pa.table(columns, schema=MATCHES)

    def _find(self, block: TextBlock, searched: npt.NDArray[np.bool_]) -> npt.NDArray[np.void]:
        """One FOUND a caption and name, by row and name; rows count from the block's beginning."""
        spans = np.array(self._search(block.data, overlapping=True), dtype=np.int64).reshape(-1, 3)
        hits = np.zeros(len(spans), dtype=HIT)
        hits["name"], hits["start"], hits["stop"] = self._needle_names[spans[:, 0]], spans[:, 1], spans[:, 2]
        hits["row"] = np.searchsorted(block.offsets, hits["start"], side="right") - 1
        # Two captions lie side by side in memory, so a name can begin in one and end in the next.
        hits = hits[(hits["stop"] <= block.offsets[hits["row"] + 1]) & searched[hits["row"]]]
        to_confirm = self._to_confirm[hits["name"]]
        pairs = np.unique(hits[to_confirm][["row", "name"]]).tolist()
        pairs += [(row, name) for name in self._everywhere for row in np.flatnonzero(searched).tolist()]
        found = np.concatenate([_plain_hits(block, hits[~to_confirm]), self._confirmed(block, pairs)])
        return found[np.lexsort((found["name"], found["row"]))]

    def _confirmed(self, block: TextBlock, pairs: list[tuple[int, int]]) -> npt.NDArray[np.void]:
        """The pairs of row and name that hold under a rule, by trying the name's patterns on the caption."""
        found: list[tuple[int, int, bool, bool, int]] = []
        for row, name in pairs:
            caption = block.data[block.offsets[row] : block.offsets[row + 1]].tobytes().decode()
            paper, strict = (pattern.search(caption) for pattern in self._patterns[name])
            if first := strict or paper:
                found.append((row, name, paper is not None, strict is not None, first.start()))
        return np.array(found, dtype=FOUND)


def _needle(name: str) -> bytes:
    """The longest text that every caption with the name must hold; empty when there is none to rely on."""
    return b"" if SPECIAL.search(name) else max((piece.encode() for piece in name.split(".")), key=len)


def _rules(name: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """The paper's rule and the strict rule as patterns."""
    try:
        with warnings.catch_warnings(action="ignore", category=FutureWarning):  # brackets that may change their meaning
            paper = re.compile(name)
    except re.error as error:
        raise InvalidInputError(
            f"the name {name!r} is not a valid regular expression, as which the paper's rule reads it: {error}",
            fix="Take the special characters out of the name.",
        ) from error
    return paper, re.compile(rf"(?<!\w){re.escape(name)}(?!\w)")


def _plain_hits(block: TextBlock, hits: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
    """One FOUND for each caption and name among hits of whole names: the first strict one, else the first."""
    strict = _between_words(block, hits)
    order = np.lexsort((hits["start"], ~strict, hits["name"], hits["row"]))
    hits, strict = hits[order], strict[order]
    first = np.ones(len(hits), dtype=bool)
    first[1:] = (hits["row"][1:] != hits["row"][:-1]) | (hits["name"][1:] != hits["name"][:-1])
    hits = hits[first]
    found = np.zeros(len(hits), dtype=FOUND)
    found["row"], found["name"], found["paper"], found["strict"] = hits["row"], hits["name"], True, strict[first]
    found["start"] = in_characters(block, hits["row"], hits["start"] - block.offsets[hits["row"]])
    return found


def _between_words(block: TextBlock, hits: npt.NDArray[np.void]) -> npt.NDArray[np.bool_]:
    """Whether each hit has no word character beside it in its caption."""
    data, space = block.data, ord(" ")
    begin, end, start, stop = block.offsets[hits["row"]], block.offsets[hits["row"] + 1], hits["start"], hits["stop"]
    before = np.where(start > begin, data[start - 1], space)
    after = np.where(stop < end, data[np.minimum(stop, len(data) - 1)], space)
    strict: npt.NDArray[np.bool_] = ~(WORD_BYTE[before] | WORD_BYTE[after])
    for i in np.flatnonzero(strict & ((before >= 0x80) | (after >= 0x80))):  # a neighbour of two to four bytes
        left = data[max(begin[i], start[i] - 4) : start[i]].tobytes().decode(errors="ignore")[-1:]
        right = data[stop[i] : min(end[i], stop[i] + 4)].tobytes().decode(errors="ignore")[:1]
        strict[i] = not (left.isalnum() or right.isalnum())  # with "_", seen above, this is what `re` calls \w
    return strict


def count_matches(matches: pa.Table, names: Sequence[str]) -> pa.Table:
    """How many of the captions in `matches` hold each name under either rule, as COUNTS: a row for every name."""
    index = pc.index_in(matches["name"], value_set=pa.array(names, pa.string())).to_numpy()
    counts = [np.bincount(index[matches[rule].to_numpy()], minlength=len(names)) for rule in ("paper", "strict")]
    return pa.table([pa.array(names, pa.string()), *(pa.array(c, pa.int64()) for c in counts)], schema=COUNTS)


def merge_counts(counts: Iterable[pa.Table], names: Sequence[str]) -> pa.Table:
    """The COUNTS of several splits summed into OCCURRENCES, with every name in the given order.

    `bin` is the paper's bin (one of BINS) of `count_paper`. Each table must be one of `count_matches` with these names.
    """
    paper, strict = np.zeros(len(names), dtype=np.int64), np.zeros(len(names), dtype=np.int64)
    for table in counts:
        if table["name"].to_pylist() != list(names):
            raise InvalidInputError(
                "counts of other names cannot be summed", fix="Scan every split for the same names."
            )
        paper += table["count_paper"].to_numpy()
        strict += table["count_strict"].to_numpy()
    bins = np.minimum(-(-paper // BIN_WIDTH), len(BINS) - 1)
    columns = [pa.array(names, pa.string()), paper, strict, ambiguous_names(names), pa.array(BINS).take(pa.array(bins))]
    return pa.table(columns, schema=OCCURRENCES)


def ambiguous_names(names: Sequence[str]) -> npt.NDArray[np.bool_]:
    """For each name whether its hits may mean another: it is a single word, or found in another of the names."""
    inside = NameMatcher(names).scan(pa.array(names, pa.string())).matches
    others = set(inside.filter(pc.not_equal(inside["name"], inside["caption"]))["name"].to_pylist())
    return np.array([name in others or len(name.split()) == 1 for name in names])
