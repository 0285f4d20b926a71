"""Tars of picture-caption pairs: their samples listed without extracting anything, and written byte by byte alike."""

import re
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import IO, NamedTuple, Self

import numpy as np

from idia_core.errors import InvalidInputError
from idia_core.sample_status import SampleStatus
from idia_core.storage import ByteBuffer, write_buffers
from idia_core.tar_headers import (
    BLOCK,
    FILE_COLUMNS,
    NAME_BYTES,
    PREFIX_BYTES,
    Bytes,
    End,
    Integers,
    Verdict,
    skip_zeros,
    walk,
)
from idia_core.tar_samples import (
    CAPTION_AT,
    CAPTION_BYTES,
    LONGEST_KEY,
    LONGEST_NAME,
    NAMED_COLUMNS,
    PICTURE,
    PICTURE_AT,
    PICTURE_BYTES,
    SAMPLE_COLUMNS,
    SAMPLE_KEY,
    SAMPLE_KEY_END,
    VERDICT,
    group,
    name_files,
)

PICTURE_SUFFIXES = ("jpg", "png", "jpeg", "webp")
"""In the order in which open_clip looks for a sample's picture."""
RECORD = 20 * BLOCK
"""A tar's size is a multiple of this."""
SIZE_LIMIT = 8 << 30
"""Bytes that a file in a tar may not reach: a header has room for eleven octal digits."""

_VERDICTS: dict[int, tuple[SampleStatus, str | None]] = {
    Verdict.ABSOLUTE: (SampleStatus.UNSAFE_PATH, "the path is absolute"),
    Verdict.LEADS_OUT: (SampleStatus.UNSAFE_PATH, "the path has a '..'"),
    Verdict.DOT_IN_KEY: (SampleStatus.UNUSABLE_KEY, "a dot in a folder's name"),
    Verdict.LONG_KEY: (
        SampleStatus.UNUSABLE_KEY,
        f"longer than {LONGEST_KEY} bytes, or {LONGEST_NAME} with the suffix",
    ),
    Verdict.ZERO_IN_KEY: (SampleStatus.UNUSABLE_KEY, "a zero byte in the name"),
    Verdict.SKIPPED_FOLDER: (SampleStatus.UNUSABLE_KEY, "in a folder that WebDataset reads over"),
    Verdict.NO_NAME: (SampleStatus.UNUSABLE_KEY, "no name before the suffix"),
    Verdict.KEY_NOT_UTF8: (SampleStatus.UNUSABLE_KEY, "not UTF-8"),
    Verdict.HARD_LINK: (SampleStatus.NOT_A_FILE, "a hard link"),
    Verdict.SYMBOLIC_LINK: (SampleStatus.NOT_A_FILE, "a symbolic link"),
    Verdict.DEVICE: (SampleStatus.NOT_A_FILE, "a device"),
    Verdict.PIPE: (SampleStatus.NOT_A_FILE, "a named pipe"),
    Verdict.SPARSE: (SampleStatus.NOT_A_FILE, "a sparse file"),
    Verdict.UNKNOWN_TYPE: (SampleStatus.NOT_A_FILE, "of an unknown type"),
    Verdict.CUT: (SampleStatus.CUT, "the tar ends within it"),
    Verdict.DUPLICATE: (SampleStatus.DUPLICATE_KEY, None),
    Verdict.NO_PICTURE: (SampleStatus.NO_PICTURE, None),
    Verdict.NO_CAPTION: (SampleStatus.NO_CAPTION, None),
    Verdict.EMPTY_PICTURE: (SampleStatus.EMPTY, None),
    Verdict.EMPTY_CAPTION: (SampleStatus.EMPTY_CAPTION, None),
    Verdict.FINE: (SampleStatus.OK, None),
}


class Place(NamedTuple):
    """Where a file's content lies within the tar."""

    at: int
    bytes: int


class TarSample(NamedTuple):
    """A sample of a tar; `detail` says more about a status where there is more to say."""

    key: str
    suffix: str | None
    picture: Place | None
    caption: Place | None
    status: SampleStatus
    detail: str | None


class TarListing(NamedTuple):
    """The samples of a tar in their order, and what is wrong with the tar as a whole (None: nothing)."""

    samples: list[TarSample]
    damage: str | None


