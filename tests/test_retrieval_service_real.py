"""clip-retrieval 2.45.0 as a service gives the candidates that a search of the same index here gives."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from upath import UPath

from benchmarks.index import ask, served
from idia_core.config import Study
from idia_core.errors import MissingInputError
from idia_core.index import ShardedIndex
from idia_core.model_reference import ModelReference
from idia_core.models import ClipModel
from jobs.run import run_study
from tests.pipelines.audits import QUIET, write_people
from tests.tiny_models import write_model

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_ray")]
NAMES = ("Ann Lee", "Bob Ray", "Ann Lee Smith", "Ida Moss", "Zoë Ball")
ROWS = 4000
KINDS: dict[str, dict[str, Any]] = {"exact": {}, "codes": {"factory": "IVF8,PQ8x4", "probes": 3}}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> Path:  # noqa: ARG001 - must be up first
    """People, a model, and two kinds of index of one base; a third of its captions name somebody, some URLs repeat."""
    root = tmp_path_factory.mktemp("real")
    write_people(root / "people", NAMES, 3, 4)
    pictures = pl.read_parquet(root / "people/pictures/*.parquet")["image"].to_list()
    write_model(root / "tiny.pt", centred_on=pictures[4:])
    model = ClipModel(ModelReference.parse(f"idia-rn-tiny:{root}/tiny.pt"))
    near_ND = model.encode_images([Image.open(io.BytesIO(content)) for content in pictures[4:]])
    rng = np.random.default_rng(0)
    rows_ND = near_ND[rng.integers(len(near_ND), size=ROWS)] + rng.standard_normal((ROWS, 64)) / 8
    rows_ND /= np.linalg.norm(rows_ND, axis=1, keepdims=True)
    for folder in ("img_emb", "metadata"):
        (root / "base" / folder).mkdir(parents=True)
    np.save(root / "base/img_emb/img_emb_0.npy", rows_ND.astype(np.float16))
    captions = [f"{NAMES[row % 15]} {row // 30}" if row % 15 < len(NAMES) else f"nobody {row}" for row in range(ROWS)]
    columns = {"url": [f"http://x/{row % 2010}" for row in range(ROWS)], "caption": captions}
    pq.write_table(pa.table(columns), root / "base/metadata/metadata_0.parquet", row_group_size=512)
    inputs = {"embeddings": f"{root}/base/img_emb", "metadata": f"{root}/base/metadata"}
    for kind, fields in KINDS.items():
        study = {"index": {"inputs": inputs} | fields}
        run_study(Study(name="test", out=str(root / kind), stages=study), QUIET)
    return root


@pytest.fixture(scope="module")
def url(root: Path) -> Iterator[str]:
    """The service over both."""
    with served({kind: root / kind / "index/shards/00000" for kind in KINDS}, ["url", "caption"]) as url:
        yield url


def retrieved(root: Path, out: Path, name: str, **fields: Any) -> dict[str, pl.DataFrame]:
    """The tables of a run."""
    inputs = {"identities": f"{root}/people/identities", "pictures": f"{root}/people/pictures"} | fields.pop(
        "inputs", {}
    )
    stage = {"model": f"idia-rn-tiny:{root}/tiny.pt", "neighbours": 300, "wanted": 40, "inputs": inputs} | fields
    run_study(Study(name="test", out=str(out / name), stages={"retrieve": stage}), QUIET)
    tables = ("candidates", "retrieved", "retrievable")
    return {table: pl.read_parquet(out / name / f"retrieve/{table}/*.parquet") for table in tables}


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_candidates(root: Path, tmp_path: Path, url: str, kind: str) -> None:
    """Of an exact index and of one of codes: everybody's, in the same order, with the same counts."""
    here = retrieved(root, tmp_path, "here", inputs={"index": f"{root}/{kind}/index/shards"})
    service = {"url": url, "index_name": kind}
    there = retrieved(root, tmp_path, "there", service=service, resources={"service": {"retries": 0}})
    assert here["candidates"].height > 100
    assert here["candidates"].drop("similarity").equals(there["candidates"].drop("similarity"))
    apart = here["candidates"]["similarity"] - there["candidates"]["similarity"]
    assert apart.abs().max() <= 1e-6  # its faiss is another version
    assert here["retrieved"].equals(there["retrieved"])
    assert here["retrievable"].equals(there["retrievable"])
    counted = here["retrieved"].select(pl.exclude("identity").sum()).row(0, named=True)
    assert min(counted.values()) > 0  # of everything there is something


def test_its_answers_are_read_to_the_field(root: Path, tmp_path: Path, url: str) -> None:
    """An index that it does not have is noticed; what it says when it fails is repeated."""
    query_D = ShardedIndex.open(UPath(root / "exact/index")).shards[0].index.reconstruct(0)
    assert {"id", "similarity", "url", "caption"} == set(ask(url, "exact", query_D, 3)[0])
    wrong = {"url": url, "index_name": "exakt"}
    with pytest.raises(Exception, match=r"no index 'exakt' .* Did you mean 'exact'"):
        retrieved(root, tmp_path, "wrong", service=wrong)
    with pytest.raises(MissingInputError, match="no answer in 1 tries: status 500"):  # its model was left out
        retrieved(
            *(root, tmp_path, "text"),
            by="text",
            service={"url": url, "index_name": "exact"},
            resources={"service": {"retries": 0}},
        )
