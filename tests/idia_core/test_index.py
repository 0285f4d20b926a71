"""Index shards answer as one index, whatever kind they are and however the rows are cut."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from idia_core.errors import InvalidInputError, MissingInputError, UsageError
from idia_core.index import ShardedIndex
from idia_core.index_building import (
    choose_index,
    lists_for,
    new_index,
    probes_for,
    set_probes,
    train_index,
    training_rows,
)

ROWS, DIMENSIONS = 3000, 16
KINDS = ("Flat", "IVF8,PQ4x4", "IVF8_HNSW8,PQ4x4")


def unit(rows: int, seed: int) -> np.ndarray:
    """Rows of length 1, float16 as embeddings are stored, in float32."""
    rows_ND = np.random.default_rng(seed).standard_normal((rows, DIMENSIONS), dtype=np.float32)
    return (rows_ND / np.linalg.norm(rows_ND, axis=1, keepdims=True)).astype(np.float16).astype(np.float32)


def trained(kind: str, sample_ND: np.ndarray) -> Any:
    """An empty index of that kind that looks into three lists."""
    index = new_index(kind, DIMENSIONS)
    train_index(index, sample_ND, probes=3)
    return index


def write_shards(folder: Path, kind: str, rows_ND: np.ndarray, cuts: Sequence[int]) -> ShardedIndex:
    """Shards of the rows between the cuts, opened; the metadata are in two files each, of many row groups."""
    empty = faiss.serialize_index(trained(kind, rows_ND))
    for number, (begin, end) in enumerate(zip([0, *cuts], [*cuts, len(rows_ND)], strict=True)):
        index = faiss.deserialize_index(empty)
        index.add(rows_ND[begin:end])
        write_shard(folder / f"{number:05d}", index, begin)
    return ShardedIndex.open(UPath(folder))


def write_shard(folder: Path, index: Any, first: int) -> None:
    """An index folder as clip-retrieval has it."""
    (folder / "metadata").mkdir(parents=True)
    faiss.write_index(index, str(folder / "image.index"))
    names = np.arange(first, first + index.ntotal)
    for part, some in enumerate((names[: len(names) // 3], names[len(names) // 3 :])):
        table = pa.table({"caption": [f"caption {name}" for name in some], "row": some, "wide": some})
        pq.write_table(table, folder / f"metadata/metadata_{part}.parquet", row_group_size=64)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("queries", [3, 40])
def test_shards_answer_as_one_index(tmp_path: Path, kind: str, queries: int) -> None:
    """The same rows and the same bits of the similarities, for few and for many queries, as faiss on one index."""
    rows_ND, queries_BD = unit(ROWS, 0), unit(queries, 1)
    whole = write_shards(tmp_path / "one", kind, rows_ND, [])
    parts = write_shards(tmp_path / "many", kind, rows_ND, [1, 700, 1513])
    assert (len(whole.shards), len(parts.shards), parts.rows) == (1, 4, ROWS)
    similarities, ids = parts.search(queries_BD, 20)
    one = whole.search(queries_BD, 20)
    assert (ids == one[1]).all()
    assert (similarities == one[0]).all()
    index = trained(kind, rows_ND)
    index.add(rows_ND)
    for b, (their_similarities, their_ids) in enumerate(
        index.search(queries_BD[b : b + 1], 20) for b in range(queries)
    ):
        assert (similarities[b] == their_similarities[0]).all()
        order = np.lexsort((their_ids[0], -their_similarities[0]))
        distinct = np.diff(their_similarities[0], append=-1) != 0
        if kind == "Flat":
            assert distinct.all()
            assert (ids[b] == their_ids[0][order]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_of_equals_the_lower_row_counts(tmp_path: Path, kind: str) -> None:
    """Of 60 rows that are the same, in three shards, the first are found, in their order, also where k cuts them."""
    rows_ND = unit(ROWS, 0)
    same = np.arange(30, ROWS, 50)
    rows_ND[same] = rows_ND[30]
    index = write_shards(tmp_path, kind, rows_ND, [1000, 1999])
    query_BD = np.repeat(rows_ND[30:31], 25, axis=0)
    _, ids = index.search(query_BD, 12)
    others = {int(row) for row in ids[0]} - {int(row) for row in same}
    if kind == "Flat":
        assert ids[0].tolist() == same[:12].tolist()
    similarities, everything = index.search(query_BD[:1], 400)
    best = everything[0][similarities[0] == similarities[0, 0]]
    assert set(same.tolist()) <= set(best.tolist())
    assert (np.diff(best) > 0).all()
    assert ids[0].tolist() == best[:12].tolist()
    assert others <= set(best.tolist())


def test_fewer_rows_than_asked_for(tmp_path: Path) -> None:
    """The rest is row -1 with a similarity of minus infinity."""
    index = write_shards(tmp_path, "Flat", unit(5, 0), [2])
    similarities, ids = index.search(unit(2, 1), 7)
    assert (ids[:, 5:] == -1).all()
    assert np.isneginf(similarities[:, 5:]).all()
    assert sorted(ids[0, :5].tolist()) == [0, 1, 2, 3, 4]
    assert index.search(np.empty((0, DIMENSIONS), np.float32), 3)[1].shape == (0, 3)


def test_probes_are_a_setting_of_the_search(tmp_path: Path) -> None:
    """With all lists looked into, the answer is that of the exact index of the same codes; with one it is not."""
    rows_ND, queries_BD = unit(ROWS, 0), unit(30, 1)
    write_shards(tmp_path, "IVF8,Flat", rows_ND, [1000])
    exact = np.argsort(-(queries_BD @ rows_ND.T), axis=1)[:, :5]
    hits = [
        (ShardedIndex.open(UPath(tmp_path), probes=probes, threads=1).search(queries_BD, 5)[1] == exact).mean()
        for probes in (1, 8, 100)
    ]
    assert hits[0] < 0.9
    assert hits[1:] == [1, 1]


def test_exact_indices_are_mapped_and_not_read(tmp_path: Path) -> None:
    """Opening one of 64 MB takes less than 16 MB of this process's own memory."""
    index = new_index("Flat", DIMENSIONS)
    index.add(np.zeros((1 << 20, DIMENSIONS), np.float32))
    write_shard(tmp_path, index, 0)
    del index

    def own_megabytes() -> float:
        return int(Path("/proc/self/status").read_text().partition("RssAnon:")[2].split()[0]) / 1024

    before = own_megabytes()
    opened = ShardedIndex.open(UPath(tmp_path))
    assert opened.rows == 1 << 20
    assert own_megabytes() - before < 16


