"""The compiled loops of `idia_core.needles`: looking up and comparing needles in the bytes of captions.

Addresses and keys: a window is eight bytes around a space, three before it, the space, four after it, as one number; a
key is a window with the bytes beyond a needle's own words taken away. All loops are in this one file because numba
does not notice when what they take from another file has changed.
"""

from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from idia_core.compiled import inline, jit

Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int32]
NumberT = TypeVar("NumberT", np.int32, np.int64, np.uint64)


class KeyMap(NamedTuple):
    """A set of keys as bits: it never denies one of its own, and affirms others now and then."""

    bits: Bytes
    shift: np.uint64


class KeyMaps(NamedTuple):
    """Which keys there are. The first two maps are small, and say no at most spaces; the others have the very keys."""

    coarse: KeyMap
    """The windows under COARSE."""
    tiny: KeyMap
    """The windows under LEAST of the needles that have none under COARSE."""
    whole: KeyMap
    """The keys of class 0, which are whole windows."""
    others: KeyMap
    """The keys of all other classes."""


class Needles(NamedTuple):
    """The needles, those of one key together, and a hash table that tells which these are."""

    table: Keys
    """Of open addresses: rows of a key (0 where free), the run of needles that have it, as its begin and its end in 32
    bits each, and what byte may be behind their windows, as a bit for the lowest five bits of each."""
    shift: np.uint64
    data: Bytes
    """All needles, one behind the other."""
    sides: Keys
    """The three bytes before each needle's window, then the five behind it; zero where it has none or a space."""
    spans: Integers
    """Rows of where a needle begins in the data, where its anchor is, and where it ends."""


SPACE = 0x20
MAY_BE_SPACE = np.zeros(256, dtype=np.int64)
MAY_BE_SPACE[[*range(0x09, 0x0E), 0x20, 0xC2, 0xE1, 0xE2, 0xE3]] = 1
LOWER = np.frombuffer(bytes(range(256)).lower(), dtype=np.uint8)

BEFORE, AFTER = 3, 4
LOOSE = 0x2020202020202020  # lowers ASCII letters, and confuses some other bytes, which does not matter in a key
MULTIPLIER = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio spreads keys over the high bits of a product
LOW7, HIGH = 0x7F7F7F7F7F7F7F7F, 0x8080808080808080


def _mask(before: int, after: int) -> int:
    return int.from_bytes(bytes(0xFF if BEFORE - before <= i <= BEFORE + after else 0 for i in range(8)), "little")


CLASSES = [(3, 4), (3, 3), (2, 4), (3, 2), (2, 3), (2, 2)]
"""How many bytes of the words at either side of its space a needle is looked up by, the best first."""
CLASS_OF = np.array([[CLASSES.index((b, a)) if (b, a) in CLASSES else -1 for a in range(5)] for b in range(4)])
MASKS = np.array([_mask(*sides) for sides in CLASSES], dtype=np.uint64)
COARSE, LEAST = MASKS[4], MASKS[5]
NO_COARSE = [kind for kind, mask in enumerate(MASKS) if mask & COARSE != COARSE]
"""The classes of needles that have no window under COARSE, which takes in two bytes and three."""

CHUNK = 1 << 15  # bytes that are flagged at once, so that the flags stay in the cache
GATHER = 0x0102040810204080  # brings the lowest bits of eight bytes together in the highest byte of a product
OFTEN = 2  # spaces among eight bytes, and seldom more
_FLAGS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
COUNTS_IN = _FLAGS.sum(axis=1, dtype=np.uint64)
PLACES_IN = np.argsort(1 - _FLAGS, axis=1, kind="stable").astype(np.int32)
"""For every byte, how many of its bits are set and which these are, the lowest first, and behind them the others."""


