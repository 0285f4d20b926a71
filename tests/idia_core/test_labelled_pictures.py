"""Pictures with labels: three ways in which they come, and what is refused."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from idia_core.errors import InvalidInputError
from idia_core.labelled_pictures import PATTERNS, Source, labelled_pictures
from idia_core.storage import find_files
from tests.tar_files import tar_of


def found(source: Path, classes: int) -> list[tuple[int, bytes | str]]:
    """Label and content, or status, of every picture."""
    files = find_files(str(source), PATTERNS, "test")
    return [(labelled.label, content(source)) for labelled, source in labelled_pictures(files, classes)]


def content(source: Source) -> bytes | str:
    """What a source holds."""
    if isinstance(source, UPath):
        return source.read_bytes()
    return source if isinstance(source, str) else bytes(source)


def write(path: Path, content: bytes) -> Path:
    """A file with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_folders_are_classes_in_the_order_of_their_names(tmp_path: Path) -> None:
    """As torchvision's ImageFolder numbers them; hidden files are no pictures."""
    for name in ("n02/b.JPEG", "n02/a.JPEG", "n01/z.JPEG", "n10/k.png", "n01/.DS_Store"):
        write(tmp_path / name, name.encode())
    assert found(tmp_path, 3) == [(0, b"n01/z.JPEG"), (1, b"n02/a.JPEG"), (1, b"n02/b.JPEG"), (2, b"n10/k.png")]


@pytest.mark.parametrize("classes", [1, 3])
def test_as_many_folders_as_names(tmp_path: Path, classes: int) -> None:
    """Otherwise every label behind the first surplus folder would be another class's."""
    for name in ("a/1.jpg", "b/1.jpg"):
        write(tmp_path / name, b"x")
    with pytest.raises(InvalidInputError, match=f"2 folders of pictures, and the names of {classes} classes"):
        found(tmp_path, classes)


def test_tars_are_read_as_webdataset_groups_them(tmp_path: Path) -> None:
    """Any of open_clip's picture suffixes with a `cls`; a sample without a label or a picture has a reason."""
    first = tar_of([("a/1.jpg", b"one"), ("a/1.cls", b"2"), ("a/1.json", b"{}"), ("2.cls", b"0\n"), ("2.png", b"two")])
    odd = [("3.jpg", b"x"), ("3.txt", b"a dog"), ("4.cls", b"1"), ("5.webp", b"y"), ("5.cls", b"dog"), ("6.json", b"")]
    write(tmp_path / "0.tar", first)
    write(tmp_path / "1.tar", tar_of(odd))
    assert found(tmp_path, 3) == [(2, b"one"), (0, b"two"), (-1, "no_label"), (1, "missing"), (-1, "no_label")]


@pytest.mark.parametrize("cut", [0, 700, 1024, 2000])
def test_a_damaged_tar_is_refused(tmp_path: Path, cut: int) -> None:
    """Cut at a file's end, within one, or to nothing, even where Python's tarfile would see the end."""
    content = tar_of([("1.jpg", b"x" * 400), ("1.cls", b"0"), ("2.jpg", b"y" * 400), ("2.cls", b"0")])
    tar = write(tmp_path / "0.tar", content[:cut])
    with pytest.raises(InvalidInputError, match=r"0\.tar"):
        found(tar, 1)


def table(path: Path, labels: list[int | None], images: list[bytes | None], kind: pa.DataType) -> Path:
    """A Parquet table of pictures."""
    pq.write_table(pa.table({"image": pa.array(images, pa.binary()), "label": pa.array(labels, kind)}), path)
    return path


def test_tables_are_read_in_their_order(tmp_path: Path) -> None:
    """Over all files and row groups; a picture or a label that is null has a reason."""
    table(tmp_path / "a.parquet", [1, None, 0], [b"a", b"b", None], pa.int32())
    table(tmp_path / "b.parquet", [0] * 100, [bytes([i]) for i in range(100)], pa.int64())
    rows = found(tmp_path, 2)
    assert rows[:4] == [(1, b"a"), (-1, "no_label"), (0, "missing"), (0, b"\0")]
    assert rows[3:] == [(0, bytes([i])) for i in range(100)]


@pytest.mark.parametrize("label", [2, -1])
def test_a_label_without_a_name_is_refused(tmp_path: Path, label: int) -> None:
    """In a table and in a tar, with the place."""
    table(tmp_path / "a.parquet", [0, label], [b"a", b"b"], pa.int64())
    with pytest.raises(InvalidInputError, match=rf"class {label}, and the names of 2 classes, 0 to 1 .*row 1"):
        found(tmp_path / "a.parquet", 2)


def test_a_tar_with_a_label_too_high_is_refused(tmp_path: Path) -> None:
    """999 with ten names is another list of names."""
    tar = write(tmp_path / "0.tar", tar_of([("1.jpg", b"x"), ("1.cls", b"999")]))
    with pytest.raises(InvalidInputError, match="class 999, and the names of 10 classes"):
        found(tar, 10)


def test_tables_must_hold_bytes_and_numbers(tmp_path: Path) -> None:
    """A label in words is refused, and so is a table without one."""
    table(tmp_path / "a.parquet", [0.5], [b"a"], pa.float64())
    with pytest.raises(InvalidInputError, match="'label' holds double, not whole numbers"):
        found(tmp_path / "a.parquet", 1)
    pq.write_table(pa.table({"image": [b"a"]}), tmp_path / "a.parquet")
    with pytest.raises(InvalidInputError, match="no column 'label'"):
        found(tmp_path / "a.parquet", 1)
    write(tmp_path / "a.parquet", b"PAR1")
    with pytest.raises(InvalidInputError, match="not a readable Parquet file"):
        found(tmp_path / "a.parquet", 1)


def test_kinds_are_not_mixed(tmp_path: Path) -> None:
    """A folder of tars in which a folder of pictures lies is refused, and so is nothing at all."""
    write(tmp_path / "0.tar", tar_of([("1.jpg", b"x"), ("1.cls", b"0")]))
    write(tmp_path / "cats/1.jpg", b"x")
    with pytest.raises(InvalidInputError, match="folders of classes"):
        found(tmp_path, 1)
    with pytest.raises(InvalidInputError, match="no pictures"):
        labelled_pictures([], 1)
