"""Finding any of very many short texts in a column of captions, in one pass whose time grows slowly with their number.

A needle is UTF-8 with ASCII letters lowered, and one space stands for any run of white space. The captions' letters are
lowered and their white space squeezed while they are compared, so nothing is copied.

Most needles hold a space with at least two bytes of a word at either side. Such a needle is looked up at every white
space of the captions by up to three bytes before it and four after it: first in a bit map that fits the processor's
cache, then in a larger one, then in a hash table; then the bytes beside these are compared, and at last the whole. The
few others, such as names of one word, are found by Hyperscan.
"""

import re
from collections.abc import Sequence
from typing import Any

import hyperscan
import numpy as np
import numpy.typing as npt

from idia_core.needle_loops import (
    AFTER,
    BEFORE,
    COARSE,
    LEAST,
    MULTIPLIER,
    NO_COARSE,
    SPACE,
    Bytes,
    Integers,
    KeyMap,
    KeyMaps,
    Keys,
    Needles,
    compare,
    fill_table,
    find_anchors,
    find_keys,
    keys_at,
    likely_places,
    look_up,
    whole_windows,
)

HIT = np.dtype([("row", "i8"), ("needle", "i8"), ("start", "i8"), ("stop", "i8")])
"""A needle found: the caption's number, the needle's, and where in the data it begins and ends, in bytes."""

SPACES = rb"(?:[\x09-\x0d\x20]|\xc2[\x85\xa0]|\xe1\x9a\x80|\xe2\x80[\x80-\x8a\xa8\xa9\xaf]|\xe2\x81\x9f|\xe3\x80\x80)+"
"""White space as Unicode has it, as a pattern over UTF-8."""
BITS_PER_KEY, COARSE_BITS_PER_KEY = 48, 16  # the coarse map is to stay in the cache
SMALLEST_MAP = 17  # bits of an address: a map of 16 kilobytes


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
        self._maps = _key_maps(keys, classes[self._needles])
        self._compared = _in_order(data, offsets, anchors, self._needles, keys)
        self._least_behind = int((data[(offsets[:-1] + anchors + 1)[spaced]] | SPACE).min(initial=0xFF))
        self._unspaced = np.flatnonzero(classes < 0)
        self._patterns: Any = _patterns([needles[int(i)] for i in self._unspaced]) if len(self._unspaced) else None

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
        windows: Keys = np.ndarray(len(data) - 7, dtype=np.uint64, buffer=data, strides=(1,))
        whole, other, stray = likely_places(data, windows, self._least_behind, self._maps)
        found = [
            whole_windows(windows, whole),
            keys_at(data, windows, other, self._maps, 1),
            keys_at(data, windows, stray, self._maps, 0),
        ]
        looked_up = [look_up(data, *spots_and_keys, self._compared) for spots_and_keys in found]
        parts = [compare(data, windows, offsets, searched, some, self._compared) for some in looked_up]
        hits = np.frombuffer(np.concatenate(parts).tobytes(), dtype=HIT).copy()
        hits["needle"] = self._needles[hits["needle"]]
        return hits

    def _anywhere(self, data: Bytes, offsets: Integers, searched: npt.NDArray[np.bool_]) -> npt.NDArray[np.void]:
        """The hits of the needles that have no space to be looked up at."""
        spans: list[tuple[int, int, int, int]] = []
        self._patterns.scan(data, match_event_handler=lambda i, start, stop, *_: spans.append((0, i, start, stop)))
        hits = np.array(spans, dtype=HIT)
        hits["needle"] = self._unspaced[hits["needle"]]
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


def _key_maps(keys: Keys, classes: Integers) -> KeyMaps:
    """The maps of the keys, which are of the given classes."""
    tiny = np.isin(classes, NO_COARSE)
    return KeyMaps(
        coarse=_key_map(keys[~tiny] & COARSE, COARSE_BITS_PER_KEY),
        tiny=_key_map(keys[tiny] & LEAST, BITS_PER_KEY),
        whole=_key_map(keys[classes == 0], BITS_PER_KEY),
        others=_key_map(keys[classes > 0], BITS_PER_KEY),
    )


def _key_map(keys: Keys, bits_per_key: int) -> KeyMap:
    unique = np.unique(keys)
    width = max(SMALLEST_MAP, int(bits_per_key * len(unique)).bit_length())
    places = (unique * np.uint64(MULTIPLIER)) >> np.uint64(64 - width)
    flags = np.zeros(1 << width, dtype=np.bool_)
    flags[places] = True
    return KeyMap(np.packbits(flags, bitorder="little"), np.uint64(64 - width))


def _key_table(keys: Keys, sides: Keys) -> tuple[Keys, np.uint64]:
    """The table of `Needles` for sorted keys, and the shift that makes an address of a product."""
    unique, begin, counts = np.unique(keys, return_index=True, return_counts=True)
    width = max(4, int(1.5 * len(unique)).bit_length())
    table, shift = np.zeros((1 << width, 3), dtype=np.uint64), np.uint64(64 - width)
    runs = (begin.astype(np.uint64) << np.uint64(32)) | (begin + counts).astype(np.uint64)
    behind = (sides >> np.uint64(24)) & np.uint64(0xFF)
    bits = np.where(behind == 0, np.uint64(0xFFFFFFFF), np.uint64(1) << (behind & np.uint64(31)))
    allowed = np.bitwise_or.reduceat(bits, begin) if len(begin) else bits
    fill_table(table, shift, np.column_stack([unique, runs, allowed]))
    return table, shift


def _in_order(data: Bytes, offsets: Integers, anchors: Integers, order: Integers, keys: Keys) -> Needles:
    """The needles in the given order, in which their keys ascend."""
    lengths = np.diff(offsets)[order]
    begins = np.cumsum(lengths) - lengths
    moved = np.repeat(offsets[:-1][order] - begins, lengths) + np.arange(lengths.sum())
    needles, middles, ends = data[moved], begins + anchors[order], begins + lengths
    spaces = np.cumsum(needles == SPACE)  # white space within the window may be longer, and move what is beyond it
    sides = np.zeros((len(order), 8), dtype=np.uint8)
    for i, move in enumerate([*range(-BEFORE - 3, -BEFORE), *range(AFTER + 1, AFTER + 6)]):
        place = np.clip(middles + move, begins, ends - 1)
        between = spaces[place] - spaces[middles] + (move < 0)
        there = (place == middles + move) & (between == 0) & (needles[place] != SPACE)
        sides[there, i] = needles[place[there]] | SPACE
    numbers = sides.view(np.uint64).ravel()
    spans = np.column_stack([begins, middles, ends]).astype(np.int64)
    return Needles(*_key_table(keys, numbers), needles, numbers, spans)
