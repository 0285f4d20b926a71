"""Two nulls: how often a name stands as well with a person's pictures by chance.

A name's standing with a person's pictures is T = (S, share): the templates whose only majority is the name, and the
share of all votes that it got, which parts equal S. Two questions are asked of a person of name z. Both are answered by
counting, and a tie counts against a finding:

- name null: how often does a decoy, another name of the pool, stand as well as z with these pictures? Right where the
  model likes all names alike.
- face null: how often does z stand as well with somebody else's pictures? Right where the faces are alike, so also for
  a model that has favourites, names that it gives to every face.

Models tell the sexes apart, in faces and in names. So where a person's sex is known, those of the same or of unknown
sex are counted; where it is not, women and men are counted each by themselves and the larger p-value is kept, as one
count of both could halve it. Others of unknown sex can still do that, as half of them may be of the other sex.

Two people are compared by equally many pictures of each; of who has more, a seeded choice is taken. Otherwise a
favourite, which wins the surer the more pictures vote, would look like evidence against whoever has the most.

Others who are members give their own names, not z. That can make p_face of somebody unknown too small, at most by the
share of the unknown among the others. People of a panel, whose names are no candidates, do not do it.

Axes: I people (the tested, then the panel), J people whose pictures were given one name, K candidate names, S picture
counts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from idia_core.attack import PANEL, PANEL_VOTES
from idia_core.errors import InvalidInputError
from idia_core.tallies import Tally, ballots, tally

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Audit:
    """What was asked and what came back."""

    models: Sequence[str]
    votes: pa.Table
    """VOTES: the answers about the tested people."""
    asked: pa.Table
    """ASKED: the tested people."""
    names: pa.Table
    """CANDIDATE_NAMES: the names of each pool."""
    panel_votes: pa.Table = field(default_factory=PANEL_VOTES.empty_table)
    """PANEL_VOTES: the answers about the panel, under each pool."""
    panel: pa.Table = field(default_factory=PANEL.empty_table)
    """PANEL: the panel's people. Whoever has a tested person's name (`name_key`) must not be among them: it may
    be that person, and a member would then be compared with itself."""


@dataclass(frozen=True)
class Room:
    """All whom one model was asked about with one pool of names: first the tested, then the panel."""

    pool: str
    names: pl.DataFrame  # name, sex, tested
    tested: pl.DataFrame  # identity, name, sex, pictures, and k: the index of the name
    sexes: list[str | None]  # of all people
    pictures: npt.NDArray[np.int64]  # [I]: how many could be read
    sizes: npt.NDArray[np.int64]  # [S]: the different numbers of pictures that there are
    tallies: list[Tally]

    @property
    def size(self) -> npt.NDArray[np.int64]:
        """Where each person's number of pictures is among the sizes, [I]; of no meaning for who has none."""
        return np.searchsorted(self.sizes, self.pictures)


def rooms(audit: Audit, model: str, seed: int) -> Iterator[Room]:
    """A room for each pool, in order. Raises InvalidInputError where the tables do not fit together."""
    votes = pl.DataFrame(audit.votes).filter(pl.col("model") == model)
    panel_votes = pl.DataFrame(audit.panel_votes).filter(pl.col("model") == model)
    asked, panel = pl.DataFrame(audit.asked), pl.DataFrame(audit.panel).sort("identity")
    for pool in asked["pool"].unique().sort():
        names = pl.DataFrame(audit.names).filter(pl.col("pool") == pool).sort("name").with_row_index("k")
        tested = asked.filter(pl.col("pool") == pool).sort("identity")
        tested = tested.join(names.select("name", "k"), on="name", how="left", maintain_order="left")
        for name in tested.filter(pl.col("k").is_null())["name"]:
            raise InvalidInputError(f"{name!r} is tested but no candidate", f"table names, pool {pool!r}", "Add it.")
        cast = ballots(votes, tested["identity"].to_list(), names["name"].to_list(), seed)
        shown = panel_votes.filter(pl.col("pool") == pool)
        cast += ballots(shown, panel["identity"].to_list(), names["name"].to_list(), seed)
        pictures_I = np.array([len(predicted_PN) for predicted_PN in cast])
        sizes_S = np.unique(pictures_I[pictures_I > 0])
        tallies = [tally(predicted_PN, sizes_S) for predicted_PN in cast]
        sexes = [*tested["sex"].to_list(), *panel["sex"].to_list()]
        yield Room(pool, names, tested, sexes, pictures_I, sizes_S, tallies)


