"""Decoding pictures: upright RGB, or the reason why not."""

import io
import random
import struct
import warnings
import zlib
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from idia_core.images import MAX_PIXELS, PictureStatus, decode_picture, encode_thumbnail, training_encoding

ORIENTATION = 0x0112
PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
# What a camera held in each of the eight ways stores, for a scene that looks like PIXELS.
STORED = {
    1: PIXELS,
    2: PIXELS[:, ::-1],
    3: PIXELS[::-1, ::-1],
    4: PIXELS[::-1],
    5: PIXELS.transpose(1, 0, 2),
    6: np.rot90(PIXELS),
    7: PIXELS[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90(PIXELS, -1),
}
XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'
    "</rdf:RDF></x:xmpmeta>"
)


def _encoded(picture: Image.Image | npt.NDArray[Any], kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(np.ascontiguousarray(picture))
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def _decoded(content: bytes) -> npt.NDArray[np.uint8]:
    picture, status = decode_picture(content)
    assert status is PictureStatus.OK
    assert picture is not None
    assert picture.mode == "RGB"
    return np.asarray(picture)


def _naively(content: bytes) -> npt.NDArray[np.uint8]:
    """What open_clip's loader sees: no orientation, Pillow's own conversion."""
    with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(content)) as picture:
        return np.asarray(picture.convert("RGB"))


def _png_header(width: int, height: int) -> bytes:
    """A PNG that says how large it is, and has no pixels."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    head = struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    data = b"IDAT" + zlib.compress(b"")
    return b"\x89PNG\r\n\x1a\n" + head + struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", STORED)
def test_every_orientation_becomes_upright(kind: str, orientation: int) -> None:
    """All eight EXIF orientations show the same scene, pixel for pixel."""
    options = {"lossless": True} if kind == "WEBP" else {}
    content = _encoded(STORED[orientation], kind, exif=_exif(orientation), **options)
    np.testing.assert_array_equal(_decoded(content), PIXELS)


@pytest.mark.parametrize("orientation", [0, 9, 255])
def test_an_orientation_that_does_not_exist_changes_nothing(orientation: int) -> None:
    """A value outside 1 to 8 is passed over."""
    np.testing.assert_array_equal(_decoded(_encoded(PIXELS, "PNG", exif=_exif(orientation))), PIXELS)


def test_an_orientation_in_xmp_counts_too() -> None:
    """Some programs write the orientation into XMP instead of EXIF; the training encoding shows it upright as well."""
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", XMP)
    content = _encoded(STORED[6], "PNG", pnginfo=info)
    np.testing.assert_array_equal(_decoded(content), PIXELS)
    jpeg = _encoded(STORED[6], "JPEG", xmp=XMP.encode())
    assert _decoded(jpeg).shape == (5, 7, 3)
    picture = decode_picture(jpeg)[0]
    assert picture is not None
    np.testing.assert_array_equal(_naively(training_encoding(jpeg, picture)), _decoded(jpeg))


@pytest.mark.parametrize(
    ("kind", "dtype"), [("PNG", "<u2"), ("TIFF", "<u2"), ("TIFF", ">u2"), ("PPM", "<u2"), ("TIFF", "<i4")]
)
def test_16_bit_grey_is_scaled(kind: str, dtype: str) -> None:
    """0 to 65,535 becomes 0 to 255 evenly; nothing is clipped to white."""
    ramp = np.array([[0, 255, 256, 300, 32_767, 32_768, 65_279, 65_535]], dtype)
    expected = [0, 0, 1, 1, 127, 128, 254, 255]
    assert _decoded(_encoded(ramp, kind)).tolist() == [[[value] * 3 for value in expected]]


def test_16_bit_colour_is_scaled() -> None:
    """Each channel of a 16-bit PNG becomes 8 bits."""
    content = cv2.imencode(".png", np.array([[[65_535, 256, 32_768]]], np.uint16))[1].tobytes()  # blue, green, red
    assert _decoded(content).tolist() == [[[128, 1, 255]]]


@pytest.mark.parametrize(
    ("content", "pixel"),
    [
        (_encoded(Image.new("L", (2, 2), 77), "PNG"), (77, 77, 77)),
        (_encoded(Image.new("1", (2, 2), 1), "PNG"), (255, 255, 255)),
        (_encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "TIFF"), (255, 0, 0)),
        (_encoded(Image.new("CMYK", (8, 8), (0, 0, 0, 255)), "JPEG"), (0, 0, 0)),
        (_encoded(Image.new("L", (2, 2), 3), "GIF"), (3, 3, 3)),
        (_encoded(Image.new("RGBA", (2, 2), (9, 8, 7, 0)), "PNG"), (255, 255, 255)),
        (_encoded(Image.new("RGBA", (2, 2), (9, 8, 7, 255)), "PNG"), (9, 8, 7)),
        (_encoded(Image.new("RGBA", (2, 2), (0, 100, 200, 51)), "PNG"), (204, 224, 244)),
        (_encoded(Image.new("LA", (2, 2), (0, 51)), "PNG"), (204, 204, 204)),
        (_encoded(Image.new("RGB", (2, 2), (1, 2, 3)), "PNG", transparency=(1, 2, 3)), (255, 255, 255)),
        (_encoded(Image.new("RGB", (2, 2), (1, 2, 4)), "PNG", transparency=(1, 2, 3)), (1, 2, 4)),
        (_encoded(Image.new("L", (2, 2), 0), "PNG", transparency=0), (255, 255, 255)),
        (_encoded(np.zeros((1, 1), np.uint16), "PNG", transparency=0), (255, 255, 255)),
        (_encoded(np.full((1, 1), 65_535, np.uint16), "PNG", transparency=0), (255, 255, 255)),
        (_encoded(Image.new("RGB", (1, 1), (5, 6, 7)), "BMP"), (5, 6, 7)),
    ],
)
def test_every_mode_becomes_rgb_on_white(content: bytes, pixel: tuple[int, int, int]) -> None:
    """Grey, black-and-white, CMYK, palettes and transparency end as RGB, what is transparent as white."""
    assert np.unique(_decoded(content).reshape(-1, 3), axis=0).tolist() == [list(pixel)]


def test_a_palette_with_transparency_is_laid_on_white() -> None:
    """Of a palette picture, the transparent colour becomes white and the others keep theirs."""
    picture = Image.new("P", (2, 1))
    picture.putpalette([255, 0, 0, 0, 0, 255])
    picture.putpixel((1, 0), 1)
    for kind in ("PNG", "GIF"):
        assert _decoded(_encoded(picture, kind, transparency=0)).tolist() == [[[255, 255, 255], [0, 0, 255]]]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_several_frames_the_first_counts(kind: str) -> None:
    """An animation is shown by its first frame."""
    frames = [Image.new("RGB", (4, 3), colour) for colour in ("red", "lime", "blue")]
    content = _encoded(
        frames[0], kind, save_all=True, append_images=frames[1:], **({"lossless": True} if kind == "WEBP" else {})
    )
    np.testing.assert_array_equal(_decoded(content), np.full((3, 4, 3), (255, 0, 0)))


@pytest.mark.parametrize("kind", ["GIF", "TIFF"])
def test_later_frames_are_never_decoded(kind: str) -> None:
    """Frames after the first may be huge or damaged: nobody looks at them."""
    first = Image.new("RGB", (40, 30), "red")
    others = [Image.fromarray(np.random.default_rng(i).integers(0, 256, (30, 40, 3), np.uint8)) for i in range(9)]
    whole = _encoded(first, kind, save_all=True, append_images=others)
    damaged = whole[: len(whole) // 2] + bytes(len(whole) // 4)
    np.testing.assert_array_equal(_decoded(damaged), np.full((30, 40, 3), (255, 0, 0)))


def test_a_gif_whose_first_frame_is_larger_than_it_says_is_refused() -> None:
    """A GIF's frames have sizes of their own, beside that of the whole: the larger one counts."""
    content = bytearray(_encoded(Image.new("P", (60, 50)), "GIF"))
    content[6:10] = struct.pack("<HH", 1, 1)
    assert decode_picture(bytes(content), max_pixels=3_000)[1] is PictureStatus.OK
    assert decode_picture(bytes(content), max_pixels=2_999) == (None, PictureStatus.TOO_LARGE)