@inline
def _space_at(data: Bytes, place: int, end: int) -> int:
    """How many bytes the white space at `place` has, in Unicode's sense; 0 where there is none."""
    byte = data[place]
    if byte <= 0x20:
        return 1 if byte == 0x20 or 0x09 <= byte <= 0x0D else 0
    if byte == 0xC2:
        return 2 if place + 1 < end and (data[place + 1] == 0xA0 or data[place + 1] == 0x85) else 0
    if byte < 0xE1 or byte > 0xE3 or place + 2 >= end:
        return 0
    second, third = data[place + 1], data[place + 2]
    if byte == 0xE2:
        general = second == 0x80 and (third <= 0x8A or third in (0xA8, 0xA9, 0xAF))
        return 3 if general or (second == 0x81 and third == 0x9F) else 0
    ogham_or_ideographic = (byte == 0xE1 and second == 0x9A) or (byte == 0xE3 and second == 0x80)
    return 3 if ogham_or_ideographic and third == 0x80 else 0


@inline
def _skip_spaces(data: Bytes, place: int, end: int) -> int:
    """Where the white space that begins at `place` ends."""
    while place < end:
        length = _space_at(data, place, end)
        if length == 0:
            break
        place += length
    return place


@inline
def _skip_spaces_back(data: Bytes, place: int, begin: int) -> int:
    """Where the white space that ends at `place` begins."""
    length = 1
    while length <= 3:
        if place - length >= begin and _space_at(data, place - length, place) == length:
            place, length = place - length, 1
        else:
            length += 1
    return place


@inline
def _match_forward(data: Bytes, place: int, end: int, needles: Bytes, first: int, last: int) -> int:
    """Where `needles[first:last]` ends when it stands at `place`; -1 when it does not."""
    for i in range(first, last):
        if needles[i] == SPACE:
            after = _skip_spaces(data, place, end)
            if after == place:
                return -1
            place = after
        elif place >= end or LOWER[data[place]] != needles[i]:
            return -1
        else:
            place += 1
    return place


@inline
def _match_backward(data: Bytes, place: int, begin: int, needles: Bytes, first: int, last: int) -> int:
    """Where `needles[first:last]` begins when it ends at `place`; -1 when it does not."""
    for i in range(last - 1, first - 1, -1):
        if needles[i] == SPACE:
            before = _skip_spaces_back(data, place, begin)
            if before == place:
                return -1
            place = before
        elif place <= begin or LOWER[data[place - 1]] != needles[i]:
            return -1
        else:
            place -= 1
    return place


@inline
def _window(data: Bytes, place: int, after: int) -> np.uint64:
    """The window of the space from `place` to `after`, byte by byte; zeros where there is no data."""
    window = np.uint64(SPACE) << np.uint64(8 * BEFORE)
    for i in range(BEFORE):
        if place - BEFORE + i >= 0:
            window |= np.uint64(data[place - BEFORE + i]) << np.uint64(8 * i)
    for i in range(AFTER):
        if after + i < len(data):
            window |= np.uint64(data[after + i]) << np.uint64(8 * (BEFORE + 1 + i))
    return window


@inline
def _longer(rows: npt.NDArray[NumberT]) -> npt.NDArray[NumberT]:
    """The array, and room for as many rows again."""
    return np.concatenate((rows, np.empty_like(rows)))


@inline
def _bit(keys: KeyMap, key: np.uint64) -> np.uint64:
    """1 where a map says yes to the key, else 0."""
    place = (key * np.uint64(MULTIPLIER)) >> keys.shift
    return (np.uint64(keys.bits[place >> np.uint64(3)]) >> (place & np.uint64(7))) & np.uint64(1)


@jit
def _flag_spaces(data: Bytes, behind: Bytes, least: int, single: Bytes, other: Bytes) -> None:
    """Flag the single spaces that a byte of at least `least` follows, and apart where else white space may begin.

    `behind` is the data from 1 on. A capital counts as the letter that it is.
    """
    for i in range(len(behind)):
        byte, next_ = data[i], behind[i]
        space = (byte == 0x20) | ((byte >= 0x09) & (byte <= 0x0D)) | (byte == 0xC2) | ((byte >= 0xE1) & (byte <= 0xE3))
        more = (next_ == 0x20) | ((next_ >= 0x09) & (next_ <= 0x0D)) | (next_ == 0xC2)
        more |= (next_ >= 0xE1) & (next_ <= 0xE3)
        single[i] = (byte == 0x20) & (not more) & ((next_ | 0x20) >= least)
        other[i] = space & ((byte != 0x20) | more)


