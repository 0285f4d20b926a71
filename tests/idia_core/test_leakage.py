"""Attack pictures and outsiders' names in training data are found, whatever they are wrapped in."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageEnhance, ImageOps

from idia_core.captions import NameMatcher
from idia_core.drawing import draw_background, draw_face, invent_people
from idia_core.images import ORIENTATION
from idia_core.leakage import (
    LEAKAGE,
    MAX_DISTANCE,
    AttackPictures,
    EmbeddingRule,
    Leak,
    LeakKind,
    leakage,
    names_in,
)
from idia_core.model_reference import Kind, ModelReference, model_config
from idia_core.models import ClipModel
from idia_core.sample_pictures import examine

SEED = 0
PEOPLE = invent_people(6, SEED, ["F", "M"] * 3)


def _encoded(picture: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def _face(person: int, i: int) -> Image.Image:
    return Image.fromarray(draw_face(PEOPLE[person], [SEED, person, i]))


ATTACK = [(f"person {person}/{i}.jpg", _encoded(_face(person, i), quality=90)) for person in range(6) for i in range(8)]
NAME, SHOWN = "person 2/5.jpg", _face(2, 5)


@pytest.fixture(scope="module")
def attack() -> AttackPictures:
    """Eight pictures of each of six people."""
    return AttackPictures(ATTACK)


def _find(attack: AttackPictures, pictures: Sequence[bytes]) -> list[Leak | None]:
    return attack.find(pictures, [examine(picture) for picture in pictures])


def test_other_pictures_are_not_found(attack: AttackPictures) -> None:
    """Other pictures of the same people and of nobody are not the attack pictures."""
    faces = [_encoded(_face(person, 100 + i), quality=90) for person in range(6) for i in range(12)]
    scenes = [_encoded(Image.fromarray(draw_background([SEED, i])[0])) for i in range(10)]
    assert _find(attack, faces + scenes) == [None] * 82


def test_the_same_file_is_found_first_of_all(attack: AttackPictures) -> None:
    """Each file is found under its name, in the order of the training pictures, and the others around it are not."""
    other = _encoded(_face(1, 200))
    found = _find(attack, [other, ATTACK[21][1], memoryview(ATTACK[47][1]), other])
    assert found == [
        None,
        Leak(NAME, LeakKind.IDENTICAL_FILE, 0),
        Leak("person 5/7.jpg", LeakKind.IDENTICAL_FILE, 0),
        None,
    ]


def _on_its_side(picture: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    return _encoded(picture.transpose(Image.Transpose.ROTATE_90), exif=exif)


NEAR = {
    "as PNG": _encoded(SHOWN, "PNG"),
    "a lower quality": _encoded(SHOWN, quality=40),
    "WebP": _encoded(SHOWN, "WEBP", quality=70),
    "a tail": ATTACK[21][1] + b"tail",
    "smaller": _encoded(SHOWN.resize((90, 90), Image.Resampling.LANCZOS)),
    "larger": _encoded(SHOWN.resize((700, 700), Image.Resampling.BICUBIC)),
    "out of shape": _encoded(SHOWN.resize((300, 200), Image.Resampling.BICUBIC)),
    "cropped": _encoded(ImageOps.crop(SHOWN, 2)),
    "framed": _encoded(ImageOps.expand(SHOWN, 1, "white")),
    "brighter": _encoded(ImageEnhance.Brightness(SHOWN).enhance(1.2)),
    "grey": _encoded(SHOWN.convert("L")),
    "mirrored": _encoded(ImageOps.mirror(SHOWN)),
    "stored on its side": _on_its_side(SHOWN),
    "mirrored and stored on its side": _on_its_side(ImageOps.mirror(SHOWN)),
    "all at once": _encoded(ImageOps.mirror(ImageOps.crop(SHOWN, 1)).resize((180, 180)).convert("L"), quality=50),
}


@pytest.mark.parametrize("change", NEAR)
def test_a_near_duplicate_is_found(attack: AttackPictures, change: str) -> None:
    """The picture is found by its hash among 48 others, under its own name."""
    (leak,) = _find(attack, [NEAR[change]])
    assert leak is not None
    assert (leak.found, leak.how) == (NAME, LeakKind.NEAR_DUPLICATE)
    assert leak.value is not None
    assert 0 <= leak.value <= MAX_DISTANCE


def test_it_is_found_the_other_way_round() -> None:
    """The attack's copy may be the changed one."""
    for change, content in NEAR.items():
        (leak,) = _find(AttackPictures([(change, content)]), [ATTACK[21][1]])
        assert leak is not None
        assert (leak.found, leak.how) == (change, LeakKind.NEAR_DUPLICATE)


