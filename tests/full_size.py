"""Inputs of the paper's two studies with as many rows and files as they have, on little disk."""

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

CAPTION_FILES, CAPTION_ROWS, GROUP_ROWS = 32, 12_933_480, 1_000_000
TARS, TAR_PAIRS, TAR_BYTES = 331, 8_459, 230_000_000


def write_laion(folder: Path) -> Path:
    """LAION-400M's metadata: all rows alike, and all files one file under 32 names."""
    folder.mkdir(parents=True)
    first = folder / "part-00000.parquet"
    text, group = pa.array(["a caption"]), GROUP_ROWS
    with pq.ParquetWriter(first, pa.schema({"TEXT": pa.string(), "URL": pa.string()})) as writer:
        for start in range(0, CAPTION_ROWS, group):
            column = pa.DictionaryArray.from_arrays(
                pa.nulls(min(group, CAPTION_ROWS - start), pa.int8()).fill_null(0), text
            )
            writer.write_table(pa.table({"TEXT": column.cast(pa.string()), "URL": column.cast(pa.string())}))
    for number in range(1, CAPTION_FILES):
        os.link(first, folder / f"part-{number:05d}.parquet")
    return folder


def write_cc3m(folder: Path) -> str:
    """CC3M's tars, which hold nothing but have their size, with what img2dataset says beside each; returns the glob."""
    folder.mkdir(parents=True)
    for number in range(TARS):
        with (folder / f"{number:05d}.tar").open("wb") as file:
            file.truncate(TAR_BYTES)
        (folder / f"{number:05d}_stats.json").write_text(json.dumps({"count": 10_000, "successes": TAR_PAIRS}))
    return f"{folder}/*.tar"


def write_people(folder: Path) -> dict[str, str]:
    """530 people, 30 pictures of each to ask with, and FaceScrub's 106,863 to learn from: their tables, by name."""
    folder.mkdir(parents=True)
    people = [f"Person {number}" for number in range(530)]
    tables = {
        "identities": pa.table({"identity": people, "name": people}),
        "pictures": pa.table({"identity": people * 30}),
        "faces": pa.table({"identity": (people * 202)[:106_863]}),
    }
    for name, table in tables.items():
        pq.write_table(table, folder / f"{name}.parquet")
    return {name: str(folder / f"{name}.parquet") for name in tables}
