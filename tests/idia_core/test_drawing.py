"""The built-in world: the same bytes for the same seed, people who differ, faces that real detectors find."""

from dataclasses import fields
from itertools import combinations, pairwise

import cv2
import numpy as np
import pytest

from idia_core.drawing import (
    MIN_DISTANCE,
    Person,
    distance,
    draw_background,
    draw_face,
    encode_jpeg,
    invent_people,
)
from idia_core.errors import InvalidInputError

SEXES_48 = ["F", "M"] * 24


@pytest.fixture(scope="module")
def people() -> list[Person]:
    """The 48 people of one world."""
    return invent_people(48, 7, SEXES_48)


@pytest.fixture(scope="module")
def backgrounds() -> list[tuple[np.ndarray, str]]:
    """A hundred pictures without people, with their captions."""
    return [draw_background((7, number)) for number in range(100)]


HAAR = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_default.xml")


def count_haar_faces(picture: np.ndarray) -> int:
    """How many faces OpenCV's frontal-face cascade finds."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    return len(HAAR.detectMultiScale(grey, scaleFactor=1.1, minNeighbors=5, minSize=(32, 32)))


def test_a_larger_world_starts_with_the_same_people(people: list[Person]) -> None:
    """Person i depends on the seed, i and the sexes up to i, never on how many people there are."""
    assert invent_people(10, 7, SEXES_48) == people[:10]
    assert invent_people(10, 8, SEXES_48) != people[:10]


def test_all_people_keep_the_least_distance(people: list[Person]) -> None:
    """No two people of a world are nearer than MIN_DISTANCE, and the distance goes both ways."""
    nearest = min(distance(one, other) for one, other in combinations(people, 2))
    assert nearest >= MIN_DISTANCE
    assert distance(people[0], people[1]) == distance(people[1], people[0])
    assert distance(people[0], people[0]) == 0


def test_no_single_category_names_a_person(people: list[Person]) -> None:
    """Most people share each of their categories (hair colour, style, beard, glasses ...) with somebody else."""
    names = [field.name for field in fields(Person) if isinstance(getattr(people[0], field.name), str | bool)]
    assert "hair_colour" in names
    for name in names:
        values = [getattr(person, name) for person in people]
        assert sum(values.count(value) > 1 for value in values) / len(values) > 0.9


def test_a_sex_only_makes_looks_likelier(people: list[Person]) -> None:
    """Women have no beards and more long hair; some men have long hair, some women short."""
    long_haired = [[person.hair_length > 0 for person in people[start::2]] for start in (0, 1)]
    assert {person.beard for person in people[0::2]} == {"none"}
    assert 24 > sum(long_haired[0]) > sum(long_haired[1]) > 0


@pytest.mark.parametrize("sexes", [["F"], ["F", "X", "M"]])
def test_wrong_sexes_are_refused(sexes: list[str]) -> None:
    """Too few sexes, or a letter other than F and M, is an InvalidInputError."""
    with pytest.raises(InvalidInputError, match="sexes"):
        invent_people(3, 1, sexes)


def test_a_picture_is_a_pure_function_of_person_and_seed(people: list[Person]) -> None:
    """Two calls give the same bytes; another seed or another person gives other bytes."""
    first = draw_face(people[3], (7, 3, 0))
    assert first.tobytes() == draw_face(people[3], (7, 3, 0)).tobytes()
    assert first.tobytes() != draw_face(people[3], (7, 3, 1)).tobytes()
    assert first.tobytes() != draw_face(people[4], (7, 3, 0)).tobytes()
    picture, caption = draw_background((7, 5))
    again, same_caption = draw_background((7, 5))
    assert (picture.tobytes(), caption) == (again.tobytes(), same_caption)


def test_sides_are_128_to_256_pixels(people: list[Person], backgrounds: list[tuple[np.ndarray, str]]) -> None:
    """Faces and backgrounds are square RGB pictures of 128 to 256 pixels a side, of many sizes."""
    pictures = [draw_face(people[0], (1, number)) for number in range(40)] + [picture for picture, _ in backgrounds]
    sides = {picture.shape[0] for picture in pictures}
    assert all(picture.shape == (picture.shape[0], picture.shape[0], 3) for picture in pictures)
    assert all(picture.dtype == np.uint8 for picture in pictures)
    assert min(sides) >= 128
    assert max(sides) <= 256
    assert len(sides) > 50


def test_pictures_of_a_person_vary_less_in_the_face_than_between_people(people: list[Person]) -> None:
    """At 64 pixels, a picture is nearest to the mean picture of its own person for most of 12 people."""
    small = np.array(
        [
            [cv2.resize(draw_face(person, (2, number)), (64, 64), interpolation=cv2.INTER_AREA) for number in range(12)]
            for person in people[:12]
        ],
        dtype=np.float32,
    )[:, :, 16:52, 16:48]
    means = small[:, :8].mean(axis=1)
    right = [
        int(np.argmin(np.square(means - picture).mean(axis=(1, 2, 3)))) == identity
        for identity, pictures in enumerate(small[:, 8:])
        for picture in pictures
    ]
    assert np.mean(right) > 0.5


def test_haar_finds_the_faces_and_hardly_any_in_backgrounds(
    people: list[Person], backgrounds: list[tuple[np.ndarray, str]]
) -> None:
    """OpenCV's cascade finds a face in at least 85% of 48 pictures, and in under 10% of 20 backgrounds."""
    found = [count_haar_faces(draw_face(person, (7, i, k))) for i, person in enumerate(people[:24]) for k in range(2)]
    assert np.mean(np.array(found) > 0) >= 0.85
    assert np.mean([count_haar_faces(picture) > 0 for picture, _ in backgrounds[:20]]) < 0.1


def test_mtcnn_finds_the_faces_and_none_in_backgrounds(
    people: list[Person], backgrounds: list[tuple[np.ndarray, str]]
) -> None:
    """MTCNN finds a face in at least 90% of 10 pictures, and in none of 5 backgrounds."""
    detector = pytest.importorskip("facenet_pytorch").MTCNN(keep_all=True, device="cpu")
    found = [detector.detect(draw_face(person, (7, i, 9)))[0] is not None for i, person in enumerate(people[:10])]
    assert np.mean(found) >= 0.9
    assert all(detector.detect(picture)[0] is None for picture, _ in backgrounds[:5])


def test_captions_are_varied_and_say_what_is_drawn(backgrounds: list[tuple[np.ndarray, str]]) -> None:
    """A thousand captions are nearly all distinct, begin in many ways, and none is left with a blank."""
    captions = [draw_background((11, number))[1] for number in range(300)]
    assert len(set(captions)) > 290
    assert len({" ".join(caption.split()[:2]) for caption in captions}) > 30
    assert not any("{" in caption or "  " in caption for caption in captions)
    assert all(one != other for one, other in pairwise(caption for _, caption in backgrounds))


def test_a_jpeg_keeps_colours_in_rgb_order() -> None:
    """A red picture decodes to a red one, and a grey array is refused."""
    red = np.zeros((32, 32, 3), dtype=np.uint8)
    red[..., 0] = 220
    encoded = encode_jpeg(red)
    assert encoded[:2] == b"\xff\xd8"
    decoded = cv2.cvtColor(cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    assert np.abs(decoded.astype(int) - red).max() < 8
    with pytest.raises(InvalidInputError, match="not a picture"):
        encode_jpeg(red[..., 0])
