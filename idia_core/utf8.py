"""Whether bytes are UTF-8, at several gigabytes a second."""

import numpy as np
import numpy.typing as npt

from idia_core.compiled import jit

Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]

PIECE = 1 << 15  # bytes that are judged at once, so that the flags stay in the cache
_NOTHING = np.zeros(3, dtype=np.uint8)


def is_utf8(data: Bytes, offsets: Integers) -> bool:
    """Whether each text `data[offsets[i]:offsets[i + 1]]` is UTF-8 as Unicode has it (Table 3-7 of its Chapter 3)."""
    first, last = np.concatenate([_NOTHING, data[:3]]), np.concatenate([_NOTHING, data[-3:]])[-3:]
    parts = (data, first, np.concatenate([last, _NOTHING]))
    return not any(map(_has_faults, parts)) and _begin_characters(data, offsets)


@jit
def _flag_faults(byte: Bytes, one_before: Bytes, two_before: Bytes, three_before: Bytes, flags: Bytes) -> None:
    """Flag each byte that cannot stand there, given the three bytes before it; a loop that becomes vector code."""
    for i in range(len(byte)):
        here, lead = byte[i], one_before[i]
        due = (lead >= 0xC2) | (two_before[i] >= 0xE0) | (three_before[i] >= 0xF0)
        fault = (due != ((here & 0xC0) == 0x80)) | (here == 0xC0) | (here == 0xC1) | (here > 0xF4)
        fault |= ((lead == 0xE0) & (here < 0xA0)) | ((lead == 0xED) & (here > 0x9F))
        fault |= ((lead == 0xF0) & (here < 0x90)) | ((lead == 0xF4) & (here > 0x8F))
        flags[i] = fault


@jit
def _has_faults(data: Bytes) -> bool:
    """Whether a byte from the fourth on cannot stand where it does."""
    flags = np.zeros(PIECE, dtype=np.uint8)
    for begin in range(3, len(data), PIECE):
        end = min(begin + PIECE, len(data))
        _flag_faults(data[begin:end], data[begin - 1 :], data[begin - 2 :], data[begin - 3 :], flags)
        for octet in flags.view(np.uint64):
            if octet:
                return True
    return False


@jit
def _begin_characters(data: Bytes, offsets: Integers) -> bool:
    """Whether no text begins in the middle of a character."""
    for i in range(len(offsets) - 1):  # noqa: SIM110 - numba knows no generator expressions
        if offsets[i] < offsets[i + 1] and (data[offsets[i]] & 0xC0) == 0x80:
            return False
    return True
