"""Files of embeddings: their bytes, and their rows read from a disk and by URL."""

import gc
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from upath import UPath

from idia_core import embeddings as embeddings_module
from idia_core.embeddings import STORED, EmbeddingFile, Embeddings, open_embeddings, read_rows, write_embeddings
from idia_core.errors import InvalidInputError

ROWS = (5, 0, 3, 4)
D = 6


def unit_rows(rows: int, seed: int) -> npt.NDArray[np.float32]:
    """Vectors of length one."""
    drawn = np.random.default_rng(seed).normal(size=(rows, D))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


PARTS = [unit_rows(rows, seed) for seed, rows in enumerate(ROWS)]
STORED_ND = np.concatenate(PARTS).astype(np.float16)


def written(embeddings_ND: npt.NDArray[Any]) -> bytes:
    """The bytes of a file of embeddings."""
    file = io.BytesIO()
    write_embeddings(file, embeddings_ND)
    return file.getvalue()


@pytest.fixture(params=["local", "memory"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[UPath]]:
    """Four files, one of them without rows."""
    root = UPath(tmp_path) if request.param == "local" else UPath("memory://embeddings")
    for part, embeddings_ND in enumerate(PARTS):
        (root / f"img_emb_{part:05d}.npy").write_bytes(written(embeddings_ND))
    yield sorted(root.glob("*.npy"), key=str)
    if request.param == "memory":
        root.fs.rm(root.path, recursive=True)


def test_numpy_reads_what_is_written() -> None:
    """As float16 rounded from what was given, whatever its layout in memory."""
    for given in (PARTS[0], np.asfortranarray(PARTS[0]), PARTS[0].astype(np.float64)):
        found = np.load(io.BytesIO(written(given)))
        assert found.dtype == STORED
        assert found.tobytes() == PARTS[0].astype(np.float16).tobytes()


def test_the_bytes_are_those_of_version_1() -> None:
    """To the letter, so that no release of numpy can change them: a header of 128 bytes and the rows."""
    text = b"{'descr': '<f2', 'fortran_order': False, 'shape': (1, 2), }"
    header = b"\x93NUMPY\x01\x00\x76\x00" + text.ljust(117) + b"\n"
    assert written(np.array([[1.0, -0.5]])) == header + b"\x00\x3c\x00\xb8"
    assert len(written(np.zeros((1_234_567, 0)))) == 128


def test_a_file_is_known_by_its_header_and_read_in_part(files: list[UPath]) -> None:
    """Its shape, all rows, some of them, and none."""
    found = open_embeddings(files[0])
    assert (found.rows, found.dimensions, found.dtype) == (5, D, STORED)
    for start, stop in ((0, None), (1, 3), (4, 99), (3, 3), (5, None)):
        assert np.array_equal(found.read(start, stop), STORED_ND[:5][start:stop])
    assert open_embeddings(files[1]).read().shape == (0, D)


def test_a_local_file_is_mapped(tmp_path: Path) -> None:
    """Its rows take no memory until they are looked at."""
    (tmp_path / "a.npy").write_bytes(written(PARTS[0]))
    assert isinstance(open_embeddings(UPath(tmp_path / "a.npy")).read(1, 3), np.memmap)


def test_rows_are_numbered_over_all_files(files: list[UPath]) -> None:
    """In any order, more than once, from every file, as float32."""
    found, expected = Embeddings(files), STORED_ND.astype(np.float32)
    assert (len(found), found.dimensions) == (12, D)
    assert [file.rows for file in found.files] == list(ROWS)
    for numbers in ([0], [11, 0, 4, 5, 11, 7, 8, 6], list(range(12)), [9, 2, 3], []):
        rows_BD = read_rows(files, np.array(numbers, np.int64))
        assert rows_BD.dtype == np.float32
        assert np.array_equal(rows_BD, expected[numbers].reshape(-1, D))


def test_blocks_give_every_row_once_in_order(files: list[UPath]) -> None:
    """No block is larger than asked for, none is empty, and none is a view of a file."""
    for most in (1, 2, 100):
        blocks = list(Embeddings(files).blocks(most))
        assert all(0 < len(block) <= most and type(block) is np.ndarray for block in blocks)
        assert np.array_equal(np.concatenate(blocks), STORED_ND.astype(np.float32))


@pytest.mark.parametrize("number", [-1, 12])
def test_a_row_that_is_not_there_is_no_row(files: list[UPath], number: int) -> None:
    """Neither the last one for -1, nor anything else."""
    with pytest.raises(IndexError, match="of 12"):
        read_rows(files, np.array([0, number]))


def test_no_files_have_no_rows() -> None:
    """Nor dimensions."""
    nothing = Embeddings([])
    assert (len(nothing), nothing.dimensions, list(nothing.blocks(8))) == (0, 0, [])


def test_float32_of_others_is_read_too(tmp_path: Path) -> None:
    """As numpy itself writes it, not rounded."""
    np.save(tmp_path / "a.npy", PARTS[0])
    assert np.array_equal(read_rows([UPath(tmp_path / "a.npy")], np.arange(5)), PARTS[0])


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"no embeddings", "no readable npy file"),
        (b"", "no readable npy file"),
        (written(PARTS[0])[:100], "no readable npy file"),
        (b"\x93NUMPY\x02\x00\x00\x00", "no readable npy file"),
    ],
)
@pytest.mark.parametrize("scheme", ["local", "memory"])
def test_what_is_no_npy_is_told(tmp_path: Path, scheme: str, content: bytes, complaint: str) -> None:
    """With the file's name."""
    path = (UPath(tmp_path) if scheme == "local" else UPath("memory://no-embeddings")) / "a.npy"
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match=complaint) as caught:
        open_embeddings(path)
    assert str(path) in str(caught.value)


