"""The encoded pictures of people, from files, tars and Parquet tables at any fsspec URL."""

import itertools
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, Any, NamedTuple

import pyarrow.parquet as pq
from upath import UPath

from idia_core.errors import InvalidInputError
from idia_core.images import MAX_BYTES, PictureStatus
from idia_core.storage import as_path

NOT_THERE = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
BATCH_ROWS = 64
"""Rows of pictures that are taken out of a row group at once."""

Content = bytes | PictureStatus
"""An encoded picture, or why there is none."""
Packed = dict[tuple[str, str | int], Content]
"""By the tar and the member, or the Parquet file and the row."""


class Read(NamedTuple):
    """The pictures of some people, `(name, content)` each, and the tars that end too early."""

    pictures: list[list[tuple[str, Content]]]
    damaged: tuple[str, ...]


def read_pictures(people: Sequence[Sequence[Mapping[str, Any]]]) -> Read:
    """Read the pictures of some people, given where each is (`Person.pictures`), a pass over each tar and row group.

    A picture that is not there is MISSING, one of more than MAX_BYTES is TOO_LARGE; neither is an error. A person's
    pictures get different names. Raises InvalidInputError for a tar that is none; one that ends too early is read as
    far as it goes.
    """
    sources = [source for person in people for source in person]
    packed, damaged = _from_tars(sources)
    packed |= _from_parquet(sources)
    pictures = [
        _named_apart(picture for source in person for picture in _pictures(source, packed)) for person in people
    ]
    return Read(pictures, damaged)


def _named_apart(pictures: Iterable[tuple[str, Content]]) -> list[tuple[str, Content]]:
    """The pictures with a number behind the name of one that is called like an earlier one."""
    named: dict[str, Content] = {}
    for name, content in pictures:
        number = itertools.count(2)
        own = name
        while own in named:
            own = f"{name} ({next(number)})"
        named[own] = content
    return list(named.items())


def _pictures(source: Mapping[str, Any], packed: Packed) -> Iterator[tuple[str, Content]]:
    """The pictures of one entry: a run of a table's rows, or a single one."""
    if "parquet" in source:
        name = source["parquet"].rpartition("/")[2]
        for row in range(source["start"], source["stop"]):
            yield f"{name}:{row}", packed[source["parquet"], row]
    elif "tar" in source:
        yield source["picture"], packed.get((source["tar"], source["member"]), PictureStatus.MISSING)
    else:
        yield source["picture"], _read_file(source["url"]) if "url" in source else PictureStatus.MISSING


def _read_file(url: str) -> Content:
    try:
        path = as_path(url)
        if (path.fs.info(path.path)["size"] or 0) > MAX_BYTES:
            return PictureStatus.TOO_LARGE
        return path.read_bytes()
    except (*NOT_THERE, ValueError):  # ValueError: a name that no file can have, such as one with a zero byte
        return PictureStatus.MISSING


def _from_tars(sources: Sequence[Mapping[str, Any]]) -> tuple[Packed, tuple[str, ...]]:
    """The members that are wanted of each tar, and the tars that cannot be read to their end."""
    wanted: dict[str, set[str]] = {}
    for source in sources:
        if "tar" in source:
            wanted.setdefault(source["tar"], set()).add(source["member"])
    packed: Packed = {}
    damaged = []
    for tar, members in sorted(wanted.items()):
        try:
            with as_path(tar).open("rb") as file, _opened(tar, file) as archive:
                for member in archive:
                    if member.isfile() and member.name in members:
                        packed[tar, member.name] = _read_member(archive, member)
        except NOT_THERE:
            continue
        except tarfile.ReadError as error:
            damaged.append(f"{tar}: {error}")
    return packed, tuple(damaged)


def _opened(tar: str, file: IO[bytes]) -> tarfile.TarFile:
    try:
        return tarfile.open(fileobj=file, mode="r:")
    except tarfile.ReadError as error:
        raise InvalidInputError(f"not a tar: {error}", tar, "Give a tar that is not compressed.") from None


def _read_member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Content:
    if member.size > MAX_BYTES:
        return PictureStatus.TOO_LARGE
    file = archive.extractfile(member)
    return file.read() if file else PictureStatus.MISSING


def _from_parquet(sources: Sequence[Mapping[str, Any]]) -> Packed:
    wanted: dict[str, set[int]] = {}
    for source in sources:
        if "parquet" in source:
            wanted.setdefault(source["parquet"], set()).update(range(source["start"], source["stop"]))
    packed: Packed = {}
    for table, rows in sorted(wanted.items()):
        for row, content in _rows(as_path(table), rows):
            packed[table, row] = content
    return packed


def _rows(table: UPath, rows: set[int]) -> Iterator[tuple[int, Content]]:
    """The pictures in some rows of a Parquet file; row groups without such a row are not read."""
    with pq.ParquetFile(table.path, filesystem=table.fs) as parquet:
        first = 0
        for group in range(parquet.num_row_groups):
            behind = first + parquet.metadata.row_group(group).num_rows
            if not any(first <= row < behind for row in rows):
                first = behind
                continue
            for batch in parquet.iter_batches(BATCH_ROWS, row_groups=[group], columns=["image"]):
                for row in range(first, first + batch.num_rows):
                    if row in rows:
                        yield row, _checked(batch.column(0)[row - first].as_py())
                first += batch.num_rows


def _checked(content: bytes | None) -> Content:
    if content is None:
        return PictureStatus.MISSING
    return PictureStatus.TOO_LARGE if len(content) > MAX_BYTES else content
