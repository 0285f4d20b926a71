"""`index`: faiss shards of embeddings, in the folder layout of clip-retrieval, that are searched as one.

All shards share what was trained once, so that a search over them equals one over a single index.
"""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field
from upath import UPath

from idia_core.config import SeededConfig
from idia_core.index import INDEX_FILE, METADATA, SHARDS
from idia_core.index_building import (
    EXACT_BELOW,
    EmbeddingFile,
    add_rows,
    choose_index,
    list_embeddings,
    new_index,
    pair_metadata,
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
LAYOUT = "layout"


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


def _rows_in_all(embeddings: list[EmbeddingFile]) -> int:
    return embeddings[-1].first_row + embeddings[-1].rows


def _factory(config: IndexConfig, embeddings: list[EmbeddingFile]) -> str:
    rows, dimensions = _rows_in_all(embeddings), embeddings[0].dimensions
    return config.factory or choose_index(rows, dimensions, config.exact_below, config.index_bytes)


class _Trainer:
    """Checks all files by their headers, and trains what the shards share."""

    def __init__(self, context: StageContext) -> None:
        self._config: IndexConfig = context.config
        self._inputs = context.inputs

    def __call__(self, split: Split, out: SplitWriter) -> None:
        config = self._config
        embeddings = list_embeddings(self._inputs["embeddings"].files)
        metadata = pair_metadata(embeddings, self._inputs["metadata"].files)
        factory, rows = _factory(config, embeddings), _rows_in_all(embeddings)
        index = new_index(factory, embeddings[0].dimensions)
        sample_ND = np.empty((0, embeddings[0].dimensions), np.float32)
        if not index.is_trained:
            wanted = min(rows, config.train_on or training_rows(factory, rows))
            out.report(0, f"draws {wanted:,} rows")
            sample_ND = sample_rows(embeddings, wanted, int(config.seed or 0))
            out.report(0.1, f"trains {factory} on {wanted:,} rows")
        train_index(index, sample_ND, config.training_threads, config.probes)
        with out.open(TRAINED) as file:
            write_index(index, file)
        found = [
            one._asdict() | {"file": one.file.name, "metadata": file.name, "factory": factory}
            for one, file in zip(embeddings, metadata, strict=True)
        ]
        out.table(LAYOUT, pa.Table.from_pylist(found))
        out.note("index", f"{factory}, trained on {len(sample_ND)} rows")


def _layout(context: StageContext) -> tuple[list[EmbeddingFile], list[UPath], str]:
    """The files of embeddings and of their metadata, and the kind of index, as the first phase left them."""
    rows = context.table(LAYOUT).to_pylist()
    files = {file.name: file for field in ("embeddings", "metadata") for file in context.inputs[field].files}
    embeddings = [
        EmbeddingFile(**{name: row[name] for name in EmbeddingFile._fields} | {"file": files[row["file"]]})
        for row in rows
    ]
    return embeddings, [files[row["metadata"]] for row in rows], rows[0]["factory"]


def _shards(context: StageContext) -> Iterable[Split]:
    """A split for each shard: consecutive rows."""
    embeddings, _, _ = _layout(context)
    total, each = _rows_in_all(embeddings), context.config.rows_per_shard
    for first in range(0, total, each):
        yield {"first_row": first, "rows": min(each, total - first)}


class _Adder:
    """Adds a shard's rows to a copy of what was trained."""

    def __init__(self, context: StageContext) -> None:
        self._embeddings, self._metadata, self._factory = _layout(context)
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
    embeddings = list_embeddings(context.inputs["embeddings"].files)
    factory, rows = _factory(context.config, embeddings), _rows_in_all(embeddings)
    row = {
        "rows": rows,
        "dimensions": embeddings[0].dimensions,
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
    tables=(SHARDS, "index", "trained", LAYOUT),
    preview=_preview,
)
