"""Detectors: drawn faces are found where they are, whatever the file, the batch and the picture's size."""

import math
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pydantic import ValidationError

from idia_core.errors import InvalidInputError, MissingInputError
from idia_core.face_detection import Box, Detector, DetectorConfig, Face, clipped, largest_first, make_detector
from tests.idia_core.face_scenes import Picture, hits, scene

KINDS = ["haar", "mtcnn"]
THREE = [(20, 30, 90), (150, 60, 160), (330, 20, 120)]
TWO = [(10, 40, 110), (160, 30, 130)]
MOSAIC = [(x * 100 + 5, y * 100 + 5, 90) for y in range(5) for x in range(6)]
NOTEBOOK = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_default.xml")


@pytest.fixture(scope="module", params=KINDS)
def detector(request: pytest.FixtureRequest) -> Detector:
    """Each of the detectors that need no file."""
    return make_detector(DetectorConfig(kind=request.param))


def shown(picture: Picture) -> Image.Image:
    """As a detector takes it."""
    return Image.fromarray(picture)


def test_faces_are_found_where_they_are(detector: Detector) -> None:
    """Three portraits of different sizes in a scene are three faces, the largest first, and nothing else is one."""
    [faces] = detector.detect([shown(scene(480, 240, THREE))])
    assert hits(faces, THREE) == len(faces) == 3
    areas = [face.box.width * face.box.height for face in faces]
    assert areas == sorted(areas, reverse=True)


def test_only_mtcnn_gives_scores(detector: Detector) -> None:
    """MTCNN's scores are probabilities above its threshold; Haar has none."""
    [faces] = detector.detect([shown(scene(480, 240, THREE))])
    for face in faces:
        assert face.score is None if detector.name == "haar" else 0.7 < (face.score or 0) <= 1


def test_a_batch_may_hold_unequal_sizes_and_unequal_counts(detector: Detector) -> None:
    """Three faces, none, two, none in a single pixel: each picture has the faces, to the bit, that it has alone."""
    pictures = [
        shown(scene(480, 240, THREE)),
        shown(scene(480, 240, [], seed=1)),
        shown(scene(300, 200, TWO, seed=2)),
        Image.new("RGB", (1, 1)),
        shown(scene(480, 240, THREE[:1], seed=3)),
        Image.new("RGB", (3000, 2)),
    ]
    together = detector.detect(pictures)
    assert list(map(len, together)) == [3, 0, 2, 0, 1, 0]
    assert together == [detector.detect([picture])[0] for picture in pictures]
    assert together[::-1] == detector.detect(pictures[::-1])
    assert detector.detect([]) == []


def test_a_picture_with_thirty_faces(detector: Detector) -> None:
    """At least 28 of 30 portraits in rows are found where they are, and hardly anything besides."""
    [faces] = detector.detect([shown(scene(600, 500, MOSAIC))])
    assert hits(faces, MOSAIC) >= 28
    assert len(faces) <= 31


def test_a_face_that_is_cut_off_has_a_box_within_the_picture(detector: Detector) -> None:
    """Boxes never leave the picture."""
    picture = shown(scene(480, 240, THREE)).crop((50, 40, 400, 200))
    boxes = [face.box for face in detector.detect([picture])[0]]
    assert boxes
    assert all(box.x >= 0 and box.y >= 0 and box.x + box.width <= 350 and box.y + box.height <= 160 for box in boxes)


def test_min_face_is_of_the_full_size_picture(detector: Detector) -> None:
    """A face of 90 is far below a least size of 250 and above 40; at half size, which `scales` says, it still is."""
    larger = make_detector(DetectorConfig(kind=detector.name, min_face=250))  # type: ignore[arg-type]
    picture, place = shown(scene(320, 320, [(80, 80, 160)])), [(80, 80, 160)]
    half, half_place = picture.resize((160, 160)), [(40, 40, 80)]
    assert hits(detector.detect([picture])[0], place) == 1
    assert hits(detector.detect([half], [0.5])[0], half_place) == 1
    assert larger.detect([picture]) == larger.detect([half], [0.5]) == [[]]


@pytest.mark.parametrize(("min_face", "seed"), [(32, 0), (40, 4), (50, 5)])
def test_haar_is_opencvs_own_to_the_pixel(min_face: int, seed: int) -> None:
    """The boxes are those of `detectMultiScale` with the paper's parameters, in scenes, noise and odd sizes."""
    haar = make_detector(DetectorConfig(kind="haar", min_face=min_face))
    noise = np.random.default_rng(seed).integers(0, 256, (61, 83, 3), np.uint8)
    smooth = np.asarray(cv2.resize(noise, (401, 333), interpolation=cv2.INTER_CUBIC), np.uint8)
    pictures = [scene(600, 500, MOSAIC, seed), scene(481, 243, THREE, seed), smooth, noise, noise[:24, :24]]
    found = haar.detect([shown(np.ascontiguousarray(picture)) for picture in pictures])
    for picture, faces in zip(pictures, found, strict=True):
        grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        expected = NOTEBOOK.detectMultiScale(grey, scaleFactor=1.1, minNeighbors=5, minSize=(min_face, min_face))
        assert sorted(face.box for face in faces) == sorted(tuple(map(int, box)) for box in expected)
    assert len(found[0]) >= 28


