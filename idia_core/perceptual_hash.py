"""A picture's perceptual hash, which re-encoding, resizing, light and small marks hardly change.

It is made in the manner of Facebook's PDQ: the picture in grey is shrunk to 64 x 64, and a bit says whether one of its
256 lowest frequencies (16 vertical x 16 horizontal, none of them constant) lies above their median. Different pictures
differ in about half of the bits. Axes: N and M hashes, 32 bytes.
"""

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from idia_core.compiled import inline, jit

HASH_BYTES = 32
SIDE, FREQUENCIES = 64, 16
MIN_DETAIL = 4.0
"""Grey levels. Of a picture whose frequencies lie closer together than this, the JPEG encoder's own errors turn more
bits than separate two pictures, as measured on photographs and drawings of ever lower contrast."""
FARTHEST = 8 * HASH_BYTES + 1

Hashes = npt.NDArray[np.uint8]

_WAVES = np.arange(1, FREQUENCIES + 1)[:, None] * (2 * np.arange(SIDE) + 1)
_COSINES = (np.sqrt(2 / SIDE) * np.cos(np.pi / (2 * SIDE) * _WAVES)).astype(np.float32)


def perceptual_hash(picture: Image.Image) -> bytes | None:
    """The 32 bytes of the picture's hash; None of a flat one, whose hash would be left to noise.

    Flat is what has less than MIN_DETAIL: one colour, a plain gradient or stripes along an edge.
    """
    grey = cv2.resize(np.asarray(picture.convert("L")), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    frequencies = _COSINES @ grey.astype(np.float32) @ _COSINES.T
    above = frequencies - np.median(frequencies)
    return None if np.median(np.abs(above)) < MIN_DETAIL else np.packbits(above > 0).tobytes()


def as_hashes(hashes: list[bytes]) -> Hashes:
    """The hashes as an array: [N, 32]."""
    return np.frombuffer(bytearray().join(hashes), np.uint8).reshape(-1, HASH_BYTES)


def nearest(hashes: Hashes, among: Hashes) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The place in `among` [M, 32] of the hash nearest to each of `hashes` [N, 32], and in how many bits they differ.

    The first of equally near ones; FARTHEST bits where `among` is empty. No more is held than the answer.
    """
    places, distances = np.zeros(len(hashes), np.int64), np.full(len(hashes), FARTHEST, np.int64)
    _find_nearest(_as_words(hashes), _as_words(among), places, distances)
    return places, distances


def _as_words(hashes: Hashes) -> npt.NDArray[np.uint64]:
    return np.ascontiguousarray(hashes).reshape(-1, HASH_BYTES).view(np.uint64)


@inline
def _count_ones(word: np.uint64) -> np.uint64:
    """How many bits are set; the compiler knows this sum and makes it one instruction."""
    word = word - ((word >> np.uint64(1)) & np.uint64(0x5555555555555555))
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (word * np.uint64(0x0101010101010101)) >> np.uint64(56)


@jit
def _find_nearest(
    hashes: npt.NDArray[np.uint64],
    among: npt.NDArray[np.uint64],
    places: npt.NDArray[np.int64],
    distances: npt.NDArray[np.int64],
) -> None:
    for i in range(len(hashes)):
        a, b, c, d = hashes[i, 0], hashes[i, 1], hashes[i, 2], hashes[i, 3]
        least, place = np.uint64(FARTHEST), 0
        for j in range(len(among)):
            differing = _count_ones(a ^ among[j, 0]) + _count_ones(b ^ among[j, 1])
            differing += _count_ones(c ^ among[j, 2]) + _count_ones(d ^ among[j, 3])
            if differing < least:
                least, place = differing, j
        places[i], distances[i] = place, least
