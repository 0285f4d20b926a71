"""Votes as arrays: the name that each picture was given under each template, and what every name got by that.

Axes: I people, P pictures of one person, N templates, Q pictures of all people, U different names that one person's
pictures were given, S picture counts.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from idia_core.compiled import jit
from idia_core.errors import InvalidInputError


@dataclass(frozen=True)
class Tally:
    """What every name got that a person's pictures were given, of the first few pictures and of more of them."""

    names: npt.NDArray[np.int64]  # [U], ascending
    wins: npt.NDArray[np.int64]  # [S, U]: the templates whose only majority is the name: the paper's S
    votes: npt.NDArray[np.int64]  # [S, U]

    @property
    def shares(self) -> npt.NDArray[np.float64]:
        """The votes for each name among all votes: [S, U]."""
        shares_SU: npt.NDArray[np.float64] = self.votes / self.votes.sum(axis=1, keepdims=True)
        return shares_SU

    @property
    def standing(self) -> npt.NDArray[np.float64]:
        """One number that orders names as (wins, share) does, [S, U]; a name without a vote would have 0."""
        return 2 * self.wins + self.shares


def ballots(
    votes: pl.DataFrame, identities: Sequence[str], names: Sequence[str], seed: int
) -> list[npt.NDArray[np.int32]]:
    """For each of the identities the names its pictures were given, as indices into `names`: [P, N], no rows for none.

    `votes` has identity, image, template, predicted, of one model; its order does not matter, and votes about others
    are passed over. An identity's pictures come in an order drawn from the seed, so that the first few are a random
    choice. -1 stands where no answer is. Raises InvalidInputError for a vote for no candidate or one cast twice.
    """
    people = pl.DataFrame({"identity": identities}, schema={"identity": pl.String}).with_row_index("i")
    candidates = pl.DataFrame({"predicted": names}, schema={"predicted": pl.String}).with_row_index("k")
    cast = votes.join(people, on="identity").join(candidates, on="predicted", how="left")
    strange = cast.filter(pl.col("k").is_null())
    if strange.height:
        what = f"a picture was given the name {strange['predicted'][0]!r}, which is no candidate"
        raise InvalidInputError(
            what, f"table votes, identity {strange['identity'][0]!r}", "Vote and judge with one list."
        )
    pictures = cast.select("i", "image").unique().sort("i", "image").with_row_index("q")
    templates = cast.select("template").unique().sort("template").with_row_index("n")
    cast = cast.join(pictures, on=["i", "image"]).join(templates, on="template")
    predicted_QN = np.full((pictures.height, templates.height), -1, np.int32)
    predicted_QN[cast["q"].to_numpy(), cast["n"].to_numpy()] = cast["k"].to_numpy()
    if np.count_nonzero(predicted_QN >= 0) < cast.height:
        raise InvalidInputError("a picture has two votes under one template", "table votes", "Keep one of them.")
    bounds = np.searchsorted(pictures["i"].to_numpy(), np.arange(1, len(identities)))
    parts = np.split(predicted_QN, bounds)[: len(identities)]
    return [_shuffled(part, identity, seed) for part, identity in zip(parts, identities, strict=True)]


def _shuffled(predicted_PN: npt.NDArray[np.int32], identity: str, seed: int) -> npt.NDArray[np.int32]:
    # By identity, so that it depends neither on who else is asked about nor on the model.
    rng = np.random.default_rng([seed, zlib.crc32(identity.encode())])
    return predicted_PN[rng.permutation(len(predicted_PN))]


def tally(predicted_PN: npt.NDArray[np.int32], sizes_S: npt.NDArray[np.int64]) -> Tally:
    """Count one person's votes with the first `sizes_S` of the pictures, ascending; with all where it has fewer.

    A tie for the most votes of a template is nobody's win.
    """
    answered_PN = predicted_PN >= 0
    names_U, codes = np.unique(predicted_PN[answered_PN], return_inverse=True)
    local_PN = np.full(predicted_PN.shape, -1, np.int64)
    local_PN[answered_PN] = codes
    wins_SU = np.zeros((len(sizes_S), len(names_U)), np.int64)
    votes_SU = np.zeros_like(wins_SU)
    _count(local_PN, sizes_S, wins_SU, votes_SU)
    return Tally(names_U.astype(np.int64), wins_SU, votes_SU)


@jit
def _count(local_PN: Any, sizes_S: Any, wins_SU: Any, votes_SU: Any) -> None:
    pictures, templates = local_PN.shape
    counts_NU = np.zeros((templates, wins_SU.shape[1]), np.int64)
    s = 0
    for p in range(pictures):
        for n in range(templates):
            if local_PN[p, n] >= 0:
                counts_NU[n, local_PN[p, n]] += 1
        while s < len(sizes_S) and (sizes_S[s] == p + 1 or p + 1 == pictures):
            for n in range(templates):
                most, leader = 0, -1
                for u in range(wins_SU.shape[1]):
                    votes_SU[s, u] += counts_NU[n, u]
                    if counts_NU[n, u] > most:
                        most, leader = counts_NU[n, u], u
                    elif counts_NU[n, u] == most:
                        leader = -1
                if leader >= 0:
                    wins_SU[s, leader] += 1
            s += 1
