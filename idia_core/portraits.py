"""A person's picture out of a file that was fetched: the face that a list has a box of, or the whole picture."""

import hashlib
import io
from typing import NamedTuple

import pyarrow as pa
from PIL import Image

from idia_core.face_detection import Box
from idia_core.fetch_status import FetchStatus
from idia_core.fetched_files import as_fetched
from idia_core.images import ON_ITS_SIDE, ORIENTATION, decode_prepared
from idia_core.portrait_lists import PORTRAIT_ROWS, RowStatus

LEDGER = pa.schema(
    [
        *(PORTRAIT_ROWS.field(name) for name in PORTRAIT_ROWS.names if name not in ("status", "detail")),
        pa.field("status", pa.string(), nullable=False),  # a `RowStatus`, or the URL's `FetchStatus`
        pa.field("detail", pa.string(), nullable=False),
        pa.field("http_status", pa.int64()),
        pa.field("width", pa.int64()),  # of the file as fetched, upright; null where none came
        pa.field("height", pa.int64()),
        pa.field("bytes", pa.int64()),
        pa.field("sha256", pa.string()),  # of the file that came
        pa.field("picture", pa.string()),  # its name in the person's folder; null unless the status is ok
    ]
)
"""What became of each row of the lists."""
QUALITY = 95
"""Of faces that are cut out, as JPEG."""


class Portrait(NamedTuple):
    """What was made of a file: the encoded picture with the suffix of its kind, or why there is none."""

    status: FetchStatus | RowStatus
    detail: str = ""
    image: bytes = b""
    suffix: str = ""
    digest: bytes = b""
    """The same for two that show the same, pixel by pixel."""


def portrait_of(content: bytes, box: Box | None) -> Portrait:
    """The face in the box, upright, as JPEG; without a box the file as it is, if it can be decoded.

    A box is of the picture as it is stored, before any EXIF orientation: so do FaceScrub's own tools cut out faces.
    What of it is outside the picture is left out.
    """
    seen = _Seen()
    picture, status = decode_prepared(content, seen)
    if picture is None:
        return Portrait(as_fetched(status), str(status))
    if box is None:
        return Portrait(FetchStatus.OK, "", content, seen.suffix, _digest(picture))
    stored = picture.size[::-1] if seen.orientation in ON_ITS_SIDE else picture.size
    inside = _inside(box, stored)
    if inside is None:
        return Portrait(RowStatus.BOX_OUTSIDE, f"the stored picture has {stored[0]} x {stored[1]} pixels")
    upright = upright_box(inside, stored, seen.orientation)
    face = picture.crop((upright.x, upright.y, upright.x + upright.width, upright.y + upright.height))
    buffer = io.BytesIO()
    face.save(buffer, "JPEG", quality=QUALITY, subsampling=0)
    return Portrait(FetchStatus.OK, "", buffer.getvalue(), "jpg", _digest(face))


class _Seen:
    """What a file says of its picture before the pixels are decoded."""

    def __init__(self) -> None:
        self.suffix, self.orientation = "", 1

    def __call__(self, picture: Image.Image) -> None:
        kind = str(picture.format).lower()
        self.suffix = {"jpeg": "jpg", "jpeg2000": "jp2"}.get(kind, kind)
        self.orientation = picture.getexif().get(ORIENTATION, 1)


def _inside(box: Box, size: tuple[int, int]) -> Box | None:
    """The part of a box that is in a picture; None if there is none."""
    left, top = max(box.x, 0), max(box.y, 0)
    right, bottom = min(box.x + box.width, size[0]), min(box.y + box.height, size[1])
    return Box(left, top, right - left, bottom - top) if left < right and top < bottom else None


def upright_box(box: Box, size: tuple[int, int], orientation: int) -> Box:
    """Where a box of a stored picture of that size (width, height) is once EXIF's orientation was applied."""
    (left, top, width, height), (across, down) = box, size
    right, bottom = across - left - width, down - top - height  # how far the box ends before the edges
    x, y = {
        2: (right, top),
        3: (right, bottom),
        4: (left, bottom),
        5: (top, left),
        6: (bottom, left),
        7: (bottom, right),
        8: (top, right),
    }.get(orientation, (left, top))
    return Box(x, y, height, width) if orientation in ON_ITS_SIDE else Box(x, y, width, height)


def _digest(picture: Image.Image) -> bytes:
    return hashlib.sha256(str(picture.size).encode() + picture.tobytes()).digest()
