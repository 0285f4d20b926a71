"""What is to be known of a training picture, found out by decoding it once."""

import io
import warnings
from typing import NamedTuple

from PIL import Image, ImageOps
from typing_extensions import Buffer

from idia_core.images import MAX_PIXELS, ON_ITS_SIDE, ORIENTATION, READER_ERRORS, decode_picture
from idia_core.perceptual_hash import perceptual_hash
from idia_core.sample_status import SampleStatus

REDUCED_SIDE = 128
"""Pixels. A JPEG is decoded to half, a quarter or an eighth of its size where neither side becomes shorter than this;
the decoder reads the whole file all the same, so damage is met, and the hash stays the same but for a few bits."""
JPEG_START = b"\xff\xd8"


class Examined(NamedTuple):
    """A picture's status, its full size upright (zeros where it cannot be decoded), and its hash if it has one."""

    status: SampleStatus
    size: tuple[int, int]
    hash: bytes | None


class Reduced(NamedTuple):
    """A picture upright and perhaps smaller than it is (None where it cannot be decoded), its full size, its status."""

    picture: Image.Image | None
    size: tuple[int, int]
    status: SampleStatus


def examine(picture: Buffer, max_pixels: int = MAX_PIXELS) -> Examined:
    """The status, the size and the perceptual hash of an encoded picture, decoded once and no larger than needed.

    The status is what `decode_picture` says of it.
    """
    reduced = decode_reduced(picture, max_pixels)
    hashed = None if reduced.picture is None else perceptual_hash(reduced.picture)
    return Examined(reduced.status, reduced.size, hashed)


def decode_reduced(picture: Buffer, max_pixels: int = MAX_PIXELS) -> Reduced:
    """The picture upright, in grey and at reduced size where that saves work; otherwise as `decode_picture` has it."""
    content = bytes(picture)
    if content.startswith(JPEG_START) and (reduced := _decode_jpeg(content, max_pixels)):
        return reduced
    decoded, status = decode_picture(content, max_pixels)
    return Reduced(decoded, decoded.size if decoded else (0, 0), SampleStatus(status))


def _decode_jpeg(content: bytes, max_pixels: int) -> Reduced | None:
    """A JPEG in grey at reduced size; None where anything is wrong with it, for `decode_picture` to say what."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(content), formats=("JPEG",)) as jpeg:
            width, height = jpeg.size
            if width * height > max_pixels:
                return None
            jpeg.draft("L", (REDUCED_SIDE, REDUCED_SIDE))
            jpeg.load()
            turned = jpeg.getexif().get(ORIENTATION) in ON_ITS_SIDE
            upright = ImageOps.exif_transpose(jpeg)
            return Reduced(upright, (height, width) if turned else (width, height), SampleStatus.OK)
    except (Image.DecompressionBombError, *READER_ERRORS):
        return None
