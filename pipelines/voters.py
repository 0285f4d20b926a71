"""Who answers in `attack`: a model that runs here, or a black box over HTTP; both choose a name for each picture.

Axes: P pictures, N templates, k names of a block, D embedding dimensions.
"""

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
from PIL.Image import Image
from upath import UPath

from idia_core.attack import predict
from idia_core.black_box import BlackBox
from idia_core.manifest import digest_of
from idia_core.models import ClipModel
from idia_core.prompts import fill
from idia_core.storage import is_local, write_text

NAMES_PER_BLOCK = 256
"""Names whose prompts are embedded at a time, and lie in one file: 11 MB with 21 templates of 512 dimensions."""


def block_path(model: str, first: int) -> str:
    """Where the embeddings of the block of names that begins with number `first` lie, in the stage's folder."""
    return f"text_embeddings/{model}/names-{first:07d}.npy"


class TextBlocks:
    """The embeddings of all prompts of a model, a block of names at a time, each [N, k, D] float32.

    Local files are mapped, so that all workers of a machine share one copy.
    """

    def __init__(self, folder: UPath, model: str, names: int) -> None:
        self._files = [folder / block_path(model, first) for first in range(0, names, NAMES_PER_BLOCK)]
        self._loaded: list[npt.NDArray[np.float32]] = [self._load(file) for file in self._files]

    @staticmethod
    def _load(file: UPath) -> npt.NDArray[np.float32]:
        found: npt.NDArray[np.float32]
        found = np.load(file.path, mmap_mode="r") if is_local(file) else np.load(io.BytesIO(file.read_bytes()))
        return found

    def of(self, chosen: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.float32]]:
        """The blocks with the names of those ascending numbers alone."""
        for place, block_NkD in enumerate(self._loaded):
            first = place * NAMES_PER_BLOCK
            mine = chosen[(chosen >= first) & (chosen < first + block_NkD.shape[1])] - first
            if len(mine):
                yield block_NkD if len(mine) == block_NkD.shape[1] else block_NkD[:, mine]

    def means(self, chosen: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """The mean over the templates of each of those names: [k, D]."""
        return np.concatenate([block_NkD.mean(axis=0) for block_NkD in self.of(chosen)])


class LocalVoter:
    """A model that runs here, and the embeddings of all prompts."""

    def __init__(self, model: ClipModel, blocks: TextBlocks, numbers: Mapping[str, npt.NDArray[np.int64]]) -> None:
        self._model, self._blocks, self._numbers = model, blocks, numbers
        self._means: dict[bytes, npt.NDArray[np.float32]] = {}

    def embed(self, pictures: Iterable[Image]) -> npt.NDArray[np.float32]:
        """The pictures' embeddings: [P, D]."""
        return self._model.encode_images(pictures)

    def vote(self, images_PD: npt.NDArray[np.float32], pool: str) -> npt.NDArray[np.int64]:
        """For each picture and template the number of the name that the model chooses from a pool: [P, N]."""
        numbers = self._numbers[pool]
        return numbers[predict(images_PD, self._blocks.of(numbers))]

    def cosines(self, image_D: npt.NDArray[np.float32], numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """The mean cosine over the templates of a picture, or of the mean of some, with names of ascending numbers."""
        key = numbers.tobytes()
        if key not in self._means:
            self._means[key] = self._blocks.means(numbers)
        return self._means[key] @ image_D


class BlackBoxVoter:
    """Asks a black box, some requests at a time, and keeps every answer in a file, so that nothing is asked twice."""

    def __init__(self, box: BlackBox, reference: str, ledger: UPath, connections: int) -> None:
        self._box, self._reference, self._ledger, self._connections = box, reference, ledger, connections

    def vote(self, pictures: Sequence[Image], templates: Sequence[str], names: Sequence[str]) -> npt.NDArray[np.int64]:
        """For each picture and template the place of the name that the black box chooses: [P, N]."""
        encoded = [_png(picture) for picture in pictures]
        with ThreadPoolExecutor(self._connections) as pool:
            answers = pool.map(lambda template: self._ask(encoded, fill([template], names)), templates)
            return np.array(list(answers), np.int64).T

    def _ask(self, pictures: Sequence[bytes], prompts: Sequence[str]) -> list[int]:
        digests = [hashlib.sha256(picture).hexdigest() for picture in pictures]
        file = self._ledger / f"{digest_of([self._reference, digests, list(prompts)])}.json"
        if file.exists():
            answers: list[int] = json.loads(file.read_text(encoding="utf-8"))
            return answers
        answers = self._box.answer(pictures, prompts)
        write_text(file, json.dumps(answers))
        return answers


def _png(picture: Image) -> bytes:
    """The picture as PNG, so that the black box sees the very pixels that a model here would see."""
    stream = io.BytesIO()
    picture.save(stream, format="PNG")
    return stream.getvalue()
