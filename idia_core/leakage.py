"""What must stay out of training data: attack pictures, near-duplicates of them, and captions that name outsiders.

Axes: A attack pictures, B training pictures, D dimensions of an embedding.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from PIL import Image, ImageOps
from typing_extensions import Buffer

from idia_core.captions import NameMatcher
from idia_core.images import decode_picture
from idia_core.models import ClipModel
from idia_core.perceptual_hash import as_hashes, nearest, perceptual_hash
from idia_core.sample_pictures import Examined, decode_reduced
from idia_core.sample_status import SampleStatus

LEAKAGE = pa.schema(
    [
        pa.field("training_pictures", pa.int64(), nullable=False),  # of pairs that nothing else keeps out
        pa.field("attack_pictures", pa.int64(), nullable=False),
        pa.field("identical_files", pa.int64(), nullable=False),
        pa.field("near_duplicates", pa.int64(), nullable=False),
        pa.field("near_embeddings", pa.int64()),  # null where no model was given
        pa.field("captions_naming_non_members", pa.int64(), nullable=False),
        pa.field("left_out", pa.int64(), nullable=False),  # pairs, for one of these four reasons
    ]
)
MAX_DISTANCE = 31
"""Bits of 256 in which the hashes of near-duplicates differ at most, as PDQ recommends. Of 13,500 pictures in ten
worlds of drawn people, 2 were this near to another picture of the same person; no photograph of 240 was within 69."""


class LeakKind(StrEnum):
    """How it was found that a pair shows or names what must stay out."""

    IDENTICAL_FILE = "identical_file"
    NEAR_DUPLICATE = "near_duplicate"
    NEAR_EMBEDDING = "near_embedding"
    NAMES_NON_MEMBER = "names_non_member"


class Leak(NamedTuple):
    """What a pair shows or names, how that was found, and the distance in bits or the cosine of the two pictures."""

    found: str
    how: LeakKind
    value: float | None


class EmbeddingRule(NamedTuple):
    """A model, and the least cosine of two pictures' embeddings at which they count as near-duplicates.

    There is no default: how near to each other unrelated pictures lie differs from model to model.
    """

    model: ClipModel
    min_cosine: float


class AttackPictures:
    """The attack pictures, ready to be found among training pictures.

    A picture is found by its file, by its perceptual hash, mirrored or not, and, where a rule is given, by its
    embedding. One that cannot be decoded is found by its file alone, and so is a flat one where there is no rule.
    """

    def __init__(
        self,
        pictures: Iterable[tuple[str, bytes]],
        max_distance: int = MAX_DISTANCE,
        embedding: EmbeddingRule | None = None,
    ) -> None:
        """Read pictures, each a name and an encoded picture."""
        self._max_distance, self._embedding = max_distance, embedding
        self._files: dict[bytes, str] = {}
        hashes, self._hashed = list[bytes](), list[str]()
        decodable, self._embedded = list[bytes](), list[str]()
        for name, content in pictures:
            self._files.setdefault(_digest(content), name)
            picture = decode_reduced(content).picture
            if picture is None:
                continue
            views = [perceptual_hash(picture), perceptual_hash(ImageOps.mirror(picture))]
            hashes += filter(None, views)
            self._hashed += [name for view in views if view]
            if embedding:
                decodable.append(content)
                self._embedded.append(name)
        self._hashes = as_hashes(hashes)
        if embedding:
            self._embeddings_AD = embedding.model.encode_images(map(_decoded, decodable))

    def find(self, pictures: Sequence[Buffer], examined: Sequence[Examined]) -> list[Leak | None]:
        """For each training picture, with what `examine` says of it: the attack picture that it shows, or None."""
        found: list[Leak | None] = [None] * len(pictures)
        for i, picture in enumerate(pictures):
            name = self._files.get(_digest(picture))
            if name is not None:
                found[i] = Leak(name, LeakKind.IDENTICAL_FILE, 0)
        self._find_hashes(examined, found)
        if self._embedding and self._embedded:
            self._find_embeddings(self._embedding, pictures, examined, found)
        return found

    def _find_hashes(self, examined: Sequence[Examined], found: list[Leak | None]) -> None:
        rows = [i for i, one in enumerate(examined) if one.hash and found[i] is None]
        places, distances = nearest(as_hashes([examined[i].hash or b"" for i in rows]), self._hashes)
        for near in np.flatnonzero(distances <= self._max_distance):
            name = self._hashed[places[near]]
            found[rows[near]] = Leak(name, LeakKind.NEAR_DUPLICATE, int(distances[near]))

    def _find_embeddings(
        self,
        rule: EmbeddingRule,
        pictures: Sequence[Buffer],
        examined: Sequence[Examined],
        found: list[Leak | None],
    ) -> None:
        rows = [i for i, one in enumerate(examined) if one.status is SampleStatus.OK and found[i] is None]
        embeddings_BD = rule.model.encode_images(_decoded(pictures[i]) for i in rows)
        for i, embedding_D in zip(rows, embeddings_BD, strict=True):
            cosines_A = self._embeddings_AD @ embedding_D
            place = int(cosines_A.argmax())
            if cosines_A[place] >= rule.min_cosine:
                found[i] = Leak(self._embedded[place], LeakKind.NEAR_EMBEDDING, float(cosines_A[place]))


def names_in(captions: pa.Array, people: NameMatcher) -> dict[int, str]:
    """The rows of captions that name one of the people by either rule of `idia_core.captions`, and whom they name.

    Of several people it is the first in the matcher's order.
    """
    matches = people.scan(captions).matches
    rows, names = matches["row"].to_pylist(), matches["name"].to_pylist()
    return dict(zip(reversed(rows), reversed(names), strict=True))


def leakage(training_pictures: int, attack_pictures: int, found: Iterable[str], *, embedded: bool) -> pa.Table:
    """The row of LEAKAGE: what was compared, and how it was found that a pair must be left out, one `found` a pair.

    `embedded` says whether a model compared the pictures too.
    """
    counts = Counter(found)
    row = {
        "training_pictures": training_pictures,
        "attack_pictures": attack_pictures,
        "identical_files": counts[LeakKind.IDENTICAL_FILE],
        "near_duplicates": counts[LeakKind.NEAR_DUPLICATE],
        "near_embeddings": counts[LeakKind.NEAR_EMBEDDING] if embedded else None,
        "captions_naming_non_members": counts[LeakKind.NAMES_NON_MEMBER],
        "left_out": counts.total(),
    }
    return pa.Table.from_pylist([row], LEAKAGE)


def _digest(picture: Buffer) -> bytes:
    return hashlib.sha256(picture).digest()


def _decoded(picture: Buffer) -> Image.Image:
    decoded, status = decode_picture(bytes(picture))
    if decoded is None:
        raise AssertionError(f"a picture that was decoded at reduced size is {status}")
    return decoded
