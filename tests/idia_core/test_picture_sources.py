"""Reading people's encoded pictures from files, tars and Parquet."""

import io
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from idia_core import picture_sources
from idia_core.errors import InvalidInputError
from idia_core.images import PictureStatus
from idia_core.picture_sources import read_pictures

MISSING = PictureStatus.MISSING


def tar_of(members: dict[str, bytes]) -> bytes:
    """A tar with those members."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.mark.parametrize("scheme", ["local", "memory"])
def test_files_are_read_and_missing_ones_are_said(scheme: str, tmp_path: Path) -> None:
    """A file's bytes; none for one that is not there, is a folder, has no place, or a name that no file can have."""
    root = UPath(tmp_path) if scheme == "local" else UPath("memory://picture-sources")
    (root / "folder").mkdir(parents=True, exist_ok=True)
    (root / "a.jpg").write_bytes(b"abc")
    (root / "empty.jpg").write_bytes(b"")
    names = ["a.jpg", "empty.jpg", "gone.jpg", "folder", "a.jpg/x"] + ["z\0.jpg"] * (scheme == "local")
    sources = [{"picture": name, "url": f"{root}/{name}"} for name in names]
    read = read_pictures([[*sources, {"picture": "nowhere"}], []])
    contents = [b"abc", b"", MISSING, MISSING, MISSING] + [MISSING] * (scheme == "local")
    assert read.pictures == [[*zip(names, contents, strict=True), ("nowhere", MISSING)], []]


def test_pictures_of_one_name_are_told_apart(tmp_path: Path) -> None:
    """A name is a key within a person, so a repeated one gets a number; another person may have it too."""
    (tmp_path / "a").write_bytes(b"x")
    source = {"picture": "a", "url": str(tmp_path / "a")}
    first, second = read_pictures([[source, source, {"picture": "a (2)"}, source], [source]]).pictures
    assert [name for name, _ in first] == ["a", "a (2)", "a (2) (2)", "a (3)"]
    assert second == [("a", b"x")]


def test_members_of_tars(tmp_path: Path) -> None:
    """Members are found by their full name; those that are missing, and all of a missing tar, are said."""
    (tmp_path / "0.tar").write_bytes(tar_of({"a/0.jpg": b"one", "b/0.jpg": b"two", "c": b"three"}))
    UPath("memory://picture-sources/1.tar").write_bytes(tar_of({"a/0.jpg": b"four"}))
    wanted = [("0.tar", "b/0.jpg"), ("0.tar", "a/0.jpg"), ("0.tar", "0.jpg"), ("no.tar", "c")]
    sources = [{"picture": member, "tar": str(tmp_path / tar), "member": member} for tar, member in wanted]
    remote = {"picture": "r", "tar": "memory://picture-sources/1.tar", "member": "a/0.jpg"}
    read = read_pictures([sources, [remote]])
    assert [content for _, content in read.pictures[0]] == [b"two", b"one", MISSING, MISSING]
    assert read.pictures[1] == [("r", b"four")]
    assert read.damaged == ()


def test_a_tar_that_is_cut_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    """Members before the cut are there, the others missing, and the tar is named; what is no tar is an error."""
    tar = tmp_path / "cut.tar"
    tar.write_bytes(tar_of({"a": b"x" * 1000, "b": b"y" * 1000})[:2500])
    sources = [{"picture": name, "tar": str(tar), "member": name} for name in "ab"]
    read = read_pictures([sources])
    assert read.pictures == [[("a", b"x" * 1000), ("b", MISSING)]]
    assert read.damaged == (f"{tar}: unexpected end of data",)
    tar.write_bytes(b"<html>" * 200)
    with pytest.raises(InvalidInputError, match=r"not a tar: .*cut\.tar\)\. Give a tar that is not compressed"):
        read_pictures([sources])


def test_rows_of_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of rows over several row groups and batches give exactly those rows' pictures; a null is missing."""
    monkeypatch.setattr(picture_sources, "BATCH_ROWS", 3)
    contents = [b"%d" % row if row != 8 else None for row in range(40)]
    file = tmp_path / "t.parquet"
    pq.write_table(pa.table({"name": ["x"] * 40, "image": contents}), file, row_group_size=10)
    runs = [[(0, 1), (7, 13)], [(38, 40)]]
    read = read_pictures([[{"parquet": str(file), "start": a, "stop": b} for a, b in person] for person in runs])
    assert read.pictures == [
        [(f"t.parquet:{row}", contents[row] or MISSING) for row in (0, *range(7, 13))],
        [("t.parquet:38", b"38"), ("t.parquet:39", b"39")],
    ]


def test_only_row_groups_that_hold_a_wanted_row_are_read(tmp_path: Path) -> None:
    """Damage in another row group does no harm."""
    file = tmp_path / "t.parquet"
    images = [bytes([row]) * 500 for row in range(4)]
    pq.write_table(pa.table({"image": images}), file, row_group_size=2, compression="none", use_dictionary=False)
    content = bytearray(file.read_bytes())
    begin = pq.ParquetFile(file).metadata.row_group(1).column(0).data_page_offset
    content[begin : begin + 200] = b"\xff" * 200
    file.write_bytes(content)
    read = read_pictures([[{"parquet": str(file), "start": 0, "stop": 2}]])
    assert [content for _, content in read.pictures[0]] == images[:2]


def test_files_that_are_too_large_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is larger than any picture is refused by its size, wherever it lies; exactly as large is fine."""
    monkeypatch.setattr(picture_sources, "MAX_BYTES", 3)
    for name, content in (("small", b"xxx"), ("large", b"xxxx")):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "t.tar").write_bytes(tar_of({"small": b"xxx", "large": b"xxxx"}))
    pq.write_table(pa.table({"image": [b"xxx", b"xxxx"]}), tmp_path / "t.parquet")
    files = [{"picture": name, "url": str(tmp_path / name)} for name in ("small", "large")]
    members = [{"picture": name, "tar": str(tmp_path / "t.tar"), "member": name} for name in ("small", "large")]
    rows = [{"parquet": str(tmp_path / "t.parquet"), "start": 0, "stop": 2}]
    for person in read_pictures([files, members, rows]).pictures:
        assert [content for _, content in person] == [b"xxx", PictureStatus.TOO_LARGE]
