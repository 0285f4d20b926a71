"""Base pairs in WebDataset tars as img2dataset leaves them: `00000.tar`, `00000.parquet` and `00000_stats.json`."""

import json
import mmap
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from upath import UPath

from idia_core.base_samples import BasePart, BaseSample, Picture, content_fault, reading
from idia_core.errors import InvalidInputError
from idia_core.sample_status import SampleStatus
from idia_core.storage import as_path, is_local
from idia_core.tars import Place, TarListing, TarSample, list_tar

TAR = ".tar"
LIST, STATISTICS = ".parquet", "_stats.json"
"""What img2dataset writes beside a tar, in place of TAR: the outcome of each URL, and how many there were of each."""


def beside(tars: Sequence[UPath]) -> set[str]:
    """The files that belong to tars."""
    stems = [str(tar).removesuffix(TAR) for tar in tars]
    return {stem + suffix for stem in stems for suffix in (LIST, STATISTICS)}


def tar_splits(tar: UPath) -> Iterator[dict[str, Any]]:
    """A tar is a split."""
    yield {"url": str(tar)}


def read_tar(split: Mapping[str, Any]) -> BasePart:
    """The pairs of a tar, which stay in it; then those that the list beside it says were downloaded and that it lacks.

    Local tars are mapped, not read; others are fetched whole. Raises `InvalidInputError` when that fails.
    """
    path = as_path(split["url"])
    with reading(path, "tar"):
        content = _mapped(path.path) if is_local(path) else memoryview(path.fs.cat_file(path.path))
    listing = list_tar(content)
    missing, list_notes = _missing(path, listing)
    notes = (*list_notes, *_statistics(path, len(listing.samples)))
    return BasePart(_samples(content, listing.samples, missing), listing.damage, notes)


def tar_pictures(tar: str) -> dict[str, Picture]:
    """The pictures of a tar by their keys; those of a local one are mapped, not read."""
    return {sample.key: sample.picture for sample in read_tar({"url": tar}).samples if sample.picture is not None}


def _mapped(path: str) -> memoryview:
    """A local file's bytes, mapped for as long as somebody looks at them."""
    with Path(path).open("rb") as file:
        size = os.fstat(file.fileno()).st_size  # nothing cannot be mapped
        return memoryview(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) if size else b"")


def _samples(content: memoryview, listed: Sequence[TarSample], missing: Sequence[BaseSample]) -> Iterator[BaseSample]:
    for sample in listed:
        picture = None if sample.picture is None else _at(content, sample.picture)
        caption = None if sample.caption is None else bytes(_at(content, sample.caption))
        status, detail = sample.status, sample.detail
        if status is SampleStatus.OK and picture is not None:
            status, detail = content_fault(picture, caption)
        yield BaseSample(sample.key, caption, picture, sample.suffix, sample.picture, sample.caption, status, detail)
    yield from missing


def _at(content: memoryview, place: Place) -> memoryview:
    return content[place.at : place.at + place.bytes]


def _sibling(tar: UPath, suffix: str) -> UPath:
    return tar.parent / (tar.name.removesuffix(TAR) + suffix)


def _missing(tar: UPath, listing: TarListing) -> tuple[list[BaseSample], list[str]]:
    """The pairs that should be in the tar and are not, and a note if that cannot be told."""
    path = _sibling(tar, LIST)
    try:
        with reading(path, "Parquet file"):
            if not path.exists():
                return [], []
            keys = _downloaded(path)
    except InvalidInputError as error:
        return [], [f"{path.name} was not used: {error.what}"]
    there = {sample.key for sample in listing.samples}
    detail = f"listed by {path.name}, not in the tar"
    lost = [key for key in keys if key not in there]
    return [BaseSample(key, None, None, None, None, None, SampleStatus.MISSING, detail) for key in lost], []


def _downloaded(path: UPath) -> list[str]:
    """The keys of the rows whose download succeeded."""
    with pq.ParquetFile(path.path, filesystem=path.fs) as parquet:
        schema = parquet.schema_arrow
        for column in ("key", "status"):
            if column not in schema.names or not pa.types.is_string(schema.field(column).type):
                raise InvalidInputError(f"it has no column '{column}' of text", str(path))
        rows = parquet.read(["key", "status"])
    keys: list[str] = rows["key"].filter(pc.equal(rows["status"], "success")).drop_null().to_pylist()
    return keys


def _statistics(tar: UPath, samples: int) -> list[str]:
    """A note if the statistics count other than the tar."""
    path = _sibling(tar, STATISTICS)
    try:
        with reading(path, "JSON file"):
            if not path.exists():
                return []
            successes = json.loads(path.read_bytes())["successes"]
    except InvalidInputError as error:
        return [f"{path.name} was not used: {error.what}"]
    except (json.JSONDecodeError, KeyError, TypeError):
        return [f"{path.name} was not used: it does not say how many successes there were"]
    return [] if successes == samples else [f"{path.name} counts {successes} pairs, {tar.name} has {samples}"]
