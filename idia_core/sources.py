"""The tars that planned pairs are copied from, read at the places that the plan gives, on any file system."""

import os
from functools import lru_cache
from pathlib import Path

import polars as pl
from upath import UPath

from idia_core.errors import InvalidInputError
from idia_core.storage import as_path, is_local

OPEN_FILES = 256


def source_path(folder: UPath, source: str) -> UPath:
    """Where a `source` of the listing or `path` of the ledger is: a URL as it is, others below the stage's folder."""
    return as_path(source) if "://" in source or source.startswith("/") else folder / source


class SampleReader:
    """Reads pictures and captions of planned pairs out of their tars."""

    def __init__(self, folder: UPath) -> None:
        self._folder = folder
        self._file = lru_cache(OPEN_FILES)(_OpenFile)

    def read(self, rows: pl.DataFrame) -> list[tuple[memoryview, memoryview]]:
        """Picture and caption of each row of a `PLAN` or `LISTING`, in order.

        Raises `InvalidInputError` for a tar that is gone or shorter than it was when it was listed.
        """
        places = rows.select(
            "source",
            start=pl.min_horizontal("picture_at", "caption_at"),
            stop=pl.max_horizontal(
                pl.col("picture_at") + pl.col("picture_bytes"), pl.col("caption_at") + pl.col("caption_bytes")
            ),
        )
        spans = self._spans(places)
        columns = ("picture_at", "picture_bytes", "caption_at", "caption_bytes")
        found = []
        for span, start, (p_at, p_size, c_at, c_size) in zip(
            spans, places["start"], rows.select(columns).iter_rows(), strict=True
        ):
            picture, caption = p_at - start, c_at - start
            found.append((span[picture : picture + p_size], span[caption : caption + c_size]))
        return found

    def _spans(self, places: pl.DataFrame) -> list[memoryview]:
        """The bytes from `start` to `stop` of each source; those of one remote file system are fetched together."""
        paths = {source: source_path(self._folder, source) for source in places["source"].unique()}
        if all(is_local(path) for path in paths.values()):
            return [
                self._file(paths[source].path).read(start, stop - start) for source, start, stop in places.iter_rows()
            ]
        return self._fetched(places, paths)

    @staticmethod
    def _fetched(places: pl.DataFrame, paths: dict[str, UPath]) -> list[memoryview]:
        spans: dict[int, memoryview] = {}
        for (source,), rows in places.with_row_index().partition_by("source", as_dict=True).items():
            path = paths[str(source)]
            content = path.fs.cat_ranges([path.path] * rows.height, rows["start"].to_list(), rows["stop"].to_list())
            for index, length, got in zip(rows["index"], rows["stop"] - rows["start"], content, strict=True):
                spans[index] = _whole(got, length, str(path))
        return [spans[index] for index in range(places.height)]


class _OpenFile:
    """A local file that is read at offsets; closed when nobody refers to it any more."""

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            self._handle = Path(path).open("rb", buffering=0)  # noqa: SIM115 - kept for the reads that follow
        except OSError as error:
            raise InvalidInputError(f"cannot be read: {error.strerror}", path, "List the base again.") from None

    def read(self, start: int, length: int) -> memoryview:
        return _whole(os.pread(self._handle.fileno(), length, start), length, self._path)


def _whole(content: bytes, length: int, path: str) -> memoryview:
    if len(content) != length:
        raise InvalidInputError("shorter than it was when it was listed", path, "Put the file back, or run again.")
    return memoryview(content)
