"""The tars that planned pairs are copied from, read at the places that the plan gives, on any file system."""

import mmap
import os
from collections.abc import Iterator
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import TypeVar

import polars as pl
from upath import UPath

from idia_core.base_samples import reading
from idia_core.errors import InvalidInputError
from idia_core.storage import as_path, is_local

OPEN_FILES = 256
BufferT = TypeVar("BufferT", bytes, memoryview)
PLACE_COLUMNS = ("picture_at", "picture_bytes", "caption_at", "caption_bytes")


def source_path(folder: UPath, source: str) -> UPath:
    """Where a `source` of the listing or `path` of the ledger is: a URL as it is, others below the stage's folder."""
    return as_path(source) if "://" in source or source.startswith("/") else folder / source


class SampleReader:
    """Reads pictures and captions of planned pairs out of their tars."""

    def __init__(self, folder: UPath) -> None:
        self._path = cache(partial(source_path, folder))  # a shuffled tar is gathered from thousands of others
        self._file = lru_cache(OPEN_FILES)(_OpenFile)

    def read(self, rows: pl.DataFrame) -> Iterator[tuple[memoryview, memoryview]]:
        """Picture and caption of each row of a `PLAN` or `LISTING`, in order; local ones are read as they are wanted.

        Raises `InvalidInputError` for a tar that is gone or shorter than it was when it was listed.
        """
        sources = rows["source"].to_list()
        places = [rows[column].to_list() for column in PLACE_COLUMNS]
        starts = rows.select(pl.min_horizontal("picture_at", "caption_at")).to_series().to_list()
        ends = (pl.col("picture_at") + pl.col("picture_bytes"), pl.col("caption_at") + pl.col("caption_bytes"))
        stops = rows.select(pl.max_horizontal(*ends)).to_series().to_list()
        for span, start, picture_at, picture_bytes, caption_at, caption_bytes in zip(
            self._spans(sources, starts, stops), starts, *places, strict=True
        ):
            picture, caption = picture_at - start, caption_at - start
            yield span[picture : picture + picture_bytes], span[caption : caption + caption_bytes]

    def _spans(self, sources: list[str], starts: list[int], stops: list[int]) -> Iterator[memoryview]:
        """The bytes from start to stop of each source; those of one remote file system are fetched together."""
        paths = {source: self._path(source) for source in set(sources)}
        if all(is_local(path) for path in paths.values()):
            local = {source: path.path for source, path in paths.items()}
            for source, start, stop in zip(sources, starts, stops, strict=True):
                yield self._file(local[source]).read(start, stop - start)
            return
        yield from self._fetched(pl.DataFrame({"source": sources, "start": starts, "stop": stops}), paths)

    @staticmethod
    def _fetched(places: pl.DataFrame, paths: dict[str, UPath]) -> list[memoryview]:
        spans: dict[int, memoryview] = {}
        for (source,), rows in places.with_row_index().partition_by("source", as_dict=True).items():
            path = paths[str(source)]
            names, places_of = [path.path] * rows.height, (rows["start"].to_list(), rows["stop"].to_list())
            with reading(path, "tar"):
                content = path.fs.cat_ranges(names, *places_of, on_error="raise")
            for index, length, got in zip(rows["index"], rows["stop"] - rows["start"], content, strict=True):
                spans[index] = memoryview(_whole(got, length, str(path)))
        return [spans[index] for index in range(places.height)]


class _OpenFile:
    """A local file mapped into memory: what is read of it is not copied, and stays until nobody refers to it."""

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            with Path(path).open("rb") as file:
                size = os.fstat(file.fileno()).st_size  # nothing cannot be mapped
                self._content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b"")
        except OSError as error:
            raise InvalidInputError(f"cannot be read: {error.strerror}", path, "List the base again.") from None

    def read(self, start: int, length: int) -> memoryview:
        return _whole(self._content[start : start + length], length, self._path)


def _whole(content: BufferT, length: int, path: str) -> BufferT:
    if len(content) != length:
        raise InvalidInputError("shorter than it was when it was listed", path, "Put the file back, or run again.")
    return content
