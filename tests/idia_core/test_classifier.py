"""Classifiers of faces: what they say of crops, the weights that are refused, and how their training is fed."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from upath import UPath

from idia_core.classifier import Classifier, as_pixels, build_network, read_state, start_from
from idia_core.drawing import draw_face, encode_jpeg, invent_people
from idia_core.errors import InvalidInputError, MissingInputError
from idia_core.images import PictureStatus
from idia_core.recogniser_training import (
    LABELLED,
    ClassifierRecipe,
    CropMaker,
    LabelledPictures,
    augmentation,
    epoch_order,
    held_out,
    write_pictures,
)

PEOPLE = 3


def faces(count: int) -> list[Image.Image]:
    """Pictures of a drawn person."""
    person = invent_people(1, 3, "F")[0]
    return [Image.fromarray(draw_face(person, [3, number])) for number in range(count)]


def small_state(seed: int = 0, people: int = PEOPLE) -> dict[str, Any]:
    """Random weights of the small network."""
    torch.manual_seed(seed)
    return dict(build_network("small", people).state_dict())


def saved(path: Path, content: object) -> UPath:
    """What torch.save writes."""
    torch.save(content, path)
    return UPath(path)


def test_scores_are_the_networks_own_probabilities() -> None:
    """They equal a plain forward pass of the network on the same pixels, whole, with softmax."""
    state, crops = small_state(), faces(5)
    network = build_network("small", PEOPLE)
    network.load_state_dict(state)
    pixels = torch.from_numpy(np.stack([as_pixels(crop, 64) for crop in crops])).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    with torch.no_grad():
        expected = network.eval()((pixels - mean) / std).softmax(dim=1).numpy()
    scores = Classifier("small", state, 64).scores(crops)
    assert scores.shape == (5, PEOPLE)
    assert np.allclose(scores, expected, atol=1e-5)
    assert np.ptp(scores, axis=0).max() > 0.001  # it does look at the picture


def test_a_crops_scores_do_not_depend_on_its_neighbours() -> None:
    """Bit for bit, whether it comes alone, among others or after a full batch; so with embeddings, of length 1."""
    classifier, crops = Classifier("small", small_state(), 64), faces(11)
    together, alone = classifier.scores(crops), [classifier.scores([crop])[0] for crop in crops]
    assert np.array_equal(together, np.stack(alone))
    embeddings = classifier.embed(crops)
    assert np.array_equal(embeddings[9:], classifier.embed(crops[9:]))
    assert embeddings.shape == (11, 128)
    assert np.allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)
    assert classifier.scores([]).shape == (0, PEOPLE)


def test_resnet50_is_torchvisions() -> None:
    """The paper's network has the names of torchvision's, a layer for the people, and embeddings 2,048 wide."""
    torch.manual_seed(0)
    network = build_network("resnet50", PEOPLE)
    classifier = Classifier("resnet50", network.state_dict(), 32)
    assert network.fc.weight.shape == (PEOPLE, 2048)
    assert "layer4.2.conv3.weight" in network.state_dict()
    assert classifier.embed(faces(1)).shape == (1, 2048)


def test_a_backbone_trained_on_others_is_started_from() -> None:
    """All weights are the file's but those of the last layer, which was for other people."""
    others = small_state(seed=1, people=10)
    torch.manual_seed(0)
    started = start_from(build_network("small", PEOPLE), others, "a file").state_dict()
    assert started["fc.weight"].shape[0] == PEOPLE
    assert all(torch.equal(started[name], others[name]) for name in others if not name.startswith("fc."))


