"""The headers of a tar, walked in compiled loops: where its files lie and what they are called.

USTAR, GNU and PAX headers are read as Python's tarfile reads them, as that is what webdataset, and so open_clip, reads
tars with; but what it passes over in silence (a header that is no header, a tar without an end) is told here.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from idia_core.compiled import inline, jit

Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]

BLOCK = 512


class _Ends(NamedTuple):
    """How the walk over a tar ended."""

    WHOLE: int = 0  # at a block of zeros
    CUT: int = 1  # at the end of the bytes
    BAD_HEADER: int = 2
    GLOBAL_HEADER: int = 3  # a PAX header that gives every file the same name or size


class _Verdicts(NamedTuple):
    """What is wrong with a sample; the lowest of those that apply is its verdict."""

    ABSOLUTE: int = 0
    LEADS_OUT: int = 1
    DOT_IN_KEY: int = 2
    LONG_KEY: int = 3
    ZERO_IN_KEY: int = 4
    SKIPPED_FOLDER: int = 5
    NO_NAME: int = 6
    KEY_NOT_UTF8: int = 7
    HARD_LINK: int = 8
    SYMBOLIC_LINK: int = 9
    DEVICE: int = 10
    PIPE: int = 11
    SPARSE: int = 12
    UNKNOWN_TYPE: int = 13
    CUT: int = 14
    DUPLICATE: int = 15
    NO_PICTURE: int = 16
    NO_CAPTION: int = 17
    EMPTY_PICTURE: int = 18
    EMPTY_CAPTION: int = 19
    UNSURE: int = 20  # whether the caption is more than white space: it begins with a character beyond ASCII
    FINE: int = 21


End, Verdict = _Ends(), _Verdicts()  # numba reads tuples of numbers; enumerations it takes no minimum of

# The columns of a table of files: an entry of the tar that is no extended header is a row.
NAME_AT, NAME_BYTES, PREFIX_AT, PREFIX_BYTES, FILE_AT, FILE_BYTES, FILE_TYPE, FILE_COLUMNS = range(8)
FOLDER, REGULAR = 100, 101  # types; any other is the verdict on such an entry
# What extended headers say about the next file, which is due after one; -1: nothing.
NEXT_NAME_AT, NEXT_NAME_BYTES, NEXT_BYTES, NEXT_IS_SPARSE, NEXT_IS_DUE, NEXT_COLUMNS = range(6)

_TYPES = np.full(256, Verdict.UNKNOWN_TYPE, dtype=np.int64)  # what the byte of a header says of the file
_TYPES[[0, *b"07"]] = REGULAR
_TYPES[list(b"123456S")] = [
    Verdict.HARD_LINK,
    Verdict.SYMBOLIC_LINK,
    Verdict.DEVICE,
    Verdict.DEVICE,
    FOLDER,
    Verdict.PIPE,
    Verdict.SPARSE,
]

_FAR = 1 << 60  # a size beyond the end of any tar
_NO_NUMBER = -(1 << 62)
_PATH, _SIZE, _SPARSE = (np.frombuffer(word, np.uint8) for word in (b"path=", b"size=", b"GNU.sparse."))


@jit
def walk(content: Bytes, files: Integers) -> tuple[int, int, int]:
    """Fill the table of `files`; how many there are, how the walk ended (`End`), and at which byte."""
    following = np.full(NEXT_COLUMNS, -1, dtype=np.int64)
    at, count = 0, 0
    while True:
        if at + BLOCK > len(content):
            return count, End.CUT, at
        if _is_zero(content, at):
            return count, (End.BAD_HEADER if following[NEXT_IS_DUE] > 0 else End.WHOLE), at
        if not _is_header(content, at):
            return count, End.BAD_HEADER, at
        kind, size = content[at + 156], _number(content, at + 124, 12)
        if kind in (76, 75, 120, 88, 103):  # L, K, x, X, g: an extended header
            if at + BLOCK + size > len(content):
                return count, End.CUT, at
            end = _read_extended(content, at, size, following)
            if end != End.WHOLE:
                return count, end, at
            at += BLOCK + _blocks(size)
        else:
            at = _read_file(content, at, following, files[count])
            following[:] = -1
            count += 1


@jit
def skip_zeros(content: Bytes, at: int) -> int:
    """Where the next byte that is not zero lies, or where the content ends."""
    while at < len(content) and content[at] == 0:
        at += 1
    return at


@inline
def _blocks(size: int) -> int:
    return (size + BLOCK - 1) // BLOCK * BLOCK


@jit
def _is_zero(content: Bytes, at: int) -> bool:
    for byte in content[at : at + BLOCK]:  # noqa: SIM110 - numba knows no generator expressions
        if byte:
            return False
    return True


@jit
def _is_header(content: Bytes, at: int) -> bool:
    """Whether the checksum is right, in either of the ways to add bytes up, and the numbers are numbers."""
    total, high = 0, 0
    for byte in content[at : at + BLOCK]:
        total += int(byte)
        high += int(byte) >> 7
    for byte in content[at + 148 : at + 156]:  # the checksum itself counts as spaces
        total += 32 - int(byte)
        high -= int(byte) >> 7
    said = _number(content, at + 148, 8)
    if said not in (total, total - 256 * high) or _number(content, at + 124, 12) < 0:
        return False
    for field, width in ((100, 8), (108, 8), (116, 8), (136, 12), (329, 8), (337, 8)):
        if _number(content, at + field, width) == _NO_NUMBER:
            return False
    return True


@jit
def _number(content: Bytes, at: int, width: int) -> int:
    """A number of a header: octal digits, or GNU's base 256 after a byte of 0x80 (or 0xFF: below zero)."""
    lead, value = content[at], 0
    if lead in (0x80, 0xFF):
        value = -1 if lead == 0xFF else 0
        for byte in content[at + 1 : at + width]:
            value = max(-_FAR, min(_FAR, value * 256 + byte))
        return value
    begin, end = at, at
    while end < at + width and content[end] != 0:
        end += 1
    while begin < end and _is_space(content[begin]):
        begin += 1
    while begin < end and _is_space(content[end - 1]):
        end -= 1
    for byte in content[begin:end]:
        if not 48 <= byte <= 55:
            return _NO_NUMBER
        value = value * 8 + byte - 48
    return value