def list_tar(content: ByteBuffer) -> TarListing:
    """List the samples of a tar as open_clip's loader groups them, whatever the bytes are; nothing is extracted.

    A sample is OK when it has a picture and a caption that are not empty, under a key that `TarWriter` takes and that
    no earlier sample has. What the loader reads over (folders, files without a suffix, `__notes__`) is left out, but
    links, devices and paths that lead out of the folder are rows. Only a tar whose `damage` is None is complete.
    """
    data = np.frombuffer(content, dtype=np.uint8)
    data.flags.writeable = False
    files = np.empty((len(data) // BLOCK + 1, FILE_COLUMNS), dtype=np.int64)
    count, end, at = walk(data, files)
    files = files[:count]
    names = np.empty(int(files[:, [NAME_BYTES, PREFIX_BYTES]].sum()) + count, dtype=np.uint8)
    named = np.empty((count + 1, NAMED_COLUMNS), dtype=np.int64)
    named = named[: name_files(data, files, names, named)]
    samples = np.empty((len(named), SAMPLE_COLUMNS), dtype=np.int64)
    samples = samples[: group(data, names, named, samples, end == End.WHOLE)]
    return TarListing(_samples(data, names.tobytes(), samples), _damage(data, count, end, at))


def _samples(data: Bytes, names: bytes, samples: Integers) -> list[TarSample]:
    keys, verdicts = _keys(names, samples)
    for i, verdict in enumerate(verdicts):
        if verdict == Verdict.UNSURE:
            begin, size = samples[i, CAPTION_AT], samples[i, CAPTION_BYTES]
            caption = data[begin : begin + size].tobytes().decode(errors="replace")
            verdicts[i] = Verdict.FINE if caption.strip() else Verdict.EMPTY_CAPTION
    pictures = map(_place, samples[:, PICTURE_AT].tolist(), samples[:, PICTURE_BYTES].tolist())
    captions = map(_place, samples[:, CAPTION_AT].tolist(), samples[:, CAPTION_BYTES].tolist())
    suffixes = map((*PICTURE_SUFFIXES, None).__getitem__, samples[:, PICTURE].tolist())  # the last: none, -1
    findings = map(_VERDICTS.__getitem__, verdicts)
    rows = zip(keys, suffixes, pictures, captions, findings, strict=True)
    return [TarSample(key, suffix, picture, caption, *finding) for key, suffix, picture, caption, finding in rows]


def _place(at: int, size: int) -> Place | None:
    return None if at < 0 else Place(at, size)


def _keys(names: bytes, samples: Integers) -> tuple[list[str], list[int]]:
    """The samples' keys, and their verdicts with what the keys' bytes and their coming again add."""
    verdicts, keys = samples[:, VERDICT].tolist(), []
    for i, (begin, end) in enumerate(samples[:, [SAMPLE_KEY, SAMPLE_KEY_END]].tolist()):
        try:
            keys.append(names[begin:end].decode())
        except UnicodeDecodeError:
            keys.append(names[begin:end].decode(errors="backslashreplace"))
            verdicts[i] = min(verdicts[i], Verdict.KEY_NOT_UTF8)
    if len(set(keys)) < len(keys):
        seen: set[str] = set()
        for i, key in enumerate(keys):
            verdicts[i] = min(verdicts[i], Verdict.DUPLICATE) if key in seen else verdicts[i]
            seen.add(key)
    return keys, verdicts


def _damage(data: Bytes, files: int, end: int, at: int) -> str | None:
    """What is wrong with the tar whose walk found so many files and ended at a byte in a way (`End`)."""
    if end == End.WHOLE:
        after = skip_zeros(data, at)
        return f"data after the end of the tar, at byte {after}" if after < len(data) else None
    if end == End.GLOBAL_HEADER:
        return f"the header at byte {at} gives every file the same name or size"
    if at == 0:
        return "no tar: it does not begin with a tar's header" if len(data) else "no tar: it has no bytes"
    if end == End.CUT:
        return f"cut short at byte {len(data)}, in or after its file {files}"
    return f"a broken header at byte {at}, after {files} files"


# A file's header but for its name, its size and the sum of its bytes, as Python's tarfile writes it for a `TarInfo`.
_MODE = b"0000644\0" + b"0000000\0" * 2  # and owner and group
_TIME = b"00000000000\0"
_TYPE = b"0" + bytes(LONGEST_NAME) + b"ustar\00000"
_HEADER = b"%b%b%012d%b%8b%b" % (bytes(LONGEST_NAME), _MODE, 0, _TIME, b"", _TYPE)  # the sum counts as spaces
_SIZE_AT, _SUM_AT = LONGEST_NAME + len(_MODE), LONGEST_NAME + len(_MODE) + 2 * len(_TIME)
_SIZE_DIGITS, _SUM_DIGITS = 11, 6
_USABLE_KEY = re.compile(r"(?!__[^/]*__/)(?!/)[^.\0\ud800-\udfff]+(?<!/)")  # no dot, no zero, no half of a character
_BATCH_BYTES = 1 << 19  # that are written at once, still in the processor's cache (a core has 1 MiB)
_ALIGNED_BYTES = 1 << 16  # of which writes are multiples: no page of the system's cache is written to twice


def _octal(numbers: Integers, digits: int) -> Bytes:
    """The numbers' octal digits: (n, digits) of ASCII."""
    return (numbers[:, None] >> np.arange(3 * digits - 3, -1, -3) & 7 | ord("0")).astype(np.uint8)


def _headers(names: Sequence[bytes], sizes: Sequence[int]) -> Iterator[bytes]:
    """The files' headers: 512 bytes each."""
    headers = np.tile(np.frombuffer(_HEADER.ljust(BLOCK, b"\0"), dtype=np.uint8), (len(names), 1))
    headers[:, :LONGEST_NAME] = np.array(names, dtype=f"S{LONGEST_NAME}").view(np.uint8).reshape(-1, LONGEST_NAME)
    headers[:, _SIZE_AT : _SIZE_AT + _SIZE_DIGITS] = _octal(np.array(sizes), _SIZE_DIGITS)
    headers[:, _SIZE_AT + _SIZE_DIGITS] = 0
    sums = headers.sum(axis=1, dtype=np.int64)
    headers[:, _SUM_AT : _SUM_AT + _SUM_DIGITS] = _octal(sums, _SUM_DIGITS)
    headers[:, _SUM_AT + _SUM_DIGITS] = 0
    together = headers.tobytes()
    return (together[at : at + BLOCK] for at in range(0, len(together), BLOCK))


def _names(key: str, suffix: str) -> tuple[bytes, bytes]:
    """The names of a sample's picture and caption."""
    if suffix not in PICTURE_SUFFIXES:
        raise InvalidInputError(f"'{suffix}' is no suffix of a picture", f"key {key!r}", "Use jpg, png, jpeg, webp.")
    name = key.encode() if _USABLE_KEY.fullmatch(key) else b""
    if not 0 < len(name) <= min(LONGEST_KEY, LONGEST_NAME - 1 - len(suffix)):
        fix = f"Use at most {LONGEST_KEY} bytes of UTF-8 without a dot or a zero, and no slash at an end."
        raise InvalidInputError(f"the key {key!r} cannot name a file in a tar", "a tar", fix)
    return b"%b.%b" % (name, suffix.encode()), name + b".txt"


def _check_sizes(names: Sequence[bytes], sizes: Sequence[int]) -> None:
    if max(sizes, default=0) >= SIZE_LIMIT:
        name, size = next(file for file in zip(names, sizes, strict=True) if file[1] >= SIZE_LIMIT)
        raise InvalidInputError(f"a file of {size} bytes", f"'{name.decode()}' of a tar", "Give less than 8 GiB.")


class TarWriter:
    """Writes samples as Python's tarfile writes them in the USTAR format: the same samples, the same bytes.

    Pictures are not copied but held until half a MiB of them goes out together, at the latest in `close`; until then
    they must not change. What is no file of the system gets them by `writelines`.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._size = file, 0
        self._buffers: list[ByteBuffer] = []
        self._small: list[ByteBuffer] = []  # headers and captions that follow the buffers
        self._padding = self._written = 0  # zeros due after the last content; bytes that are no longer held

    def add(self, key: str, suffix: str, picture: ByteBuffer, caption: ByteBuffer) -> tuple[Place, Place]:
        """Append a picture and its caption; where their contents lie within the tar. Raises what `extend` raises."""
        self.extend([key], [suffix], [(picture, caption)])
        at, size = self._size - len(caption), len(picture)
        return Place(at - BLOCK - size - -size % BLOCK, size), Place(at, len(caption))

    def extend(
        self, keys: Sequence[str], suffixes: Sequence[str], contents: Sequence[tuple[ByteBuffer, ByteBuffer]]
    ) -> None:
        """Append pictures and their captions, buffers of bytes.

        Raises `InvalidInputError` for a key that `list_tar` calls unusable, a suffix that open_clip does not look for
        and a file of 8 GiB or more; nothing of these samples is written then.
        """
        names = [name for files in map(_names, keys, suffixes) for name in files]
        sizes = [len(content) for files in contents for content in files]
        _check_sizes(names, sizes)
        headers, zeros = _headers(names, sizes), bytes(BLOCK)
        for (picture, caption), of_picture, of_caption in zip(contents, headers, headers, strict=True):
            padding, more = -len(picture) % BLOCK, len(caption)
            self._buffers += (b"".join((*self._small, zeros[: self._padding], of_picture)), picture)
            self._small = [zeros[:padding], of_caption, caption]
            self._size += self._padding + 2 * BLOCK + len(picture) + padding + more
            self._padding = -more % BLOCK
            if self._size - self._written >= _BATCH_BYTES:
                self._write(self._size & -_ALIGNED_BYTES)

    def _write(self, stop: int) -> None:
        """Write what is held up to the byte `stop`."""
        buffers, rest = [*self._buffers, b"".join(self._small)], list[ByteBuffer]()
        beyond = self._size - stop
        while beyond >= len(buffers[-1]):
            rest.insert(0, buffers.pop())
            beyond -= len(rest[0])
        last = memoryview(buffers.pop())
        rest.insert(0, last[len(last) - beyond :])
        write_buffers(self._file, [*buffers, last[: len(last) - beyond]])
        self._buffers, self._small, self._written = rest, [], stop

    def close(self) -> None:
        """Write what is held and the end of the tar; the file stays open."""
        end = self._padding + 2 * BLOCK
        end += -(self._size + end) % RECORD
        self._small.append(bytes(end))
        self._size += end
        self._write(self._size)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is None:
            self.close()
