"""A sealed stage's files without a person: what is found in each, and how each kind is written anew."""

import csv
import html
import io
import os
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from pathlib import PurePosixPath
from typing import IO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from idia_core.embeddings import write_embeddings
from idia_core.erasure import Eraser, Marks
from idia_core.manifest import FileEntry
from idia_core.storage import HashedFile, is_local, write_whole

PRIVATE = 0o600
"""Files with personal data are their owner's alone."""
BLOCK = 1 << 20
LONGEST = 1 << 10
"""Bytes of a name with all that may stand between its words."""
TABLES, TEXTS, PAGES = (".parquet",), (".json", ".txt", ".log"), (".html",)
NO_TEXT = (".npy", ".pt", ".index", ".jpg", ".jpeg", ".png", ".webp", ".pdf")
"""Files in which nobody can be named in letters that a search would find."""
VECTORS = ("img_emb", "text_emb")
"""Tables of embeddings, each beside a table of metadata with a row for each vector."""


class Way(StrEnum):
    """How a file that holds the person is treated."""

    REWRITE = "rewrite"
    DELETE = "delete"
    KNOWS = "knows"  # a model or an index, of which no part can be taken out


class Found(NamedTuple):
    """What a file holds of the person; nothing where `way` is None."""

    way: Way | None = None
    rows: int = 0
    marks: Marks = Marks()


def look(folder: UPath, path: str, eraser: Eraser) -> Found:
    """What a stage's file, `path` below its folder, holds of the person."""
    file, suffix = folder / path, PurePosixPath(path).suffix
    if suffix in TABLES:
        return _look_at_table(file, path, eraser)
    if suffix == ".tar":
        keys, marks = _their_samples(file, eraser)
        return Found(Way.REWRITE, len(keys), marks) if keys else Found()
    if suffix == ".csv" or path.partition("/")[0] in VECTORS:
        is_csv = suffix == ".csv"
        theirs = [_is_theirs(row, eraser) for row, _ in _records(file)] if is_csv else _vectors_of(folder, path, eraser)
        rows = int(sum(theirs))
        return Found(Way.REWRITE, rows) if rows else Found()
    way = _way_of(file, path, suffix, eraser)
    return Found(way, 1) if way else Found()


def _way_of(file: UPath, path: str, suffix: str, eraser: Eraser) -> Way | None:
    """How a file without rows is treated."""
    if eraser.spotter.names(path) or _is_picture(file, eraser):
        return Way.DELETE
    if suffix in NO_TEXT or not any(map(eraser.spotter.names, _texts(file, suffix))):
        return None
    return Way.REWRITE if suffix in TEXTS else Way.DELETE if suffix in PAGES else Way.KNOWS


def rewrite(folder: UPath, entry: FileEntry, eraser: Eraser) -> FileEntry:
    """Write a file that holds the person anew, whole or not at all; its new entry."""
    file, suffix, rows = folder / entry.path, PurePosixPath(entry.path).suffix, entry.rows
    with _private(file) as target:
        if suffix in TABLES:
            rows = _write_table(file, target, eraser)
        elif suffix == ".tar":
            keys, _ = _their_samples(file, eraser)
            _write_tar(file, target, keys)
            rows = None if rows is None else rows - len(keys)
        elif suffix == ".csv":
            lines = (line for row, line in _records(file) if not _is_theirs(row, eraser))
            target.writelines(line.encode() for line in lines)
        elif suffix in TEXTS:
            target.write(eraser.spotter.without(file.read_text(encoding="utf-8")).encode())
        else:
            with file.open("rb") as source:
                vectors_ND = np.load(io.BytesIO(source.read()), allow_pickle=False)
            vectors_ND[_vectors_of(folder, entry.path, eraser)] = 0
            write_embeddings(target, vectors_ND)  # type: ignore[arg-type]  # it writes
    return FileEntry(path=entry.path, bytes=target.bytes, sha256=target.sha256, rows=rows)


@contextmanager
def _private(file: UPath) -> Iterator[HashedFile]:
    """A file that is written whole or not at all, and is its owner's alone from its first byte on."""
    with write_whole(file) as target:
        if is_local(file):
            os.fchmod(target.fileno(), PRIVATE)
        yield HashedFile(target)


def _groups(file: UPath) -> Iterator[Callable[..., pa.Table]]:
    """For each row group of a Parquet file, what reads some of its columns."""
    with pq.ParquetFile(file.path, filesystem=file.fs) as parquet:
        for group in range(parquet.num_row_groups):
            yield partial(parquet.read_row_group, group)