class _Runs:
    """Would run a command when it is read by pickle alone."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (exec, ("raise SystemExit('code of a file was run')",))


def test_a_file_that_holds_no_weights_is_told(tmp_path: Path) -> None:
    """Garbage, a cut file, code, other content, and no file at all: each is an error of ours, and no code runs."""
    whole = saved(tmp_path / "whole.pt", small_state())
    cases = {
        "garbage.pt": b"\x00garbage" * 100,
        "empty.pt": b"",
        "cut.pt": whole.read_bytes()[:5000],
    }
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
    saved(tmp_path / "code.pt", {"weight": _Runs()})
    saved(tmp_path / "list.pt", [torch.ones(2)])
    saved(tmp_path / "number.pt", {"epoch": 3})
    for name in (*cases, "code.pt", "list.pt", "number.pt"):
        with pytest.raises(InvalidInputError, match=name):
            read_state(UPath(tmp_path / name))
    with pytest.raises(MissingInputError, match="no file of weights"):
        read_state(UPath(tmp_path / "none.pt"))
    assert read_state(saved(tmp_path / "wrapped.pt", {"state_dict": small_state()})).keys() == small_state().keys()


def test_weights_of_another_network_are_refused() -> None:
    """Of another architecture, without a last layer, or not finite."""
    state = small_state()
    with pytest.raises(InvalidInputError, match="do not fit"):
        Classifier("resnet50", state, 64)
    with pytest.raises(InvalidInputError, match="no last layer"):
        Classifier("small", {"stem.0.weight": state["stem.0.weight"]}, 64)
    state["stem.0.weight"] = state["stem.0.weight"] * float("nan")
    with pytest.raises(InvalidInputError, match="not finite"):
        Classifier("small", state, 64)


def test_an_epoch_shows_every_picture() -> None:
    """Each once, some of the first again where the last step would not be full, in an order of the seed and epoch."""
    order = epoch_order(21, 8, seed=5, epoch=0)
    assert order.shape == (3, 8)
    assert sorted(order.ravel()[:21]) == list(range(21))
    assert order.ravel()[21:].tolist() == order.ravel()[:3].tolist()
    assert epoch_order(3, 8, seed=5, epoch=0).shape == (1, 8)
    assert not np.array_equal(order, epoch_order(21, 8, seed=5, epoch=1))
    assert not np.array_equal(order, epoch_order(21, 8, seed=6, epoch=0))


def test_a_tenth_of_each_persons_pictures_is_held_out() -> None:
    """By a draw that knows the person and the seed only; one at least, and one at least is left to learn from."""
    names = [f"{number:02}.jpg" for number in range(40)]
    drawn = held_out(names, 0.1, 7, "Ann Lee")
    assert len(drawn) == 4
    assert drawn == held_out(names[::-1], 0.1, 7, "Ann Lee")
    assert drawn != held_out(names, 0.1, 7, "Bob Ray")
    assert drawn != held_out(names, 0.1, 8, "Ann Lee")
    assert [len(held_out(names[:count], 0.1, 7, "Ann Lee")) for count in (0, 1, 2, 15, 25)] == [0, 0, 1, 2, 3]
    assert len(held_out(names[:2], 0.9, 7, "Ann Lee")) == 1


def test_the_learning_rate_falls_twice() -> None:
    """To a tenth at 75% of the epochs and to a hundredth at 90% (paper, Appendix C)."""
    recipe = ClassifierRecipe()
    rates = [recipe.learning_rate_in(epoch) for epoch in range(recipe.epochs)]
    assert [round(rates[epoch], 9) for epoch in (0, 74, 75, 89, 90, 99)] == [3e-3, 3e-3, 3e-4, 3e-4, 3e-5, 3e-5]


def test_pictures_are_augmented_anew_in_every_epoch(tmp_path: Path) -> None:
    """A picture of an epoch is the same whoever loads it and when, another one in the next epoch, and normalised."""
    images = [encode_jpeg(np.asarray(face.resize((73, 73)))) for face in faces(2)]
    table = pa.table({"label": [0, 2], "image": images}).cast(LABELLED)
    write_pictures(tmp_path / "pictures.arrow", [table.slice(0, 1), table.slice(1)])
    recipe = ClassifierRecipe(backbone="small")
    pictures = LabelledPictures(str(tmp_path / "pictures.arrow"), augmentation(recipe), seed=1)
    again = LabelledPictures(str(tmp_path / "pictures.arrow"), augmentation(recipe), seed=1)
    assert (len(pictures), pictures[1][1]) == (2, 2)
    first, _ = pictures[0], again[1]
    assert torch.equal(first[0], again[0][0])
    assert first[0].shape == (3, 64, 64)
    assert first[0].dtype is torch.float32
    again.epoch = 1
    assert not torch.equal(first[0], again[0][0])
    assert abs(float(first[0].mean())) < 2 < float(first[0].max() - first[0].min())


def test_the_middle_of_a_picture_is_kept() -> None:
    """A square of the size that is asked for; what cannot be decoded keeps the reason why."""
    maker = CropMaker(40, None, 0.2)
    wide = Image.new("RGB", (120, 60), "red")
    wide.paste(Image.new("RGB", (60, 60), "blue"), (30, 0))
    buffer = io.BytesIO()
    wide.save(buffer, "PNG")
    crop, status = maker.crop("ok", buffer.getvalue())
    assert status == "ok"
    assert crop is not None
    square = np.asarray(Image.open(io.BytesIO(crop)))
    assert square.shape == (40, 40, 3)
    assert square[..., 2].min() > 200  # all blue: the red sides are cut off
    assert maker.crop("ok", buffer.getvalue()[:80]) == (None, PictureStatus.TRUNCATED)
    assert maker.crop("missing", None) == (None, "missing")
