"""Pictures with their class's number: ImageNet's folders, WebDataset tars of `jpg` and `cls`, or Parquet tables."""

import io
import mmap
import tarfile
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from idia_core.base_samples import reading
from idia_core.errors import InvalidInputError
from idia_core.images import MAX_BYTES, PictureStatus
from idia_core.picture_stream import Source
from idia_core.storage import is_local
from idia_core.tars import PICTURE_SUFFIXES, list_tar

PATTERNS = ("*/*", "*.tar", "*.parquet")
"""Which files of a folder count: a folder for each class with its pictures in it, or tars, or tables."""
LABEL = "cls"
"""The suffix, in a tar, of a text file with the class's number."""
COLUMNS = ("image", "label")
BATCH_ROWS = 64
HINT = "Give folders of classes, .tar or .parquet, each alone."


class LabelStatus(StrEnum):
    """Why a picture cannot be judged, whatever is in it."""

    NO_LABEL = "no_label"


class Labelled(NamedTuple):
    """A picture's class, -1 where it has none, and what share of the files comes before its own."""

    label: int
    done: float


Item = tuple[Labelled, Source]


class _Kind(StrEnum):
    FOLDERS = "folders of classes"
    TARS = "tars"
    TABLES = "tables"


def labelled_pictures(files: Sequence[UPath], classes: int) -> Iterator[Item]:
    """Every picture of some files with its class, in the files' order, still encoded and read as it is asked for.

    Folders are the classes 0, 1, ... in the order of their names. Raises `InvalidInputError`, at once or on the way,
    where there are not as many folders as `classes`, for a label of none of them, for files of two kinds, and for one
    that cannot be read to its end.
    """
    shown = [file for file in files if not file.name.startswith(".")]
    if not shown:
        raise InvalidInputError("there are no pictures", ", ".join(map(str, files[:1])) or "pictures", HINT)
    kinds = {_kind(file): file for file in shown}
    if len(kinds) > 1:
        (one, file), (other, odd), *_ = kinds.items()
        raise InvalidInputError(f"'{file.name}' is of {one}, '{odd.name}' of {other}", str(odd), HINT)
    if _Kind.FOLDERS in kinds:
        return _from_folders(shown, classes)
    read = _from_tar if _Kind.TARS in kinds else _from_table
    return (item for place, file in enumerate(shown) for item in read(file, place / len(shown), classes))


def _kind(file: UPath) -> _Kind:
    return {".tar": _Kind.TARS, ".parquet": _Kind.TABLES}.get(file.suffix, _Kind.FOLDERS)


def _from_folders(files: Sequence[UPath], classes: int) -> Iterator[Item]:
    names = sorted({file.parent.name for file in files})
    if len(names) != classes:
        what = f"{len(names)} folders of pictures, and the names of {classes} classes"
        where = f"{files[0].parent.parent}, '{names[0]}' to '{names[-1]}'"
        raise InvalidInputError(what, where, "Give a name for each folder, in the order of the folders' names.")
    numbers = {name: number for number, name in enumerate(names)}
    return ((Labelled(numbers[file.parent.name], place / len(files)), file) for place, file in enumerate(files))


def _from_tar(tar: UPath, done: float, classes: int) -> Iterator[Item]:
    with reading(tar, "tar"):
        content = _content(tar)
    if damage := list_tar(content).damage:  # tarfile would pass over some of it
        raise InvalidInputError(damage, str(tar), "Fetch it again.")
    for key, files in _samples(content):
        picture = next((files[suffix] for suffix in PICTURE_SUFFIXES if suffix in files), None)
        label = _number(files.get(LABEL))
        if picture is not None or label is not None:
            source = PictureStatus.MISSING if picture is None else picture
            yield _item(label, source, done, classes, f"{tar}, {key}")


def _content(tar: UPath) -> bytes | mmap.mmap:
    """A local tar's bytes mapped, others' fetched."""
    if not is_local(tar):
        fetched: bytes = tar.fs.cat_file(tar.path)
        return fetched
    with Path(tar.path).open("rb") as file:
        # Nothing cannot be mapped.
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if tar.stat().st_size else b""


def _samples(content: bytes | mmap.mmap) -> Iterator[tuple[str, dict[str, Source]]]:
    """The files that follow one another under one name, by suffix, as WebDataset groups them."""
    key, files = "", dict[str, Source]()
    with tarfile.open(fileobj=io.BytesIO(content) if isinstance(content, bytes) else content, mode="r:") as archive:
        for member in archive:
            folder, _, name = member.name.rpartition("/")
            stem, _, suffix = name.partition(".")
            if not member.isfile() or not suffix:
                continue
            if files and key != f"{folder}/{stem}":
                yield key, files
                files = {}
            key = f"{folder}/{stem}"
            too_large = member.size > MAX_BYTES
            files[suffix.lower()] = PictureStatus.TOO_LARGE if too_large else _member(archive, member)
    if files:
        yield key, files


def _member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    return file.read() if file else b""


def _number(text: Source | None) -> int | None:
    """The number that a file of LABEL holds, None where it holds none."""
    digits = bytes(text).strip() if isinstance(text, bytes) else b""
    return int(digits) if digits.isdigit() else None


def _from_table(table: UPath, done: float, classes: int) -> Iterator[Item]:
    with reading(table, "Parquet file"), pq.ParquetFile(table.path, filesystem=table.fs) as parquet:
        _check_columns(table, parquet.schema_arrow)
        row = 0
        for batch in parquet.iter_batches(BATCH_ROWS, columns=list(COLUMNS), use_threads=False):
            for image, label in zip(*(batch.column(name).to_pylist() for name in COLUMNS), strict=True):
                source = PictureStatus.MISSING if image is None else image
                yield _item(label, source, done, classes, f"{table}, row {row}")
                row += 1


def _check_columns(table: UPath, schema: pa.Schema) -> None:
    for name, check, holds in zip(COLUMNS, (_is_bytes, pa.types.is_integer), ("bytes", "whole numbers"), strict=True):
        if name not in schema.names:
            raise InvalidInputError(f"no column '{name}'", str(table), f"It has: {', '.join(schema.names)}.")
        if not check(kind := schema.field(name).type):
            raise InvalidInputError(f"column '{name}' holds {kind}, not {holds}", str(table))


def _is_bytes(kind: pa.DataType) -> bool:
    return kind in (pa.binary(), pa.large_binary())


def _item(label: int | None, source: Source, done: float, classes: int, where: str) -> Item:
    if label is None:
        return Labelled(-1, done), LabelStatus.NO_LABEL
    if not 0 <= label < classes:
        what = f"a picture of class {label}, and the names of {classes} classes, 0 to {classes - 1}"
        raise InvalidInputError(what, where, "Give the name of every class.")
    return Labelled(label, done), source
