"""Base pairs in lists, as CC3M has them: a TSV of captions, and the pictures as files in a folder.

Fields stand between tabs, lines between newlines, and nothing is quoted, so that a `"` is a character like any other.
"""

import errno
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import chain, islice
from pathlib import PurePosixPath
from typing import IO, Any, NamedTuple

import numpy as np
from fsspec import AbstractFileSystem
from pydantic import field_validator
from upath import UPath

from idia_core.base_samples import ROWS, BasePart, BaseSample, key_fault, pair_of, reading
from idia_core.config import Strict
from idia_core.errors import InvalidInputError, MissingInputError
from idia_core.images import MAX_BYTES
from idia_core.sample_status import SampleStatus
from idia_core.storage import as_path

BLOCK_BYTES = 1 << 20  # read at once
LINE_BYTES = 16 << 20  # a longer "line" is no TSV
READERS, AHEAD = 8, 32
"""Threads that read pictures, and how many pictures may wait for whoever asked for them."""
BOM = b"\xef\xbb\xbf"
CAPTION_AND_URL = ["caption", "url"]
"""The header line that some put on top of Google's lists."""
NO_SUCH_NAME = (errno.ENAMETOOLONG, errno.ELOOP)


class ListColumns(Strict):
    """Where a list of pictures has its paths and captions; the names are those that open_clip expects."""

    picture: str = "filepath"
    """The column of paths, which are relative to the folder of pictures."""
    caption: str = "title"
    """The column of captions."""
    pattern: str = "{row:08d}.jpg"
    """Where the picture of a row is, counted from 0, in a list without paths: Google's, of captions and URLs."""

    @field_validator("pattern")
    @classmethod
    def _names_one_file_a_row(cls, pattern: str) -> str:
        try:
            names = [pattern.format(row=row) for row in range(2)]
        except (LookupError, ValueError, AttributeError) as error:
            raise ValueError(f"'{pattern}' is no pattern such as '{{row:08d}}.jpg': {error}") from None
        if len(set(names)) == 1 or _unsafe(names[0]):
            raise ValueError(f"'{pattern}' names no file of its own for each row: use {{row:08d}}")
        return pattern


class Layout(NamedTuple):
    """How the lines of a list are read."""

    header: bool
    caption: int
    picture: int | None
    """The column of paths; None where pictures are found by their row."""


def list_splits(path: UPath, columns: ListColumns, images: str | None) -> Iterator[dict[str, Any]]:
    """Runs of ROWS lines; the list is read once, to find where its lines end.

    Raises `InvalidInputError` when it cannot be read or its first line shows no known layout, and `MissingInputError`
    when there is no folder of pictures.
    """
    folder = path.parent if images is None else as_path(images)
    if not folder.is_dir():
        raise MissingInputError("no folder of pictures", str(folder), "Check `images`.")
    with reading(path, "TSV"), path.fs.open(path.path, "rb") as file:
        ends = _line_ends(file, str(path))
        if not (first := next(ends, 0)):
            raise InvalidInputError("an empty file", str(path), "Fetch it again.")
        head = path.fs.cat_file(path.path, start=0, end=first)
        layout = _layout(head, columns, str(path))
        begin, row = (first if layout.header else len(BOM) * head.startswith(BOM)), 0
        rows = ends if layout.header else chain([first], ends)
        fixed = {"url": str(path), "images": str(folder), "caption": layout.caption}
        fixed |= {"picture": layout.picture, "pattern": columns.pattern}
        while run := list(islice(rows, ROWS)):
            yield {**fixed, "begin": begin, "end": run[-1], "row": row, "rows": len(run)}
            begin, row = run[-1], row + len(run)


