"""Attack pictures and outsiders' names in training data are found, whatever they are wrapped in."""

import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from idia_core.errors import LeakageError
from idia_core.images import ORIENTATION, decode_picture, training_encoding
from idia_core.leakage import LEAKAGE, Leakage, check_leakage, pixel_digest


def _encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def _jpeg(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 20, 3), np.uint8)
    return _encoded(Image.fromarray(pixels), "JPEG", quality=90)


def _as_png(content: bytes) -> bytes:
    with Image.open(io.BytesIO(content)) as picture:
        return _encoded(picture, "PNG")


ATTACK = [("Ann Ash/1.jpg", _jpeg(1)), ("Ann Ash/2.jpg", _jpeg(2)), ("Bo Birk/1.jpg", _jpeg(3))]
TRAINING = [("k1", _jpeg(11), "Ann Ash at home"), ("k2", _jpeg(12), "a red ball"), ("k3", _as_png(_jpeg(13)), "")]


def test_clean_data_is_counted() -> None:
    """Nothing found: the counts of what was compared, as a row of the table."""
    found = check_leakage(iter(TRAINING), iter(ATTACK), ["Bo Birk", "Cy Cole"])
    assert found == Leakage(training_pictures=3, attack_pictures=3)
    (row,) = pa.Table.from_pylist([found._asdict()], LEAKAGE).to_pylist()
    assert list(row.values()) == [3, 3, 0, 0, 0]


def test_a_study_without_non_members_is_checked_too() -> None:
    """With nobody to keep out by name the pictures are compared all the same."""
    assert check_leakage(TRAINING, ATTACK, []) == Leakage(3, 3)
    assert check_leakage([], [], []) == Leakage(0, 0)
    with pytest.raises(LeakageError):
        check_leakage([*TRAINING, ("k4", _jpeg(3), "")], ATTACK, [])


UPSIDE_DOWN = Image.Exif()
UPSIDE_DOWN[ORIENTATION] = 3
TURNED = _encoded(Image.open(io.BytesIO(_jpeg(2))).rotate(180), "PNG", exif=UPSIDE_DOWN)


@pytest.mark.parametrize(
    "image",
    [_jpeg(2), _as_png(_jpeg(2)), _jpeg(2) + b"trailing", TURNED],
    ids=["the same file", "the same pixels as PNG", "the same picture with a tail", "stored upside down"],
)
def test_an_attack_picture_in_training_is_named(image: bytes) -> None:
    """The same file or the same pixels in another wrapping is refused; the error names both."""
    with pytest.raises(LeakageError) as caught:
        check_leakage([*TRAINING, ("k4", image, "")], ATTACK, ["Bo Birk"])
    assert str(caught.value) == (
        "training pair 'k4' shows the attack picture 'Ann Ash/2.jpg' (stage shards). "
        "Take the picture out of one of the two."
    )


def test_it_is_found_the_other_way_round() -> None:
    """The attack's copy may be the re-encoded one, have no name, or be undecodable."""
    for attack, training in ((_as_png(_jpeg(5)), _jpeg(5)), (TURNED, _jpeg(2)), (b"no picture", b"no picture")):
        for name in ("x", ""):
            with pytest.raises(LeakageError, match=f"shows the attack picture '{name}'"):
                check_leakage([("k", training, "")], [(name, attack)], [])


def test_a_non_members_name_in_a_caption_is_named() -> None:
    """The first caption with a non-member's name is refused, by either rule: in a longer name, in another spelling."""
    training = [*TRAINING, ("k4", _jpeg(14), "here: Bo Birkett, smiling"), ("k5", _jpeg(15), "Bo Birk")]
    with pytest.raises(LeakageError) as caught:
        check_leakage(training, ATTACK, ["Cy Cole", "Bo Birk"])
    assert str(caught.value) == (
        "the caption of training pair 'k4' names the non-member 'Bo Birk' (stage shards). "
        "Take the pair out, or make that person a member."
    )
    with pytest.raises(LeakageError, match="pair 'k5' names the non-member 'bo birk'"):
        check_leakage(training, ATTACK, ["Cy Cole", "bo birk"])
    assert check_leakage(training, ATTACK, ["Cy Cole", "Bo Birkin"]) == Leakage(5, 3)


def test_pixel_digest_is_that_of_what_is_seen() -> None:
    """Equal pixels share a digest in any encoding; one different pixel, another shape or other bytes do not."""
    jpeg = _jpeg(1)
    picture = decode_picture(jpeg)[0]
    assert picture is not None
    assert pixel_digest(_as_png(jpeg)) == pixel_digest(jpeg) == pixel_digest(_encoded(picture, "BMP"))
    assert pixel_digest(training_encoding(jpeg, picture)) == pixel_digest(jpeg)
    picture.putpixel((0, 0), tuple(255 - value for value in picture.getpixel((0, 0))))
    wide, tall = (_encoded(Image.new("RGB", size, "red"), "PNG") for size in ((4, 2), (2, 4)))
    digests = [pixel_digest(image) for image in (jpeg, _encoded(picture, "PNG"), wide, tall, b"", b"a", b"b")]
    assert len(set(digests)) == 7