def test_metadata_come_in_the_order_of_the_rows(tmp_path: Path) -> None:
    """Over shards, files and row groups, and a row as often as it is asked for."""
    index = write_shards(tmp_path, "Flat", unit(1000, 0), [130, 131, 600])
    ids = [999, 0, 130, 131, 129, 130, 600, 599, 64]
    table = index.metadata(ids, ["row", "caption"])
    assert table["row"].to_pylist() == ids
    assert table["caption"].to_pylist() == [f"caption {row}" for row in ids]
    assert table.column_names == ["row", "caption"]
    assert index.metadata([], ["row"]).num_rows == 0
    with pytest.raises(InvalidInputError, match="no row -1"):
        index.metadata([3, -1], ["row"])
    with pytest.raises(InvalidInputError, match="no row 1000"):
        index.metadata([1000], ["row"])
    with pytest.raises(InvalidInputError, match="no column 'url'"):
        index.metadata([3], ["url"])


def test_metadata_read_only_the_row_groups_that_are_needed(tmp_path: Path) -> None:
    """A row of the third group is read though all other pages of the file are destroyed."""
    write_shards(tmp_path, "Flat", unit(1000, 0), [])
    file = tmp_path / "00000/metadata/metadata_0.parquet"
    parquet = pq.ParquetFile(file)
    columns = [parquet.metadata.row_group(2).column(at) for at in range(3)]
    begin = min(column.dictionary_page_offset or column.data_page_offset for column in columns)
    end = begin + sum(column.total_compressed_size for column in columns)
    content = bytearray(file.read_bytes())
    last = parquet.metadata.row_group(parquet.num_row_groups - 1).column(2)
    content[4:begin] = bytes(begin - 4)
    after = last.data_page_offset
    content[end:after] = bytes(after - end)
    file.write_bytes(content)
    index = ShardedIndex.open(UPath(tmp_path))
    assert index.metadata([140, 130], ["caption"])["caption"].to_pylist() == ["caption 140", "caption 130"]
    with pytest.raises((InvalidInputError, OSError)):
        index.metadata([3], ["caption"])


def test_an_index_is_opened_from_any_of_its_folders(tmp_path: Path) -> None:
    """The stage's folder, its `shards`, and one index folder alone; a file of another name beside does not matter."""
    write_shards(tmp_path / "index/shards", "Flat", unit(50, 0), [20])
    (tmp_path / "index/index").mkdir()
    (tmp_path / "index/manifest.json").write_text("{}")
    assert ShardedIndex.open(UPath(tmp_path / "index")).rows == 50
    assert ShardedIndex.open(UPath(tmp_path / "index/shards")).rows == 50
    assert ShardedIndex.open(UPath(tmp_path / "index/shards/00001")).rows == 30