@inline
def _is_space(byte: int) -> bool:
    return byte == 32 or 9 <= byte <= 13 or 28 <= byte <= 31


@jit
def _read_extended(content: Bytes, header: int, size: int, following: Integers) -> int:
    """Note what an extended header says about the next file; where two say it, the first is right."""
    kind, at = content[header + 156], header + BLOCK
    end = min(at + _blocks(size), len(content))  # Python reads on behind `size` as long as there is something
    found = np.full(NEXT_COLUMNS, -1, dtype=np.int64)
    if kind == 76:  # L: a long name; K, a long target of a link, tells nothing
        found[NEXT_NAME_AT], found[NEXT_NAME_BYTES] = at, _length(content, at, end - at)
    elif kind != 75 and not _read_records(content, at, end, at + size, found):
        return End.BAD_HEADER
    if kind == 103 and not (found == -1).all():
        return End.GLOBAL_HEADER
    found[NEXT_IS_DUE] = 1
    for i in range(NEXT_COLUMNS):
        if following[i] == -1:
            following[i] = found[i]
    return End.WHOLE


@jit
def _length(content: Bytes, at: int, most: int) -> int:
    """Bytes before the first zero."""
    size = 0
    while size < most and content[at + size] != 0:
        size += 1
    return size


@jit
def _read_records(content: Bytes, at: int, end: int, least: int, found: Integers) -> bool:
    """Read the records of a PAX header, `length keyword=value` and a line feed each; False where they are none."""
    while at < least or (at < end and content[at] != 0):
        length, word = _decimal(content, at, end)
        stop = at + length
        if word in (at, end) or content[word] != 32 or not word + 1 < stop <= end or content[stop - 1] != 10:
            return False
        word += 1
        if _begins(content, word, stop, _PATH):
            value = stop - 1
            while value > word + 5 and content[value - 1] == 47:  # a slash at the end is none of the name's
                value -= 1
            found[NEXT_NAME_AT], found[NEXT_NAME_BYTES] = word + 5, value - word - 5
        elif _begins(content, word, stop, _SIZE):
            found[NEXT_BYTES], digits_end = _decimal(content, word + 5, stop)
            if digits_end != stop - 1 or digits_end == word + 5:
                return False
        elif _begins(content, word, stop, _SPARSE):
            found[NEXT_IS_SPARSE] = 1
        at = stop
    return True


@jit
def _decimal(content: Bytes, at: int, end: int) -> tuple[int, int]:
    """A number in decimal digits, and where they end."""
    value = 0
    while at < end and 48 <= content[at] <= 57:
        value = min(_FAR, value * 10 + content[at] - 48)
        at += 1
    return value, at


@jit
def _begins(content: Bytes, at: int, end: int, word: Bytes) -> bool:
    if end - at < len(word):
        return False
    for i in range(len(word)):  # noqa: SIM110 - numba knows no generator expressions
        if content[at + i] != word[i]:
            return False
    return True


@jit
def _read_file(content: Bytes, header: int, following: Integers, file: Integers) -> int:
    """Fill a row of the table of files; where the next header lies."""
    kind, at = content[header + 156], header + BLOCK
    file[NAME_AT], file[NAME_BYTES] = header, _length(content, header, 100)
    file[PREFIX_AT], file[PREFIX_BYTES] = header + 345, 0 if kind == 83 else _length(content, header + 345, 155)
    slash = file[NAME_BYTES] > 0 and content[header + file[NAME_BYTES] - 1] == 47
    file[FILE_TYPE] = FOLDER if kind == 0 and slash else _TYPES[kind]  # as the oldest tars mark folders
    if following[NEXT_NAME_AT] >= 0:
        file[NAME_AT], file[NAME_BYTES], file[PREFIX_BYTES] = following[NEXT_NAME_AT], following[NEXT_NAME_BYTES], 0
    size = following[NEXT_BYTES] if following[NEXT_BYTES] >= 0 else _number(content, header + 124, 12)
    if kind == 83 and content[header + 482]:  # S: GNU's list of a sparse file's parts goes on in further blocks
        while at + BLOCK <= len(content) and content[at + 504]:
            at += BLOCK
        at += BLOCK
    if following[NEXT_IS_SPARSE] >= 0 and file[FILE_TYPE] == REGULAR:
        file[FILE_TYPE] = Verdict.SPARSE
    if file[FILE_TYPE] == FOLDER or 49 <= kind <= 54:  # 1 to 6: links, devices and folders have no content
        size = 0
    file[FILE_AT], file[FILE_BYTES] = at, size
    return at + _blocks(size)
