"""People known by embeddings of their pictures, and compared by cosine.

Axes: B crops, P people, G embeddings in the gallery, D width of an embedding.
"""

from collections.abc import Sequence
from typing import Literal, Protocol, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from pydantic import model_validator
from upath import UPath

from idia_core.classifier import Classifier, NetworkRunner, State, fit, normalised, read_state
from idia_core.config import Strict
from idia_core.errors import InvalidInputError, MissingInputError
from idia_core.model_reference import ModelReference
from idia_core.models import ClipModel, weights_sha256
from idia_core.recognition import AGAIN, WEIGHTS, RecogniserRecord

FACENET_SIDE, FACENET_WIDTH = 160, 512
"""Of facenet-pytorch's InceptionResnetV1: pixels of what it is shown, and the width of its embeddings."""
FACENET_MEAN, FACENET_STD = (127.5 / 255,) * 3, (128 / 255,) * 3
"""As facenet-pytorch prepares pictures: (pixel - 127.5) / 128."""
EMBEDDINGS = pa.schema(
    [
        pa.field("identity", pa.string(), nullable=False),
        pa.field("embedding", pa.list_(pa.float32()), nullable=False),  # of length 1
        pa.field("stretch", pa.float32(), nullable=False),  # by which distances to the person are multiplied
    ]
)
MOST_STRETCHED = 4.0
"""Distances are made no more than so many times as large or as small: a few pictures may be alike by chance."""
ROUNDING = 1e-6
"""Pictures that are no further from each other are copies."""


class GalleryRecipe(Strict):
    """What the embeddings of a gallery come from."""

    embedder: Literal["facenet", "clip", "classifier"] = "facenet"
    """facenet-pytorch's InceptionResnetV1, a CLIP model, or the backbone of the input `classifier`."""
    weights: str | None = None
    """`facenet`: the file of its state dict."""
    model: str | None = None
    """`clip`: ARCHITECTURE:PRETRAINED, ARCHITECTURE:CHECKPOINT.pt and so on."""
    keep: Literal["mean", "all"] = "mean"
    """Keep the mean of a person's embeddings, or all of them."""
    relative: bool = False
    """Judge how far a face is from a person by how far the person's own pictures are: whose pictures are all much alike
    is then not taken for somebody who is only fairly like them."""

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Self:
        if (self.embedder == "facenet") != (self.weights is not None):
            raise ValueError("facenet, and no other embedder, takes weights: a file of its state dict")
        if (self.embedder == "clip") != (self.model is not None):
            raise ValueError("clip, and no other embedder, takes a model")
        return self


class Embedder(Protocol):
    """Turns crops of faces into vectors that are the nearer the more alike the faces are."""

    side: int
    """Pixels of the crops it wants."""

    def embed(self, crops: Sequence[Image.Image]) -> npt.NDArray[np.float32]:
        """Vectors of length 1, with the same bits whatever the other crops are: [B, D]."""


class FacenetEmbedder:
    """facenet-pytorch's InceptionResnetV1 with weights from a state dict, such as its `vggface2` file."""

    side = FACENET_SIDE

    def __init__(self, state: State, device: str = "cpu") -> None:
        from facenet_pytorch import InceptionResnetV1  # noqa: PLC0415 - heavy

        # The published files hold the layer of the faces they were trained on too, which makes no embedding.
        own = {name: weight for name, weight in state.items() if not name.startswith("logits.")}
        network = fit(InceptionResnetV1(), own, "facenet's InceptionResnetV1")
        self._runner = NetworkRunner(network, FACENET_SIDE, FACENET_MEAN, FACENET_STD, device)

    def embed(self, crops: Sequence[Image.Image]) -> npt.NDArray[np.float32]:
        """Embeddings [B, 512]."""
        return normalised(self._runner.run(crops, FACENET_WIDTH))


class ClipEmbedder:
    """The picture tower of a CLIP model."""

    def __init__(self, model: str, device: str = "cpu") -> None:
        self._model = ClipModel(ModelReference.parse(model), device)
        self.side = int(self._model.prepare(Image.new("RGB", (8, 8))).shape[-1])

    def embed(self, crops: Sequence[Image.Image]) -> npt.NDArray[np.float32]:
        """Embeddings [B, D]."""
        return self._model.encode_images(crops)


def load_embedder(record: RecogniserRecord, folder: UPath, device: str = "cpu") -> Embedder:
    """The embedder of a gallery's record, whose weights are in `folder`; those of CLIP stay where they are.

    Raises `InvalidInputError` for weights that are broken, of another network, or of another CLIP model by now.
    """
    if record.network == "clip":
        model = str(record.model)
        if weights_sha256(ModelReference.parse(model)) != record.weights_sha256:
            raise InvalidInputError("the weights are not those that the gallery was made with", f"model {model}", AGAIN)
        return ClipEmbedder(model, device)
    state = read_state(folder / WEIGHTS)
    if record.network == "facenet":
        return FacenetEmbedder(state, device)
    return Classifier(record.network, state, record.side, device)


