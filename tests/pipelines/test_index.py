"""`index`: shards that hold every embedding with its metadata, the same bytes in whatever order they are built."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from idia_core.errors import InvalidInputError, MissingInputError
from idia_core.index import ShardedIndex
from idia_core.storage import find_files
from pipelines.index import INDEX, STAGE, IndexConfig
from pipelines.stage import ResolvedInput, SplitWriter, StageContext

DIMENSIONS, SIZES = 16, (700, 1, 0, 900, 399)
ROWS = sum(SIZES)
CODES = {"factory": "IVF8_HNSW8,PQ4x4", "train_on": 640}


def embeddings(part: int) -> np.ndarray:
    """A part's rows of length 1, float16."""
    rows_ND = np.random.default_rng(part).standard_normal((SIZES[part], DIMENSIONS))
    return (rows_ND / np.linalg.norm(rows_ND, axis=1, keepdims=True)).astype(np.float16)


@pytest.fixture
def embed(tmp_path: Path) -> Path:
    """What the stage `embed` writes, of five parts; one is empty, and the numbers do not sort as text."""
    for part, rows in enumerate(SIZES):
        for folder in ("img_emb", "metadata"):
            (tmp_path / "embed" / folder).mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / f"embed/img_emb/img_emb_{part + 8}.npy", embeddings(part))
        columns = {"image_path": [f"{part}-{row}" for row in range(rows)], "row": np.arange(rows)}
        schema = pa.schema([("image_path", pa.string()), ("row", pa.int64())])
        pq.write_table(pa.table(columns, schema), tmp_path / f"embed/metadata/metadata_{part + 8}.parquet")
    return tmp_path / "embed"


def given(folder: Path, pattern: str) -> ResolvedInput:
    """An input as the driver finds it."""
    return ResolvedInput(str(folder), UPath(folder), tuple(find_files(str(folder), [pattern], "test")), "")


def context_of(embed: Path, out: Path, **fields: Any) -> StageContext:
    """The stage's context."""
    inputs = {"embeddings": given(embed / "img_emb", "*.npy"), "metadata": given(embed / "metadata", "*.parquet")}
    return StageContext("index", IndexConfig(**{"seed": 3, "rows_per_shard": 512} | fields), inputs, UPath(out))


def build(
    embed: Path, out: Path, order: Callable[[Any], Any] = list, threads: int = 2, **fields: Any
) -> dict[str, str]:
    """Run the stage's phases without Ray, a fresh worker for each split; the SHA-256 of every file by its path."""
    context = context_of(embed, out, **fields)
    faiss.omp_set_num_threads(threads)
    for phase in STAGE.phases:
        for part, split in order(list(enumerate(phase.plan(context)))):
            phase.worker(context)(split, SplitWriter(context.folder, phase.name, part, lambda *_: None))
    files = sorted(path for path in out.rglob("*") if path.is_file())
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("fields", [{}, CODES])
def test_every_embedding_is_found_with_its_metadata(embed: Path, tmp_path: Path, fields: dict[str, Any]) -> None:
    """Each row's nearest neighbour is itself, or as near by its code, in the order of the parts' numbers."""
    build(embed, tmp_path / "index", **fields)
    index = ShardedIndex.open(UPath(tmp_path / "index"), probes=8)
    everything = np.concatenate([embeddings(part) for part in range(len(SIZES))]).astype(np.float32)
    assert [shard.rows for shard in index.shards] == [512, 512, 512, ROWS - 3 * 512]
    similarities, ids = index.search(everything, 3)
    if not fields:
        assert (ids[:, 0] == np.arange(ROWS)).all()
        assert np.allclose(similarities[:, 0], (everything**2).sum(axis=1), rtol=1e-6)
    else:
        assert (ids[:, 0] == np.arange(ROWS)).mean() > 0.5  # 16 bits for each
    names = [f"{part}-{row}" for part, rows in enumerate(SIZES) for row in range(rows)]
    assert index.metadata(np.arange(ROWS), ["image_path"])["image_path"].to_pylist() == names


@pytest.mark.parametrize("fields", [{}, CODES])
def test_the_bytes_are_the_same_however_it_is_built(embed: Path, tmp_path: Path, fields: dict[str, Any]) -> None:
    """In another order of the splits, and with another number of threads."""
    files = build(embed, tmp_path / "index", **fields)
    assert build(embed, tmp_path / "again", order=lambda splits: splits[::-1], threads=1, **fields) == files
    assert len(files) == 1 + 4 * 3  # what is trained; of a shard: index, metadata, row


@pytest.mark.parametrize("fields", [{}, CODES])
def test_shards_answer_as_one_shard(embed: Path, tmp_path: Path, fields: dict[str, Any]) -> None:
    """The same rows and bits as a build with one shard of all rows."""
    build(embed, tmp_path / "many", **fields)
    build(embed, tmp_path / "one", rows_per_shard=ROWS, **fields)
    many, one = (ShardedIndex.open(UPath(tmp_path / out)) for out in ("many", "one"))
    assert (len(many.shards), len(one.shards)) == (4, 1)
    queries_BD = embeddings(0)[:100].astype(np.float32)
    for found, expected in zip(many.search(queries_BD, 50), one.search(queries_BD, 50), strict=True):
        assert (found == expected).all()


