"""Building index shards: what kind of index, trained on which rows, and the rows of the embedding files.

Axes: N rows, D dimensions.
"""

import math
import re
from collections.abc import Iterator, Sequence
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from idia_core.embeddings import URL, Embeddings, number_of
from idia_core.errors import InvalidInputError

EXACT_BELOW = 10_000_000
"""An exact index of fewer rows than this is the cheaper one: the 15,000 queries of 500 people over ten million rows are
a tenth of what training 65,536 lists takes, and 20 GB of vectors are mapped, not held in memory."""
CODE_BYTES = (256, 128, 64, 48, 32, 24, 16, 8, 4)
"""The lengths of codes that autofaiss tries, from the most precise."""
ID_BYTES = 8
ROWS_AT_ONCE = 65_536
"""Rows that are read, and added to an index, at a time."""
POINTS_A_LIST = 50
"""Rows for each list to train on; faiss wants 39 and uses 256 at most."""
CODEBOOK_POINTS = 65_536
"""Rows that faiss trains its codes on at most."""


def choose_index(rows: int, dimensions: int, exact_below: int = EXACT_BELOW, index_bytes: int = 4_000_000_000) -> str:
    """The faiss factory string for so many rows: `Flat`, or inverted lists of codes (IVF-PQ).

    From `exact_below` on it keeps to autofaiss' published rules: the number of lists goes by the rows (`lists_for`),
    1,000 of them and more are found by a graph (HNSW), and a code has the most bytes with which all rows fit into
    `index_bytes`. Other than there, a learnt rotation (OPQ) is left out where a byte stands for four dimensions or
    fewer: it would gain little, and training it takes longer than all else.
    """
    if rows < exact_below:
        return "Flat"
    short = [size for size in CODE_BYTES if size < dimensions] or [1]
    code = next((size for size in short if rows * (size + ID_BYTES) <= index_bytes), short[-1])
    lists = lists_for(rows)
    ivf = f"IVF{lists}_HNSW32" if lists >= 1000 else f"IVF{lists}"
    if dimensions % code == 0 and dimensions <= 4 * code:
        return f"{ivf},PQ{code}x8"
    turned = code * min(max(1, round(dimensions / code)), 6)
    return f"OPQ{code}_{turned},{ivf},PQ{code}x8"


def lists_for(rows: int) -> int:
    """How many lists autofaiss makes: four times the root below a million rows (a power of two), then in steps."""
    if rows < 1_000_000:
        return int(2 ** round(math.log2(4 * math.sqrt(max(rows, 1)))))
    return 16_384 if rows < 10_000_000 else 65_536 if rows < 300_000_000 else 131_072