@jit
def _write_flagged(flags: Keys, first: int, places: Places) -> int:
    """Write the places of the flags, of which eight are a number, counted from `first`; returns how many there are."""
    count = np.uint64(0)
    for i in range(len(flags)):
        octet = (flags[i] * np.uint64(GATHER)) >> np.uint64(56)
        base = np.int32(first + 8 * i)
        for k in range(OFTEN):  # whether they are there or not: a branch would be guessed wrong too often
            places[count + np.uint64(k)] = base + PLACES_IN[octet, k]
        if COUNTS_IN[octet] > OFTEN:
            for k in range(OFTEN, 8):
                places[count + np.uint64(k)] = base + PLACES_IN[octet, k]
        count += COUNTS_IN[octet]
    return int(count)


@jit
def _keep_coarse(windows: Keys, places: Places, maps: KeyMaps) -> int:
    """Keep, at the front of `places`, those whose window may be in a small map; returns how many there are.

    Here and in `_keep_likely` is no branch, so that the processor waits for many bytes of a large map at once.
    """
    count = np.uint64(0)
    for i in range(len(places)):
        place = places[i]
        window = windows[np.uint64(place - BEFORE)] | np.uint64(LOOSE)
        places[count] = place
        count += _bit(maps.coarse, window & COARSE) | _bit(maps.tiny, window & LEAST)
    return int(count)


@jit
def _keep_likely(windows: Keys, places: Places, maps: KeyMaps, whole: Places, other: Places) -> tuple[int, int]:
    """Write the places whose window may be a key to `whole`, and those where a part of it may be one to `other`.

    Returns how many there are of each.
    """
    wholes, others = np.uint64(0), np.uint64(0)
    for i in range(len(places)):
        place = places[i]
        window = windows[np.uint64(place - BEFORE)] | np.uint64(LOOSE)
        whole[wholes] = place
        wholes += _bit(maps.whole, window)
        other[others] = place
        bit = _bit(maps.others, window & MASKS[1]) | _bit(maps.others, window & MASKS[2])
        others += bit | _bit(maps.others, window & MASKS[4]) | _bit(maps.tiny, window & LEAST)
    return int(wholes), int(others)