def test_cmyk_jpeg_is_read_as_adobe_writes_it() -> None:
    """Four-colour JPEGs store ink inverted, as Adobe's marker says: red ink is red, no ink is white."""
    for ink, colour in (((0, 255, 255, 0), (255, 0, 0)), ((0, 0, 0, 0), (255, 255, 255))):
        content = _encoded(Image.new("CMYK", (16, 16), ink), "JPEG", quality=95)
        assert b"Adobe" in content
        np.testing.assert_allclose(_decoded(content), np.full((16, 16, 3), colour), atol=3)


def test_one_pixel() -> None:
    """The smallest picture is a picture."""
    assert _decoded(_encoded(Image.new("RGB", (1, 1), (1, 2, 3)), "PNG")).tolist() == [[[1, 2, 3]]]


JPEG = _encoded(np.random.default_rng(1).integers(0, 256, (40, 40, 3), np.uint8), "JPEG")
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", PictureStatus.EMPTY),
        (b"\0", PictureStatus.BROKEN),
        (b"<html>this page is truncated</html>", PictureStatus.BROKEN),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', PictureStatus.BROKEN),
        (POSTSCRIPT, PictureStatus.BROKEN),
        (JPEG[:20], PictureStatus.BROKEN),
        (b"\xff\xd8\xff" + b"\0" * 500, PictureStatus.BROKEN),
        (_encoded(PIXELS, "WEBP")[:12] + b"\0" * 500, PictureStatus.BROKEN),
        (JPEG[: len(JPEG) // 2], PictureStatus.TRUNCATED),
        (JPEG[:-2], PictureStatus.TRUNCATED),
        (_png_header(4, 4), PictureStatus.TRUNCATED),
        (_encoded(PIXELS, "PNG")[:50], PictureStatus.TRUNCATED),
        (_encoded(PIXELS, "WEBP")[:-2], PictureStatus.TRUNCATED),
        (_encoded(PIXELS, "TIFF")[:-20], PictureStatus.TRUNCATED),
        (_encoded(PIXELS, "BMP")[:-20], PictureStatus.TRUNCATED),
        (_encoded(PIXELS, "AVIF")[:-20], PictureStatus.TRUNCATED),
    ],
)
def test_what_cannot_be_decoded_has_a_reason(content: bytes, status: PictureStatus) -> None:
    """Nothing, text, a program and cut or empty pictures give no picture and say why."""
    assert decode_picture(content) == (None, status)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000", "PPM"])
