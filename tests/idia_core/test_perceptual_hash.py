"""Perceptual hashes: what changes them, what has none, and the nearest among many."""

import io
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from idia_core.drawing import draw_background, draw_face, invent_people
from idia_core.leakage import MAX_DISTANCE
from idia_core.perceptual_hash import FARTHEST, HASH_BYTES, as_hashes, nearest, perceptual_hash

PEOPLE = invent_people(4, 3, ["F", "M"] * 2)
PICTURES = [Image.fromarray(draw_face(person, [3, i])) for person in PEOPLE for i in range(6)]


def _hash(picture: Image.Image) -> bytes:
    found = perceptual_hash(picture)
    assert found is not None
    return found


def _distance(one: Image.Image, other: Image.Image) -> int:
    return int(nearest(as_hashes([_hash(one)]), as_hashes([_hash(other)]))[1][0])


def _jpeg(picture: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


def _resized(picture: Image.Image, factor: float) -> Image.Image:
    return picture.resize((round(picture.width * factor), round(picture.height * factor)), Image.Resampling.LANCZOS)


def _marked(picture: Image.Image) -> Image.Image:
    marked = picture.copy()
    ImageDraw.Draw(marked).text((picture.width * 0.7, picture.height * 0.92), "ann.example", "white", font_size=10)
    return marked


@pytest.mark.parametrize(
    ("change", "most"),
    [
        (lambda p: _jpeg(p, 95), 4),
        (lambda p: _jpeg(p, 50), 12),
        (lambda p: _jpeg(p, 30), 18),
        (lambda p: _resized(p, 0.3), 10),
        (lambda p: _resized(p, 2), 6),
        (lambda p: _jpeg(_resized(p, 0.7), 75), 10),
        (lambda p: p.resize((p.width, round(p.height * 0.8))), 8),
        (lambda p: p.convert("L"), 0),
        (lambda p: ImageEnhance.Brightness(p).enhance(0.8), 6),
        (lambda p: ImageEnhance.Contrast(p).enhance(1.3), 14),
        (_marked, MAX_DISTANCE),
        (lambda p: ImageOps.crop(p, 1), MAX_DISTANCE),
        (lambda p: ImageOps.expand(p, 1, "white"), MAX_DISTANCE),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else "",
)
def test_small_changes_turn_few_bits(change: Callable[[Image.Image], Image.Image], most: int) -> None:
    """Encoding anew, resizing, light, a mark or a pixel around the edge leave the hash nearly as it was."""
    assert max(_distance(change(picture), picture) for picture in PICTURES) <= most


def test_other_pictures_are_far() -> None:
    """Two pictures of the same person, of two people, or a picture and its mirror image differ in many bits."""
    hashes = [as_hashes([_hash(picture)]) for picture in PICTURES]
    apart = [nearest(one, other)[1][0] for i, one in enumerate(hashes) for other in hashes[:i]]
    mirrored = [_distance(ImageOps.mirror(picture), picture) for picture in PICTURES]
    assert min(apart + mirrored) > 40
    assert 110 < np.median(apart) < 135


def test_the_bits_are_the_low_frequencies_above_their_median() -> None:
    """The hash is that of OpenCV's cosine transform of the 64 x 64 picture, the constant frequencies left out."""
    for picture in PICTURES[::5]:
        small = cv2.resize(np.asarray(picture.convert("L")), (64, 64), interpolation=cv2.INTER_AREA)
        low = cv2.dct(small.astype(np.float64))[1:17, 1:17]
        bits = np.unpackbits(np.frombuffer(_hash(picture), np.uint8))
        np.testing.assert_array_equal(bits, (low > np.median(low)).ravel())
        assert bits.sum() == 128


Y, X = np.mgrid[0:200, 0:200].astype(float)
FLAT = {
    "one colour": np.full((200, 200), 90.0),
    "a gradient": X * 1.2,
    "a slanting gradient": (X + Y) * 0.6,
    "stripes": X // 20 % 2 * 200 + 20,
    "a vignette": 255 - ((X - 100) ** 2 + (Y - 100) ** 2) / 100,
}


@pytest.mark.parametrize("noise", [0, 3])
@pytest.mark.parametrize("pattern", FLAT)
def test_a_flat_picture_has_no_hash(pattern: str, noise: float) -> None:
    """Noise alone would choose its bits, and flat pictures would be near-duplicates of each other by chance."""
    pixels = FLAT[pattern] + np.random.default_rng(1).normal(0, noise, (200, 200))
    assert perceptual_hash(Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))) is None


def test_a_picture_with_detail_has_a_hash() -> None:
    """Faces, scenes, words, small and narrow pictures do; that of a face with little contrast is stable."""
    word = Image.new("L", (200, 200), 240)
    ImageDraw.Draw(word).text((20, 80), "HELLO", 0, font_size=40)
    scenes = [Image.fromarray(draw_background([3, i])[0]) for i in range(40)]
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (9, 500), np.uint8))
    assert all(len(_hash(picture)) == HASH_BYTES for picture in (word, *scenes, noise, PICTURES[0].resize((20, 20))))
    faint = Image.fromarray((np.asarray(PICTURES[0]) * 0.35).astype(np.uint8))
    assert _distance(_jpeg(faint, 75), faint) <= MAX_DISTANCE


def test_the_nearest_is_the_first_with_the_fewest_differing_bits() -> None:
    """It agrees with counting bits one pair at a time, ties included."""
    rng = np.random.default_rng(5)
    among = rng.integers(0, 256, (300, HASH_BYTES), np.uint8)
    among[200] = among[100]
    near = among[[100, 7, 299]] ^ np.array([[0], [1], [128]], np.uint8)
    hashes = np.concatenate([near, rng.integers(0, 256, (50, HASH_BYTES), np.uint8), np.full((1, 32), 255, np.uint8)])
    counted = np.bitwise_count(hashes[:, None] ^ among[None]).sum(axis=2, dtype=int)
    places, distances = nearest(hashes, among)
    np.testing.assert_array_equal(places, counted.argmin(axis=1))
    np.testing.assert_array_equal(distances, counted.min(axis=1))
    assert (places[:3].tolist(), distances[:3].tolist()) == ([100, 7, 299], [0, 32, 32])


def test_nothing_is_near_to_nothing() -> None:
    """Without hashes to compare with all is farther away than any hash can be; without hashes there is no answer."""
    zeros = np.zeros((2, HASH_BYTES), np.uint8)
    assert nearest(zeros, as_hashes([]))[1].tolist() == [FARTHEST, FARTHEST]
    assert nearest(zeros[:1], ~zeros)[1].tolist() == [256]
    assert [len(answer) for answer in nearest(as_hashes([]), zeros)] == [0, 0]
