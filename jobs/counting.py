"""How large inputs are that are there: by listing them and from the ends of Parquet files, not by reading them."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import fmean

from upath import UPath

from idia_core.base_tars import STATISTICS
from idia_core.sizes import UNKNOWN, Size
from idia_core.tars import PICTURE_SUFFIXES
from pipelines.stage import open_parquet

FILES_AT_ONCE = 16
LOOKED_INTO = 256
"""Of more files only so many are looked into, evenly spread, and the others are taken for alike."""
LIST_BYTES = 16_000_000
"""The lines of text files are counted up to this size: lists of people, not of captions."""
LISTS = (".csv", ".tsv", ".txt")


def counted(files: Sequence[UPath]) -> Size:
    """Files and bytes of an input, and its rows where something beside the data tells them.

    Raises `InvalidInputError` for a file that ends in .parquet and is none.
    """
    total = sum(int(file.fs.info(file.path)["size"]) for file in files)
    pictures = [file for file in files if file.suffix.lower().lstrip(".") in PICTURE_SUFFIXES]
    if pictures:
        return Size(len(pictures), total, len(files), people=len({file.parent.path for file in pictures}))
    tables = [file for file in files if file.suffix == ".parquet"]
    holders = tables or [file for file in files if file.suffix == ".tar" or _is_list(file)]
    return Size(_rows(holders) if holders else UNKNOWN, total, len(files))


def _is_list(file: UPath) -> bool:
    return file.suffix in LISTS and int(file.fs.info(file.path)["size"]) <= LIST_BYTES


def _rows(files: Sequence[UPath]) -> float:
    step = -(-len(files) // LOOKED_INTO)
    with ThreadPoolExecutor(FILES_AT_ONCE) as threads:
        rows = [found for found in threads.map(_rows_of, files[::step]) if found is not None]
    return fmean(rows) * len(files) if rows else UNKNOWN


def _rows_of(file: UPath) -> int | None:
    if file.suffix == ".parquet":
        with open_parquet(file) as parquet:
            return int(parquet.metadata.num_rows)
    if file.suffix == ".tar":  # img2dataset says beside it how many pairs it holds
        beside = file.parent / f"{file.name.removesuffix('.tar')}{STATISTICS}"
        return int(json.loads(beside.read_bytes())["successes"]) if beside.exists() else None
    lines = file.read_bytes().count(b"\n")
    return lines - (file.suffix != ".txt")  # a table's first line names its columns