def test_haar_finds_faces_in_pictures_that_pillow_keeps_in_pieces() -> None:
    """One so large that its pixels are not in one piece of memory has OpenCV's own boxes too."""
    pixels = np.asarray(cv2.resize(scene(480, 240, THREE), (4800, 2400), interpolation=cv2.INTER_CUBIC), np.uint8)
    picture = shown(pixels)
    with pytest.raises(ValueError, match="not contiguous"):
        pa.array(picture)
    [faces] = make_detector(DetectorConfig(kind="haar", min_face=600)).detect([picture])
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    expected = NOTEBOOK.detectMultiScale(grey, scaleFactor=1.1, minNeighbors=5, minSize=(600, 600))
    assert sorted(face.box for face in faces) == sorted(tuple(map(int, box)) for box in expected)
    assert len(faces) == 3


def test_mtcnn_finds_what_facenet_finds() -> None:
    """With the same least size the faces are facenet-pytorch's: equal in number, with boxes that overlap by 0.7."""
    from facenet_pytorch import MTCNN  # noqa: PLC0415 - heavy

    mine, theirs = make_detector(DetectorConfig(min_face=40)), MTCNN(keep_all=True, min_face_size=40)
    for picture in (scene(600, 500, MOSAIC), scene(481, 243, THREE), scene(300, 200, TWO, 2)):
        [faces] = mine.detect([shown(picture)])
        boxes = [Box(round(x), round(y), round(x2 - x), round(y2 - y)) for x, y, x2, y2 in theirs.detect(picture)[0]]
        assert len(faces) == len(boxes)
        assert all(max(box.overlap(face.box) for face in faces) > 0.7 for box in boxes)


def test_thresholds_are_settings() -> None:
    """What MTCNN must think likely, and how many windows must agree for Haar, decide what is a face."""
    picture = shown(scene(480, 240, THREE))
    [sure] = make_detector(DetectorConfig(mtcnn_thresholds=(0.6, 0.7, 1))).detect([picture])
    [agreed] = make_detector(DetectorConfig(kind="haar", haar_neighbours=1000)).detect([picture])
    [single] = make_detector(DetectorConfig(kind="haar", haar_neighbours=0)).detect([picture])
    assert sure == agreed == []
    assert len(single) > 3


def test_a_detector_knows_how_large_a_picture_it_wants(detector: Detector) -> None:
    """It is a setting, 640 pixels where nothing is said."""
    assert detector.longest_side() == 640
    assert make_detector(DetectorConfig(kind="haar", longest_side=None)).longest_side() is None


def test_yunet_without_a_model_file_names_the_setting(tmp_path: Path) -> None:
    """No file, one that is not there, and one that is no model are errors that say `yunet_model`."""
    with pytest.raises(MissingInputError, match="yunet_model"):
        make_detector(DetectorConfig(kind="yunet"))
    with pytest.raises(MissingInputError, match=r"no file '.*none.onnx' \(setting yunet_model\)"):
        make_detector(DetectorConfig(kind="yunet", yunet_model=str(tmp_path / "none.onnx")))
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    with pytest.raises(InvalidInputError, match="yunet_model"):
        make_detector(DetectorConfig(kind="yunet", yunet_model=str(tmp_path / "bad.onnx")))


@pytest.mark.parametrize(
    "wrong", [{"kind": "dlib"}, {"min_face": 5}, {"haar_factor": 1}, {"mtcnn_thresholds": (0.6, 0.7)}, {"sides": 3}]
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    """An unknown detector or field, and figures that would never end or find nothing."""
    with pytest.raises(ValidationError):
        DetectorConfig.model_validate(wrong)


def test_boxes() -> None:
    """They are clipped, scaled and compared by their pixels, and sorted by area, then from the top left."""
    assert clipped(Box(-5, 3, 20, 10), 12, 8) == Box(0, 3, 12, 5)
    assert clipped(Box(12, 3, 20, 10), 12, 8) is None
    assert Box(1, 2, 3, 5).scaled(2, 4) == Box(2, 8, 6, 20)
    assert math.isclose(Box(0, 0, 10, 10).overlap(Box(5, 0, 10, 10)), 1 / 3)
    assert Box(0, 0, 10, 10).overlap(Box(10, 0, 10, 10)) == 0
    faces = [Face(Box(*box), None) for box in [(5, 5, 2, 2), (9, 1, 2, 2), (0, 0, 3, 3), (2, 1, 2, 2)]]
    assert [face.box[:2] for face in largest_first(faces)] == [(0, 0), (2, 1), (9, 1), (5, 5)]