def test_another_seed_trains_on_other_rows(embed: Path, tmp_path: Path) -> None:
    """So that the seed is what the training depends on."""
    files = [build(embed, tmp_path / f"{seed}", seed=seed, **CODES)["trained/empty.index"] for seed in (3, 4)]
    assert files[0] != files[1]


def test_the_table_tells_what_a_shard_is(embed: Path, tmp_path: Path) -> None:
    """Its rows, its place, the size and hash of its file, the kind of index."""
    files = build(embed, tmp_path / "index", **CODES)
    table = pl.read_parquet(tmp_path / "index/index/*.parquet").sort("shard")
    assert table.columns == INDEX.names
    assert table["first_row"].to_list() == [0, 512, 1024, 1536]
    assert table["rows"].sum() == ROWS
    assert table["sha256"].to_list() == [files[f"shards/{shard:05d}/image.index"] for shard in range(4)]
    sizes = [(tmp_path / f"index/shards/{shard:05d}/image.index").stat().st_size for shard in range(4)]
    assert table["bytes"].to_list() == sizes
    assert table["factory"].unique().to_list() == [CODES["factory"]]


def test_probes_are_written_into_the_files(embed: Path, tmp_path: Path) -> None:
    """So that any program that opens them, such as clip-retrieval, looks into as many lists."""
    build(embed, tmp_path / "index", probes=5, **CODES)
    index = faiss.read_index(str(tmp_path / "index/shards/00003/image.index"))
    assert faiss.extract_index_ivf(index).nprobe == 5


def test_the_preview_tells_what_would_be_built(embed: Path, tmp_path: Path) -> None:
    """From the headers alone."""
    assert STAGE.preview
    row = STAGE.preview(context_of(embed, tmp_path, exact_below=1)).rows[0]
    assert (row["rows"], row["factory"], row["shards"], row["trained on"]) == (ROWS, "IVF128,PQ8x8", 4, ROWS)


def save(file: Path, array: np.ndarray) -> None:
    """Write an array in place of another."""
    np.save(file, array)


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda file: file.write_bytes(b"no array"), "no readable npy file"),
        (lambda file: file.write_bytes(file.read_bytes()[:-2]), "ends before its 900 rows of 16"),
        (lambda file: save(file, np.zeros((900, 8), np.float16)), "8 dimensions, and 16 in"),
        (lambda file: save(file, np.zeros(900, np.float16)), r"an array of float16 with shape \(900,\)"),
        (lambda file: save(file, np.zeros((900, DIMENSIONS), np.int64)), "an array of int64"),
        (lambda file: save(file, np.zeros((899, DIMENSIONS), np.float16)), "900 rows of metadata, and 899 embeddings"),
        (lambda file: save(file, np.full((900, DIMENSIONS), np.nan, np.float16)), "row 0 holds a number that is not"),
        (lambda file: file.rename(file.with_name("img_emb_77.npy")), "no metadata of number 77"),
        (lambda file: file.rename(file.with_name("pictures.npy")), "no number in its name"),
        (lambda file: file.rename(file.with_name("other_8.npy")), "the number 8 is there twice"),
    ],
)
def test_embeddings_that_do_not_fit_are_told(
    embed: Path, tmp_path: Path, spoil: Callable[[Path], object], complaint: str
) -> None:
    """Each wrong file is named, with what is wrong."""
    spoil(embed / "img_emb/img_emb_11.npy")
    with pytest.raises(InvalidInputError, match=complaint):
        build(embed, tmp_path / "index")


def test_metadata_that_do_not_fit_are_told(embed: Path, tmp_path: Path) -> None:
    """Files with other columns, and one that is no Parquet."""
    file = embed / "metadata/metadata_9.parquet"
    pq.write_table(pa.table({"url": ["x"]}), file)
    with pytest.raises(InvalidInputError, match="files of metadata differ"):
        build(embed, tmp_path / "index")
    file.write_bytes(b"no Parquet")
    with pytest.raises(InvalidInputError, match="not a readable Parquet file"):
        build(embed, tmp_path / "again")


def test_no_embeddings_are_told(embed: Path, tmp_path: Path) -> None:
    """A folder without any, files without rows, and too few rows for the index that is asked for."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingInputError, match="no file matches"):
        given(tmp_path / "empty", "*.npy")
    with pytest.raises(InvalidInputError, match="rows are too few to train on"):
        build(embed, tmp_path / "index", factory="IVF4096,Flat")
    for part in range(len(SIZES)):
        np.save(embed / f"img_emb/img_emb_{part + 8}.npy", np.zeros((0, DIMENSIONS), np.float16))
    with pytest.raises(InvalidInputError, match="there are no embeddings"):
        build(embed, tmp_path / "index")
