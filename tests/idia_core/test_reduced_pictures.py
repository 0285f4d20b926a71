"""Reduced decoding: upright, once, with the size of the whole; faces in pixels of the whole, crops that show them."""

import cv2
import numpy as np
import pytest
from PIL import Image

from idia_core.face_crops import crop_face, crops_of
from idia_core.face_detection import Box, Detector, DetectorConfig, make_detector
from idia_core.images import PictureStatus, decode_picture
from idia_core.reduced_pictures import decode_reduced, find_faces
from tests.idia_core.face_scenes import around_face, encoded, hits, portrait, scene, stored

PLACE = (60, 40, 150)
SCENE = scene(300, 200, [PLACE])
LARGE = np.asarray(cv2.resize(scene(450, 300, [(90, 60, 200)]), (1800, 1200), interpolation=cv2.INTER_CUBIC), np.uint8)


@pytest.fixture(scope="module", params=["haar", "mtcnn"])
def detector(request: pytest.FixtureRequest) -> Detector:
    """Each of the detectors that need no file."""
    return make_detector(DetectorConfig(kind=request.param))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_turned_face_is_found_and_cropped_upright(detector: Detector, kind: str, orientation: int) -> None:
    """In all eight EXIF orientations the boxes are those of the plain picture, and the crop shows the same face."""
    [plain] = find_faces([encoded(SCENE, "PNG")], detector)
    [found] = find_faces([encoded(stored(SCENE, orientation), kind, orientation)], detector)
    assert (found.reduced.width, found.reduced.height) == (300, 200)
    assert len(found.faces) == hits(found.faces, [PLACE]) == 1
    assert found.faces[0].box.overlap(plain.faces[0].box) > 0.85
    [expected], [crop] = crops_of(plain, side=64), crops_of(found, side=64)
    difference = np.abs(np.asarray(crop, int) - np.asarray(expected, int)).mean()
    upside_down = np.abs(np.asarray(crop, int)[::-1] - np.asarray(expected, int)).mean()
    assert difference < 0.4 * upside_down


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_large_jpeg_is_decoded_smaller_and_its_boxes_are_of_the_whole(detector: Detector, orientation: int) -> None:
    """1,800 pixels are halved for a detector that wants 640; boxes and sizes stay those of the full picture."""
    content = encoded(stored(LARGE, orientation), "JPEG", orientation)
    [found] = find_faces([content], detector)
    assert found.reduced.picture is not None
    assert found.reduced.picture.size == (900, 600)
    assert found.reduced[1:] == (PictureStatus.OK, 1800, 1200)
    assert hits(found.faces, [(360, 240, 800)]) == 1
    [crop] = crops_of(found, side=100)
    whole = crop_face(Image.fromarray(LARGE), found.faces[0].box, side=100)
    assert np.abs(np.asarray(crop, int) - np.asarray(whole, int)).mean() < 6


@pytest.mark.parametrize(
    ("at_least", "width"), [(None, 1800), (2000, 1800), (901, 1800), (900, 900), (450, 450), (225, 225), (1, 225)]
)
def test_a_jpeg_stays_as_large_as_asked(at_least: int | None, width: int) -> None:
    """It is halved as often as its longest side stays as long as asked, three times at most."""
    picture, status, *size = decode_reduced(encoded(LARGE), at_least)
    assert picture is not None
    assert (picture.width, status, size) == (width, "ok", [1800, 1200])


@pytest.mark.parametrize(
    "picture",
    [
        Image.fromarray(SCENE).convert("L"),
        Image.fromarray(SCENE).convert("RGBA"),
        Image.fromarray(SCENE).convert("P"),
        Image.fromarray(np.asarray(Image.fromarray(SCENE).convert("L")).astype(np.uint16) * 257),
    ],
    ids=["grey", "alpha", "palette", "16 bit"],
)
def test_pictures_of_every_mode_have_faces(detector: Detector, picture: Image.Image) -> None:
    """Grey, transparent, indexed and 16-bit pictures are shown to the detector in RGB."""
    [found] = find_faces([encoded(picture, "PNG")], detector)
    assert hits(found.faces, [PLACE]) == 1


def test_a_cmyk_jpeg_has_faces(detector: Detector) -> None:
    """And is decoded smaller where it is large."""
    [found] = find_faces([encoded(Image.fromarray(LARGE).convert("CMYK"))], detector)
    assert found.reduced.picture is not None
    assert (found.reduced.picture.mode, found.reduced.picture.width) == ("RGB", 900)
    assert hits(found.faces, [(360, 240, 800)]) == 1


def test_what_cannot_be_decoded_has_a_reason_and_no_faces(detector: Detector) -> None:
    """Nothing, text, half a file, a bomb and a single pixel among others that are fine: none is lost or mixed up."""
    jpeg = encoded(SCENE)
    contents = [b"", jpeg, b"text", jpeg[: len(jpeg) // 2], encoded(SCENE[:1, :1], "PNG"), encoded(LARGE), jpeg]
    found = find_faces(contents, detector, max_pixels=100_000)
    statuses = [one.reduced.status for one in found]
    assert statuses == ["empty", "ok", "broken", "truncated", "ok", "too_large", "ok"]
    assert [len(one.faces) for one in found] == [0, 1, 0, 0, 0, 0, 1]
    assert [decode_picture(content, 100_000)[1] for content in contents] == statuses
    assert [len(crops_of(one)) for one in found] == [0, 1, 0, 0, 0, 0, 1]


def test_a_crop_is_a_square_around_the_box() -> None:
    """Its side is the box's longer one and the margin; the box's centre stays its centre."""
    picture = np.zeros((100, 120, 3), np.uint8)
    picture[40:60, 50:60] = 255
    crop = np.asarray(crop_face(Image.fromarray(picture), Box(50, 40, 10, 20), margin=0.5, side=30))
    assert crop.shape == (30, 30, 3)
    assert (crop[5:25, 10:20] == 255).all()
    assert crop.sum() == 255 * 200 * 3


def test_a_crop_beyond_the_edge_repeats_it() -> None:
    """A box in a corner is filled up with the picture's last pixels, not with black."""
    crop = np.asarray(crop_face(Image.new("RGB", (50, 50), (10, 200, 30)), Box(0, 0, 20, 20), margin=1, side=16))
    assert (crop == (10, 200, 30)).all()
    assert crop_face(Image.new("RGB", (1, 1)), Box(0, 0, 1, 1)).size == (224, 224)


def test_a_crop_of_a_portrait_shows_the_face() -> None:
    """The crop of a face in a scene is about the portrait's own part at the same place."""
    crop = np.asarray(crop_face(Image.fromarray(SCENE), around_face(*PLACE), margin=0, side=84), int)
    box = around_face(0, 0, PLACE[2])
    alone = Image.fromarray(portrait(0, 0, PLACE[2])).crop((box.x - 1, box.y, box.x + 83, box.y + 84))
    assert np.abs(crop - np.asarray(alone, int)).mean() < 8
