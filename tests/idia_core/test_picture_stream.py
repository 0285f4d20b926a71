"""The stream of pictures into a model: its order, what fails, and what the model waits for."""

import io
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from upath import UPath

from idia_core.errors import InvalidInputError
from idia_core.model_reference import ModelReference
from idia_core.models import ClipModel
from idia_core.picture_stream import BATCHES_AHEAD, PictureStream, Source
from tests.tiny_models import write_model


def jpeg(number: int) -> bytes:
    """A picture of noise."""
    stream = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (70 + number % 9, 90, 3), np.uint8)
    Image.fromarray(pixels).save(stream, "JPEG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ClipModel:
    """The tiny architecture with random weights."""
    path = write_model(tmp_path_factory.mktemp("stream") / "tiny.pt")
    return ClipModel(ModelReference.parse(f"idia-rn-tiny:{path}"))


@pytest.mark.parametrize("threads", [1, 3])
def test_pictures_keep_their_order_and_their_bits(model: ClipModel, threads: int) -> None:
    """From bytes, views and any number of threads come the embeddings that `encode_images` gives, tag by tag."""
    contents = [jpeg(number) for number in range(21)]
    stream = PictureStream(model, threads)
    found = list(stream.embed((number, memoryview(content)) for number, content in enumerate(contents)))
    assert [tag for tags, _ in found for tag in tags] == list(range(21))
    pictures = [Image.open(io.BytesIO(content)) for content in contents]
    assert np.concatenate([images for _, images in found]).tobytes() == model.encode_images(pictures).tobytes()
    assert (stream.shown, stream.counts) == (21, {"rows_in": 21, "rows_kept": 21})


def test_what_cannot_be_shown_is_counted(model: ClipModel, tmp_path: Path) -> None:
    """Cut, broken, empty and missing pictures, and those that came with a reason; the others are shown."""
    (tmp_path / "there.jpg").write_bytes(jpeg(1))
    sources: list[Source] = [b"", jpeg(2)[:500], b"no picture", UPath(tmp_path / "gone.jpg"), "no_label"]
    sources += [UPath(tmp_path / "there.jpg"), jpeg(3)]
    stream = PictureStream(model)
    tags = [tag for tags, _ in stream.embed(enumerate(sources)) for tag in tags]
    assert tags == [5, 6]
    assert dict(stream.failed) == dict.fromkeys(("empty", "truncated", "broken", "missing", "no_label"), 1)
    assert stream.counts["rows_in"] == 7


def test_few_pictures_are_held(model: ClipModel) -> None:
    """Of endless pictures no more are read ahead than fit in some batches, and all threads end with the stream."""
    read = 0

    def endless() -> Iterator[tuple[int, bytes]]:
        nonlocal read
        while True:
            read += 1
            yield read, jpeg(0)

    before = threading.active_count()
    found = PictureStream(model, 2).embed(endless())
    next(found)
    time.sleep(0.2)
    assert read <= (BATCHES_AHEAD + 1) * model.batch_size + 2
    found.close()
    assert threading.active_count() == before


def test_the_wait_is_measured(model: ClipModel) -> None:
    """Where a picture takes 20 ms to come, a model that is done in two waits most of the time."""

    def slow() -> Iterator[tuple[int, bytes]]:
        for number in range(16):
            time.sleep(0.02)
            yield number, jpeg(number)

    stream = PictureStream(model)
    assert sum(len(tags) for tags, _ in stream.embed(slow())) == 16
    assert 0.5 * stream.seconds < stream.waited < stream.seconds
    assert "16 pictures" in stream.words


def test_an_error_of_the_reader_reaches_the_caller(model: ClipModel) -> None:
    """Also when it comes after pictures that were read well."""

    def failing() -> Iterator[tuple[int, bytes]]:
        yield 0, jpeg(0)
        raise InvalidInputError("damaged", "a tar")

    with pytest.raises(InvalidInputError, match="damaged"):
        list(PictureStream(model).embed(failing()))


def test_failures_are_told_one_by_one(model: ClipModel) -> None:
    """The tag and status of each, in their order, to whoever wants to know."""
    told: list[tuple[int, str]] = []
    sources: list[Source] = [b"", jpeg(1), "no_label", jpeg(2)[:500]]
    stream = PictureStream(model, 2)
    found = stream.embed(enumerate(sources), lambda tag, status: told.append((tag, str(status))))
    assert [tag for tags, _ in found for tag in tags] == [1]
    assert told == [(0, "empty"), (2, "no_label"), (3, "truncated")]
    assert stream.failed.total() == 3
