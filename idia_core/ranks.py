"""Whether the right text is among the first k that a model ranks for a picture, by cosine similarity.

Ties are settled by expectation. If `greater` texts are more similar than the right one and `equal` others exactly as
similar, a random order of the equals puts the right one among the first k with probability
`clip((k - greater) / (equal + 1), 0, 1)`, and so much of a hit is counted. A model that gives every text the same
embedding gets k / N of N texts, whatever their order. Texts with the same embedding are always tied, such as the two
classes of ImageNet that open_clip both calls "missile".

Axes: B pictures, N texts, U texts that differ, D embedding dimensions, K values of k.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from idia_core.statistics import wilson_interval

Floats = npt.NDArray[np.float32]
BLOCK = 1 << 22
"""Similarities that are held at a time."""
FIRST = (1, 5)
"""The values of k in the paper's Table 2."""


class RankedTexts:
    """Texts, by their embeddings [N, D] of length one, that are ranked for pictures."""

    def __init__(self, texts_ND: Floats) -> None:
        # Equal texts become one: a matrix product may give equal columns different last bits.
        rows_N = np.ascontiguousarray(texts_ND).view(np.dtype((np.void, texts_ND[0].nbytes))).ravel()
        _, first_U, self._place_N, self._times_U = np.unique(
            rows_N, return_index=True, return_inverse=True, return_counts=True
        )
        self._texts_UD = texts_ND[first_U]

    def hits(self, images_BD: Floats, right_B: npt.NDArray[np.int64], first: Sequence[int]) -> npt.NDArray[np.float64]:
        """How much of a hit each picture is for each k in `first`: [B, K]; `right_B` are numbers of texts."""
        step = max(1, BLOCK // len(self._texts_UD))
        starts = range(0, len(images_BD), step)
        blocks = [self._block(images_BD[i : i + step], right_B[i : i + step], first) for i in starts]
        return np.concatenate([np.empty((0, len(first))), *blocks])

    def _block(
        self, images_BD: Floats, right_B: npt.NDArray[np.int64], first: Sequence[int]
    ) -> npt.NDArray[np.float64]:
        similarity_BU = images_BD @ self._texts_UD.T
        own_B1 = np.take_along_axis(similarity_BU, self._place_N[right_B][:, None], axis=1)
        greater_B1 = np.where(similarity_BU > own_B1, self._times_U, 0).sum(axis=1, keepdims=True)
        tied_B1 = np.where(similarity_BU == own_B1, self._times_U, 0).sum(axis=1, keepdims=True)  # itself among them
        shares_BK: npt.NDArray[np.float64] = np.clip((np.array(first) - greater_B1) / tied_B1, 0.0, 1.0)
        return shares_BK


def rate_fields(name: str) -> list[pa.Field]:
    """The columns of a rate: itself and the ends of its 95% Wilson interval."""
    return [pa.field(column, pa.float64(), nullable=False) for column in (name, f"{name}_low", f"{name}_high")]


def rate_columns(name: str, hits: float, pictures: int) -> dict[str, float]:
    """Their values; hits are expected ones, and need not be a whole number."""
    low, high = wilson_interval(hits, pictures)
    return {name: hits / pictures, f"{name}_low": low, f"{name}_high": high}
