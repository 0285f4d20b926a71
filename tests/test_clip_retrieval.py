"""clip-retrieval 2.45.0 and idia read each other's indices.

It runs in an environment of its own, which is made in the cache folder with pip where it is not there yet.
"""

import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from benchmarks.index import ask, clip_retrieval_python, served
from idia_core.index import ShardedIndex
from idia_core.storage import find_files
from pipelines.index import STAGE, IndexConfig
from pipelines.stage import ResolvedInput, SplitWriter, StageContext

pytestmark = pytest.mark.slow

DIMENSIONS, PARTS, EACH, NEIGHBOURS = 32, 3, 500, 10
ROWS = PARTS * EACH


@pytest.fixture(scope="module")
def embed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the stage `embed` writes: three parts of 500 pictures."""
    folder = tmp_path_factory.mktemp("embed")
    (folder / "img_emb").mkdir()
    (folder / "metadata").mkdir()
    for part in range(PARTS):
        np.save(folder / f"img_emb/img_emb_{part:05d}.npy", rows_of(part))
        places = range(part * EACH, (part + 1) * EACH)
        columns = {"image_path": [f"{row:06d}" for row in places], "caption": [f"a picture {row}" for row in places]}
        pq.write_table(pa.table(columns), folder / f"metadata/metadata_{part:05d}.parquet")
    return folder


def rows_of(seed: int) -> np.ndarray:
    """Rows of length 1, float16."""
    rows_ND = np.random.default_rng(seed).standard_normal((EACH, DIMENSIONS))
    return (rows_ND / np.linalg.norm(rows_ND, axis=1, keepdims=True)).astype(np.float16)


def build(embed: Path, out: Path, **fields: object) -> Path:
    """The stage's output, made without Ray."""
    inputs = {}
    for name, table, pattern in (("embeddings", "img_emb", "*.npy"), ("metadata", "metadata", "*.parquet")):
        files = find_files(str(embed / table), [pattern], "test")
        inputs[name] = ResolvedInput(table, UPath(embed / table), tuple(files), "")
    context = StageContext("index", IndexConfig.model_validate({"seed": 0} | fields), inputs, UPath(out))
    for phase in STAGE.phases:
        for part, split in enumerate(phase.plan(context)):
            phase.worker(context)(split, SplitWriter(context.folder, phase.name, part, lambda *_: None))
    return out


def test_clip_retrieval_serves_our_index(embed: Path, tmp_path: Path) -> None:
    """Its service finds the same neighbours with the same metadata as we do, in an exact index and in one of codes."""
    codes = {"factory": "IVF8,PQ8x4", "probes": 3, "rows_per_shard": ROWS}
    kinds = {"exact": {"rows_per_shard": ROWS}, "codes": codes, "shard": {"rows_per_shard": 600}}
    folders = {name: build(embed, tmp_path / name, **fields) / "shards/00000" for name, fields in kinds.items()}
    queries_BD = rows_of(9)[:25].astype(np.float32)
    with served(folders) as url:
        for name, folder in folders.items():
            index = ShardedIndex.open(UPath(folder))
            similarities, ids = index.search(queries_BD, NEIGHBOURS)
            for b, query_D in enumerate(queries_BD):
                answer = ask(url, name, query_D, NEIGHBOURS)
                assert [one["similarity"] for one in answer] == pytest.approx(similarities[b].tolist(), abs=1e-6)
                assert {one["id"] for one in answer} == set(ids[b].tolist())
                captions = index.metadata([one["id"] for one in answer], ["caption"])["caption"].to_pylist()
                assert [one["caption"] for one in answer] == captions


def test_we_search_an_index_that_clip_retrieval_built(embed: Path, tmp_path: Path) -> None:
    """`clip-retrieval index` of what `embed` wrote: its neighbours are found, with their captions."""
    words = ["-m", "clip_retrieval.cli", "index", f"--embeddings_folder={embed}", f"--index_folder={tmp_path}/built"]
    done = subprocess.run([clip_retrieval_python(), *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    index = ShardedIndex.open(UPath(tmp_path / "built"))
    assert (index.rows, index.dimensions) == (ROWS, DIMENSIONS)
    everything_ND = np.concatenate([rows_of(part) for part in range(PARTS)]).astype(np.float32)
    queries_BD = rows_of(9)[:25].astype(np.float32)
    similarities, ids = index.search(queries_BD, NEIGHBOURS)
    exact = np.argsort(-(queries_BD @ everything_ND.T), axis=1)[:, :NEIGHBOURS]
    found = np.mean([len(set(mine) & set(right)) / NEIGHBOURS for mine, right in zip(ids, exact, strict=True)])
    assert found >= 0.9  # it chose a graph, which may miss some
    assert np.allclose(similarities, (queries_BD[:, None] * everything_ND[ids]).sum(axis=2), atol=1e-5)
    captions = index.metadata(ids[0], ["caption"])["caption"].to_pylist()
    assert captions == [f"a picture {row}" for row in ids[0]]