class Gallery:
    """What is known of people: one embedding or more of each, [G, D], and whose they are, [G], in ascending order.

    Somebody's score is the highest cosine with one of theirs; a distance of it, 1 - cosine, counts `stretch_G` times.
    """

    def __init__(
        self,
        embedder: Embedder,
        embeddings_GD: npt.NDArray[np.float32],
        owners_G: npt.NDArray[np.int64],
        stretch_G: npt.NDArray[np.float32],
    ) -> None:
        self.embedder = embedder
        self._embeddings_GD = embeddings_GD
        self._first_P = np.flatnonzero(np.diff(owners_G, prepend=-1))
        self._stretch_P = stretch_G[self._first_P]

    @classmethod
    def read(cls, embedder: Embedder, path: UPath, identities: Sequence[str]) -> "Gallery":
        """The gallery in a file, whose people are those and in that order; `InvalidInputError` for another one."""
        if not path.is_file():
            raise MissingInputError("there is no gallery", str(path), AGAIN)
        try:
            table = pq.read_table(path.path, filesystem=path.fs).select(EMBEDDINGS.names).cast(EMBEDDINGS)
        except (pa.ArrowInvalid, pa.ArrowTypeError, KeyError, OSError) as error:
            raise InvalidInputError(f"not a gallery: {str(error).splitlines()[0]}", str(path), AGAIN) from None
        owners = table["identity"].to_pylist()
        vectors = table["embedding"].to_pylist()
        if list(dict.fromkeys(owners)) != list(identities) or len({len(vector) for vector in vectors}) != 1:
            raise InvalidInputError("its people are not those of the record", str(path), AGAIN)
        number = {identity: place for place, identity in enumerate(identities)}
        owners_G = np.array([number[owner] for owner in owners])
        if (np.diff(owners_G) < 0).any():
            raise InvalidInputError("its rows are not sorted by person", str(path), AGAIN)
        return cls(embedder, np.array(vectors, np.float32), owners_G, table["stretch"].to_numpy())

    def scores(self, crops: Sequence[Image.Image]) -> npt.NDArray[np.float32]:
        """Each person's score of each crop, -1 to 1: [B, P]."""
        return self.scores_of(self.embedder.embed(crops))

    def scores_of(self, embeddings_BD: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The same, given the crops' embeddings."""
        if embeddings_BD.shape[1] != self._embeddings_GD.shape[1]:
            what = f"embeddings of {embeddings_BD.shape[1]} numbers and a gallery of {self._embeddings_GD.shape[1]}"
            raise InvalidInputError(what, "a recogniser", AGAIN)
        # A product for each crop alone: a matrix of another height may be added up in another order.
        rows = [np.maximum.reduceat(self._embeddings_GD @ crop_D, self._first_P) for crop_D in embeddings_BD]
        cosines_BP = np.stack(rows) if rows else np.empty((0, len(self._first_P)), np.float32)
        # 1 - stretch * (1 - cosine), in which a stretch of 1 changes no bit.
        scores_BP: npt.NDArray[np.float32] = np.maximum(cosines_BP * self._stretch_P + (1 - self._stretch_P), -1)
        return scores_BP


def enrolled(
    embeddings: Sequence[tuple[str, npt.NDArray[np.float32]]], keep: str, *, relative: bool = False
) -> pa.Table:
    """The rows of a gallery, EMBEDDINGS, given each person's embeddings [B, D]: all of them, or the `mean` alone."""
    stretches = stretches_of([mine_BD for _, mine_BD in embeddings], keep) if relative else [1.0] * len(embeddings)
    rows = [
        {"identity": identity, "embedding": vector_D, "stretch": stretch}
        for (identity, mine_BD), stretch in zip(embeddings, stretches, strict=True)
        for vector_D in (_mean(mine_BD) if keep == "mean" else mine_BD)
    ]
    return pa.Table.from_pylist(rows, EMBEDDINGS)


def stretches_of(embeddings: Sequence[npt.NDArray[np.float32]], keep: str) -> list[float]:
    """By how much each person's distances are multiplied, so that all people's own pictures are as far from them.

    They become those of the person in the middle. 1 for a person of whom that is not known: with a single picture, or
    copies of one.
    """
    spreads_P = np.array([_spread(mine_BD, keep) for mine_BD in embeddings])
    known_P = spreads_P > ROUNDING
    middle = float(np.median(spreads_P[known_P])) if known_P.any() else 1.0
    within_P = np.clip(spreads_P, middle / MOST_STRETCHED, middle * MOST_STRETCHED)
    return [float(stretch) for stretch in np.where(known_P, middle / within_P, 1.0)]


def _spread(mine_BD: npt.NDArray[np.float32], keep: str) -> float:
    """The mean of 1 - cosine over a person's pictures, each with what the gallery would hold without it; or 0."""
    if len(mine_BD) < 2:
        return 0.0
    scores = []
    for place, picture_D in enumerate(mine_BD):
        others_BD = np.delete(mine_BD, place, axis=0)
        scores.append(float(((_mean(others_BD) if keep == "mean" else others_BD) @ picture_D).max()))
    return 1 - float(np.mean(scores))


def _mean(embeddings_BD: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The mean at length 1: [1, D]."""
    return normalised(embeddings_BD.mean(axis=0, keepdims=True))
