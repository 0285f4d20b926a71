"""The base pairs of a training set, however they come: WebDataset tars, lists with a folder of pictures, or tables."""

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any

from upath import UPath

from idia_core.base_lists import ListColumns, list_splits, read_list
from idia_core.base_samples import BasePart, BaseSample
from idia_core.base_tables import read_table, table_splits
from idia_core.base_tars import beside, read_tar, tar_splits
from idia_core.errors import InvalidInputError

__all__ = ["BasePart", "BaseSample", "Kind", "ListColumns", "base_files", "base_splits", "kind_of", "read_split"]


class Kind(StrEnum):
    """How base pairs come."""

    TARS = "tars"
    """WebDataset tars, as img2dataset writes them, with its Parquet and JSON files beside or without."""
    LISTS = "lists"
    """CC3M's: TSVs of captions, and the pictures as files."""
    TABLES = "tables"
    """Parquet of keys, captions and encoded pictures."""


KINDS = {".tar": Kind.TARS, ".tsv": Kind.LISTS, ".parquet": Kind.TABLES}
READERS = {Kind.TARS: read_tar, Kind.LISTS: read_list, Kind.TABLES: read_table}


def kind_of(files: Sequence[UPath]) -> Kind:
    """Which kind some files are; what img2dataset writes beside a tar goes with it.

    Raises `InvalidInputError` for files of two kinds, and for one of none.
    """
    first: dict[Kind, UPath] = {}
    for file in base_files(files):
        kind = KINDS.get(file.suffix)
        if kind is None:
            raise InvalidInputError("no base pairs", str(file), f"Give files that end with {', '.join(KINDS)}.")
        first.setdefault(kind, file)
    if len(first) > 1:
        (one, file), (other, odd), *_ = first.items()
        what = f"base pairs of two kinds: '{file.name}' is of {one}, '{odd.name}' of {other}"
        raise InvalidInputError(
            what, str(odd), "Give one kind, as a glob; tars may have their own Parquet files beside."
        )
    return next(iter(first))


def base_files(files: Sequence[UPath]) -> list[UPath]:
    """The files that hold pairs, without what img2dataset writes beside a tar."""
    companions = beside([file for file in files if file.suffix == ".tar"])
    return [file for file in files if str(file) not in companions]


def base_splits(files: Sequence[UPath], columns: ListColumns, images: str | None = None) -> Iterator[dict[str, Any]]:
    """The pieces in which base pairs are read, in the files' order: a function of the files and these settings alone.

    `images` is the folder or URL that the paths of lists are relative to; the list's own where it is not given. Raises
    `InvalidInputError` for files of two kinds and for one that cannot be read, `MissingInputError` without the folder.
    """
    kind = kind_of(files)
    for file in base_files(files):
        if kind is Kind.TARS:
            splits = tar_splits(file)
        elif kind is Kind.TABLES:
            splits = table_splits(file)
        else:
            splits = list_splits(file, columns, images)
        for split in splits:
            yield {"kind": str(kind), **split}


def read_split(split: Mapping[str, Any]) -> BasePart:
    """The pairs of a split, read as they are asked for, each with what is wrong with it: nothing is left out.

    Raises `InvalidInputError`, at once or on the way, for a file that cannot be read.
    """
    return READERS[Kind(split["kind"])](split)
