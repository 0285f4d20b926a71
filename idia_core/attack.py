"""The Identity Inference Attack: votes, majorities, scores and verdicts (paper, Section 4).

Axes: I identities, P pictures of one identity, N templates, K candidate names, D embedding dimensions, R draws.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from idia_core.compiled import inline, jit

VOTES = pa.schema(
    [
        pa.field("model", pa.string(), nullable=False),
        pa.field("identity", pa.string(), nullable=False),
        pa.field("image", pa.string(), nullable=False),  # the picture's id in `pictures`
        pa.field("template", pa.string(), nullable=False),
        pa.field("predicted", pa.string(), nullable=False),  # the candidate name with the largest cosine similarity
    ]
)
PANEL_VOTES = VOTES.insert(1, pa.field("pool", pa.string(), nullable=False))
"""Votes on the pictures of the reference panel, whose people are asked under every pool of names in use."""
ASKED = pa.schema(
    [
        pa.field("identity", pa.string(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("sex", pa.string()),
        pa.field("pool", pa.string(), nullable=False),  # the names that the person's is chosen from
        pa.field("pictures", pa.int64(), nullable=False),  # all, those that could not be used among them
    ]
)
"""The people under test, in their order."""
PANEL = pa.schema([pa.field("identity", pa.string(), nullable=False), pa.field("sex", pa.string())])
"""The people of the reference panel; nobody who is under test."""
SIMILARITIES = pa.schema(
    [
        pa.field("model", pa.string(), nullable=False),
        pa.field("identity", pa.string(), nullable=False),
        pa.field("cosine", pa.float32(), nullable=False),  # of pictures and the real name's prompts, on average
        pa.field("decoys", pa.list_(pa.float32()), nullable=False),  # the same for names of the pool that are not real
    ]
)
"""What a plain cosine similarity would go by, for comparison; a black box does not tell it."""


NEAR = np.float32(1e-6)
"""Cosines this near are computed again in double precision: their last bits depend on what is multiplied with them."""


def predict(images_PD: npt.NDArray[np.float32], blocks: Iterable[npt.NDArray[np.float32]]) -> npt.NDArray[np.int64]:
    """For each picture and template the candidate whose prompt is nearest: [P, N] indices into all K names.

    `blocks` are the prompts' embeddings of some names after another, each [N, k, D], so that a million names need no
    more memory than a block. All is L2-normalised, so the dot product is the cosine similarity; softmax and temperature
    would not change the argmax. The first of exactly equal candidates wins. However pictures and names are cut into
    blocks, the answer is the same.
    """
    best_PN = nearest_PN = None
    rows_P, first = np.arange(len(images_PD)), 0
    for texts_NkD in blocks:
        if best_PN is None or nearest_PN is None:
            best_PN = np.full((len(rows_P), len(texts_NkD)), -np.inf)
            nearest_PN = np.zeros(best_PN.shape, np.int64)
        for n, texts_kD in enumerate(texts_NkD):
            nearest_P, best_P = _nearest(images_PD, texts_kD)
            better_P = best_P > best_PN[:, n]
            best_PN[better_P, n] = best_P[better_P]
            nearest_PN[better_P, n] = first + nearest_P[better_P]
        first += texts_NkD.shape[1]
    if nearest_PN is None:
        raise ValueError("no names to choose from")
    return nearest_PN


def _nearest(
    images_PD: npt.NDArray[np.float32], texts_kD: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The nearest of some prompts to each picture, and its cosine in double precision: [P] each."""
    cosines_Pk = images_PD @ texts_kD.T
    nearest_P, cosine_P = cosines_Pk.argmax(axis=1), np.empty(len(images_PD))
    _decide(cosines_Pk, images_PD, texts_kD, nearest_P, cosine_P)
    return nearest_P, cosine_P


@jit
def _decide(
    cosines_Pk: npt.NDArray[np.float32],
    images_PD: npt.NDArray[np.float32],
    texts_kD: npt.NDArray[np.float32],
    nearest_P: npt.NDArray[np.int64],
    cosine_P: npt.NDArray[np.float64],
) -> None:
    """Fill in the cosine of the place of the largest of each row; another place where one that is near is better."""
    for p in range(cosines_Pk.shape[0]):
        place, close = nearest_P[p], 0
        least = cosines_Pk[p, place] - NEAR
        for k in range(cosines_Pk.shape[1]):
            close += cosines_Pk[p, k] >= least
        exact = _cosine(images_PD[p], texts_kD[place])
        if close > 1:
            for k in range(cosines_Pk.shape[1]):
                if cosines_Pk[p, k] >= least:
                    other = _cosine(images_PD[p], texts_kD[k])
                    if other > exact or (other == exact and k < place):
                        exact, place = other, k
        nearest_P[p], cosine_P[p] = place, exact


@inline
def _cosine(image_D: npt.NDArray[np.float32], text_D: npt.NDArray[np.float32]) -> float:
    """The dot product in double precision, always summed in the same order."""
    even, odd = 0.0, 0.0
    for d in range(0, len(image_D) - 1, 2):
        even += float(image_D[d]) * float(text_D[d])
        odd += float(image_D[d + 1]) * float(text_D[d + 1])
    if len(image_D) % 2:
        even += float(image_D[-1]) * float(text_D[-1])
    return even + odd
