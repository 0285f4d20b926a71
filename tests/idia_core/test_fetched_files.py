"""What a fetched file is: read from a JPEG's header, decoded where it is anything else."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from idia_core.fetch_status import FetchStatus
from idia_core.fetched_files import FetchedFile, Form, JpegHeader, look_at, read_jpeg_header
from idia_core.images import MAX_PIXELS, ORIENTATION

ANY = Form(min_side=0, max_aspect=1e9)
WIDTH, HEIGHT = 90, 60
SCENE = Image.fromarray(np.linspace(0, 255, HEIGHT * WIDTH * 3).astype(np.uint8).reshape(HEIGHT, WIDTH, 3))


def encoded(kind: str = "JPEG", picture: Image.Image = SCENE, **options: Any) -> bytes:
    """A picture as a file."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(orientation: int, thumbnail: bytes = b"") -> bytes:
    """The scene with an orientation, and perhaps other EXIF before it."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    exif[0x010E] = "a description"
    if thumbnail:
        exif.get_ifd(0x8769)[0x927C] = thumbnail  # a maker's note, which may hold anything
    return encoded(exif=exif.tobytes())


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"optimize": True, "quality": 20}, {"comment": b"a\xff\xd9"}]
)
def test_a_jpeg_tells_its_size(options: dict[str, Any]) -> None:
    """Whatever it is encoded with; it is used as it is."""
    content = encoded(**options)
    assert read_jpeg_header(content) == JpegHeader(WIDTH, HEIGHT, 3, 1, whole=True)
    assert look_at(content, ANY) == FetchedFile(FetchStatus.OK, "", WIDTH, HEIGHT, None)
    assert look_at(encoded(picture=SCENE.convert("L"), **options), ANY).upright is None


def test_what_follows_a_jpeg_does_no_harm() -> None:
    """Some cameras and servers add bytes."""
    assert look_at(encoded() + b"\0" * 50, ANY).status is FetchStatus.OK


@pytest.mark.parametrize("progressive", [False, True])
def test_no_part_of_a_jpeg_passes_for_a_whole_one(progressive: bool) -> None:
    """Wherever it ends; nor does one whose maker's note holds the end of another picture."""
    for content in (encoded(progressive=progressive), turned(1, encoded(picture=SCENE.resize((9, 6))))):
        assert look_at(content, ANY).status is FetchStatus.OK
        for length in range(0, len(content) - 1, 7):
            found = look_at(content[:length], ANY)
            assert found.status in (FetchStatus.TRUNCATED_IMAGE, FetchStatus.NOT_AN_IMAGE)
            assert found.upright is None


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", [b"II", b"MM"])
def test_a_turned_jpeg_is_set_upright(orientation: int, order: bytes) -> None:
    """As every other part of the road sees it; img2dataset would leave it on its side."""
    exif = Image.Exif()
    exif.endian = "<" if order == b"II" else ">"
    exif[ORIENTATION] = orientation
    content = encoded(exif=exif.tobytes())
    assert order in content[:60]
    header = read_jpeg_header(content)
    assert header is not None
    assert header.orientation == orientation
    found = look_at(content, ANY)
    assert (found.width, found.height) == ((WIDTH, HEIGHT) if orientation < 5 else (HEIGHT, WIDTH))
    if orientation == 1:
        assert found.upright is None
    else:
        assert found.upright is not None
        with Image.open(io.BytesIO(found.upright)) as upright:
            assert upright.format == "PNG"
            assert upright.size == (found.width, found.height)
            assert upright.getexif().get(ORIENTATION) is None


def test_broken_exif_is_no_reason_to_lose_a_picture() -> None:
    """It is taken for upright."""
    content = turned(6)
    place = content.index(b"Exif\0\0") + 6
    for broken in (b"XX*\0", content[place : place + 4] + b"\xff\xff\xff\x7f"):
        changed = content[:place] + broken + content[place + len(broken) :]
        assert look_at(changed, ANY) == FetchedFile(FetchStatus.OK, "", WIDTH, HEIGHT, None)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "AVIF"])
def test_other_kinds_are_decoded_and_become_png(kind: str) -> None:
    """So that OpenCV sees nothing but JPEG and PNG of ours."""
    found = look_at(encoded(kind), ANY)
    assert (found.status, found.width, found.height) == (FetchStatus.OK, WIDTH, HEIGHT)
    assert found.upright is not None
    assert found.upright.startswith(b"\x89PNG")
    assert look_at(encoded(kind)[:60], ANY).status in (FetchStatus.TRUNCATED_IMAGE, FetchStatus.NOT_AN_IMAGE)


def test_depth_inks_and_transparency_come_out_as_they_look() -> None:
    """Sixteen bits are scaled, inks become colours, and what is transparent is white."""
    deep = Image.fromarray(np.full((8, 8), 128 * 256, np.uint16))
    clear = Image.new("RGBA", (8, 8), (200, 0, 0, 0))
    for content, colour in (
        (encoded("PNG", deep), 128),
        (encoded("PNG", clear), 255),
        (encoded("JPEG", Image.new("CMYK", (8, 8), (0, 0, 0, 0))), 255),
    ):
        upright = look_at(content, ANY).upright
        assert upright is not None
        with Image.open(io.BytesIO(upright)) as picture:
            assert picture.mode == "RGB"
            assert np.abs(np.asarray(picture).astype(int) - colour).max() <= 1


@pytest.mark.parametrize(
    "content", [b"<html>", b"\xff\xd8\xff", b"RIFF", b"%PDF-1.7", b"<svg/>", bytes(100), b"\xff\xd8" + bytes(99)]
)
def test_what_is_no_picture_is_told(content: bytes) -> None:
    """Whatever it calls itself."""
    assert look_at(content, ANY).status in (FetchStatus.NOT_AN_IMAGE, FetchStatus.TRUNCATED_IMAGE)


def test_a_bomb_is_not_decoded() -> None:
    """A small file of a huge picture; its header is enough, also of a JPEG."""
    side = int(MAX_PIXELS**0.5) + 1
    assert look_at(encoded("PNG", Image.new("1", (side, side))), ANY).status is FetchStatus.TOO_LARGE
    content = bytearray(encoded())
    frame = content.index(b"\xff\xc0")
    content[frame + 5 : frame + 9] = b"\xff\xff\xff\xff"
    assert look_at(bytes(content), ANY) == FetchedFile(FetchStatus.TOO_LARGE, "65535 x 65535 pixels")


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_small_and_long_pictures_are_left(kind: str) -> None:
    """By the shorter side, and by the longer one beside it; the bounds are in."""
    content, sides = encoded(kind), f"{WIDTH} x {HEIGHT} pixels"
    for form, status in (
        (Form(HEIGHT, WIDTH / HEIGHT), FetchStatus.OK),
        (Form(HEIGHT + 1, 9), FetchStatus.TOO_SMALL),
        (Form(0, 1.49), FetchStatus.BAD_ASPECT),
    ):
        found = look_at(content, form)
        assert found.status is status
        assert (found.detail, found.width, found.height) == ("" if status is FetchStatus.OK else sides, WIDTH, HEIGHT)