def test_damaged_bytes_are_broken_never_an_exception(kind: str) -> None:
    """Random damage to a real picture is decoded or reported; what is decoded has a training encoding that is equal."""
    rng = random.Random(kind)
    whole = _encoded(PIXELS, kind, **({} if kind in {"BMP", "PPM", "GIF"} else {"exif": _exif(6)}))
    for _ in range(150):
        content = bytearray(whole)
        for _ in range(rng.choice([1, 2, 8])):
            content[rng.randrange(len(content))] = rng.randrange(256)
        damaged = bytes(content[: rng.choice([len(content), rng.randrange(1, len(content))])])
        picture, status = decode_picture(damaged)
        assert (picture is None) == (status is not PictureStatus.OK)
        if picture is not None:
            np.testing.assert_array_equal(_naively(training_encoding(damaged, picture)), np.asarray(picture))


@pytest.mark.parametrize(("width", "height"), [(20_000, 20_000), (8_001, 8_000), (1, MAX_PIXELS + 1)])
def test_a_decompression_bomb_is_refused_undecoded(width: int, height: int) -> None:
    """What says that it is too large is refused by its header alone; the same file with less to say is just cut off."""
    assert decode_picture(_png_header(width, height)) == (None, PictureStatus.TOO_LARGE)
    assert decode_picture(_png_header(8_000, 8_000))[1] is PictureStatus.TRUNCATED


def test_the_limit_can_be_lowered() -> None:
    """A picture with exactly as many pixels as allowed passes, one more does not."""
    content = _encoded(PIXELS, "PNG")
    assert decode_picture(content, max_pixels=35)[1] is PictureStatus.OK
    assert decode_picture(content, max_pixels=34) == (None, PictureStatus.TOO_LARGE)


def _for_training(content: bytes) -> bytes:
    picture = decode_picture(content)[0]
    assert picture is not None
    return training_encoding(content, picture)


@pytest.mark.parametrize("options", [{}, {"exif": _exif(1)}, {"progressive": True, "icc_profile": b"x" * 200}])
def test_a_plain_jpeg_is_kept(options: dict[str, Any]) -> None:
    """The bytes of an upright RGB JPEG go into training as they are."""
    content = _encoded(PIXELS, "JPEG", **options)
    assert _for_training(content) == content


@pytest.mark.parametrize(
    "content",
    [
        _encoded(PIXELS, "PNG"),
        _encoded(PIXELS, "WEBP"),
        _encoded(STORED[6], "JPEG", exif=_exif(6)),
        _encoded(STORED[3], "PNG", exif=_exif(3)),
        _encoded(PIXELS[:, :, 0], "JPEG"),
        _encoded(Image.new("CMYK", (8, 8), (9, 99, 199, 0)), "JPEG"),
        _encoded(Image.new("RGBA", (2, 2), (0, 100, 200, 51)), "PNG"),
        _encoded(np.array([[0, 300, 65_535]], np.uint16), "PNG"),
        _encoded(Image.new("RGB", (2, 2), (1, 2, 3)), "PNG", transparency=(1, 2, 3)),
    ],
)
def test_everything_else_becomes_a_png_with_equal_pixels(content: bytes) -> None:
    """Any loader shows the PNG as we decode the original, and it is stable."""
    encoded = _for_training(content)
    assert encoded.startswith(b"\x89PNG")
    np.testing.assert_array_equal(_naively(encoded), _decoded(content))
    np.testing.assert_array_equal(_decoded(encoded), _decoded(content))
    assert _for_training(content) == encoded


@pytest.mark.parametrize(
    ("size", "shown"), [((100, 50), (64, 32)), ((50, 100), (32, 64)), ((10, 20), (10, 20)), ((3000, 1), (64, 1))]
)
def test_a_thumbnail_fits(size: tuple[int, int], shown: tuple[int, int]) -> None:
    """It keeps the proportions, is never enlarged, and leaves the picture itself alone."""
    picture = Image.new("RGB", size, (200, 100, 50))
    with Image.open(io.BytesIO(encode_thumbnail(picture, 64))) as thumbnail:
        assert (thumbnail.format, thumbnail.size) == ("JPEG", shown)
        np.testing.assert_allclose(np.asarray(thumbnail)[0, 0], (200, 100, 50), atol=3)
    assert picture.size == size
