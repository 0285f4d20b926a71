"""Where base pairs came from: their URLs, as far as tables, and what img2dataset leaves in and beside tars, tell."""

import json
import tarfile
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow.parquet as pq
from upath import UPath

from idia_core.base_inputs import Kind
from idia_core.base_samples import reading
from idia_core.base_tars import LIST, TAR
from idia_core.caption_files import URL_NAMES
from idia_core.errors import InvalidInputError
from idia_core.storage import as_path

KEY, JSON = "key", "json"


def urls_of(split: Mapping[str, Any]) -> dict[str, str] | None:
    """The URLs of a split's pairs by their keys; None where nothing tells any.

    A table may have a column of them, under one of URL_NAMES, a tar a Parquet file with one beside it, or in it a JSON
    file for each pair. Raises `InvalidInputError` for a table that cannot be read.
    """
    path = as_path(split["url"])
    if split["kind"] == Kind.TABLES:
        return _in_parquet(path, split["start"], split["stop"])
    if split["kind"] == Kind.LISTS:
        return None
    found = _beside(path)
    return _in_tar(path) if found is None else found


def _beside(tar: UPath) -> dict[str, str] | None:
    """What img2dataset's Parquet file beside a tar says; None where there is none that can be used."""
    path = tar.parent / (tar.name.removesuffix(TAR) + LIST)
    try:
        return _in_parquet(path) if path.exists() else None
    except InvalidInputError:
        return None  # `read_tar` notes it


def _in_parquet(path: UPath, start: int = 0, stop: int | None = None) -> dict[str, str] | None:
    """The URLs of some rows; None where there is no column of keys or of URLs."""
    with reading(path, "Parquet file"), pq.ParquetFile(path.path, filesystem=path.fs) as parquet:
        names = parquet.schema_arrow.names
        url = next((name for name in URL_NAMES if name in names), None)
        if url is None or KEY not in names:
            return None
        rows = parquet.metadata.num_rows
        columns = [_texts(parquet, name, start, rows if stop is None else stop) for name in (KEY, url)]
    return {key: where for key, where in zip(*columns, strict=True) if key and where}


def _texts(parquet: pq.ParquetFile, column: str, start: int, stop: int) -> list[str | None]:
    """Those rows of a column, from the row groups that they are in."""
    found, first = list[str | None](), 0
    for group in range(parquet.metadata.num_row_groups):
        count = parquet.metadata.row_group(group).num_rows
        begin, end = max(start - first, 0), min(stop - first, count)
        if begin < end:
            values = parquet.read_row_group(group, [column])[column].slice(begin, end - begin)
            found += [_text(value) for value in values.to_pylist()]
        first += count
    return found


def _text(value: Any) -> str | None:
    """Text as it is, or of bytes; None for anything else."""
    text = value.decode(errors="replace") if isinstance(value, bytes) else value
    return text if isinstance(text, str) else None


def _in_tar(path: UPath) -> dict[str, str] | None:
    """What the JSON files in a tar say, up to where it is damaged; None where the first pair has none."""
    found, keys = dict[str, str](), set[str]()
    with path.open("rb") as file:
        for key, suffix, content in _files(file):
            keys.add(key)
            if suffix == JSON:
                url = _url_in(content)
                found |= {key: url} if url else {}
            elif len(keys) > 1 and not found:
                return None
    return found or None


def _files(file: Any) -> Iterator[tuple[str, str, bytes]]:
    """The key, suffix and, of a JSON file, content of each file in a tar."""
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                folder, slash, name = member.name.removeprefix("./").rpartition("/")
                key, _, suffix = name.partition(".")
                opened = tar.extractfile(member) if suffix == JSON else None
                yield f"{folder}{slash}{key}", suffix, opened.read() if opened else b""
    except (tarfile.TarError, EOFError):
        return  # whoever reads the pairs tells


def _url_in(content: bytes) -> str | None:
    try:
        told = json.loads(content)
    except ValueError:
        return None
    known = told if isinstance(told, dict) else {}
    return next((known[name] for name in URL_NAMES if isinstance(known.get(name), str)), None)