def _look_at_table(file: UPath, path: str, eraser: Eraser) -> Found:
    schema, rows, marks = pq.read_schema(file.path, filesystem=file.fs), 0, Marks()
    small = [field.name for field in schema if not pa.types.is_binary(field.type)]
    if eraser.spotter.names(path):
        return Found(Way.DELETE, 1)
    for read in _groups(file):
        table = read() if eraser.marks.pictures or len(small) == len(schema) else read(columns=small)
        cleaned = eraser.clean(table)
        if not cleaned.rows:
            continue
        rows += cleaned.rows
        theirs = eraser.theirs(table)
        if theirs.any():
            whole = table if table.num_columns == len(schema) else read()
            marks |= eraser.marks_of(whole.filter(pa.array(theirs)), path.partition("/")[0])
    return Found(Way.REWRITE, rows, marks) if rows else Found()


def _write_table(file: UPath, target: HashedFile, eraser: Eraser) -> int:
    """Write a Parquet file's row groups without the person's rows; how many are left."""
    with pq.ParquetFile(file.path, filesystem=file.fs) as parquet:
        schema, meta = parquet.schema_arrow, parquet.metadata
        full = meta.num_row_groups and meta.row_group(0).num_columns
        compression = meta.row_group(0).column(0).compression if full else "ZSTD"
    left = 0
    with pq.ParquetWriter(target, schema, compression=compression.lower().replace("uncompressed", "none")) as writer:
        for read in _groups(file):
            table = eraser.clean(read()).table
            left += table.num_rows
            if table.num_rows:
                writer.write_table(table.cast(schema), row_group_size=table.num_rows)
    return left


def _vectors_of(folder: UPath, path: str, eraser: Eraser) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which vectors of a file are the person's: those of the rows of the metadata with the same number."""
    number = PurePosixPath(path).stem.rpartition("_")[2]
    metadata = folder / f"metadata/metadata_{number}.parquet"
    if not metadata.exists():
        return np.zeros(0, bool)
    return np.concatenate([np.zeros(0, bool), *(eraser.theirs(read()) for read in _groups(metadata))])


def _records(file: UPath) -> Iterator[tuple[list[str], str]]:
    """The rows of a CSV with their lines as they are."""
    with file.open("r", encoding="utf-8", newline="") as source:
        taken = list[str]()

        def lines() -> Iterator[str]:
            for line in source:
                taken.append(line)
                yield line

        for row in csv.reader(lines()):
            yield row, "".join(taken)
            taken.clear()


def _is_theirs(row: list[str], eraser: Eraser) -> bool:
    return any(map(eraser.spotter.names, row))


def _their_samples(file: UPath, eraser: Eraser) -> tuple[set[str], Marks]:
    """The keys of the samples of a tar that are the person's, and what their pictures are known by."""
    keys, marks = set[str](), Marks()
    for sample, members in _samples(file):
        theirs = sample in eraser.keys or eraser.spotter.names(sample)
        for name, content in members:
            is_text = name.endswith(TEXTS)
            theirs |= is_text and eraser.spotter.names(content.decode("utf-8", "replace"))
            theirs |= eraser.is_picture(content)
        if theirs:
            keys.add(sample)
            table = pa.table({"image": [content for name, content in members if not name.endswith(TEXTS)]})
            marks |= eraser.marks_of(table.cast(pa.schema([("image", pa.binary())])), "")
    return keys, marks


def _samples(file: UPath) -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """The samples of a tar one after another: their key, and the names and contents of their files."""
    current, members = "", list[tuple[str, bytes]]()
    with file.open("rb") as source, tarfile.open(fileobj=source, mode="r|") as tar:
        for member in tar:
            content = tar.extractfile(member)
            if (key := _key(member)) != current:
                if members:
                    yield current, members
                current, members = key, []
            members.append((member.name, content.read() if content else b""))
    if members:
        yield current, members


def _key(member: tarfile.TarInfo) -> str:
    path = PurePosixPath(member.name)
    return str(path.parent / path.name.partition(".")[0])


def _write_tar(file: UPath, target: IO[bytes] | HashedFile, keys: set[str]) -> None:
    """Copy the samples of a tar but for some."""
    with (
        file.open("rb") as source,
        tarfile.open(fileobj=source, mode="r|") as tar,
        tarfile.open(fileobj=target, mode="w|", format=tarfile.USTAR_FORMAT) as out,
    ):
        for member in tar:
            if _key(member) not in keys:
                out.addfile(member, tar.extractfile(member))


def _is_picture(file: UPath, eraser: Eraser) -> bool:
    return file.stat().st_size in eraser.marks.sizes and eraser.is_picture(file.read_bytes())


def _texts(file: UPath, suffix: str) -> Iterator[str]:
    """The text of any file in blocks that overlap by more than a name is long."""
    with file.open("rb") as source:
        held = b""
        while block := source.read(BLOCK):
            text = (held + block).decode("utf-8", "replace")
            yield html.unescape(text) if suffix in PAGES else text
            held = block[-LONGEST:]
