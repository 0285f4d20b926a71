"""Training pictures are judged from one decoding at reduced size as they would be from a full one."""

import io
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from idia_core.drawing import draw_face, invent_people
from idia_core.images import ORIENTATION, decode_picture
from idia_core.leakage import MAX_DISTANCE
from idia_core.perceptual_hash import as_hashes, nearest, perceptual_hash
from idia_core.sample_pictures import Examined, decode_reduced, examine
from idia_core.sample_status import SampleStatus

FACE = Image.fromarray(draw_face(invent_people(1, 5, ["F"])[0], [5]))
LARGE = FACE.resize((1000, 800), Image.Resampling.BICUBIC)


def _encoded(picture: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def _distance(one: bytes | None, other: bytes | None) -> int:
    assert one is not None
    assert other is not None
    return int(nearest(as_hashes([one]), as_hashes([other]))[1][0])


def _jpeg_of_size(width: int, height: int) -> bytes:
    """A JPEG whose header says another size than it has."""
    content = bytearray(_encoded(Image.new("RGB", (16, 16))))
    start = content.index(b"\xff\xc0") + 5
    content[start : start + 4] = struct.pack(">HH", height, width)
    return bytes(content)


def _png_of_size(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return start + b"\0\0\0\1IDAT"


KINDS = {
    "baseline": _encoded(LARGE),
    "progressive": _encoded(LARGE, progressive=True),
    "grey": _encoded(LARGE.convert("L")),
    "four colours": _encoded(LARGE.convert("CMYK")),
    "stored as RGB": _encoded(LARGE, keep_rgb=True),
    "restarts": _encoded(LARGE, restart_marker_blocks=8),
    "several frames": _encoded(LARGE, "MPO", save_all=True, append_images=[FACE]),
    "png": _encoded(FACE, "PNG"),
    "webp": _encoded(FACE, "WEBP"),
    "transparent": _encoded(FACE.convert("RGBA"), "PNG"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_sound_picture_is_known_by_size_and_hash(kind: str) -> None:
    """The size is that of the whole picture, and the hash differs from that of all pixels in a few bits at most."""
    whole, _ = decode_picture(KINDS[kind])
    assert whole is not None
    status, size, found = examine(memoryview(KINDS[kind]))
    assert (status, size) == (SampleStatus.OK, whole.size)
    assert _distance(found, perceptual_hash(whole)) <= 4


def test_a_large_jpeg_is_decoded_to_a_fraction() -> None:
    """It is reduced by as much as leaves both sides 128 pixels; a small one and other formats are decoded whole."""
    reduced = decode_reduced(KINDS["baseline"]).picture
    small, png = (decode_reduced(content).picture for content in (_encoded(FACE), KINDS["png"]))
    assert reduced is not None
    assert small is not None
    assert png is not None
    assert (reduced.size, reduced.mode) == ((250, 200), "L")
    assert small.size == png.size == FACE.size


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_stored_turned_is_seen_upright(orientation: int) -> None:
    """Whatever its EXIF orientation, size and hash are those of the picture as it is shown."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    content = _encoded(LARGE, exif=exif)
    shown, _ = decode_picture(content)
    assert shown is not None
    status, size, found = examine(content)
    assert (status, size) == (SampleStatus.OK, (800, 1000) if orientation >= 5 else (1000, 800))
    assert _distance(found, perceptual_hash(shown)) <= 4
    assert (_distance(found, examine(_encoded(LARGE)).hash) <= MAX_DISTANCE) == (orientation == 1)


def test_a_flat_picture_is_sound_and_has_no_hash() -> None:
    """There is nothing wrong with it."""
    assert examine(_encoded(Image.new("RGB", (300, 200), "red"))) == Examined(SampleStatus.OK, (300, 200), None)


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", SampleStatus.EMPTY),
        (b"<html>not here</html>", SampleStatus.BROKEN),
        (b"\xff\xd8\xff" + bytes(500), SampleStatus.BROKEN),
        (KINDS["baseline"][:20], SampleStatus.BROKEN),
        (KINDS["baseline"][:5000], SampleStatus.TRUNCATED),
        (KINDS["baseline"][:-2], SampleStatus.TRUNCATED),
        (KINDS["progressive"][:-100], SampleStatus.TRUNCATED),
        (KINDS["png"][:-100], SampleStatus.TRUNCATED),
        (KINDS["webp"][:-2], SampleStatus.TRUNCATED),
        (_jpeg_of_size(20_000, 20_000), SampleStatus.TOO_LARGE),
        (_jpeg_of_size(8_001, 8_000), SampleStatus.TOO_LARGE),
        (_png_of_size(20_000, 20_000), SampleStatus.TOO_LARGE),
    ],
    ids=lambda value: f"{len(value)} bytes" if isinstance(value, bytes) else str(value),
)
def test_what_cannot_be_decoded_has_a_reason(content: bytes, status: SampleStatus) -> None:
    """Empty, cut, broken and huge pictures have a status, no size and no hash; huge ones are never decoded."""
    assert examine(content) == Examined(status, (0, 0), None)


def test_the_limit_can_be_lowered() -> None:
    """A picture with exactly as many pixels as allowed passes, one more does not, in any format."""
    for picture in (_encoded(LARGE), _encoded(LARGE, "PNG")):
        assert examine(picture, max_pixels=800_000).status is SampleStatus.OK
        assert examine(picture, max_pixels=799_999) == Examined(SampleStatus.TOO_LARGE, (0, 0), None)


@pytest.mark.parametrize("kind", ["baseline", "progressive", "grey", "four colours", "restarts", "several frames"])
def test_damage_is_judged_as_by_a_full_decoding(kind: str) -> None:
    """Cut anywhere or with bytes overwritten, the status and the size are those that a full decoding gives."""
    rng, whole = random.Random(kind), KINDS[kind]
    statuses = set()
    for _ in range(60):
        content = bytearray(whole[: rng.choice([len(whole), rng.randrange(len(whole)), len(whole) - rng.randrange(9)])])
        for _ in range(rng.choice([0, 2, 30])):
            place = rng.randrange(rng.choice([min(700, len(content)), len(content)]) or 1)
            content[place : place + 1] = bytes([rng.randrange(256)])
        picture, status = decode_picture(bytes(content))
        examined = examine(content)
        assert (examined.status.value, examined.size) == (status.value, picture.size if picture else (0, 0))
        statuses.add(status.value)
    assert {"ok", "truncated", "broken"} <= statuses


def test_colours_do_not_matter() -> None:
    """A grey copy of a picture has the hash of the picture, be they decoded whole or reduced."""
    coloured, grey = examine(KINDS["baseline"]).hash, examine(KINDS["grey"]).hash
    assert _distance(coloured, grey) <= 2
    assert np.mean(np.unpackbits(as_hashes([coloured or b""]))) == 0.5