def test_the_distance_is_a_setting() -> None:
    """With 0 only pictures with an equal hash are found; the distance that a looser setting tells is the least."""
    cropped = NEAR["cropped"]
    (leak,) = _find(AttackPictures(ATTACK), [cropped])
    assert leak is not None
    assert leak.value is not None
    for distance, found in ((0, False), (int(leak.value) - 1, False), (int(leak.value), True)):
        assert (_find(AttackPictures(ATTACK, distance), [cropped]) == [leak]) == found
    with Image.open(io.BytesIO(ATTACK[21][1])) as picture:
        same = _encoded(picture, "PNG")
    assert _find(AttackPictures(ATTACK, 0), [same]) == [Leak(NAME, LeakKind.NEAR_DUPLICATE, 0)]


def test_flat_and_broken_pictures_are_known_by_their_files_alone() -> None:
    """A red square is no near-duplicate of a blue one, nor a broken file of another; the same file is found."""
    red, blue = (_encoded(Image.new("RGB", (60, 60), colour)) for colour in ("red", "blue"))
    attack = AttackPictures([("red", red), ("broken", b"broken"), ("", b"nameless"), ("again", b"broken")])
    found = _find(attack, [blue, red, _encoded(Image.new("RGB", (60, 60), "red"), "PNG"), b"b", b"broken", b"nameless"])
    same = [Leak(name, LeakKind.IDENTICAL_FILE, 0) for name in ("red", "broken", "")]
    assert found == [None, same[0], None, None, same[1], same[2]]


def test_nothing_to_compare_with() -> None:
    """Without attack pictures nothing is found, and without training pictures there is no answer."""
    assert _find(AttackPictures([]), [ATTACK[0][1], b""]) == [None, None]
    assert _find(AttackPictures(ATTACK[:1]), []) == []


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ClipModel:
    """A tiny CLIP with random weights, which do see colours."""
    open_clip, torch = pytest.importorskip("open_clip"), pytest.importorskip("torch")
    torch.manual_seed(0)
    open_clip.add_model_config(model_config("idia-rn-tiny"))
    path: Path = tmp_path_factory.mktemp("model") / "weights.pt"
    torch.save(open_clip.create_model("idia-rn-tiny").state_dict(), path)
    return ClipModel(ModelReference("idia-rn-tiny", str(path), Kind.CHECKPOINT))


def test_an_embedding_finds_what_has_no_hash(model: ClipModel) -> None:
    """With a model, a flat picture is found by its colour; files and hashes come first, and broken ones stay out."""
    red, blue = (Image.new("RGB", (60, 60), colour) for colour in ("red", "blue"))
    attack = [*ATTACK[16:24], ("red", _encoded(red)), ("broken", b"broken")]
    pictures = [_encoded(red, "PNG"), _encoded(blue), ATTACK[21][1], NEAR["mirrored"], b"other"]
    apart = float(np.prod(model.encode_images([red, blue]), axis=0).sum())
    rule = EmbeddingRule(model, min_cosine=1 - (1 - apart) / 10)
    found = _find(AttackPictures(attack, embedding=rule), pictures)
    assert [leak and (leak.found, leak.how) for leak in found] == [
        ("red", LeakKind.NEAR_EMBEDDING),
        None,
        (NAME, LeakKind.IDENTICAL_FILE),
        (NAME, LeakKind.NEAR_DUPLICATE),
        None,
    ]
    assert found[0] is not None
    assert found[0].value == pytest.approx(1, abs=1e-3)
    assert _find(AttackPictures([("broken", b"broken")], embedding=rule), pictures) == [None] * 5


def test_captions_that_name_someone_are_found_by_either_rule() -> None:
    """A name in a longer one, in another spelling, or an alias counts; captions that are null or name nobody do not."""
    captions = pa.array(
        ["a red ball", "here: Bo Birkett, smiling", None, "BIRK, BO at home", "with Cyra, and Bo Birk", "bo birkett"]
    )
    people = NameMatcher(["Cy Cole", "Bo Birk"], [["Cyra"], []])
    assert names_in(captions, people) == {1: "Bo Birk", 3: "Bo Birk", 4: "Cy Cole"}


def test_the_summary_counts_by_how_it_was_found() -> None:
    """One row with a count for each way; without a model there is no count of embeddings rather than 0."""
    found = ["near_duplicate", "names_non_member", "near_duplicate", "identical_file", "near_embedding"]
    (row,) = leakage(1000, 48, found, embedded=True).to_pylist()
    assert list(row.values()) == [1000, 48, 1, 2, 1, 1, 5]
    table = leakage(1000, 48, [], embedded=False)
    assert table.schema == LEAKAGE
    assert list(table.to_pylist()[0].values()) == [1000, 48, 0, 0, None, 0, 0]
