"""Files at any fsspec URL: found by pattern, written whole or not at all."""

import errno
import fcntl
import glob
import hashlib
import io
import mmap
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import fsspec
from typing_extensions import Buffer
from upath import UPath

from idia_core.errors import BusyError, MissingInputError, StorageError, UsageError

TEMPORARY_SUFFIX = ".tmp"
BUFFERS_AT_ONCE = 1000
"""The system takes 1,024."""
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What a disk says to a writer alone: it is full, the user's share of it is, or the file may not grow."""
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
"""The extra of this package that a kind of URL needs."""
ByteBuffer = bytes | bytearray | memoryview | mmap.mmap
"""Of which the length is the number of bytes."""

for protocol in ("s3", "s3a"):
    fsspec.register_implementation(protocol, "idia_core.object_stores.S3", clobber=True, errtxt="s3fs is missing")


def keep_private() -> None:
    """Give what this process writes from now on, and what it starts, to its user alone: files 0600, folders 0700.

    The environment's IDIA_UMASK is what others may not do, as in the shell's `umask`: with 027 a group reads along.
    """
    os.umask(int(os.environ.get("IDIA_UMASK", "077"), 8))


def is_local(path: UPath) -> bool:
    """True for a path on this machine's own file system, where a rename is atomic."""
    return path.protocol in ("", "file", "local")


def as_path(url: str) -> UPath:
    """The path of a URL or of a local name; local ones are made absolute, so that workers elsewhere agree.

    Raises `UsageError` for a kind of URL that fsspec does not know or needs a package for that is not installed, and
    for the home of a user who does not exist.
    """
    try:
        path = UPath(url)
        if is_local(path):
            return UPath(Path(path.path).expanduser().absolute())
        fsspec.get_filesystem_class(path.protocol)
    except ImportError as error:
        extra = EXTRAS.get(path.protocol)
        fix = f"pip install 'idia[{extra}]'" if extra else "Install what fsspec needs for it."
        raise UsageError(f"'{path.protocol}://' URLs need a package that is not here: {error}", url, fix) from None
    except (ValueError, RuntimeError) as error:
        raise UsageError(f"'{url}' is no path: {error}", fix="Give a local path or an fsspec URL.") from None
    return path


