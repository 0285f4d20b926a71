"""URLs and captions of index rows, out of Parquet or Arrow."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from idia_core import index_metadata
from idia_core.errors import InvalidInputError, MissingInputError
from idia_core.index_metadata import IndexMetadata

ROWS = 100


def table(first: int, count: int, **names: str) -> pa.Table:
    """Metadata of some rows; the columns' names may be others."""
    rows = range(first, first + count)
    columns = {
        names.get("other", "other"): list(rows),
        names.get("url", "url"): [f"http://x/{row}" for row in rows],
        names.get("caption", "caption"): [f"caption {row}" for row in rows],
    }
    if "sha256" in names:
        columns["sha256"] = [f"{row:064d}" for row in rows]
    return pa.table(columns)


def write(folder: Path, kind: str, **names: str) -> IndexMetadata:
    """The rows in two files of some groups each; or, as `metadata.arrow`, in one."""
    (folder / "metadata").mkdir()
    for part, (first, count) in enumerate(((0, 60), (60, 40))):
        if kind == "parquet":
            pq.write_table(table(first, count, **names), folder / f"metadata/{part}.parquet", row_group_size=25)
        elif kind == "arrow":
            with pa.ipc.new_file(folder / f"metadata/{part}.arrow", table(0, 1, **names).schema) as file:
                file.write_table(table(first, count, **names), max_chunksize=25)
    if kind == "one arrow":
        with pa.ipc.new_file(folder / "metadata.arrow", table(0, 1, **names).schema) as file:
            file.write_table(table(0, ROWS, **names))
    return IndexMetadata(UPath(folder))


def read(metadata: IndexMetadata, rows: list[int]) -> tuple[list[int], list[dict[str, Any]]]:
    """All that is read of those rows."""
    pieces = list(metadata.read(np.array(rows, np.int64)))
    return [int(n) for numbers, _ in pieces for n in numbers], [row for _, t in pieces for row in t.to_pylist()]


@pytest.mark.parametrize("kind", ["parquet", "arrow", "one arrow"])
@pytest.mark.parametrize(
    "names", [{}, {"url": "URL", "caption": "TEXT", "sha256": ""}, {"caption": "TEXT", "other": "text"}]
)
@pytest.mark.parametrize("at_once", [7, 1000])
def test_rows_are_found(
    tmp_path: Path, kind: str, names: dict[str, str], at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By their numbers, over all files, groups and pieces, whatever the columns are called."""
    monkeypatch.setattr(index_metadata, "ROWS_AT_ONCE", at_once)
    metadata = write(tmp_path, kind, **names)
    assert metadata.rows == ROWS
    for rows in ([0], [99], [59, 60], [3, 24, 25, 50, 61, 84, 99], list(range(ROWS)), []):
        numbers, found = read(metadata, rows)
        assert numbers == rows
        hashes = [f"{row:064d}" if "sha256" in names else None for row in rows]
        expected = zip(rows, hashes, strict=True)
        assert found == [{"url": f"http://x/{row}", "caption": f"caption {row}", "sha256": h} for row, h in expected]


def test_only_what_is_wanted_is_read(tmp_path: Path) -> None:
    """A damaged group of rows is no matter to those who want none of them, and named to others."""
    write(tmp_path, "parquet")
    file = tmp_path / "metadata/0.parquet"
    column = pq.ParquetFile(file).metadata.row_group(1).column(2)
    content = bytearray(file.read_bytes())
    begin = column.dictionary_page_offset
    content[begin : begin + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    file.write_bytes(content)
    metadata = IndexMetadata(UPath(tmp_path))
    assert read(metadata, [3, 55, 70])[0] == [3, 55, 70]
    with pytest.raises(InvalidInputError, match=r"not a readable Parquet file: .*0\.parquet"):
        read(metadata, [3, 26])


def test_texts_that_are_not_utf8(tmp_path: Path) -> None:
    """A URL gets a mark where it is not; a caption is left as it is, for those who count such."""
    (tmp_path / "metadata").mkdir()
    broken = pa.array([b"\xffa", b"b", None], pa.binary())
    pq.write_table(pa.table({"url": broken, "caption": broken}), tmp_path / "metadata/0.parquet")
    ((_, texts),) = IndexMetadata(UPath(tmp_path)).read(np.arange(3))
    assert texts["url"].to_pylist() == ["\ufffda", "b", None]
    assert texts["caption"].to_pylist() == [b"\xffa", b"b", None]


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"url": "link"}, r"no column 'URL' or 'url' or 'image_url' \(.*0\..*\)\. It has: other, link, caption"),
        ({"caption": "title"}, r"no column 'TEXT' or 'caption' or 'text' or 'CAPTION' .* It has: other, url, title"),
    ],
)
def test_a_column_that_is_not_there(tmp_path: Path, kind: str, names: dict[str, str], message: str) -> None:
    """The error says which, where, and what there is."""
    with pytest.raises(InvalidInputError, match=message):
        write(tmp_path, kind, **names)


def test_no_metadata(tmp_path: Path) -> None:
    """A folder without any, and one with HDF5, which clip-retrieval may write and nobody here reads."""
    with pytest.raises(MissingInputError, match=r"no metadata/\*.parquet, metadata/\*.arrow or metadata.arrow \("):
        IndexMetadata(UPath(tmp_path))
    (tmp_path / "metadata.hdf5").touch()
    with pytest.raises(MissingInputError, match="HDF5 is not read"):
        IndexMetadata(UPath(tmp_path))


@pytest.mark.parametrize("name", ["0.parquet", "0.arrow"])
def test_files_that_are_none(tmp_path: Path, name: str) -> None:
    """Are named."""
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata" / name).write_bytes(b"no metadata at all")
    with pytest.raises(InvalidInputError, match=rf"not a readable (Parquet|Arrow) file: .*{name}"):
        IndexMetadata(UPath(tmp_path))
