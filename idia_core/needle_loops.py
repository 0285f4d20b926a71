"""The compiled loops of `idia_core.needles`: looking up and comparing needles in the bytes of captions.

Addresses and keys: a window is eight bytes around a space, three before it, the space, four after it, as one number; a
key is a window with the bytes beyond a needle's own words taken away.
"""

import numpy as np
import numpy.typing as npt

from idia_core.compiled import inline, jit

Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int32]

SPACE = 0x20
MAY_BE_SPACE = np.zeros(256, dtype=np.int64)
MAY_BE_SPACE[[*range(0x09, 0x0E), 0x20, 0xC2, 0xE1, 0xE2, 0xE3]] = 1
LOWER = np.frombuffer(bytes(range(256)).lower(), dtype=np.uint8)

BEFORE, AFTER = 3, 4
LOOSE = 0x2020202020202020  # lowers ASCII letters, and confuses some other bytes, which does not matter in a key
MULTIPLIER = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio spreads keys over the high bits of a product
OTHER_MULTIPLIER = 0xC2B2AE3D27D4EB4F


def _mask(before: int, after: int) -> int:
    return int.from_bytes(bytes(0xFF if BEFORE - before <= i <= BEFORE + after else 0 for i in range(8)), "little")


CLASSES = [(3, 4), (3, 3), (2, 4), (3, 2), (2, 3), (2, 2)]
"""How many bytes of the words at either side of its space a needle is looked up by, the best first."""
CLASS_OF = np.array([[CLASSES.index((b, a)) if (b, a) in CLASSES else -1 for a in range(5)] for b in range(4)])
MASKS = np.array([_mask(*sides) for sides in CLASSES], dtype=np.uint64)
LEAST = MASKS[-1]


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


@jit
def places_of_spaces(data: Bytes, places: Places) -> int:
    """Write where white space may begin to `places`, which is longer than the data; returns how many there are."""
    count = 0
    for place in range(len(data)):
        places[count] = place  # overwritten by the next unless it counts: a branch would be guessed wrong too often
        count += MAY_BE_SPACE[data[place]]
    return count


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
def _with_room(rows: Integers, count: int) -> Integers:
    """The array, made twice as long where `count` rows fill it."""
    if count < len(rows):
        return rows
    longer = np.empty((2 * count, rows.shape[1]), dtype=np.int64)
    longer[:count] = rows
    return longer


@inline
def _holds(bits: Bytes, shift: np.uint64, key: np.uint64) -> bool:
    """Whether a map says yes to the key: whether both its bits are set."""
    one, two = (key * np.uint64(MULTIPLIER)) >> shift, (key * np.uint64(OTHER_MULTIPLIER)) >> shift
    if (np.uint64(bits[one >> np.uint64(3)]) >> (one & np.uint64(7))) & np.uint64(1) == 0:
        return False
    return bool((np.uint64(bits[two >> np.uint64(3)]) >> (two & np.uint64(7))) & np.uint64(1) == 1)


@jit
def candidates(
    data: Bytes,
    windows: Keys,
    places: Places,
    bits: Bytes,
    shift: np.uint64,
    least_bits: Bytes,
    least_shift: np.uint64,
    least_of_all: bool,
) -> int:
    """Keep, at the front of `places`, those that are worth a closer look; returns how many there are.

    With `least_of_all` the smaller map has the least window of every needle, so that it alone decides. Calls nothing
    but `_holds`, so that the loop is fast: white space other than a single space is looked at closely.
    """
    count = 0
    for i in range(len(places)):
        place = places[i]
        if (
            place >= BEFORE
            and place < len(windows) - AFTER
            and data[place] == SPACE
            and MAY_BE_SPACE[data[place + 1]] == 0
        ):
            window = windows[place - BEFORE] | np.uint64(LOOSE)
            if not _holds(least_bits, least_shift, window & LEAST) and (
                least_of_all or not _holds(bits, shift, window)
            ):
                continue
        places[count] = place
        count += 1
    return count


@inline
def _look_up(table: Keys, shift: np.uint64, key: np.uint64) -> int:
    """The row of a key in the table; -1 when it is not there."""
    row = np.int64((key * np.uint64(MULTIPLIER)) >> shift)
    while table[row, 0] != key and table[row, 0] != 0:
        row = (row + 1) & (len(table) - 1)
    return int(row) if table[row, 0] == key else -1


@inline
def _differs(data: Bytes, place: int, byte: int) -> bool:
    """Whether the data has another byte there than one of a needle; any will do where that is a space."""
    return byte != SPACE and (place < 0 or place >= len(data) or LOWER[data[place]] != byte)


@jit
def compare(
    data: Bytes,
    offsets: Integers,
    searched: npt.NDArray[np.bool_],
    places: Places,
    masks: Keys,
    bits: Bytes,
    bits_shift: np.uint64,
    table: Keys,
    table_shift: np.uint64,
    needles: Bytes,
    spans: Integers,
) -> Integers:
    """The hits, as HIT, of the needles whose anchor stands at one of the places."""
    hits, count, row = np.empty((1024, 4), dtype=np.int64), 0, 0
    for number in range(len(places)):
        place = int(places[number])
        after = place + 1
        if data[place] != SPACE or after == len(data) or MAY_BE_SPACE[data[after]]:
            after = _skip_spaces(data, place, len(data))
            if after == place:
                continue
        window = _window(data, place, after) | np.uint64(LOOSE)
        for mask in masks:
            entry = _look_up(table, table_shift, window & mask) if _holds(bits, bits_shift, window & mask) else -1
            if entry < 0:
                continue
            while offsets[row + 1] <= place:
                row += 1
            if not searched[row]:
                continue
            for needle in range(table[entry, 1], table[entry, 2]):
                first, middle, last = spans[needle, 0], spans[needle, 1], spans[needle, 2]
                if _differs(data, after + AFTER, spans[needle, 3]) or _differs(
                    data, place - BEFORE - 1, spans[needle, 4]
                ):
                    continue  # most of those with the same window differ right beyond it
                stop = _match_forward(data, after, offsets[row + 1], needles, middle + 1, last)
                if stop >= 0:
                    start = _match_backward(data, place, offsets[row], needles, first, middle)
                    if start >= 0:
                        hits = _with_room(hits, count)
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
