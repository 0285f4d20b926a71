"""Zero-shot classification: open_clip's own classifier and accuracy, but for ties."""

from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from upath import UPath

from idia_core.errors import InvalidInputError
from idia_core.labelled_pictures import Labelled
from idia_core.model_reference import ModelReference
from idia_core.models import ClipModel
from idia_core.picture_stream import PictureStream
from idia_core.zeroshot import build_classifier, classification_hits, imagenet_names, read_class_names
from tests.idia_core.test_picture_stream import jpeg
from tests.tiny_models import write_model


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with random weights."""
    return write_model(tmp_path_factory.mktemp("zeroshot") / "tiny.pt")


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> ClipModel:
    """The same, loaded."""
    return ClipModel(ModelReference.parse(f"idia-rn-tiny:{checkpoint}"))


def test_the_classifier_is_open_clips(checkpoint: Path, model: ClipModel) -> None:
    """For ImageNet's first names and OpenAI's templates; blocks of classes and ours of templates make no difference."""
    plain = open_clip.create_model("idia-rn-tiny", pretrained=str(checkpoint)).eval()
    tokenizer, names = open_clip.get_tokenizer("idia-rn-tiny"), imagenet_names()[:120]
    told = list[float]()
    ours = build_classifier(model, names[:12], report=lambda done, _: told.append(done))
    theirs = open_clip.build_zero_shot_classifier(plain, tokenizer, names[:12], open_clip.OPENAI_IMAGENET_TEMPLATES)
    np.testing.assert_allclose(ours, theirs.T.numpy(), atol=1e-6)
    templates = ("a photo of a {}.", "{}")
    ours = build_classifier(model, names, templates)
    theirs = open_clip.build_zero_shot_classifier(plain, tokenizer, names, templates)
    np.testing.assert_allclose(ours, theirs.T.numpy(), atol=1e-6)
    assert told == [1.0]


def test_imagenet_has_a_thousand_classes_of_which_four_share_a_name() -> None:
    """The names are open_clip's, in ImageNet's order; two missiles and two sunglasses are always tied."""
    names = imagenet_names()
    assert (len(names), names[0], names[-1]) == (1000, "tench", "toilet paper")
    assert {name for name in names if names.count(name) > 1} == {"missile", "sunglasses"}


def test_a_picture_of_a_class_whose_name_comes_twice_is_half_a_hit(model: ClipModel) -> None:
    """Among three classes of which two have one name; with fewer than five classes the first five are all."""
    classifier = build_classifier(model, ["missile", "a red dog", "missile"], ("{}",))
    pictures = [(Labelled(label, 0.0), jpeg(place)) for place in range(6) for label in range(3)]
    assert classifier[0].tobytes() == classifier[2].tobytes()
    stream = PictureStream(model)
    hits = classification_hits(stream, pictures, classifier)
    # Each picture comes with all three labels: it is one hit, or two halves.
    assert hits == {1: 6.0, 5: 18.0}
    assert stream.shown == 18


def test_nothing_to_show_is_an_error(model: ClipModel) -> None:
    """A rate of no pictures would be no number."""
    with pytest.raises(InvalidInputError, match="none of the pictures"):
        classification_hits(PictureStream(model), [(Labelled(0, 0.0), b"broken")], np.eye(3, 64, dtype=np.float32))


def test_class_names_are_read_a_line_each(tmp_path: Path) -> None:
    """With or without a last line's end; a blank line would shift the classes and is refused, as is no line."""
    file = UPath(tmp_path / "names.txt")
    file.write_text("great white shark\n ñandú ", encoding="utf-8")
    assert read_class_names(file) == ["great white shark", "ñandú"]
    for content, complaint in ((b"a\n\nb\n", "line 2"), (b"", "names no class"), (b"\xff", "not UTF-8")):
        file.write_bytes(content)
        with pytest.raises(InvalidInputError, match=complaint):
            read_class_names(file)


def test_hits_are_those_of_the_largest_logits(model: ClipModel) -> None:
    """30 pictures, nine classes, no ties: top-1 and top-5 are what torch's `topk` finds, as open_clip_train counts."""
    classifier = build_classifier(model, imagenet_names()[:9], ("{}",))
    labels = [place % 9 for place in range(30)]
    pictures = [(Labelled(label, 0.0), jpeg(place)) for place, label in enumerate(labels)]
    hits = classification_hits(PictureStream(model), pictures, classifier)
    images = np.concatenate([images for _, images in PictureStream(model).embed(pictures)])
    right = torch.from_numpy(images @ classifier.T).topk(5).indices == torch.tensor(labels)[:, None]
    assert hits == {1: float(right[:, 0].sum()), 5: float(right.sum())}
    assert 0 < hits[5] < 30
