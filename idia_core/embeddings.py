"""Embeddings of base pairs in clip-retrieval's layout: `img_emb_N.npy`, and `metadata_N.parquet` row by row beside it.

Axes: N rows of a file, B rows that are asked for, D embedding dimensions.
"""

import io
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from threading import Lock
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from upath import UPath

from idia_core.errors import InvalidInputError
from idia_core.storage import is_local

METADATA = pa.schema(
    [
        pa.field("image_path", pa.string(), nullable=False),  # the pair's key, under the name that clip-retrieval shows
        pa.field("caption", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),  # the file that the pair is in
        pa.field("part", pa.int64(), nullable=False),  # the number of the split, and of these files
        pa.field("row", pa.int64(), nullable=False),  # the pair's place among all pairs of the split, from 0
    ]
)
URL = pa.field("url", pa.string())
"""Column of the metadata of a base that tells where its pairs came from; null for a pair of which it does not."""
FAILURES = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),  # a `SampleStatus`, never ok
        pa.field("detail", pa.string()),
    ]
)
ABOUT = pa.schema(
    [
        pa.field("model", pa.string(), nullable=False),  # a reference that can be parsed again
        pa.field("sha256", pa.string(), nullable=False),  # of the file of weights
        pa.field("device", pa.string(), nullable=False),
        pa.field("dimensions", pa.int64(), nullable=False),
    ]
)
STORED = np.dtype("<f2")
READ = (STORED, np.dtype("<f4"))
"""What a file may hold; clip-retrieval too writes float32 on request."""
MAGIC = b"\x93NUMPY\x01\x00"
ALIGNMENT = 64
HEADER_BYTES = 4096
"""Fetched to find out what a file holds; a header is 128 bytes long."""
CONNECTIONS = 16
"""Headers of files on an object store that are fetched at once."""
_one_header = Lock()
"""A header is a Python literal: CPython 3.11 loses count of its recursion when two threads parse one."""


def write_embeddings(file: IO[bytes], embeddings_ND: npt.NDArray[np.floating[Any]]) -> None:
    """Write embeddings [N, D] as float16 in version 1.0 of the npy format.

    numpy's own writer is not used: how it fills its header up has changed before, and with it the bytes.
    """
    rows, dimensions = embeddings_ND.shape
    text = f"{{'descr': '{STORED.str}', 'fortran_order': False, 'shape': ({rows}, {dimensions}), }}".encode()
    filling = b" " * (-(len(MAGIC) + 2 + len(text) + 1) % ALIGNMENT) + b"\n"
    header = text + filling
    file.write(MAGIC + len(header).to_bytes(2, "little") + header)
    file.write(np.ascontiguousarray(embeddings_ND, STORED).tobytes())


class EmbeddingFile(NamedTuple):
    """A file of embeddings [N, D] at any URL; its rows are mapped or fetched when they are asked for."""

    path: UPath
    rows: int
    dimensions: int
    dtype: np.dtype[Any]
    begin: int
    """Where the first row is, in bytes."""

    def read(self, start: int = 0, stop: int | None = None) -> npt.NDArray[np.floating[Any]]:
        """Those rows as they are stored: mapped where the file is local, else fetched; nothing else is read.

        Raises `InvalidInputError` for a file that is shorter than its header says.
        """
        first, last, _ = slice(start, stop).indices(self.rows)
        count, row_bytes = max(last - first, 0), self.dimensions * self.dtype.itemsize
        begin, shape = self.begin + first * row_bytes, (count, self.dimensions)
        if count == 0:
            return np.empty(shape, self.dtype)
        try:
            if is_local(self.path):
                return np.memmap(self.path.path, self.dtype, "r", begin, shape)
            content = self.path.fs.cat_file(self.path.path, start=begin, end=begin + count * row_bytes)
            return np.frombuffer(content, self.dtype).reshape(shape)
        except ValueError:
            what = f"the file ends before its {self.rows:,} rows of {self.dimensions}"
            raise InvalidInputError(what, str(self.path), "Fetch it again.") from None


def open_embeddings(path: UPath) -> EmbeddingFile:
    """What an npy file's header says of it; `InvalidInputError` unless it holds float16 or float32 as rows."""
    try:
        start = io.BytesIO(path.fs.cat_file(path.path, start=0, end=HEADER_BYTES))
        version = np.lib.format.read_magic(start)
        read_header = np.lib.format.read_array_header_1_0 if version[0] == 1 else np.lib.format.read_array_header_2_0
        with _one_header:
            shape, by_column, dtype = read_header(start)
    except (ValueError, FileNotFoundError) as error:
        reason = str(error).partition("\n")[0]
        raise InvalidInputError(f"no readable npy file: {reason}", str(path), "Fetch it again.") from None
    if len(shape) != 2 or by_column or dtype not in READ:
        what = f"an array of {dtype.name} with shape {shape}, not rows of embeddings"
        raise InvalidInputError(what, str(path), "Store one embedding a row, as float16 or float32.")
    return EmbeddingFile(path, *shape, dtype, start.tell())