@contextmanager
def write_whole(path: UPath) -> Iterator[IO[bytes]]:
    """Open `path` for writing so that it appears complete or not at all.

    The bytes go to a temporary file: beside the target and renamed where the target is local, in the
    system's temporary folder and uploaded with one PUT elsewhere. On an error nothing is left behind.
    Raises `StorageError` where there is no room for it, and where a store does not take it.
    """
    folder = Path(path.path).parent if is_local(path) else Path(tempfile.gettempdir())
    temporary = folder / f".{path.name}.{uuid.uuid4().hex}{TEMPORARY_SUFFIX}"
    try:
        with room_needed(str(path if is_local(path) else folder)):
            folder.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                yield file
            if is_local(path):
                temporary.replace(path.path)
            else:
                _put(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def room_needed(where: str) -> Iterator[None]:
    """Raise `StorageError` where something cannot be written in this block because the disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        what = f"it cannot be written: {os.strerror(error.errno)}"
        raise StorageError(what, where, "Make room there and run again: what is done stays.") from None


def _put(file: Path, path: UPath) -> None:
    try:
        path.fs.put_file(str(file), path.path)
    except OSError as error:
        fix = "Is the store well, and within reach? Run again when it is: what is done stays."
        if isinstance(error, PermissionError | FileNotFoundError):
            fix = "Check the bucket's name, and that your credentials, or the machine's role, may write there."
        raise StorageError(f"it cannot be written: {error}".rstrip("."), str(path), fix) from None


def write_text(path: UPath, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    with write_whole(path) as file:
        file.write(text.encode())


def write_buffers(file: IO[bytes], buffers: Sequence[ByteBuffer]) -> int:
    """Append buffers to a file, to one of the system in as few calls as it takes; returns how many bytes they are."""
    total = sum(map(len, buffers))
    if not isinstance(file, io.FileIO | io.BufferedWriter | io.BufferedRandom):
        file.writelines(buffers)
        return total
    file.flush()
    for first in range(0, len(buffers), BUFFERS_AT_ONCE):
        some = buffers[first : first + BUFFERS_AT_ONCE]
        due = total if len(some) == len(buffers) else sum(map(len, some))
        while (written := os.writev(file.fileno(), some)) < due:  # the system may take a part of them
            some, due = [memoryview(b"".join(some))[written:]], due - written
    return total


class HashedFile(io.RawIOBase):
    """A file that is written from front to back, and hashed on the way."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self._file, self._digest, self.bytes = file, hashlib.sha256(), 0

    def writable(self) -> bool:
        """True."""
        return True

    def write(self, content: Buffer, /) -> int:
        """Append the content."""
        self._digest.update(content)
        self._file.write(content)
        size = memoryview(content).nbytes
        self.bytes += size
        return size

    def writelines(self, contents: Iterable[ByteBuffer], /) -> None:  # type: ignore[override]  # their length is wanted
        """Append the contents one after another."""
        buffers, hash_more = list(contents), self._digest.update
        for buffer in buffers:
            hash_more(buffer)
        self.bytes += write_buffers(self._file, buffers)

    def tell(self) -> int:
        """How many bytes were written."""
        return self.bytes

    @property
    def sha256(self) -> str:
        """The SHA-256 of what was written, in hexadecimal."""
        return self._digest.hexdigest()


def sha256_of(path: UPath) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def remove_temporaries(folder: UPath) -> int:
    """Delete the temporary files and folders that killed writers left below `folder`; returns how many."""
    if not is_local(folder):
        return 0  # a killed upload leaves nothing behind: an object exists after its PUT or not at all
    left = list(Path(folder.path).rglob(f".*{TEMPORARY_SUFFIX}"))
    for path in left:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return len(left)


def remove_tree(folder: UPath) -> None:
    """Delete `folder` and all that is in it; nothing happens where there is none."""
    if folder.exists():
        folder.fs.rm(folder.path, recursive=True)


def move_tree(source: UPath, target: UPath) -> None:
    """Move a folder; a rename on a local disk, a copy and delete of every object elsewhere."""
    if is_local(source):
        Path(target.path).parent.mkdir(parents=True, exist_ok=True)
        Path(source.path).rename(target.path)
        return
    root = source.path.rstrip("/")
    for name in source.fs.find(root):
        source.fs.cp_file(name, target.path.rstrip("/") + name.removeprefix(root))
    source.fs.rm(root, recursive=True)


def find_files(url: str, patterns: Sequence[str], where: str) -> list[UPath]:
    """The files that `url` names, sorted: itself, those of a folder that match one of the patterns, or a glob's.

    What is there is taken by its name, even if that reads as a glob.
    Raises `MissingInputError` when there is none: an input that matches nothing is never an empty success.
    """
    path = as_path(url)
    if path.is_dir():
        root = glob.escape(path.path.rstrip("/"))
        found = [file for pattern in patterns for file in _glob(path, f"{root}/{pattern}")]
    else:
        found = [path] if path.exists() else _glob(path, path.path)
    if not found:
        shown = f"{url.rstrip('/')}/{' or '.join(patterns)}" if path.is_dir() else url
        raise MissingInputError(f"no file matches '{shown}'", where, "Check the path.")
    return sorted(found, key=str)


def _glob(path: UPath, pattern: str) -> list[UPath]:
    """The files, not folders, on the file system of `path` that match."""
    if is_local(path):  # fsspec's own would not look into folders that are links
        names = glob.glob(pattern, recursive=True, include_hidden=True)  # noqa: PTH207 - the pattern is absolute
        return [UPath(name) for name in names if Path(name).is_file()]
    names = [name for name, info in path.fs.glob(pattern, detail=True).items() if info["type"] != "directory"]
    return [UPath(path.fs.unstrip_protocol(name), **path.storage_options) for name in names]


def identity_of(path: UPath) -> tuple[str, int, str]:
    """What tells, without reading it, that a file has changed: its folder and name, its size in bytes, ETag or age."""
    info = path.fs.info(path.path)
    written = ("ETag", "etag", "mtime", "LastModified", "created")
    version = next((info[key] for key in written if info.get(key)), "")
    return f"{path.parent.name}/{path.name}", int(info["size"]), str(version)


@contextmanager
def sole_writer(folder: UPath) -> Iterator[None]:
    """Hold a folder against a second run while the block lasts; the kernel lets go of it when the process dies.

    Raises `BusyError` when another process holds it and `UsageError` where no folder can be made. Object stores know no
    locks and are not held.
    """
    if not is_local(folder):
        yield
        return
    try:
        Path(folder.path).mkdir(parents=True, exist_ok=True)
        handle = os.open(folder.path, os.O_RDONLY)
    except OSError as error:
        raise UsageError(f"no folder can be made: {error.strerror}", str(folder), "Choose another one.") from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError("another run is writing there", str(folder), "Wait for it, or stop it.") from None
        yield
    finally:
        os.close(handle)
