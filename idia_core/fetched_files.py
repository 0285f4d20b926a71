"""Whether a fetched file is a whole picture of a wanted form, from its header where that is enough."""

import io
import struct
import threading
from typing import NamedTuple

from idia_core.fetch_status import FetchStatus
from idia_core.images import MAX_PIXELS, ORIENTATION, PictureStatus, decode_picture

JPEG, MARKER, EXIF = b"\xff\xd8", 0xFF, b"Exif\0\0"
END_OF_IMAGE, START_OF_SCAN, APP1 = b"\xff\xd9", 0xDA, 0xE1
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers of the segments that tell a JPEG's size."""
PLAIN_COLOURS = (1, 3)
"""Components of JPEGs in grey and in colour; four are inks."""
FASTEST = 1
_one_decodes = threading.Lock()  # `decode_picture` quietens warnings, which threads share


class JpegHeader(NamedTuple):
    """What a JPEG says before its first pixel, and whether its end is there."""

    width: int
    height: int
    components: int
    orientation: int
    """EXIF's; 1 is upright."""
    whole: bool


class FetchedFile(NamedTuple):
    """A file that was looked at: the size of the upright picture in pixels, 0 where it has none."""

    status: FetchStatus
    detail: str = ""
    width: int = 0
    height: int = 0
    upright: bytes | None = None
    """An encoding that any decoder shows upright in RGB; None where the file itself is one, or is not wanted."""


class Form(NamedTuple):
    """The pictures that are wanted."""

    min_side: int
    max_aspect: float


def read_jpeg_header(content: bytes) -> JpegHeader | None:
    """The header of a JPEG; None where the bytes are no JPEG, or one that ends within its header."""
    if content[:2] != JPEG:
        return None
    frame, orientation, at = None, 1, 2
    while at + 4 <= len(content) and content[at] == MARKER:
        marker = content[at + 1]
        if marker == MARKER:  # padding
            at += 1
            continue
        if marker == START_OF_SCAN and frame:
            height, width, components = frame
            return JpegHeader(width, height, components, orientation, content.rfind(END_OF_IMAGE, at) >= 0)
        length = int.from_bytes(content[at + 2 : at + 4], "big")
        if marker in FRAMES and at + 10 <= len(content):
            frame = struct.unpack_from(">HHB", content, at + 5)
        elif marker == APP1 and content[at + 4 : at + 10] == EXIF:
            orientation = _orientation(content[at + 10 : at + 2 + length])
        at += 2 + length
    return None


def _orientation(exif: bytes) -> int:
    """The orientation in a block of EXIF; 1 where it has none that can be read."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    try:
        if order is None:
            return 1
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        (entries,) = struct.unpack_from(f"{order}H", exif, start)
        for entry in range(entries):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", exif, start + 2 + 12 * entry)
            if tag == ORIENTATION:
                return value if 1 <= value <= 8 else 1
    except struct.error:  # it points beyond its end
        pass
    return 1


def look_at(content: bytes, form: Form) -> FetchedFile:
    """What a file that is not empty is, and whether it is wanted.

    An upright JPEG in grey or colour is not decoded; everything else is, by `decode_picture`, so that no other
    decoder sees a file of another kind.
    """
    header = read_jpeg_header(content)
    if header and header.components in PLAIN_COLOURS and header.orientation == 1 and header.width and header.height:
        if header.width * header.height > MAX_PIXELS:
            return FetchedFile(FetchStatus.TOO_LARGE, f"{header.width} x {header.height} pixels")
        if not header.whole:
            return FetchedFile(FetchStatus.TRUNCATED_IMAGE, "a JPEG without its end")
        return _in_form(FetchedFile(FetchStatus.OK, "", header.width, header.height), form)
    with _one_decodes:
        picture, status = decode_picture(content)
    if picture is None:
        return FetchedFile(as_fetched(status), str(status))
    found = _in_form(FetchedFile(FetchStatus.OK, "", *picture.size), form)
    if found.status is not FetchStatus.OK:
        return found
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=FASTEST)
    return found._replace(upright=buffer.getvalue())


def as_fetched(status: PictureStatus) -> FetchStatus:
    """What a picture that cannot be decoded is called here."""
    known = {
        PictureStatus.TRUNCATED: FetchStatus.TRUNCATED_IMAGE,
        PictureStatus.TOO_LARGE: FetchStatus.TOO_LARGE,
    }
    return known.get(status, FetchStatus.NOT_AN_IMAGE)


def _in_form(found: FetchedFile, form: Form) -> FetchedFile:
    sides = f"{found.width} x {found.height} pixels"
    short, long = sorted((found.width, found.height))
    if short < form.min_side:
        return found._replace(status=FetchStatus.TOO_SMALL, detail=sides)
    if long > form.max_aspect * short:
        return found._replace(status=FetchStatus.BAD_ASPECT, detail=sides)
    return found