def _line_ends(file: IO[bytes], where: str) -> Iterator[int]:
    """Behind each newline, and at the end if that is none."""
    at = end = 0
    while block := file.read(BLOCK_BYTES):
        for end in (at + 1 + np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n"))).tolist():
            yield end
        at += len(block)
        if at - end > LINE_BYTES:
            raise InvalidInputError(f"a line is longer than {LINE_BYTES >> 20} MiB", where, "Is it a TSV?")
    if at > end:
        yield at


def _layout(head: bytes, columns: ListColumns, where: str) -> Layout:
    """What the first line says: it names the columns, or is a caption and a URL."""
    names = head.decode("utf-8-sig", errors="replace").rstrip("\r\n").split("\t")
    if columns.picture in names and columns.caption in names:
        return Layout(header=True, caption=names.index(columns.caption), picture=names.index(columns.picture))
    if names == CAPTION_AND_URL or re.match("https?://", "".join(names[1:2])):
        return Layout(header=names == CAPTION_AND_URL, caption=0, picture=None)
    what = f"the first line names no columns '{columns.picture}' and '{columns.caption}', and is no caption and URL"
    fix = f"Set `lists`; the first line is: {', '.join(names)[:200]}."
    raise InvalidInputError(what, where, fix)


def read_list(split: Mapping[str, Any]) -> BasePart:
    """The pairs of a run of lines; a few pictures are read at once.

    Raises `InvalidInputError` when the list is shorter than it was, and for a picture that is there but cannot be read.
    """
    path, images = as_path(split["url"]), as_path(split["images"])
    with reading(path, "TSV"):
        text = path.fs.cat_file(path.path, start=split["begin"], end=split["end"])
    if len(text) != split["end"] - split["begin"]:
        raise InvalidInputError("shorter than it was at first", str(path), "Has it changed? Run again.")
    taken: set[str] = set()
    lines = enumerate(text.removesuffix(b"\n").split(b"\n"), split["row"])
    return BasePart(_with_pictures([_pair(row, line, split, taken) for row, line in lines], images))


class _Pair(NamedTuple):
    """A line of the list: where its picture is, relative to the folder, and whether that is worth a look."""

    key: str
    caption: bytes | None
    picture: str
    status: SampleStatus
    detail: str | None


def _pair(row: int, line: bytes, split: Mapping[str, Any], taken: set[str]) -> _Pair:
    fields = line.removesuffix(b"\r").split(b"\t")
    caption_at, path_at = split["caption"], split["picture"]
    wanted = 1 + max(caption_at, 1 if path_at is None else path_at)
    padded = [*fields, *[b""] * wanted]
    path = split["pattern"].format(row=row).encode() if path_at is None else padded[path_at]
    name = path.decode(errors="replace")
    key = f"{row:08d}" if path_at is None else _key(name)
    fault: tuple[SampleStatus, str | None]
    if len(fields) < wanted:
        fault = SampleStatus.NO_CAPTION, f"the line has {len(fields)} of {wanted} columns"
    elif not path:
        fault = SampleStatus.NO_PICTURE, "the line has no path"
    elif name.encode() != path:
        fault = SampleStatus.UNUSABLE_KEY, "the path is not UTF-8"
    elif reason := _unsafe(name):
        fault = SampleStatus.UNSAFE_PATH, f"'{name}' {reason}"
    else:
        fault = key_fault(key, taken)
    caption = fields[caption_at] if caption_at < len(fields) else None
    return _Pair(key, caption, name, fault[0], fault[1] and f"row {row}: {fault[1]}")


def _key(name: str) -> str:
    """A path without its suffix, as one word without a dot."""
    path = PurePosixPath(name)
    return re.sub("[/.]", "_", str(path.with_name(path.stem)) if path.name else name)


def _unsafe(name: str) -> str | None:
    """What makes a path one that is not looked at, or None."""
    path = PurePosixPath(name)
    if "://" in name:
        return "is a URL"
    if path.is_absolute() or ".." in path.parts:
        return "leaves the folder"
    return None if path.name else "names no file"


def _with_pictures(pairs: Sequence[_Pair], images: UPath) -> Iterator[BaseSample]:
    read = partial(_read, images.fs, images.path.rstrip("/"))  # the threads share one file system and its connections
    with ThreadPoolExecutor(READERS) as pool:
        waiting: deque[Future[BaseSample]] = deque()
        for pair in pairs:
            waiting.append(pool.submit(read, pair))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _read(fs: AbstractFileSystem, folder: str, pair: _Pair) -> BaseSample:
    picture, status, detail = None, pair.status, pair.detail
    if status is SampleStatus.OK:
        picture, status, detail = _picture(fs, f"{folder}/{PurePosixPath(pair.picture)}")
    if picture is not None:
        return pair_of(pair.key, pair.caption, picture)
    return BaseSample(pair.key, pair.caption, None, None, None, None, status, detail)


def _picture(fs: AbstractFileSystem, name: str) -> tuple[bytes | None, SampleStatus, str | None]:
    """A file's bytes, or why there are none."""
    try:
        info = fs.info(name)
        if info["type"] != "file":  # reading a pipe would not end
            return None, SampleStatus.NOT_A_FILE, f"'{name}' is no file"
        if (info["size"] or 0) > MAX_BYTES:
            return None, SampleStatus.TOO_LARGE, f"the picture has {info['size']:,} bytes"
        return fs.cat_file(name), SampleStatus.OK, None
    except (FileNotFoundError, NotADirectoryError):
        return None, SampleStatus.MISSING, f"there is no '{name}'"
    except OSError as error:
        if error.errno in NO_SUCH_NAME:
            return None, SampleStatus.MISSING, f"there can be no '{name}'"
        reason = error.strerror or error
        raise InvalidInputError(f"a picture that cannot be read: {reason}", name, "Mend it or remove it.") from None
