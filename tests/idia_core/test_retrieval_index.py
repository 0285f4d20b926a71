"""Retrieval from index shards in steps gives what one search over one index gives."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from idia_core import retrieval_index
from idia_core.caption_names import CaptionNames, Named
from idia_core.errors import InvalidInputError, MissingInputError
from idia_core.index import ShardedIndex
from idia_core.retrieval import Query
from idia_core.retrieval_index import (
    NAMED,
    NEIGHBOUR,
    ROW_BITS,
    SearchedIndex,
    index_folders,
    merge,
    open_shards,
    read_named,
    rows_by_shard,
    search,
)
from idia_core.storage import find_files

ROWS, DIMENSIONS, K = 500, 16, 40
CUTS = (0, 100, 101, 350, ROWS)
NAMES = CaptionNames([Named("ann", "Ann Lee"), Named("bob", "Bob Ray")])


def unit(rows: int, seed: int) -> np.ndarray:
    """Rows of length 1."""
    rows_ND = np.random.default_rng(seed).standard_normal((rows, DIMENSIONS), dtype=np.float32)
    return rows_ND / np.linalg.norm(rows_ND, axis=1, keepdims=True)


def caption(row: int) -> str | None:
    """Every fifth names Ann, every seventh Bob, every eleventh is missing."""
    if row % 11 == 0:
        return None
    return f"{'Ann Lee' if row % 5 == 0 else 'BOB RAY' if row % 7 == 0 else 'nobody'} {row}"


def write_shards(folder: Path, cuts: Sequence[int] = CUTS) -> list[UPath]:
    """The rows in shards between the cuts; 20 rows are equal to others."""
    rows_ND = unit(ROWS, 0)
    rows_ND[300:320] = rows_ND[80:100]
    for number, (begin, end) in enumerate(pairwise(cuts)):
        shard = folder / f"{number:05d}"
        (shard / "metadata").mkdir(parents=True)
        index = faiss.IndexFlatIP(DIMENSIONS)
        index.add(rows_ND[begin:end])
        faiss.write_index(index, str(shard / "image.index"))
        rows = range(begin, end)
        texts = {"url": [f"http://x/{row}" for row in rows], "caption": [caption(row) for row in rows]}
        pq.write_table(pa.table(texts), shard / "metadata/0.parquet", row_group_size=32)
    return index_folders(find_files(str(folder), retrieval_index.PATTERNS, "test"), UPath(folder))


@pytest.mark.parametrize("groups", [[[0], [1], [2], [3]], [[0, 1, 2, 3]], [[0, 1], [2, 3]]])
def test_steps_over_shards_answer_as_one_index(
    tmp_path: Path, groups: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Search, merge and read in any groups of shards: the rows, similarities and captions of a whole index."""
    monkeypatch.setattr(retrieval_index, "QUERIES_AT_ONCE", 7)
    folders = write_shards(tmp_path / "parts")
    write_shards(tmp_path / "one", (0, ROWS))
    queries_BD = np.concatenate([unit(20, 1), unit(ROWS, 0)[85:90]])
    similarities, rows = ShardedIndex.open(UPath(tmp_path / "one")).search(queries_BD, K)
    opened = [open_shards({place: folders[place] for place in group}, tmp_path) for group in groups]
    neighbours = merge(search(index, queries_BD, K) for index in opened)
    firsts = np.array(CUTS[:-1])
    assert (neighbours["similarity"] == similarities).all()
    numbered = firsts[neighbours["row"] >> ROW_BITS] + (neighbours["row"] & ((1 << ROW_BITS) - 1))
    assert (numbered == rows).all()
    named, counts = [NAMED.empty_table()], Counter[str]()
    for group in groups:
        for place, mine in rows_by_shard([neighbours[:10], neighbours[10:]], group).items():
            named += read_named(folders[place], place, mine, NAMES, counts)
    backend = SearchedIndex(neighbours, pa.concat_tables(named))
    assert counts["null_caption"] == sum(row % 11 == 0 for row in set(rows.ravel().tolist()))
    for b in range(len(queries_BD)):
        answer = backend.answer(Query("ann", "0.jpg", b))
        assert answer["row"].to_pylist() == neighbours["row"][b].tolist()
        assert answer["similarity"].to_pylist() == similarities[b].astype(float).tolist()
        told = [caption(row) if row % 11 and (row % 5 == 0 or row % 7 == 0) else None for row in rows[b].tolist()]
        assert answer["caption"].to_pylist() == told
        urls = [f"http://x/{row}" if text else None for row, text in zip(rows[b].tolist(), told, strict=True)]
        assert answer["url"].to_pylist() == urls


def test_fewer_rows_than_neighbours(tmp_path: Path) -> None:
    """The answer has as many as there are; with no caption that names anybody too."""
    folders = write_shards(tmp_path, (1, 3, 5))
    found = merge(search(open_shards({place: folders[place]}, tmp_path), unit(2, 1), 6) for place in (0, 1))
    assert (found["row"][:, 4:] == -1).all()
    answer = SearchedIndex(found, NAMED.empty_table()).answer(Query("ann", "0.jpg", 1))
    assert sorted(answer["row"].to_pylist()) == [0, 1, 1 << ROW_BITS, (1 << ROW_BITS) + 1]
    assert answer["caption"].null_count == 4
    assert search(open_shards({0: folders[0]}, tmp_path), np.empty((0, DIMENSIONS), np.float32), 6).shape == (0, 6)
    assert rows_by_shard([], [0, 1])[1].tolist() == []


def test_folders_of_an_index(tmp_path: Path) -> None:
    """A folder of shards, what the stage `index` wrote, one index folder, in the order of the names; and none."""
    names = [f"{n:05d}" for n in range(4)]
    assert [folder.name for folder in write_shards(tmp_path / "out/shards")] == names
    for root, expected in ((tmp_path / "out", names), (tmp_path / "out/shards/00002", ["00002"])):
        files = find_files(str(root), retrieval_index.PATTERNS, "test")
        assert [folder.name for folder in index_folders(files, UPath(root))] == expected
    with pytest.raises(MissingInputError, match=r"no image.index"):
        index_folders([UPath(tmp_path / "other/metadata/0.parquet")], UPath(tmp_path))


def test_metadata_of_another_length(tmp_path: Path) -> None:
    """Is an error before anything is searched."""
    folders = write_shards(tmp_path, (0, 30, 50))
    (folders[1] / "metadata/1.parquet").write_bytes((folders[1] / "metadata/0.parquet").read_bytes())
    open_shards({0: folders[0]}, tmp_path)
    with pytest.raises(InvalidInputError, match="40 rows of metadata, and 20 in the index"):
        open_shards(dict(enumerate(folders)), tmp_path)


def test_merging_keeps_the_nearest() -> None:
    """Of equals the lower row; a row that was not found is beyond all others."""
    one = np.array([[(0.9, 5), (0.5, 6), (-np.inf, -1)]], NEIGHBOUR)
    two = np.array([[(0.9, 3), (0.7, 9), (0.5, 2)]], NEIGHBOUR)
    assert merge([one, two])["row"].tolist() == merge([two, one])["row"].tolist() == [[3, 5, 9]]
