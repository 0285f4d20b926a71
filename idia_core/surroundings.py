"""What stands at and around the places of captions where a needle was found."""

import numpy as np
import numpy.typing as npt

from idia_core.compiled import jit
from idia_core.spellings import JOINING
from idia_core.text_columns import TextBlock

Bytes = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]
Spans = npt.NDArray[np.void]
"""A structured array with `row`, `start` and `stop`, these two in bytes of the block."""

JOINING_ASCII = np.array([JOINING.match(chr(byte)) is not None for byte in range(128)] + [False] * 128)
SPACE, HYPHEN = 0x20, 0x2D
LONG_WORD = 4  # letters of a word that no title writes small


def between_words(block: TextBlock, spans: Spans) -> Flags:
    """Whether no span has a character beside it, in its caption, that belongs to the same word."""
    data = block.data
    begin, end, start, stop = (
        block.offsets[spans["row"]],
        block.offsets[spans["row"] + 1],
        spans["start"],
        spans["stop"],
    )
    before = np.where(start > begin, data[start - 1], SPACE)
    after = np.where(stop < end, data[np.minimum(stop, len(data) - 1)], SPACE)
    apart: Flags = ~(JOINING_ASCII[before] | JOINING_ASCII[after])
    for i in np.flatnonzero(apart & ((before >= 0x80) | (after >= 0x80))):  # a neighbour of two to four bytes
        left = data[max(begin[i], start[i] - 4) : start[i]].tobytes().decode(errors="ignore")[-1:]
        right = data[stop[i] : min(end[i], stop[i] + 4)].tobytes().decode(errors="ignore")[:1]
        apart[i] = not (JOINING.match(left) or JOINING.match(right))
    return apart


def holds_texts(block: TextBlock, spans: Spans, texts: tuple[Bytes, Integers], which: Integers) -> Flags:
    """Whether each span is, byte for byte, the text of that number; `string_parts` makes the texts."""
    data, offsets = texts
    flags: Flags = _equal(block.data, spans["start"].copy(), spans["stop"].copy(), data, offsets, which)
    return flags


@jit
def _equal(data: Bytes, starts: Integers, stops: Integers, texts: Bytes, offsets: Integers, which: Integers) -> Flags:
    flags = np.zeros(len(starts), dtype=np.bool_)
    for i in range(len(starts)):
        begin, length = offsets[which[i]], offsets[which[i] + 1] - offsets[which[i]]
        if stops[i] - starts[i] == length:
            place = 0
            while place < length and data[starts[i] + place] == texts[begin + place]:
                place += 1
            flags[i] = place == length
    return flags


def in_longer_names(block: TextBlock, spans: Spans) -> Flags:
    """Whether each span seems part of a longer name: a capitalised word stands right before or behind it.

    Captions that write no long word small say nothing, as titles capitalise every word; nor does the first word of a
    caption or of a sentence. Capitals are those of ASCII and Latin-1.
    """
    begins, ends = block.offsets[spans["row"]], block.offsets[spans["row"] + 1]
    flags: Flags = _in_longer_names(block.data, begins, ends, spans["start"].copy(), spans["stop"].copy())
    return flags


@jit
def _is_capital(data: Bytes, place: int, end: int) -> bool:
    byte = data[place]
    if 0x41 <= byte <= 0x5A:
        return True
    return byte == 0xC3 and place + 1 < end and 0x80 <= data[place + 1] <= 0x9E and data[place + 1] != 0x97


@jit
def _is_letter(data: Bytes, place: int, begin: int) -> bool:
    """Whether a letter ends there: of ASCII, or anything beyond it but a dash, a curly quote or the like."""
    byte = data[place]
    if byte < 0x80:
        return bool(0x61 <= byte | 0x20 <= 0x7A)
    return not (place >= begin + 2 and data[place - 2] == 0xE2 and data[place - 1] == 0x80)


@jit
def _writes_small(data: Bytes, begin: int, end: int) -> bool:
    """Whether a word of LONG_WORD letters or more is all small."""
    letters = 0
    for place in range(begin, end):
        if 0x61 <= data[place] <= 0x7A:
            letters += 1
            if letters == LONG_WORD and (place - LONG_WORD < begin or data[place - LONG_WORD] == SPACE):
                return True
        else:
            letters = 0
    return False


@jit
def _in_longer_names(data: Bytes, begins: Integers, ends: Integers, starts: Integers, stops: Integers) -> Flags:
    flags = np.zeros(len(starts), dtype=np.bool_)
    for i in range(len(starts)):
        begin, end, start, stop = begins[i], ends[i], starts[i], stops[i]
        beside = stop + 2 < end and (data[stop] == SPACE or data[stop] == HYPHEN) and _is_capital(data, stop + 1, end)
        if not beside and start - 2 >= begin and data[start - 1] == SPACE:
            word = start - 1
            while word > begin and data[word - 1] != SPACE:
                word -= 1
            inside = word > begin + 1 and _is_letter(data, word - 2, begin)  # not behind a full stop, a colon, a dash
            beside = inside and _is_letter(data, start - 2, begin) and _is_capital(data, word, end)
        flags[i] = beside and (_writes_small(data, begin, start) or _writes_small(data, stop, end))
    return flags