def number_of(file: UPath) -> int:
    """The number at the end of a file's name, by which embeddings and metadata belong together."""
    if digits := re.search(r"(\d+)$", file.stem):
        return int(digits.group(1))
    raise InvalidInputError(
        "there is no number in its name", str(file), "Call it as clip-retrieval does: img_emb_00.npy."
    )


def open_numbered(files: Sequence[UPath]) -> "Embeddings":
    """The rows of several files in the order of the files' numbers, as `index` knows them.

    Raises `InvalidInputError` for two files with one number, and where all are empty.
    """
    ordered = sorted(files, key=number_of)
    for before, file in pairwise(ordered):
        if number_of(before) == number_of(file):
            fix = f"{before} has it too: give one folder of embeddings."
            raise InvalidInputError(f"the number {number_of(file)} is there twice", str(file), fix)
    embeddings = Embeddings(ordered)
    if not len(embeddings):
        raise InvalidInputError("there are no embeddings", str(files[0].parent), "Embed some pictures first.")
    return embeddings


class Embeddings:
    """The rows of several files, numbered on from file to file in the order given; only headers are read at first.

    Raises `InvalidInputError` for files of different dimensions.
    """

    def __init__(self, files: Sequence[UPath]) -> None:
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            self.files = list(pool.map(open_embeddings, files))
        for file in self.files:
            if file.dimensions != self.files[0].dimensions:
                what = f"{file.dimensions} dimensions, and {self.files[0].dimensions} in '{self.files[0].path.name}'"
                raise InvalidInputError(what, str(file.path), "Give embeddings of one model.")
        self.dimensions = self.files[0].dimensions if self.files else 0
        self._ends = np.cumsum([file.rows for file in self.files], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def blocks(self, most: int, first: int = 0, count: int | None = None) -> Iterator[npt.NDArray[np.float32]]:
        """`count` rows from `first` on, or all, in their order, no more than `most` at a time: [N, D]."""
        last = len(self) if count is None else first + count
        for file, end in zip(self.files, self._ends.tolist(), strict=True):
            begin = end - file.rows
            for start in range(max(first, begin), min(last, end), most):
                yield np.array(file.read(start - begin, min(start + most, last, end) - begin), np.float32)

    def place(self, number: int) -> tuple[EmbeddingFile, int]:
        """The file of a row, and its place in it."""
        which = int(np.searchsorted(self._ends, number, side="right"))
        return self.files[which], number - int(self._ends[which]) + self.files[which].rows

    def read(self, numbers_B: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """The rows with those numbers, in their order: [B, D]. Raises `IndexError` for a number that no row has."""
        if numbers_B.size and not 0 <= numbers_B.min() <= numbers_B.max() < len(self):
            raise IndexError(f"rows {numbers_B.min()} to {numbers_B.max()} of {len(self)}")
        unique, places_B = np.unique(numbers_B, return_inverse=True)
        unique_BD = np.empty((len(unique), self.dimensions), np.float32)
        of_file = np.searchsorted(self._ends, unique, side="right")
        for number in np.unique(of_file):
            mine, file = np.flatnonzero(of_file == number), self.files[number]
            unique_BD[mine] = _gather(file, unique[mine] - (self._ends[number] - file.rows))
        found_BD: npt.NDArray[np.float32] = unique_BD[places_B]
        return found_BD


def read_rows(files: Sequence[UPath], numbers_B: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Rows of several files as `Embeddings` numbers them: [B, D]; all headers are read at every call."""
    return Embeddings(files).read(numbers_B)


def _gather(file: EmbeddingFile, rows_B: npt.NDArray[np.int64]) -> npt.NDArray[np.floating[Any]]:
    """Rows of a file, which ascend; of one that is not local each run of rows is fetched by itself."""
    if is_local(file.path):
        found_BD: npt.NDArray[np.floating[Any]] = file.read()[rows_B]
        return found_BD
    breaks = [0, *(np.flatnonzero(np.diff(rows_B) != 1) + 1).tolist(), len(rows_B)]
    runs = [(int(rows_B[start]), int(rows_B[stop - 1]) + 1) for start, stop in pairwise(breaks)]
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        return np.concatenate(list(pool.map(lambda run: file.read(*run), runs)))
