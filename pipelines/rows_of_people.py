"""Rows of some people out of tables that are too large to read whole."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.stage import ResolvedInput, open_parquet


def blocks_of(identities: Sequence[str], size: int, **tables: ResolvedInput) -> list[dict[str, Any]]:
    """The people, `size` at a time: `identities`, and for each table the places of its files with rows of them."""
    files = {field: _files_of(table) for field, table in tables.items()}
    return [
        {"identities": list(mine)}
        | {f: sorted({p for i in mine for p in found.get(i, ())}) for f, found in files.items()}
        for mine in (identities[first : first + size] for first in range(0, len(identities), size))
    ]


def _files_of(table: ResolvedInput) -> dict[str, list[int]]:
    """For each identity the places of the files that hold rows of it."""
    found = defaultdict[str, list[int]](list)
    for place, file in enumerate(table.files):
        with open_parquet(file) as parquet:
            for identity in parquet.read(["identity"])["identity"].unique().to_pylist():
                found[identity].append(place)
    return found


def rows_of(
    table: ResolvedInput, places: Sequence[int], identities: Sequence[str], columns: Sequence[str]
) -> Iterator[pa.Table]:
    """The rows of those people, one row group in memory at a time."""
    wanted = pa.array(identities, pa.string())
    for place in places:
        with open_parquet(table.files[place]) as parquet:
            for group in range(parquet.num_row_groups):
                mine = pc.is_in(parquet.read_row_group(group, ["identity"])["identity"], wanted)
                if pc.any(mine).as_py():
                    yield parquet.read_row_group(group, list(columns)).filter(mine)
