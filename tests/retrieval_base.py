"""A base of 600 pairs in which people are looked for: their pictures, a model, and an index in five shards."""

import io
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from idia_core.config import Study
from idia_core.model_reference import ModelReference
from idia_core.models import ClipModel
from jobs.run import run_study
from tests.pipelines.audits import QUIET, write_people
from tests.tiny_models import write_model

ANN, BOB, SMITH, IDA, ZOE = NAMES = ("Ann Lee", "Bob Ray", "Ann Lee Smith", "Ida Moss", "Zoë Ball")
ROWS = 600


def caption(row: int) -> str | None:
    """What stands under a base picture; nowhere Ida's name, three times Zoë's."""
    if row in (5, 105, 205):
        return f"Zoe Ball in {row}"
    if row % 50 == 0:
        return None
    said = {
        0: f"Ann Lee {row}",
        1: f"BOB RAY {row // 40}",
        2: f"Ann Lee Smith {row}",
        3: f"Ann Lee, Ann Lee Smith {row}",
    }
    return said.get(row % 10, f"nobody {row}")


def write_base(root: Path, model: ClipModel) -> None:
    """Embeddings in two files, with metadata; some URLs are there twice. Zoë's rows are near to her own pictures."""
    rows_ND = np.random.default_rng(0).standard_normal((ROWS, 64)).astype(np.float32)
    pictures = pl.read_parquet(root / "people/pictures/*.parquet").filter(pl.col("identity") == ZOE).sort("picture")
    rows_ND[[5, 105, 205]] = model.encode_images([Image.open(io.BytesIO(one)) for one in pictures["image"]])
    rows_ND /= np.linalg.norm(rows_ND, axis=1, keepdims=True)
    for folder in ("img_emb", "metadata"):
        (root / "base" / folder).mkdir(parents=True)
    for part, rows in enumerate((range(250), range(250, ROWS))):
        np.save(root / f"base/img_emb/img_emb_{part}.npy", rows_ND[rows.start : rows.stop].astype(np.float16))
        columns = {"url": [f"http://x/{row % 560}" for row in rows], "caption": [caption(row) for row in rows]}
        pq.write_table(pa.table(columns), root / f"base/metadata/metadata_{part}.parquet", row_group_size=64)


def clip(root: Path) -> ClipModel:
    """The model."""
    return ClipModel(ModelReference.parse(f"idia-rn-tiny:{root}/tiny.pt"))


def write_index(root: Path) -> None:
    """`people`, `tiny.pt`, `base`, and `made/index`, which the stage makes."""
    write_people(root / "people", NAMES, 3)
    pictures = pl.read_parquet(root / "people/pictures/*.parquet")["image"].to_list()
    write_model(root / "tiny.pt", centred_on=pictures[3:])
    write_base(root, clip(root))
    inputs = {"embeddings": f"{root}/base/img_emb", "metadata": f"{root}/base/metadata"}
    stages = {"index": {"inputs": inputs, "rows_per_shard": 130}}
    run_study(Study(name="test", out=str(root / "made"), stages=stages), QUIET)
