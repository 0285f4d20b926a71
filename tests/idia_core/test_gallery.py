"""Galleries of embeddings: whose picture is nearest, by which embedder, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from facenet_pytorch import InceptionResnetV1
from facenet_pytorch.models.mtcnn import fixed_image_standardization
from PIL import Image
from upath import UPath

from idia_core.drawing import draw_face, invent_people
from idia_core.errors import InvalidInputError, MissingInputError
from idia_core.gallery import (
    ClipEmbedder,
    FacenetEmbedder,
    Gallery,
    GalleryRecipe,
    enrolled,
    load_embedder,
    stretches_of,
)
from idia_core.model_reference import ModelReference
from idia_core.models import ClipModel, weights_sha256
from idia_core.recognition import RecogniserRecord
from tests.tiny_models import write_model

PEOPLE = ("Ann Lee", "Bob Ray")


class Corner:
    """An embedder of two numbers: how red and how blue the upper left pixel is."""

    side = 8

    def embed(self, crops: list[Image.Image]) -> np.ndarray[Any, Any]:
        colours = np.array([np.asarray(crop)[0, 0, [0, 2]] for crop in crops], np.float32).reshape(-1, 2)
        return colours / np.linalg.norm(colours, axis=1, keepdims=True)


def plain(red: int, blue: int) -> Image.Image:
    """A picture of one colour."""
    return Image.new("RGB", (8, 8), (red, 0, blue))


def written(path: Path, people: tuple[str, ...] = PEOPLE, keep: str = "all") -> UPath:
    """A gallery of two red and one blue picture."""
    red, blue = Corner().embed([plain(255, 0), plain(200, 200)]), Corner().embed([plain(0, 255)])
    pq.write_table(enrolled(list(zip(people, (red, blue), strict=True)), keep), path)
    return UPath(path)


def test_the_nearest_of_somebodys_pictures_counts(tmp_path: Path) -> None:
    """With `all`, the score is the highest cosine with any picture of the person; with `mean`, that with their mean."""
    crops = [plain(255, 0), plain(100, 100), plain(0, 9)]
    every = Gallery.read(Corner(), written(tmp_path / "all.parquet"), PEOPLE).scores(crops)
    half = np.sqrt(0.5)
    assert every == pytest.approx(np.array([[1, 0], [1, half], [half, 1]]), abs=1e-6)
    mean = Gallery.read(Corner(), written(tmp_path / "mean.parquet", keep="mean"), PEOPLE).scores(crops)
    towards = np.array([1 + half, half]) / np.hypot(1 + half, half)
    assert mean[:, 0] == pytest.approx([towards[0], towards.sum() * half, towards[1]], abs=1e-6)
    assert len(pq.read_table(tmp_path / "mean.parquet")) == len(PEOPLE)


def turned(*degrees: float) -> np.ndarray[Any, Any]:
    """Vectors of length 1 in a plane, turned so far."""
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


@pytest.mark.parametrize("keep", ["mean", "all"])
def test_distances_are_stretched_to_the_spread_of_the_person_in_the_middle(keep: str) -> None:
    """Two pictures of each person are 10, 20 and 30 degrees apart; who has one picture is judged as the middle one."""
    people = [turned(0, 10), turned(40, 60), turned(90, 120), turned(200)]
    apart = [1 - np.cos(np.radians(degrees)) for degrees in (10, 20, 30)]
    assert stretches_of(people, keep) == pytest.approx([apart[1] / apart[0], 1, apart[1] / apart[2], 1], rel=1e-4)
    assert stretches_of([people[3]], keep) == [1]


def test_nothing_is_stretched_more_than_fourfold_nor_by_copies() -> None:
    """Pictures much more or less alike than others' may be so by chance; copies of one picture tell nothing."""
    alike, apart, far, copies = turned(0, 2), turned(0, 40), turned(0, 170), turned(5, 5, 5)
    assert stretches_of([alike, apart, apart, copies], "mean") == [4, 1, 1, 1]
    assert stretches_of([far, apart, apart], "mean") == [0.25, 1, 1]
    assert stretches_of([copies, copies], "mean") == [1, 1]