@jit
def likely_places(data: Bytes, windows: Keys, behind: int, maps: KeyMaps) -> tuple[Places, Places, Places]:
    """The single spaces with a key of class 0, those with a key of another class, and where else white space may begin.

    The keys may be in the maps; a byte of at least `behind` follows the single spaces.
    """
    whole, other = np.empty(len(data) // 2 + 8, dtype=np.int32), np.empty(len(data) // 2 + 8, dtype=np.int32)
    stray = np.empty(len(data) + 8, dtype=np.int32)
    wholes, others, strays = 0, 0, 0
    singles, rest = np.zeros(CHUNK, dtype=np.uint8), np.zeros(CHUNK, dtype=np.uint8)
    places = np.empty(CHUNK // 2 + 8, dtype=np.int32)
    for place in range(BEFORE):
        stray[strays] = place
        strays += MAY_BE_SPACE[data[place]]
    for first in range(BEFORE, len(data) - AFTER, CHUNK):
        length = min(CHUNK, len(data) - AFTER - first)
        singles[length:], rest[length:] = 0, 0
        _flag_spaces(data[first:], data[first + 1 : first + 1 + length], behind, singles, rest)
        found = _write_flagged(singles.view(np.uint64), first, places)
        found = _keep_coarse(windows, places[:found], maps)
        more, more_others = _keep_likely(windows, places[:found], maps, whole[wholes:], other[others:])
        wholes, others = wholes + more, others + more_others
        for i, flags in enumerate(rest.view(np.uint64)):
            if flags:
                for place in range(8 * i, 8 * i + 8):
                    stray[strays] = first + place
                    strays += rest[place]
    for place in range(len(data) - AFTER, len(data)):
        stray[strays] = place
        strays += MAY_BE_SPACE[data[place]]
    return whole[:wholes], other[:others], stray[:strays]


@jit
def whole_windows(windows: Keys, places: Places) -> tuple[Places, Keys]:
    """The spots of single spaces, which are a place and where the white space there ends, and their whole windows."""
    spots, keys = np.empty((len(places), 2), dtype=np.int32), np.empty(len(places), dtype=np.uint64)
    for i in range(len(places)):
        spots[i, 0], spots[i, 1] = places[i], places[i] + 1
        keys[i] = windows[np.uint64(places[i] - BEFORE)] | np.uint64(LOOSE)
    return spots, keys


@jit
def keys_at(data: Bytes, windows: Keys, places: Places, maps: KeyMaps, first_class: int) -> tuple[Places, Keys]:
    """The spots of any white space and the keys that may be in the maps, of the classes from the given one on."""
    spots, keys, count = np.empty((len(places) + 8, 2), dtype=np.int32), np.empty(len(places) + 8, dtype=np.uint64), 0
    for number in range(len(places)):
        place = int(places[number])
        after = place + 1
        if BEFORE <= place < len(windows) + BEFORE and data[place] == SPACE and not MAY_BE_SPACE[data[after]]:
            window = windows[place - BEFORE] | np.uint64(LOOSE)
        else:
            after = _skip_spaces(data, place, len(data))
            if after == place:
                continue
            window = _window(data, place, after) | np.uint64(LOOSE)
        if count + len(MASKS) > len(keys):
            spots, keys = _longer(spots), _longer(keys)
        for kind in range(first_class, len(MASKS)):
            spots[count, 0], spots[count, 1], keys[count] = place, after, window & MASKS[kind]
            count += int(_bit(maps.others, keys[count]) if kind else _bit(maps.whole, keys[count]))
    return spots[:count], keys[:count]


@jit
def look_up(data: Bytes, spots: Places, keys: Keys, needles: Needles) -> tuple[Places, Keys, Keys]:
    """The spots where a needle may stand by its key and the byte behind it, the runs of these, and their first sides.

    The loops do little else, so that the processor waits for many places of large tables at once.
    """
    runs, count = np.empty(len(keys), dtype=np.uint64), 0
    for i in range(len(keys)):
        row = np.int64((keys[i] * np.uint64(MULTIPLIER)) >> needles.shift)
        while needles.table[row, 0] != keys[i] and needles.table[row, 0] != 0:
            row = (row + 1) & (len(needles.table) - 1)
        behind = np.uint64(data[min(spots[i, 1] + AFTER, len(data) - 1)] & 31)
        runs[count] = needles.table[row, 1]
        spots[count, 0], spots[count, 1] = spots[i, 0], spots[i, 1]
        count += int((needles.table[row, 2] >> behind) & np.uint64(1))
    sides = np.empty(count, dtype=np.uint64)
    for i in range(count):
        sides[i] = needles.sides[runs[i] >> np.uint64(32)]
    return spots[:count], runs[:count], sides


@inline
def _sides_at(data: Bytes, windows: Keys, place: int, after: int) -> np.uint64:
    """The bytes beside a window: three before it, then five behind it; zeros where there is no data."""
    left, right = place - BEFORE - 3, after + AFTER
    if left >= 0 and right < len(windows):
        return np.uint64((windows[left] & np.uint64(0xFFFFFF)) | (windows[right] << np.uint64(24)))
    sides = np.uint64(0)
    for i in range(3):
        if left + i >= 0:
            sides |= np.uint64(data[left + i]) << np.uint64(8 * i)
    for i in range(5):
        if right + i < len(data):
            sides |= np.uint64(data[right + i]) << np.uint64(8 * (3 + i))
    return sides


@inline
def _differs(sides: np.uint64, needle: np.uint64) -> bool:
    """Whether some of the eight bytes differ, case aside; any will do where the needle's is zero."""
    filled = ((((needle & np.uint64(LOW7)) + np.uint64(LOW7)) | needle) & np.uint64(HIGH)) >> np.uint64(7)
    return bool(((sides | np.uint64(LOOSE)) ^ needle) & (filled * np.uint64(0xFF)))


@jit
def compare(
    data: Bytes,
    windows: Keys,
    offsets: Integers,
    searched: npt.NDArray[np.bool_],
    looked_up: tuple[Places, Keys, Keys],
    needles: Needles,
) -> Integers:
    """The hits, as HIT, of the needles whose anchors stand at the spots that were looked up, which ascend."""
    spots, runs, sides = looked_up
    hits, count, row = np.empty((1024, 4), dtype=np.int64), 0, 0
    for number in range(len(spots)):
        place, after = int(spots[number, 0]), int(spots[number, 1])
        while offsets[row + 1] <= place:
            row += 1
        if not searched[row]:
            continue
        beside = _sides_at(data, windows, place, after)
        begin, end = int(runs[number] >> np.uint64(32)), int(runs[number] & np.uint64(0xFFFFFFFF))
        for needle in range(begin, end):
            if _differs(beside, sides[number] if needle == begin else needles.sides[needle]):
                continue  # as do most of those with the same window, which saves a look at the whole needle
            first, middle, last = needles.spans[needle, 0], needles.spans[needle, 1], needles.spans[needle, 2]
            stop = _match_forward(data, after, offsets[row + 1], needles.data, middle + 1, last)
            if stop >= 0:
                start = _match_backward(data, place, offsets[row], needles.data, first, middle)
                if start >= 0:
                    if count == len(hits):
                        hits = _longer(hits)
                    hits[count, 0], hits[count, 1], hits[count, 2], hits[count, 3] = row, needle, start, stop
                    count += 1
    return hits[:count]


@jit
def find_anchors(needles: Bytes, offsets: Integers) -> tuple[Integers, Integers]:
    """Where in each needle the space is by which it is looked up, and its class; -1 where there is none."""
    anchors, classes = np.full(len(offsets) - 1, -1, dtype=np.int64), np.full(len(offsets) - 1, -1, dtype=np.int64)
    for needle in range(len(anchors)):
        first, last = offsets[needle], offsets[needle + 1]
        word = first
        for place in range(first, last):
            if needles[place] != SPACE:
                continue
            end = place + 1
            while end < last and needles[end] != SPACE:
                end += 1
            found = CLASS_OF[min(BEFORE, place - word), min(AFTER, end - place - 1)]
            if found >= 0 and (classes[needle] < 0 or found < classes[needle]):
                anchors[needle], classes[needle] = place - first, found
            word = place + 1
    return anchors, classes


@jit
def find_keys(needles: Bytes, offsets: Integers, anchors: Integers, classes: Integers, which: Integers) -> Keys:
    """The key of each needle in `which`: the window around its anchor, as far as its class goes."""
    keys = np.empty(len(which), dtype=np.uint64)
    for i in range(len(which)):
        needle = needles[offsets[which[i]] : offsets[which[i] + 1]]
        window = _window(needle, anchors[which[i]], anchors[which[i]] + 1)
        keys[i] = (window | np.uint64(LOOSE)) & MASKS[classes[which[i]]]
    return keys


@jit
def fill_table(table: Keys, shift: np.uint64, entries: Keys) -> None:
    """Enter the entries into the table."""
    for i in range(len(entries)):
        row = np.int64((entries[i, 0] * np.uint64(MULTIPLIER)) >> shift)
        while table[row, 0] != 0:
            row = (row + 1) & (len(table) - 1)
        table[row] = entries[i]