def test_an_index_at_a_url_is_fetched_once(tmp_path: Path) -> None:
    """Into the cache; one that changes there is fetched again, and without a cache the error says what to give."""
    from fsspec.implementations.memory import MemoryFileSystem  # noqa: PLC0415 - for this test alone

    write_shards(tmp_path / "here", "Flat", unit(50, 0), [])
    there = UPath("memory://idia-index")
    MemoryFileSystem().put(str(tmp_path / "here"), "/idia-index", recursive=True)
    with pytest.raises(UsageError, match="needs a local folder"):
        ShardedIndex.open(there)
    cache = tmp_path / "cache"
    index = ShardedIndex.open(there, cache)
    assert index.search(unit(50, 0)[7:8], 1)[1].tolist() == [[7]]
    assert index.metadata([7], ["row"])["row"].to_pylist() == [7]
    copies = list(cache.rglob("image.index"))
    ShardedIndex.open(there, cache)
    assert list(cache.rglob("image.index")) == copies
    write_shards(tmp_path / "other", "Flat", unit(40, 1), [])
    MemoryFileSystem().rm("/idia-index", recursive=True)
    MemoryFileSystem().put(str(tmp_path / "other"), "/idia-index", recursive=True)
    assert ShardedIndex.open(there, cache).rows == 40


def test_what_is_no_index_is_told(tmp_path: Path) -> None:
    """Nothing there, garbage, a file cut short, an empty one, another metric, other dimensions, other metadata."""
    with pytest.raises(MissingInputError, match=r"no image\.index"):
        ShardedIndex.open(UPath(tmp_path))
    write_shards(tmp_path / "good", "Flat", unit(50, 0), [20])
    file = tmp_path / "good/00001/image.index"
    whole = file.read_bytes()
    for content in (b"garbage" * 100, whole[:-100], b""):
        file.write_bytes(content)
        with pytest.raises(InvalidInputError, match="not a readable faiss index"):
            ShardedIndex.open(UPath(tmp_path / "good"))
    faiss.write_index(faiss.IndexFlatL2(DIMENSIONS), str(file))
    with pytest.raises(InvalidInputError, match="not the inner product"):
        ShardedIndex.open(UPath(tmp_path / "good"))
    faiss.write_index(faiss.IndexFlatIP(4), str(file))
    with pytest.raises(InvalidInputError, match="4 dimensions, and 16 in"):
        ShardedIndex.open(UPath(tmp_path / "good"))
    file.write_bytes(whole)
    (file.parent / "metadata/metadata_0.parquet").unlink()
    with pytest.raises(InvalidInputError, match="20 rows of metadata, and 30 in the index"):
        ShardedIndex.open(UPath(tmp_path / "good")).metadata([25], ["row"])


def test_wrong_queries_are_told(tmp_path: Path) -> None:
    """No neighbour asked for, other dimensions, a number that is not finite."""
    index = write_shards(tmp_path, "Flat", unit(50, 0), [])
    with pytest.raises(InvalidInputError, match="0 neighbours"):
        index.search(unit(2, 1), 0)
    with pytest.raises(InvalidInputError, match=r"shape \(2, 5\), and an index of 16"):
        index.search(unit(2, 1)[:, :5], 3)
    with pytest.raises(InvalidInputError, match="not finite"):
        index.search(unit(2, 1) * np.inf, 3)


def test_the_choice_of_an_index() -> None:
    """Exact for few rows, then lists as autofaiss makes them, and codes as long as the memory allows."""
    assert choose_index(3_300_000, 512) == "Flat"
    assert choose_index(9_999_999, 512) == "Flat"
    assert choose_index(10_000_000, 512) == "IVF65536_HNSW32,PQ256x8"
    assert choose_index(100_000_000, 512) == "OPQ32_192,IVF65536_HNSW32,PQ32x8"
    assert choose_index(100_000_000, 512, index_bytes=30_000_000_000) == "IVF65536_HNSW32,PQ256x8"
    assert choose_index(400_000_000, 768, index_bytes=1) == "OPQ4_24,IVF131072_HNSW32,PQ4x8"
    assert choose_index(50_000, 512, exact_below=1) == "IVF1024_HNSW32,PQ256x8"
    assert [lists_for(rows) for rows in (1, 100_000, 1_000_000, 10_000_000)] == [4, 1024, 16_384, 65_536]
    assert [probes_for(lists) for lists in (4, 512, 16_384)] == [4, 16, 256]
    assert training_rows("Flat", 10**7) == 0
    assert training_rows("IVF65536_HNSW32,PQ256x8", 10**7) == 3_276_800
    assert training_rows("IVF64,PQ8x8", 10**7) == 65_536
    assert training_rows("IVF64,PQ8x8", 500) == 500


@pytest.mark.parametrize("dimensions", [64, 100, 512, 768, 1024])
def test_faiss_can_make_every_choice(dimensions: int) -> None:
    """Also for dimensions that codes do not divide."""
    for rows in (1000, 10_000, 100_000_000):
        for memory in (1, 4_000_000_000, 10**12):
            index = new_index(choose_index(rows, dimensions, 1, memory), dimensions)
            assert index.d == dimensions
            set_probes(index, None)


def test_a_factory_that_faiss_cannot_read_is_told() -> None:
    """And training on too few rows."""
    with pytest.raises(InvalidInputError, match="makes no index of 'IVF,,3'"):
        new_index("IVF,,3", 16)
    with pytest.raises(InvalidInputError, match="5 rows are too few"):
        trained("IVF8,Flat", unit(5, 0))
