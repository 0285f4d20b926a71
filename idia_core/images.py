"""Decoding pictures from anywhere, safely: upright, RGB, never larger than agreed, with a reason when it fails."""

import io
import struct
import warnings
from collections.abc import Callable
from enum import StrEnum

from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
"""What is read. Pillow knows more, among them EPS, for which it runs another program on the bytes."""
ORIENTATION = 0x0112
"""EXIF tag."""
ON_ITS_SIDE = (5, 6, 7, 8)
"""Orientations in which width and height change places."""
MAX_PIXELS = 64_000_000
"""A picture with more pixels than this is refused before it is decoded: it may be a decompression bomb."""
MAX_BYTES = 256 << 20
"""An encoded picture that is larger than this is not read at all."""
READER_ERRORS = (UnidentifiedImageError, OSError, SyntaxError, ValueError, RuntimeError, struct.error)
"""What Pillow's readers raise on broken bytes."""


class PictureStatus(StrEnum):
    """What became of a picture."""

    OK = "ok"
    EMPTY = "empty"
    MISSING = "missing"
    TRUNCATED = "truncated"
    BROKEN = "broken"
    TOO_LARGE = "too_large"
    DUPLICATE = "duplicate"


def decode_picture(content: bytes, max_pixels: int = MAX_PIXELS) -> tuple[Image.Image | None, PictureStatus]:
    """The first frame of an encoded picture as upright RGB, or None with the reason why not.

    EXIF orientation is applied, transparency is laid on white, and 16 bits are scaled to 8. A picture of more than
    `max_pixels` is refused by what its header says; frames after the first are never decoded.
    """
    return decode_prepared(content, lambda _: None, max_pixels)


def decode_prepared(
    content: bytes, prepare: Callable[[Image.Image], None], max_pixels: int = MAX_PIXELS
) -> tuple[Image.Image | None, PictureStatus]:
    """As `decode_picture`; `prepare` sees the picture before its pixels are decoded, and may ask for fewer of them."""
    if not content:
        return None, PictureStatus.EMPTY
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # our own limit is below Pillow's; its other remarks change nothing
            with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
                if picture.width * picture.height > max_pixels:
                    return None, PictureStatus.TOO_LARGE
                prepare(picture)
                picture.load()
                return _as_rgb(ImageOps.exif_transpose(picture)), PictureStatus.OK
    except Image.DecompressionBombError:
        return None, PictureStatus.TOO_LARGE
    except READER_ERRORS as error:
        return None, PictureStatus.TRUNCATED if _is_cut(content, error) else PictureStatus.BROKEN


def _is_cut(content: bytes, error: Exception) -> bool:
    """True where the reader says that the end is missing; of a WebP it only says "broken", but the file its length."""
    shorter = content[:4] == b"RIFF" and len(content) < 8 + int.from_bytes(content[4:8], "little")
    return shorter or "truncated" in str(error).lower()


def _as_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I;16") or picture.mode in ("I", "F"):
        picture = picture.convert("I").point(lambda value: value / 256).convert("L")
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        on_white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(on_white, picture.convert("RGBA")).convert("RGB")
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def training_encoding(content: bytes, picture: Image.Image) -> bytes:
    """An encoding that any loader shows as `picture`, pixel for pixel: `content` itself if it is a plain upright JPEG.

    Loaders such as open_clip's know no EXIF orientation and convert other modes their own way; those become PNG.
    """
    with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(content)) as original:
        upright = original.getexif().get(ORIENTATION, 1) == 1
        if original.format == "JPEG" and original.mode == "RGB" and upright:
            return content
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def encode_thumbnail(picture: Image.Image, longest_side: int, quality: int = 85) -> bytes:
    """A JPEG of at most `longest_side` pixels."""
    small = picture.copy()
    small.thumbnail((longest_side, longest_side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()
