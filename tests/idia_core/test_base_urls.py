"""URLs of base pairs, wherever they are told."""

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from idia_core.base_inputs import ListColumns, base_splits
from idia_core.base_urls import urls_of
from idia_core.errors import InvalidInputError
from tests.shard_folders import tar_of, write


def found(path: Path) -> list[dict[str, str] | None]:
    """What is told of each split of a file."""
    return [urls_of(split) for split in base_splits([UPath(path)], ListColumns())]


def pair(key: str, url: Any = None, suffix: str = "json") -> list[tuple[str, bytes]]:
    """The files of a pair; its JSON has a URL if one is given."""
    about = json.dumps({"key": key} | ({} if url is None else {"url": url})).encode()
    return [(f"{key}.jpg", b"picture"), (f"{key}.{suffix}", about), (f"{key}.txt", b"caption")]


@pytest.mark.parametrize("column", ["url", "URL", "image_url"])
def test_a_table_may_have_a_column_of_them(tmp_path: Path, column: str) -> None:
    """Under any of the usual names; those without one are left out."""
    rows = {"key": ["a", "b", "c"], "caption": ["x"] * 3, "image": [b""] * 3, column: ["http://a", None, ""]}
    pq.write_table(pa.table(rows), tmp_path / "t.parquet")
    assert found(tmp_path / "t.parquet") == [{"a": "http://a"}]
    pq.write_table(pa.table(rows).drop_columns(column), tmp_path / "t.parquet")
    assert found(tmp_path / "t.parquet") == [None]


def test_of_a_large_table_each_split_has_its_own(tmp_path: Path) -> None:
    """Those of its rows, across row groups."""
    keys = [f"k{row}" for row in range(2600)]
    rows = {"key": keys, "caption": keys, "image": [b""] * 2600, "url": [f"http://{key}" for key in keys]}
    pq.write_table(pa.table(rows), tmp_path / "t.parquet", row_group_size=700)
    splits = found(tmp_path / "t.parquet")
    assert len(splits) > 1
    told = [(key, url) for split in splits for key, url in (split or {}).items()]
    assert told == [(key, f"http://{key}") for key in keys]


def test_beside_a_tar_img2dataset_leaves_them(tmp_path: Path) -> None:
    """In a Parquet file, which is believed before what is in the tar."""
    write(tmp_path / "00000.tar", tar_of(pair("a", "http://json") + pair("b")))
    listed = {"key": ["a", "b"], "url": ["http://a", "http://b"], "status": ["success", "failed_to_download"]}
    pq.write_table(pa.table(listed), tmp_path / "00000.parquet")
    assert found(tmp_path / "00000.tar") == [{"a": "http://a", "b": "http://b"}]
    (tmp_path / "00000.parquet").write_bytes(b"no Parquet")
    assert found(tmp_path / "00000.tar") == [{"a": "http://json"}]


def test_in_a_tar_they_are_in_json(tmp_path: Path) -> None:
    """By the key of the pair, as WebDataset reads it; JSON that is none, or tells no URL, is passed over."""
    files = [*pair("./x/a", "http://a"), *pair("b", 7), *pair("c", "http://c")]
    files += [("d.json", b"{"), ("e.json", b"[1]"), ("f.json", b"\xff")]
    write(tmp_path / "0.tar", tar_of(files))
    assert found(tmp_path / "0.tar") == [{"x/a": "http://a", "c": "http://c"}]
    write(tmp_path / "0.tar", tar_of(files)[:-3000])
    assert found(tmp_path / "0.tar") == [{"x/a": "http://a", "c": "http://c"}]


def test_a_tar_whose_first_pair_tells_none_has_none(tmp_path: Path) -> None:
    """It is not read to its end for nothing."""
    write(tmp_path / "0.tar", tar_of(pair("a", suffix="meta") + pair("b", "http://b")))
    assert found(tmp_path / "0.tar") == [None]
    write(tmp_path / "1.tar", b"")
    assert urls_of({"kind": "tars", "url": str(tmp_path / "1.tar")}) is None


def test_a_list_has_none() -> None:
    """Its pictures are files."""
    assert urls_of({"kind": "lists", "url": "x/Train.tsv"}) is None


def test_a_damaged_table_is_told(tmp_path: Path) -> None:
    """As a file that cannot be read."""
    (tmp_path / "t.parquet").write_bytes(io.BytesIO(b"no Parquet").getvalue())
    with pytest.raises(InvalidInputError, match="not a readable Parquet file"):
        urls_of({"kind": "tables", "url": str(tmp_path / "t.parquet"), "start": 0, "stop": 1})
