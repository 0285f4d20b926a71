"""Arrow text columns seen as bytes: blocks of bounded size, rows that are not UTF-8, places in characters."""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from idia_core.errors import InvalidInputError
from idia_core.utf8 import is_utf8

BLOCK_BYTES = 4 << 20

Bytes = npt.NDArray[np.uint8]
Positions = npt.NDArray[np.int64]


class TextBlock(NamedTuple):
    """A run of values: the string array, its bytes, and where in them each value begins (one more at the end)."""

    array: pa.Array
    data: Bytes
    offsets: Positions


def text_blocks(column: pa.Array | pa.ChunkedArray) -> Iterator[TextBlock]:
    """The column's values in order, without copying, cut between values into blocks of about BLOCK_BYTES.

    Raises InvalidInputError when the column is neither text nor bytes.
    """
    for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
        texts = _as_text(chunk)
        if len(texts):
            offsets = _block(texts).offsets
            cuts = np.searchsorted(offsets, np.arange(BLOCK_BYTES, offsets[-1], BLOCK_BYTES))
            for begin, end in pairwise(np.unique([0, *cuts.tolist(), len(texts)]).tolist()):
                yield _block(texts.slice(begin, end - begin))


def _as_text(values: pa.Array) -> pa.Array:
    """The same bytes as a string or large_string array; whether they are UTF-8 is not checked."""
    kind = pa.types
    if kind.is_string(values.type) or kind.is_large_string(values.type):
        return values
    if kind.is_dictionary(values.type):
        return _as_text(values.dictionary_decode())
    others = (kind.is_binary, kind.is_large_binary, kind.is_binary_view, kind.is_string_view, kind.is_null)
    if any(is_kind(values.type) for is_kind in others):
        return values.cast(pa.large_binary()).cast(pa.large_string(), safe=False)
    raise InvalidInputError(f"a column of {values.type} is not text", fix="Name the column that holds the captions.")


def string_parts(texts: pa.Array) -> tuple[Bytes, Positions]:
    """The bytes of a string array, and where in them each value begins (one more at the end)."""
    _, offset_buffer, data_buffer = texts.buffers()
    width = np.int64 if pa.types.is_large_string(texts.type) else np.int32
    offsets = np.frombuffer(offset_buffer, dtype=width)[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)
    data = np.frombuffer(data_buffer or b"", dtype=np.uint8)
    return data[offsets[0] : offsets[-1]], offsets - offsets[0]


def _block(texts: pa.Array) -> TextBlock:
    return TextBlock(texts, *string_parts(texts))


def broken_rows(block: TextBlock) -> list[int]:
    """The rows of a block that are not UTF-8, found by halving; under a null may be anything."""
    return [] if is_utf8(block.data, block.offsets) else _broken(block.array, 0)


def _broken(texts: pa.Array, first: int) -> list[int]:
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid:
        if len(texts) == 1:
            return [first]
        half = len(texts) // 2
        return _broken(texts[:half], first) + _broken(texts[half:], first + half)
    return []


def readable(values: pa.Array | pa.ChunkedArray) -> list[str | None]:
    """A text column's values, with U+FFFD where one is not UTF-8."""
    blobs = values.cast(pa.large_binary()).to_pylist()
    return [None if blob is None else blob.decode(errors="replace") for blob in blobs]


def in_characters(block: TextBlock, row: Positions, place: Positions) -> Positions:
    """Places (in bytes from the beginning of their rows' values) counted in characters."""
    rows, which = np.unique(row, return_inverse=True)
    _, data, offsets = _block(block.array.take(pa.array(rows)))
    continuing = np.flatnonzero(data.view(np.int8) < -0x40)  # bytes 0x80 to 0xBF, which begin no character
    begin = offsets[which]
    inner = np.searchsorted(continuing, begin + place) - np.searchsorted(continuing, begin)
    return np.asarray(place - inner, dtype=np.int64)
