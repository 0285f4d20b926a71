"""Finding any of very many short texts in a column of captions, in one pass whose time grows slowly with their number.

A needle is UTF-8 with ASCII letters lowered, and one space stands for any run of white space. The captions' letters are
lowered and their white space squeezed while they are compared, so nothing is copied.

Most needles hold a space with at least two bytes of a word at either side. Such a needle is looked up at every white
space of the captions by up to three bytes before it and four after it: first in a bit map that fits the processor's
cache, then in a hash table; then it is compared whole. The few others, such as names of one word, are found by
Hyperscan.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import hyperscan
import numpy as np
import numpy.typing as npt

from idia_core.needle_loops import (
    AFTER,
    BEFORE,
    LEAST,
    MASKS,
    MULTIPLIER,
    OTHER_MULTIPLIER,
    SPACE,
    Bytes,
    Integers,
    Keys,
    candidates,
    compare,
    fill_table,
    find_anchors,
    find_keys,
    places_of_spaces,
)

HIT = np.dtype([("row", "i8"), ("needle", "i8"), ("start", "i8"), ("stop", "i8")])
"""A needle found: the caption's number, the needle's, and where in the data it begins and ends, in bytes."""

SPACES = rb"(?:[\x09-\x0d\x20]|\xc2[\x85\xa0]|\xe1\x9a\x80|\xe2\x80[\x80-\x8a\xa8\xa9\xaf]|\xe2\x81\x9f|\xe3\x80\x80)+"
"""White space as Unicode has it, as a pattern over UTF-8."""
BITS_PER_KEY = 24
FEW_NEEDLES = 20_000  # whose least windows are seldom met by chance


class KeyMap(NamedTuple):
    """A set of keys that never denies one of its own, and affirms others now and then."""

    bits: Bytes
    shift: np.uint64


class NeedleIndex:
    """Searches captions for the given needles, which `needle_of` makes; none may be empty."""

    def __init__(self, needles: Sequence[bytes]) -> None:
        data = np.frombuffer(b"".join(needles), dtype=np.uint8)
        offsets = np.concatenate([[0], np.cumsum([len(needle) for needle in needles])]).astype(np.int64)
        anchors, classes = find_anchors(data, offsets)
        spaced = np.flatnonzero(classes >= 0)
        keys = find_keys(data, offsets, anchors, classes, spaced)
        order = np.argsort(keys, kind="stable")
        keys, self._needles = keys[order], spaced[order]
        self._masks = MASKS[np.unique(classes[spaced])]
        self._few = len(keys) <= FEW_NEEDLES
        self._whole = _key_map(keys)
        self._least = _key_map(keys[(classes[self._needles] > 0) | self._few] & LEAST)
        self._table, self._shift = _key_table(keys)
        self._bytes, self._spans = _in_order(data, offsets, anchors, self._needles)
        self._others = np.flatnonzero(classes < 0)
        self._patterns: Any = _patterns([needles[int(i)] for i in self._others]) if len(self._others) else None
        self._places = np.empty(0, dtype=np.int32)

    def search(self, data: Bytes, offsets: Integers, searched: npt.NDArray[np.bool_]) -> npt.NDArray[np.void]:
        """Every occurrence of a needle within one of the `searched` captions, as HIT, also where two overlap.

        Caption i is `data[offsets[i]:offsets[i + 1]]`; it must be UTF-8.
        """
        around = self._around_spaces(data, offsets, searched)
        return around if self._patterns is None else np.concatenate([around, self._anywhere(data, offsets, searched)])

    def _around_spaces(self, data: Bytes, offsets: Integers, searched: npt.NDArray[np.bool_]) -> npt.NDArray[np.void]:
        """The hits of the needles that are looked up at white space."""
        if len(data) < 8:  # no window fits, and no needle can be trusted to; such blocks are rare, so make it longer
            data = np.concatenate([data, np.zeros(8, dtype=np.uint8)])
        if len(self._places) <= len(data):
            self._places = np.empty(len(data) + 1, dtype=np.int32)
        places = self._places[: places_of_spaces(data, self._places)]
        windows: Keys = np.ndarray(len(data) - 7, dtype=np.uint64, buffer=data, strides=(1,))
        places = places[: candidates(data, windows, places, *self._whole, *self._least, self._few)]
        maps = (self._masks, *self._whole, self._table, self._shift)
        found = compare(data, offsets, searched, places, *maps, self._bytes, self._spans)
        hits = np.frombuffer(found.tobytes(), dtype=HIT).copy()
        hits["needle"] = self._needles[hits["needle"]]
        return hits

    def _anywhere(self, data: Bytes, offsets: Integers, searched: npt.NDArray[np.bool_]) -> npt.NDArray[np.void]:
        """The hits of the needles that have no space to be looked up at."""
        spans: list[tuple[int, int, int, int]] = []
        self._patterns.scan(data, match_event_handler=lambda i, start, stop, *_: spans.append((0, i, start, stop)))
        hits = np.array(spans, dtype=HIT)
        hits["needle"] = self._others[hits["needle"]]
        hits["row"] = np.searchsorted(offsets, hits["start"], side="right") - 1
        # Two captions lie side by side in memory, so a needle can begin in one and end in the next.
        kept: npt.NDArray[np.void] = hits[(hits["stop"] <= offsets[hits["row"] + 1]) & searched[hits["row"]]]
        return kept


def needle_of(text: str) -> bytes:
    """The text as a needle: ASCII letters lowered, white space squeezed to single spaces."""
    return re.sub(SPACES, b" ", text.encode()).strip(b" ").lower()


def _patterns(needles: Sequence[bytes]) -> Any:
    """The needles as a Hyperscan database."""
    words = [[b"".join(b"\\x%02x" % byte for byte in word) for word in needle.split(b" ")] for needle in needles]
    flags = hyperscan.HS_FLAG_CASELESS | hyperscan.HS_FLAG_SOM_LEFTMOST
    database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    expressions = [SPACES.join(parts) for parts in words]
    database.compile(expressions=expressions, ids=list(range(len(needles))), flags=[flags] * len(needles))
    return database


def _key_map(keys: Keys) -> KeyMap:
    """The map of the keys."""
    width = max(18, int(BITS_PER_KEY * len(keys)).bit_length())
    found = KeyMap(np.zeros(1 << (width - 3), dtype=np.uint8), np.uint64(64 - width))
    for multiplier in (MULTIPLIER, OTHER_MULTIPLIER):
        bits = (keys * np.uint64(multiplier)) >> found.shift
        np.bitwise_or.at(found.bits, bits >> np.uint64(3), np.uint8(1) << (bits & np.uint64(7)).astype(np.uint8))
    return found


def _key_table(keys: Keys) -> tuple[Keys, np.uint64]:
    """A hash table of open addresses: rows of a key (0 where free) and the run that it has in the sorted `keys`."""
    unique, begin, counts = np.unique(keys, return_index=True, return_counts=True)
    width = max(4, int(2 * len(unique)).bit_length())
    table, shift = np.zeros((1 << width, 3), dtype=np.uint64), np.uint64(64 - width)
    fill_table(table, shift, np.column_stack([unique, begin.astype(np.uint64), (begin + counts).astype(np.uint64)]))
    return table, shift


def _in_order(data: Bytes, offsets: Integers, anchors: Integers, order: Integers) -> tuple[Bytes, Integers]:
    """The needles' bytes in the given order, so that those of one key lie together, and a row for each.

    A row has the places of the needle's first byte, of its anchor, and behind its last byte, and then the bytes right
    behind and right before its window, a space where there is none or a space is between.
    """
    lengths = np.diff(offsets)[order]
    begins = np.cumsum(lengths) - lengths
    moved = np.repeat(offsets[:-1][order] - begins, lengths) + np.arange(lengths.sum())
    needles, middles, ends = data[moved], begins + anchors[order], begins + lengths
    right, left = np.minimum(middles + AFTER + 1, len(needles) - 1), np.maximum(middles - BEFORE - 1, 0)
    spaces = np.cumsum(needles == SPACE)  # white space within the window may be longer, and move what is beyond it
    behind = np.where((middles + AFTER + 1 < ends) & (spaces[right] == spaces[middles]), needles[right], SPACE)
    before = np.where((middles - BEFORE - 1 >= begins) & (spaces[left] == spaces[middles] - 1), needles[left], SPACE)
    return needles, np.column_stack([begins, middles, ends, behind, before]).astype(np.int64)
