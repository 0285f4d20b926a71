"""Retrieval: pairs as they come, what takes part, and how many hits are counted."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from open_clip_train.train import get_clip_metrics
from upath import UPath

from idia_core.errors import InvalidInputError
from idia_core.model_reference import ModelReference
from idia_core.models import ClipModel
from idia_core.picture_stream import PictureStream
from idia_core.retrieval_rank import rank_hits, read_pairs
from tests.idia_core.test_picture_stream import jpeg
from tests.tar_files import tar_of
from tests.tiny_models import write_model

CAPTIONS = [f"{word} number {place}" for place, word in enumerate(("a dog", "the sea", "two trees") * 8)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ClipModel:
    """A tiny model with random weights."""
    path = write_model(tmp_path_factory.mktemp("retrieval") / "tiny.pt")
    return ClipModel(ModelReference.parse(f"idia-rn-tiny:{path}"))


def tars(folder: Path, captions: list[str], broken: int | None = None) -> list[UPath]:
    """Two tars of pairs, one picture of which may be cut short."""
    files = []
    for place, caption in enumerate(captions):
        picture = jpeg(place)[: 300 if place == broken else None]
        files += [(f"{place:05d}.jpg", picture), (f"{place:05d}.txt", caption.encode())]
    half = len(files) // 4 * 2
    paths = [UPath(folder / "0.tar"), UPath(folder / "1.tar")]
    for path, some in zip(paths, (files[:half], files[half:]), strict=True):
        path.write_bytes(tar_of(some))
    return paths


def test_hits_are_those_of_open_clip(model: ClipModel, tmp_path: Path) -> None:
    """24 pairs in two tars, no ties: `get_clip_metrics` counts as many, and k of N by chance is not far."""
    hits = rank_hits(model, PictureStream(model), read_pairs(tars(tmp_path, CAPTIONS)))
    images = np.concatenate([some for _, some in PictureStream(model).embed((p, jpeg(p)) for p in range(24))])
    texts = model.encode_texts(CAPTIONS)
    theirs = get_clip_metrics(torch.from_numpy(images), torch.from_numpy(texts), torch.tensor(1.0))
    assert {k: count / 24 for k, count in hits.items()} == {k: theirs[f"image_to_text_R@{k}"] for k in (1, 5)}


def test_equal_captions_give_every_model_its_chance(model: ClipModel, tmp_path: Path) -> None:
    """Captions that differ in capitals alone are the same tokens: of 24 pictures 1 / 24 and 5 / 24 hit."""
    captions = ["A Dog", "a dog"] * 12
    hits = rank_hits(model, PictureStream(model), read_pairs(tars(tmp_path, captions)))
    assert hits == pytest.approx({1: 1.0, 5: 5.0})


def test_a_pair_whose_picture_is_broken_takes_no_part(model: ClipModel, tmp_path: Path) -> None:
    """Neither its picture nor its caption: with equal captions 23 pairs are left, so each hit is one of 23."""
    stream = PictureStream(model)
    hits = rank_hits(model, stream, read_pairs(tars(tmp_path, ["a dog"] * 24, broken=5)))
    assert (stream.shown, dict(stream.failed)) == (23, {"truncated": 1})
    assert hits == pytest.approx({1: 1.0, 5: 5.0})


def test_tables_hold_pairs_too(model: ClipModel, tmp_path: Path) -> None:
    """The same pairs in Parquet give the same; one without a caption is counted."""
    columns = {"key": list(map(str, range(25))), "caption": [*CAPTIONS, " "], "image": [jpeg(p) for p in range(25)]}
    pq.write_table(pa.table(columns), tmp_path / "pairs.parquet", row_group_size=7)
    stream = PictureStream(model)
    hits = rank_hits(model, stream, read_pairs([UPath(tmp_path / "pairs.parquet")]))
    assert dict(stream.failed) == {"empty_caption": 1}
    assert hits == rank_hits(model, PictureStream(model), read_pairs(tars(tmp_path, CAPTIONS)))


def test_a_damaged_shard_and_no_pair_at_all_are_errors(model: ClipModel, tmp_path: Path) -> None:
    """Ranks over a part of the captions would be better than those over all."""
    paths = tars(tmp_path, CAPTIONS)
    paths[1].write_bytes(paths[1].read_bytes()[:9000])
    with pytest.raises(InvalidInputError, match=r"cut short .*1.tar"):
        rank_hits(model, PictureStream(model), read_pairs(paths))
    paths[0].write_bytes(tar_of([("0.jpg", b"no picture"), ("0.txt", b"a dog")]))
    with pytest.raises(InvalidInputError, match="none of the pairs"):
        rank_hits(model, PictureStream(model), read_pairs(paths[:1]))