def probes_for(lists: int) -> int:
    """How many lists a search looks into unless it is told otherwise: a 64th of them, and at least 16."""
    return min(lists, max(16, lists // 64))


def training_rows(factory: str, rows: int) -> int:
    """How many rows an index of this kind is trained on; none for an exact one."""
    lists = re.search(r"IVF(\d+)", factory)
    codes = "PQ" in factory or "SQ" in factory
    wanted = max(POINTS_A_LIST * int(lists.group(1)) if lists else 0, CODEBOOK_POINTS if codes else 0)
    return min(rows, wanted)


def read_rows(embeddings: Embeddings, first: int, count: int) -> Iterator[np.ndarray]:
    """Blocks of the rows from `first` on, float32 [N, D]; `InvalidInputError` for a number that is not finite."""
    for block_ND in embeddings.blocks(ROWS_AT_ONCE, first, count):
        _check_finite(embeddings, np.arange(first, first + len(block_ND)), block_ND)
        yield block_ND
        first += len(block_ND)


def sample_rows(embeddings: Embeddings, count: int, seed: int) -> np.ndarray:
    """So many different rows, drawn evenly from all files by the seed, float32 [N, D] in their order."""
    drawn = np.sort(np.random.default_rng(seed).choice(len(embeddings), count, replace=False))
    sample_ND = embeddings.read(drawn)
    _check_finite(embeddings, drawn, sample_ND)
    return sample_ND


def _check_finite(embeddings: Embeddings, numbers_N: np.ndarray, rows_ND: np.ndarray) -> None:
    if not (finite := np.isfinite(rows_ND).all(axis=1)).all():
        file, row = embeddings.place(int(numbers_N[finite.argmin()]))
        raise InvalidInputError(f"row {row} holds a number that is not finite", str(file.path), "Embed it again.")


def new_index(factory: str, dimensions: int) -> Any:
    """An untrained index whose similarity is the inner product; `InvalidInputError` for a string faiss cannot read."""
    import faiss  # noqa: PLC0415 - heavy

    try:
        return faiss.index_factory(dimensions, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        what = f"faiss makes no index of '{factory}' for {dimensions} dimensions: {_said(error)}"
        raise InvalidInputError(what, "factory", "See faiss' page on the index factory.") from None


def train_index(index: Any, sample_ND: np.ndarray, threads: int = 1, probes: int | None = None) -> None:
    """Train an index, and set how many lists it looks into; one thread, as the last bits of sums depend on their order.

    Raises `InvalidInputError` for fewer rows than there are lists or codes.
    """
    import faiss  # noqa: PLC0415 - heavy

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(threads)
    try:
        if not index.is_trained:
            index.train(sample_ND)
    except RuntimeError as error:
        what = f"{len(sample_ND)} rows are too few to train on: {_said(error)}"
        raise InvalidInputError(what, "index", "Take a smaller index, or an exact one.") from None
    finally:
        faiss.omp_set_num_threads(before)
    set_probes(index, probes)


def set_probes(index: Any, probes: int | None) -> None:
    """Say how many lists a search looks into; nothing for an index without lists."""
    import faiss  # noqa: PLC0415 - heavy

    ivf = faiss.try_extract_index_ivf(index)
    if ivf is None:
        return
    ivf.nprobe = min(ivf.nlist, probes or probes_for(ivf.nlist))
    graph = faiss.downcast_index(ivf.quantizer)
    if isinstance(graph, faiss.IndexHNSW):
        graph.hnsw.efSearch = max(16, 2 * ivf.nprobe)


def add_rows(index: Any, embeddings: Embeddings, first: int, count: int) -> None:
    """Add those rows to a trained index."""
    for block_ND in read_rows(embeddings, first, count):
        index.add(block_ND)


def write_index(index: Any, file: IO[bytes]) -> None:
    """Write an index into an open file."""
    import faiss  # noqa: PLC0415 - heavy

    faiss.write_index(index, faiss.PyCallbackIOWriter(file.write))  # type: ignore[attr-defined]  # swig's


def count_metadata(file: UPath) -> int:
    """The rows of a file of metadata; `InvalidInputError` where it is no Parquet."""
    try:
        with pq.ParquetFile(file.path, filesystem=file.fs) as parquet:
            return int(parquet.metadata.num_rows)
    except (pa.ArrowInvalid, OSError) as error:
        raise InvalidInputError(f"not a readable Parquet file: {_said(error)}", str(file), "Fetch it again.") from None


def check_metadata(embeddings: Embeddings, metadata: Sequence[UPath]) -> None:
    """Raise `InvalidInputError` where the metadata of a file is missing or has other rows; it has the same number."""
    by_number = {number_of(file): file for file in metadata}
    for one in embeddings.files:
        number = number_of(one.path)
        if number not in by_number:
            raise InvalidInputError(f"no metadata of number {number}", str(one.path), "Give all of its metadata.")
        if (rows := count_metadata(by_number[number])) != one.rows:
            what = f"{rows} rows of metadata, and {one.rows} embeddings in {one.path}"
            raise InvalidInputError(what, str(by_number[number]), "Embed it again.")


def slice_metadata(embeddings: Embeddings, metadata: Sequence[UPath], first: int, count: int) -> pa.Table:
    """The metadata of those rows, all columns, with null URLs where some files alone have any.

    Raises `InvalidInputError` where two files have other columns.
    """
    by_number = {number_of(file): file for file in metadata}
    tables, start = list[pa.Table](), 0
    for one in embeddings.files:
        begin, end = max(first, start), min(first + count, start + one.rows)
        if begin < end:
            file = by_number[number_of(one.path)]
            with pq.ParquetFile(file.path, filesystem=file.fs) as parquet:
                tables.append(parquet.read().slice(begin - start, end - begin).replace_schema_metadata())
        start += one.rows
    if any(URL.name in table.column_names for table in tables):
        tables = list(map(_with_urls, tables))
    try:
        return pa.concat_tables(tables)
    except pa.ArrowInvalid as error:
        what = f"files of metadata differ: {_said(error)}"
        raise InvalidInputError(what, str(metadata[0].parent), "Embed all at once.") from None


def _with_urls(table: pa.Table) -> pa.Table:
    return table if URL.name in table.column_names else table.append_column(URL, pa.nulls(len(table), URL.type))


def _said(error: Exception) -> str:
    """What faiss or Arrow says, without the place in its sources."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rpartition("Error: ")[2]
