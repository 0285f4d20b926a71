"""`index`: faiss shards of embeddings, in the folder layout of clip-retrieval, that are searched as one.

All shards share what was trained once, so that a search over them equals one over a single index.
"""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from idia_core.config import SeededConfig
from idia_core.embeddings import Embeddings, open_numbered
from idia_core.index import INDEX_FILE, METADATA, SHARDS
from idia_core.index_building import (
    EXACT_BELOW,
    add_rows,
    check_metadata,
    choose_index,
    new_index,
    sample_rows,
    slice_metadata,
    train_index,
    training_rows,
    write_index,
)
from pipelines.stage import Input, Phase, Preview, Split, SplitWriter, Stage, StageContext, once

INDEX = pa.schema(
    [
        pa.field("shard", pa.int64(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("first_row", pa.int64(), nullable=False),  # its place in the whole
        pa.field("bytes", pa.int64(), nullable=False),  # of its image.index
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("factory", pa.string(), nullable=False),  # what faiss calls the kind of index
    ]
)
TRAINED = "trained/empty.index"


class IndexConfig(SeededConfig):
    """Settings of `index`; the seed draws the rows to train on."""

    factory: str | None = Field(default=None, min_length=1)
    """The kind of index as faiss' index factory calls it, such as `IVF4096,PQ64x8`; chosen by the rows if not given."""
    exact_below: int = Field(default=EXACT_BELOW, ge=1)
    """With fewer rows than this every vector is compared, `Flat`; from here on lists of codes, IVF-PQ."""
    index_bytes: int = Field(default=4_000_000_000, ge=1)
    """Bytes that all shards of codes may have together; decides how long a code is."""
    rows_per_shard: int = Field(default=1 << 20, ge=1)
    """Rows of a shard: 2 GB of memory for an exact one of 512 dimensions while it is built."""
    probes: int | None = Field(default=None, ge=1)
    """Lists that a search looks into unless told otherwise; a 64th of them, at least 16, when not given."""
    train_on: int | None = Field(default=None, ge=1)
    """Rows to train on; 50 for each list, and 65,536 at least, when not given."""
    training_threads: int = Field(default=1, ge=1)
    """Threads that train; no part of `resources`, as other numbers may give other last bits."""


def _opened(context: StageContext) -> tuple[Embeddings, str]:
    """The embeddings, and the kind of index that they get."""
    config: IndexConfig = context.config
    embeddings = open_numbered(context.inputs["embeddings"].files)
    chosen = choose_index(len(embeddings), embeddings.dimensions, config.exact_below, config.index_bytes)
    return embeddings, config.factory or chosen


class _Trainer:
    """Checks all files by their headers, and trains what the shards share."""

    def __init__(self, context: StageContext) -> None:
        self._config: IndexConfig = context.config
        self._context = context

    def __call__(self, split: Split, out: SplitWriter) -> None:
        config = self._config
        embeddings, factory = _opened(self._context)
        check_metadata(embeddings, self._context.inputs["metadata"].files)
        rows = len(embeddings)
        index = new_index(factory, embeddings.dimensions)
        sample_ND = np.empty((0, embeddings.dimensions), np.float32)
        if not index.is_trained:
            wanted = min(rows, config.train_on or training_rows(factory, rows))
            out.report(0, f"draws {wanted:,} rows")
            sample_ND = sample_rows(embeddings, wanted, int(config.seed or 0))
            out.report(0.1, f"trains {factory} on {wanted:,} rows")
        train_index(index, sample_ND, config.training_threads, config.probes)
        with out.open(TRAINED) as file:
            write_index(index, file)
        out.note("index", f"{factory}, trained on {len(sample_ND)} rows")


def _shards(context: StageContext) -> Iterable[Split]:
    """A split for each shard: consecutive rows."""
    total, each = len(_opened(context)[0]), context.config.rows_per_shard
    for first in range(0, total, each):
        yield {"first_row": first, "rows": min(each, total - first)}


class _Adder:
    """Adds a shard's rows to a copy of what was trained."""

    def __init__(self, context: StageContext) -> None:
        self._embeddings, self._factory = _opened(context)
        self._metadata = context.inputs["metadata"].files
        self._trained = (context.folder / TRAINED).read_bytes()

    def __call__(self, split: Split, out: SplitWriter) -> None:
        import faiss  # noqa: PLC0415 - heavy

        index = faiss.deserialize_index(np.frombuffer(self._trained, np.uint8))
        first, rows = split["first_row"], split["rows"]
        out.report(0, f"adds {rows:,} rows")
        add_rows(index, self._embeddings, first, rows)
        folder = f"{SHARDS}/{out.part:05d}"
        with out.open(f"{folder}/{INDEX_FILE}", rows=rows) as file:
            write_index(index, file)
        written = out.files[-1]
        metadata = slice_metadata(self._embeddings, self._metadata, first, rows)
        with out.open(f"{folder}/{METADATA}/metadata_00000.parquet", rows=rows) as file:
            pq.write_table(metadata, file, compression="zstd", row_group_size=65_536)
        row = {"shard": out.part, "rows": rows, "first_row": first, "factory": self._factory}
        out.table("index", pa.Table.from_pylist([row | {"bytes": written.bytes, "sha256": written.sha256}], INDEX))
        out.count(rows_in=rows, rows_kept=rows)


def _preview(context: StageContext) -> Preview:
    """The kind of index and the number of shards, from the headers of the embeddings."""
    embeddings, factory = _opened(context)
    rows = len(embeddings)
    row = {
        "rows": rows,
        "dimensions": embeddings.dimensions,
        "factory": factory,
        "shards": -(-rows // context.config.rows_per_shard),
        "trained on": min(rows, context.config.train_on or training_rows(factory, rows)),
    }
    return Preview([row], [])


STAGE = Stage(
    name="index",
    version=1,
    summary="index embeddings for the search of nearest neighbours",
    config=IndexConfig,
    inputs={
        "embeddings": Input("embeddings as clip-retrieval writes them (img_emb_*.npy)", patterns=("*.npy",)),
        "metadata": Input("their metadata (metadata_*.parquet), a row for each embedding"),
    },
    phases=(Phase("train", once, _Trainer), Phase("shards", _shards, _Adder)),
    tables=(SHARDS, "index", "trained"),
    preview=_preview,
)