def test_other_arrays_are_told(tmp_path: Path) -> None:
    """One dimension, whole numbers, columns first."""
    arrays = (np.zeros(3, np.float16), np.zeros((2, 3), np.int64), np.zeros((2, 3), np.float32, order="F"))
    for array in arrays:
        np.save(tmp_path / "a.npy", array)
        with pytest.raises(InvalidInputError, match="not rows of embeddings"):
            open_embeddings(UPath(tmp_path / "a.npy"))
    with pytest.raises(InvalidInputError, match=r"gone\.npy"):
        open_embeddings(UPath(tmp_path / "gone.npy"))


@pytest.mark.parametrize("kept", [128, 129, 128 + 5 * D * 2 - 1])
def test_a_file_that_was_cut_is_told(files: list[UPath], kept: int) -> None:
    """When a row is asked for that it lacks, never with other values."""
    files[0].write_bytes(written(PARTS[0])[:kept])
    with pytest.raises(InvalidInputError, match="ends before its 5 rows of 6"):
        read_rows(files, np.array([4]))


def test_files_of_two_models_are_told(tmp_path: Path) -> None:
    """They cannot be compared."""
    for place, width in enumerate((6, 7)):
        (tmp_path / f"{place}.npy").write_bytes(written(np.zeros((2, width))))
    with pytest.raises(InvalidInputError, match=r"7 dimensions, and 6 in '0\.npy'"):
        Embeddings([UPath(tmp_path / f"{place}.npy") for place in range(2)])


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads take turns at every chance, and the garbage collector gives them many."""
    interval, thresholds = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(1e-6)
    gc.set_threshold(5, 1, 1)
    yield
    sys.setswitchinterval(interval)
    gc.set_threshold(*thresholds)


class _Garbage:
    """Refers to itself, and does something when it is collected."""

    def __init__(self) -> None:
        self.own = self

    def __del__(self) -> None:
        sum(range(200))


@pytest.mark.usefixtures("restless")
def test_many_headers_are_read_at_once(files: list[UPath], monkeypatch: pytest.MonkeyPatch) -> None:
    """CPython 3.11 raises a SystemError where threads parse literals in each other's midst."""
    open_one = embeddings_module.open_embeddings

    def open_amid_garbage(path: UPath) -> EmbeddingFile:
        for _ in range(20):
            _Garbage()
            found = open_one(path)
        return found

    monkeypatch.setattr(embeddings_module, "open_embeddings", open_amid_garbage)
    assert len(Embeddings(files * 40)) == 40 * len(Embeddings(files))
