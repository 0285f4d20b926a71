"""Faces cut out of files by their boxes."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from idia_core.face_detection import Box
from idia_core.images import ORIENTATION
from idia_core.portraits import portrait_of, upright_box

WIDTH, HEIGHT = 60, 40


def picture() -> Image.Image:
    """Every pixel differs."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return Image.fromarray(np.stack([x, y, (x * y) % 251], axis=-1).astype(np.uint8))


def stored(orientation: int, kind: str = "PNG") -> bytes:
    """The picture with an EXIF orientation, its pixels as they are."""
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[ORIENTATION] = orientation
    picture().save(buffer, kind, exif=exif, quality=95, lossless=True)
    return buffer.getvalue()


@given(st.integers(1, 8), st.data())
def test_a_box_turns_with_its_picture(orientation: int, data: st.DataObject) -> None:
    """Cut out and then turned upright is the same as turned upright and then cut out, pixel by pixel."""
    x, y = data.draw(st.integers(0, WIDTH - 1)), data.draw(st.integers(0, HEIGHT - 1))
    box = Box(x, y, data.draw(st.integers(1, WIDTH - x)), data.draw(st.integers(1, HEIGHT - y)))
    cut = picture().crop((x, y, x + box.width, y + box.height))
    cut.getexif()[ORIENTATION] = orientation
    whole = picture()
    whole.getexif()[ORIENTATION] = orientation
    found = upright_box(box, (WIDTH, HEIGHT), orientation)
    upright = ImageOps.exif_transpose(whole).crop((found.x, found.y, found.x + found.width, found.y + found.height))
    assert upright.tobytes() == ImageOps.exif_transpose(cut).tobytes()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", [1, 6, 8])
def test_the_face_comes_out_upright(kind: str, orientation: int) -> None:
    """As a JPEG of the box's size, in every kind of file."""
    made = portrait_of(stored(orientation, kind), Box(10, 5, 30, 20))
    cut = picture().crop((10, 5, 40, 25))
    cut.getexif()[ORIENTATION] = orientation
    wanted = ImageOps.exif_transpose(cut)
    assert (made.status, made.suffix) == ("ok", "jpg")
    with Image.open(io.BytesIO(made.image)) as face:
        assert (face.format, face.size) == ("JPEG", wanted.size)
        difference = np.asarray(face.convert("RGB"), int) - np.asarray(wanted, int)
    assert np.abs(difference).mean() < 12  # JPEG, twice where the file is one; two pixels aside it would be 18


def test_a_box_is_clipped_to_the_picture() -> None:
    """What is left is kept, and nothing is a status."""
    made = portrait_of(stored(1), Box(50, -10, 30, 20))
    with Image.open(io.BytesIO(made.image)) as face:
        assert face.size == (10, 10)
    for box in (Box(60, 0, 5, 5), Box(0, 40, 5, 5), Box(-5, 0, 5, 5), Box(0, -5, 5, 5)):
        assert portrait_of(stored(1), box)[:2] == ("box_outside", "the stored picture has 60 x 40 pixels")
    assert portrait_of(stored(6), Box(50, 30, 5, 5)).status == "ok"  # it lies in the stored picture, not in 40 x 60


def test_without_a_box_the_file_stays_as_it_is() -> None:
    """With the suffix of its kind; the digest is of what it shows."""
    for kind, suffix in (("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp"), ("TIFF", "tiff")):
        content = stored(1, kind)
        made = portrait_of(content, None)
        assert (made.status, made.image, made.suffix) == ("ok", content, suffix)
    lossless = {portrait_of(stored(1, kind), None).digest for kind in ("PNG", "WEBP", "TIFF")}
    assert len(lossless) == 1
    assert portrait_of(stored(6), None).digest not in lossless
    assert portrait_of(stored(1), Box(0, 0, WIDTH, HEIGHT)).digest in lossless


def test_what_cannot_be_decoded_has_a_status() -> None:
    """Those of a URL."""
    content = stored(1, "JPEG")
    assert portrait_of(content[: len(content) // 2], None)[:2] == ("truncated_image", "truncated")
    assert portrait_of(b"<html>", Box(0, 0, 1, 1))[:2] == ("not_an_image", "broken")
