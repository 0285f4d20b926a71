"""Proof that attack pictures and outsiders' names are not in the training pairs."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import pyarrow as pa

from idia_core.captions import NameMatcher
from idia_core.errors import LeakageError
from idia_core.images import decode_picture

LEAKAGE = pa.schema(
    [
        pa.field("training_pictures", pa.int64(), nullable=False),
        pa.field("attack_pictures", pa.int64(), nullable=False),
        pa.field("identical_files", pa.int64(), nullable=False),
        pa.field("identical_pixels", pa.int64(), nullable=False),
        pa.field("captions_naming_non_members", pa.int64(), nullable=False),
    ]
)


class Leakage(NamedTuple):
    """What was compared and what was found in both places; a row of `LEAKAGE`."""

    training_pictures: int
    attack_pictures: int
    identical_files: int = 0
    identical_pixels: int = 0
    captions_naming_non_members: int = 0


def pixel_digest(image: bytes) -> str:
    """The SHA-256 of a picture's size and pixels, the same for two files that show exactly the same.

    A picture that cannot be decoded is known by its bytes alone.
    """
    picture, _ = decode_picture(image)
    content = image if picture is None else str(picture.size).encode() + picture.tobytes()
    return hashlib.sha256(content).hexdigest()


def check_leakage(
    training: Iterable[tuple[str, bytes, str]], attack: Iterable[tuple[str, bytes]], outsiders: Sequence[str]
) -> Leakage:
    """Compare all training pairs (key, image, caption) with all attack pictures (name, image), by bytes and by pixels.

    No caption may hold the name of one of the `outsiders`, by either rule of `idia_core.captions`. Raises
    `LeakageError` that names the first pair found; returns the counts otherwise.
    """
    shown: dict[str, str] = {}
    attack_pictures = 0
    for name, image in attack:
        attack_pictures += 1
        shown[hashlib.sha256(image).hexdigest()] = shown[pixel_digest(image)] = name
    keys, captions = [], []
    for key, image, caption in training:
        keys.append(key)
        captions.append(caption)
        known = shown.get(hashlib.sha256(image).hexdigest(), shown.get(pixel_digest(image)))
        if known is not None:
            fix = "Take the picture out of one of the two."
            raise LeakageError(f"training pair '{key}' shows the attack picture '{known}'", "stage shards", fix)
    if not outsiders:
        return Leakage(len(keys), attack_pictures)
    matches = NameMatcher(outsiders).scan(pa.array(captions, pa.string())).matches
    if matches.num_rows:
        first = matches.slice(0, 1).to_pylist()[0]
        what = f"the caption of training pair '{keys[first['row']]}' names the non-member '{first['name']}'"
        raise LeakageError(what, "stage shards", "Take the pair out, or make that person a member.")
    return Leakage(len(keys), attack_pictures)