def test_a_stretch_changes_the_score_and_not_the_nearest(tmp_path: Path) -> None:
    """A distance of a half counts as much as the person's own pictures say, and no score is below -1."""
    people = ("Ann Lee", "Bob Ray", "Cleo Day")
    rows = enrolled(list(zip(people, (turned(-5, 5), turned(80, 100), turned(170, 190)), strict=True)), "mean")
    path = UPath(tmp_path / "gallery.parquet")
    pq.write_table(rows.set_column(2, rows.schema.field("stretch"), pa.array([2, 1, 0.5], pa.float32())), path)
    scores = Gallery.read(Corner(), path, people).scores_of(turned(0, 60, 180))
    expected = [[1, 0, 0], [0, np.sqrt(0.75), 0.25], [-1, 0, 1]]
    assert scores == pytest.approx(np.array(expected), abs=1e-6)


def test_a_gallery_of_others_is_refused(tmp_path: Path) -> None:
    """Of other people, in another order, of another width, broken, or not there."""
    path = written(tmp_path / "gallery.parquet")
    for people in (PEOPLE[::-1], ("Ann Lee",), ("Ann Lee", "Cleo Day")):
        with pytest.raises(InvalidInputError, match="its people are not those"):
            Gallery.read(Corner(), path, people)
    with pytest.raises(InvalidInputError, match="embeddings of 3 numbers and a gallery of 2"):
        Gallery.read(Corner(), path, PEOPLE).scores_of(np.ones((1, 3), np.float32))
    (tmp_path / "broken.parquet").write_bytes(path.read_bytes()[:100])
    with pytest.raises(InvalidInputError, match="not a gallery"):
        Gallery.read(Corner(), UPath(tmp_path / "broken.parquet"), PEOPLE)
    with pytest.raises(MissingInputError, match="there is no gallery"):
        Gallery.read(Corner(), UPath(tmp_path / "none.parquet"), PEOPLE)


def test_facenet_embeds_as_facenet_pytorch_does() -> None:
    """With its own preparation of pictures; a crop's bits do not depend on its neighbours.

    The layer of the people that a published file was trained on is left out.
    """
    torch.manual_seed(0)
    network = InceptionResnetV1().eval()
    state = network.state_dict() | {"logits.weight": torch.ones(5, 512), "logits.bias": torch.ones(5)}
    person = invent_people(1, 3, "F")[0]
    crops = [Image.fromarray(draw_face(person, [3, number])).resize((160, 160)) for number in range(2)]
    shown = torch.stack([torch.from_numpy(np.asarray(crop).copy()).permute(2, 0, 1).float() for crop in crops])
    with torch.no_grad():
        expected = network(fixed_image_standardization(shown)).numpy()
    embedder = FacenetEmbedder(state)
    embeddings = embedder.embed(crops)
    assert embeddings.shape == (2, 512)
    assert np.allclose(embeddings, expected, atol=1e-5)
    assert np.array_equal(embedder.embed(crops[1:]), embeddings[1:])
    del state["last_bn.weight"]
    with pytest.raises(InvalidInputError, match="do not fit"):
        FacenetEmbedder(state)


def test_any_clip_model_embeds(tmp_path: Path) -> None:
    """As the model itself does; once its file changes, the gallery is refused."""
    checkpoint = write_model(tmp_path / "model.pt")
    reference = ModelReference.parse(f"idia-rn-tiny:{checkpoint}")
    record = RecogniserRecord(
        kind="gallery",
        network="clip",
        identities=PEOPLE,
        side=64,
        margin=0.2,
        threshold=0.5,
        model=str(reference),
        weights_sha256=weights_sha256(reference),
    )
    embedder = load_embedder(record, UPath(tmp_path))
    assert isinstance(embedder, ClipEmbedder)
    crops = [plain(255, 0), plain(0, 255)]
    assert np.array_equal(embedder.embed(crops), ClipModel(reference).encode_images(crops))
    assert embedder.side == ClipModel(reference).prepare(crops[0]).shape[-1]
    write_model(checkpoint, seed=1)
    with pytest.raises(InvalidInputError, match="not those that the gallery was made with"):
        load_embedder(record, UPath(tmp_path))


@pytest.mark.parametrize(
    "fields",
    [{}, {"embedder": "clip"}, {"embedder": "classifier", "weights": "x.pt"}, {"weights": "x.pt", "model": "a:b"}],
)
def test_an_embedder_is_given_what_it_needs(fields: dict[str, str]) -> None:
    """And nothing that is another's."""
    with pytest.raises(ValueError, match="and no other embedder, takes"):
        GalleryRecipe.model_validate(fields)