def name_nulls(room: Room) -> list[tuple[float, int] | None]:
    """For each tested person p_name and the number of decoys; None for who has no picture."""
    strata = _strata(room.names["sex"].to_list(), room.tested["sex"].to_list())
    size_I = room.size
    found: list[tuple[float, int] | None] = []
    for i, (k, sex) in enumerate(room.tested.select("k", "sex").rows()):
        if not room.pictures[i]:
            found.append(None)
            continue
        theirs_K = np.zeros(room.names.height)
        theirs_K[room.tallies[i].names] = room.tallies[i].standing[size_I[i]]
        decoys_K = np.arange(room.names.height) != k
        found.append(_largest(theirs_K >= theirs_K[k], decoys_K, strata[sex]))
    return found


def face_nulls(room: Room, min_pictures: int) -> list[tuple[float, int] | None]:
    """For each tested person p_face and the number of others; None for who has no picture.

    The others are those with at least `min_pictures`: a comparison by fewer would say next to nothing.
    """
    got, size_I = _standings(room), room.size
    enough_I = room.pictures >= min_pictures
    sexes = [sex if enough else None for sex, enough in zip(room.sexes, enough_I, strict=True)]
    strata = _strata(sexes, room.tested["sex"].to_list())
    found: list[tuple[float, int] | None] = []
    for i, (k, sex) in enumerate(room.tested.select("k", "sex").rows()):
        if not room.pictures[i]:
            found.append(None)
            continue
        people_J, standing_JS = got[k]
        own_S = standing_JS[people_J == i].sum(axis=0)  # one row, or none: then all zeros
        mine_I = own_S[np.minimum(size_I, size_I[i])]
        theirs_I = np.zeros(len(enough_I))
        theirs_I[people_J] = standing_JS[:, size_I[i]]  # with more pictures than there are, a tally is of all
        others_I = enough_I & (np.arange(len(enough_I)) != i)
        found.append(_largest(theirs_I >= mine_I, others_I, strata[sex]))
    return found


def _standings(room: Room) -> dict[int, tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]]:
    """For each tested name whose pictures were given it, and how it stands there: people [J] and [J, S]."""
    tested = room.tested["k"].to_numpy()
    wanted = [np.isin(own.names, tested) for own in room.tallies]
    names = np.concatenate([own.names[mask] for own, mask in zip(room.tallies, wanted, strict=True)])
    standing = np.concatenate([own.standing[:, mask].T for own, mask in zip(room.tallies, wanted, strict=True)])
    people = np.repeat(np.arange(len(wanted)), [mask.sum() for mask in wanted])
    order = np.argsort(names, kind="stable")
    starts, ends = (np.searchsorted(names[order], tested, side) for side in ("left", "right"))
    parts = {k: order[start:end] for k, start, end in zip(tested.tolist(), starts, ends, strict=True)}
    return {k: (people[part], standing[part]) for k, part in parts.items()}


def _strata(sexes: Sequence[str | None], asked: Sequence[str | None]) -> dict[str | None, list[Mask]]:
    """Who among `sexes` is counted for a person of each sex; for one of unknown sex, several by themselves."""
    sex = np.array(sexes, dtype=object)
    unknown = np.array([one is None for one in sexes], dtype=bool)
    masks = {one: (sex == one) | unknown for one in {*sexes, *asked} - {None}}
    strata: dict[str | None, list[Mask]] = {one: [mask] for one, mask in masks.items()}
    return strata | {None: [masks[one] for one in masks if one in sexes] or [unknown]}


def _largest(as_well: Mask, compared: Mask, strata: list[Mask]) -> tuple[float, int]:
    """The largest p-value among the strata, and how many were compared for it."""
    counts = [(int((as_well & compared & mask).sum()), int((compared & mask).sum())) for mask in strata]
    return max(((1 + well) / (1 + total), total) for well, total in counts)
