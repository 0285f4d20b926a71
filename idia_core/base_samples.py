"""A pair as it came, whatever it came in, and what can be said against it before its picture is decoded."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pyarrow as pa
from upath import UPath

from idia_core.errors import InvalidInputError
from idia_core.images import MAX_BYTES
from idia_core.sample_status import SampleStatus
from idia_core.tar_samples import LONGEST_KEY, LONGEST_NAME
from idia_core.tars import Place

ROWS = 1000
"""Of a table or list that make a split: seconds of work, and a tar of a useful size."""

Picture = bytes | memoryview
Fault = tuple[SampleStatus, str | None]
"""What became of something, and more about it."""


class BaseSample(NamedTuple):
    """A pair; one whose status is ok has a key that can name a file, a caption that can be read, and some picture.

    The picture has not been decoded. `suffix` is what it is called in a tar: None where it is no JPEG, PNG or WebP.
    """

    key: str
    caption: bytes | None
    picture: Picture | None
    suffix: str | None
    picture_place: Place | None
    caption_place: Place | None
    """Where the two lie in a tar of the base; None for what comes from a table or a list."""
    status: SampleStatus
    detail: str | None


class BasePart(NamedTuple):
    """The pairs of a split in their order, what is wrong with its tar, and what else is worth knowing about it."""

    samples: Iterator[BaseSample]
    damage: str | None = None
    notes: tuple[str, ...] = ()


@contextmanager
def reading(path: UPath, kind: str) -> Iterator[None]:
    """Turns what the file system and Arrow say about a file into an `InvalidInputError` that names it."""
    try:
        yield
    except FileNotFoundError:
        raise InvalidInputError(f"the {kind} is no longer there", str(path), "Put it back.") from None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise InvalidInputError(f"not a readable {kind}: {reason}", str(path), "Fetch it again.") from None


def key_fault(key: str, taken: set[str]) -> Fault:
    """Whether a key is taken or cannot name a file in a tar; it is taken from now on."""
    if key in taken:
        return SampleStatus.DUPLICATE_KEY, "an earlier pair of the same part has this key"
    taken.add(key)
    faults = {
        "no key": not key,
        "a dot, where WebDataset would cut the key": "." in key,
        "a slash at an end": key.startswith("/") or key.endswith("/"),
        "a zero byte": "\0" in key,
        "in a folder that WebDataset reads over": re.match("__[^/]*__/", key),
        f"longer than {LONGEST_KEY} bytes": len(key.encode()) > LONGEST_KEY,
    }
    reason = next((reason for reason, applies in faults.items() if applies), None)
    return (SampleStatus.UNUSABLE_KEY, reason) if reason else (SampleStatus.OK, None)


def pair_of(key: str, caption: bytes | None, picture: Picture) -> BaseSample:
    """A pair under a key that is free and can be used, with what its contents have against it."""
    suffix = suffix_of(picture)
    status, detail = content_fault(picture, caption)
    if status is SampleStatus.OK and len(f"{key}.{suffix or ''}".encode()) > LONGEST_NAME:
        status, detail = SampleStatus.UNUSABLE_KEY, f"longer than {LONGEST_NAME} bytes with its suffix"
    return BaseSample(key, caption, picture, suffix, None, None, status, detail)


def content_fault(picture: Picture, caption: bytes | None) -> Fault:
    """What can be said of a picture and its caption without decoding the picture."""
    if not len(picture):
        return SampleStatus.EMPTY, "the picture has no bytes"
    if len(picture) > MAX_BYTES:
        return SampleStatus.TOO_LARGE, f"the picture has {len(picture):,} bytes"
    if caption is None:
        return SampleStatus.NO_CAPTION, None
    try:
        blank = not caption.decode().strip()
    except UnicodeDecodeError as error:
        return SampleStatus.NOT_UTF8, f"the caption's byte {error.start}"
    return (SampleStatus.EMPTY_CAPTION, None) if blank else (SampleStatus.OK, None)


def suffix_of(picture: Picture) -> str | None:
    """What a picture is called in a tar, by its first bytes; None unless it is a JPEG, PNG or WebP."""
    start = bytes(picture[:12])
    if start.startswith(b"\xff\xd8\xff"):
        return "jpg"
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    return "webp" if start[:4] == b"RIFF" and start[8:] == b"WEBP" else None
