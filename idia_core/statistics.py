"""What votes are evidence of: the paper's verdict, and beside it p-values, q-values and a finding.

The p-value is the larger of the two that `nulls` gives, and is about one person. The q-value is about the audit: of all
findings with a q-value of at most alpha, at most that share is expected to be false. Others who are members can make a
p_face too small, at most by the share of the unknown among the others; as Benjamini and Hochberg's bound is alpha times
that share, the two cancel, and the q-value holds however many members are tested.
"""

import math
from collections.abc import Iterator
from enum import StrEnum
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
from pydantic import Field

from idia_core.config import Strict
from idia_core.nulls import Audit, Room, face_nulls, name_nulls, rooms

VERDICTS = pa.schema(
    [
        pa.field("model", pa.string(), nullable=False),
        pa.field("identity", pa.string(), nullable=False),
        pa.field("images_used", pa.int64(), nullable=False),
        pa.field("images_failed", pa.int64(), nullable=False),
        pa.field("score", pa.int64(), nullable=False),  # S: templates whose majority is the real name
        pa.field("share", pa.float64()),  # of the votes, those for the real name; null without pictures, as the rest
        pa.field("threshold", pa.int64(), nullable=False),  # tau
        pa.field("member", pa.bool_()),  # the paper's verdict: S >= tau
        pa.field("decoys", pa.int64()),  # names that the real one was compared with
        pa.field("p_name", pa.float64()),
        pa.field("others", pa.int64()),  # people that this one was compared with
        pa.field("p_face", pa.float64()),
        pa.field("p_value", pa.float64()),  # the larger of the two
        pa.field("q_value", pa.float64()),  # null also with too few pictures
        pa.field("finding", pa.string(), nullable=False),  # a `Finding`
        pa.field("reason", pa.string(), nullable=False),  # a `Reason`
    ]
)
FAVOURITES = pa.schema(
    [
        pa.field("model", pa.string(), nullable=False),
        pa.field("pool", pa.string(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("tested", pa.bool_(), nullable=False),
        pa.field("faces", pa.int64(), nullable=False),  # people of another name for whom it won at least one template
        pa.field("people", pa.int64(), nullable=False),  # of how many people of another name
        pa.field("votes_share", pa.float64(), nullable=False),  # of all votes on these people's pictures
    ]
)


class Finding(StrEnum):
    """What is said of a person."""

    MEMBER = "member"
    NO_EVIDENCE = "no evidence"
    INCONCLUSIVE = "inconclusive"


class Reason(StrEnum):
    """Why that is said."""

    NAMED = "named"  # a member: the model gives the name, and neither null explains it
    TOO_FEW_PICTURES = "too_few_pictures"  # inconclusive, as with the next two
    TOO_FEW_DECOYS = "too_few_decoys"
    TOO_FEW_OTHERS = "too_few_others"
    BELOW_THRESHOLD = "below_threshold"  # no evidence, as with the rest
    OTHER_NAMES_DO_AS_WELL = "other_names_do_as_well"
    OTHER_FACES_DO_AS_WELL = "other_faces_do_as_well"
    EXPECTED_AMONG_SO_MANY = "expected_among_so_many"  # rare for one person, not in an audit of so many


class Rules(Strict):
    """How votes are judged."""

    threshold: int = Field(default=1, ge=1)
    """tau: in how many templates the majority must be the real name; 1 is the paper's."""
    alpha: float = Field(default=0.05, gt=0, lt=1)
    """The largest q-value of a finding: the share of false findings that is put up with."""
    min_pictures: int = Field(default=3, ge=1)
    """Readable pictures that a person needs, to be judged and to be compared with."""
    seed: int = Field(default=0, ge=0)
    """Decides which pictures are compared where two people have different numbers of them."""


def judge(audit: Audit, rules: Rules) -> pa.Table:
    """The VERDICTS on every model and tested person, from votes alone; models and people in the order given.

    Raises InvalidInputError where the tables do not fit together.
    """
    rows: list[dict[str, Any]] = []
    for model in audit.models:
        found = {row["identity"]: row for room in rooms(audit, model, rules.seed) for row in _compared(room, rules)}
        rows += [found[identity] | {"model": model} for identity in audit.asked["identity"].to_pylist()]
    tested = [row for row in rows if row["images_used"] >= rules.min_pictures]
    # Who is below the threshold is no finding, so counts as p = 1: the bound is then about just the findings.
    p_values = np.array([row["p_value"] if row["member"] else 1.0 for row in tested])
    for row, q_value in zip(tested, benjamini_hochberg(p_values).tolist(), strict=True):
        row["q_value"] = q_value
    for row in rows:
        row["finding"], row["reason"] = _finding(row, rules)
    return pa.Table.from_pylist(rows, VERDICTS)


def _compared(room: Room, rules: Rules) -> Iterator[dict[str, Any]]:
    """The rows of VERDICTS, but for the model and what depends on all rows."""
    nulls = zip(name_nulls(room), face_nulls(room, rules.min_pictures), strict=True)
    for i, (person, (by_name, by_face)) in enumerate(zip(room.tested.iter_rows(named=True), nulls, strict=True)):
        used, own, s = int(room.pictures[i]), room.tallies[i], room.size[i]
        row = dict.fromkeys(VERDICTS.names) | {"identity": person["identity"], "images_used": used, "score": 0}
        row |= {"images_failed": person["pictures"] - used, "threshold": rules.threshold}
        if by_name and by_face:
            mine = own.names == person["k"]
            score, share = int(own.wins[s, mine].sum()), float(own.shares[s, mine].sum())
            row |= {"score": score, "share": share, "member": score >= rules.threshold}
            row |= dict(zip(("p_name", "decoys", "p_face", "others"), by_name + by_face, strict=True))
            row["p_value"] = max(by_name[0], by_face[0])
        yield row


def _finding(row: dict[str, Any], rules: Rules) -> tuple[Finding, Reason]:
    if row["images_used"] < rules.min_pictures:
        return Finding.INCONCLUSIVE, Reason.TOO_FEW_PICTURES
    if not row["member"]:
        return Finding.NO_EVIDENCE, Reason.BELOW_THRESHOLD
    if row["q_value"] <= rules.alpha:
        return Finding.MEMBER, Reason.NAMED
    for compared, p, reason in (
        ("others", "p_face", Reason.TOO_FEW_OTHERS),
        ("decoys", "p_name", Reason.TOO_FEW_DECOYS),
    ):
        # The smallest p-value that so few allow is not small enough: by itself, or, as it is here, among so many tests.
        smallest = 1 / (1 + row[compared])
        if smallest > rules.alpha or row[p] == row["p_value"] == smallest:
            return Finding.INCONCLUSIVE, reason
    if row["p_value"] <= rules.alpha:
        return Finding.NO_EVIDENCE, Reason.EXPECTED_AMONG_SO_MANY
    by_face = row["p_face"] >= row["p_name"]
    return Finding.NO_EVIDENCE, Reason.OTHER_FACES_DO_AS_WELL if by_face else Reason.OTHER_NAMES_DO_AS_WELL


def favourites(audit: Audit, rules: Rules) -> pa.Table:
    """FAVOURITES: the names that win for people who are not called so, the commonest first in each model and pool.

    People with fewer than `min_pictures` are passed over: with one picture nearly every name given wins something.
    """
    found = [_favourites(room, model, rules) for model in audit.models for room in rooms(audit, model, rules.seed)]
    return pl.concat([pl.DataFrame(FAVOURITES.empty_table()), *found]).to_arrow().cast(FAVOURITES)


def _favourites(room: Room, model: str, rules: Rules) -> pl.DataFrame:
    names = room.names.height
    faces_K, votes_K, people_K = (np.zeros(names, np.int64) for _ in range(3))
    all_votes_K = np.zeros(names, np.int64)
    bearer = dict(enumerate(room.tested["k"]))
    for i, (own, s) in enumerate(zip(room.tallies, room.size, strict=True)):
        if room.pictures[i] < rules.min_pictures:
            continue
        others = own.names != bearer.get(i, -1)
        faces_K[own.names[others]] += own.wins[s, others] > 0
        votes_K[own.names[others]] += own.votes[s, others]
        called_otherwise = np.arange(names) != bearer.get(i, -1)
        people_K += called_otherwise
        all_votes_K += called_otherwise * own.votes[s].sum()
    columns = {"faces": faces_K, "people": people_K, "votes_share": votes_K / np.maximum(all_votes_K, 1)}
    frame = room.names.with_columns(pl.lit(model).alias("model"), **{key: pl.Series(a) for key, a in columns.items()})
    frame = frame.filter(pl.col("faces") > 0).sort("faces", "votes_share", "name", descending=[True, True, False])
    return frame.select(FAVOURITES.names)


def majorities(votes: pa.Table) -> pl.DataFrame:
    """The majority name of every model, identity and template: columns model, identity, template, majority.

    A tie for the most votes is no majority (null), as in the paper's notebook; the text's equation leaves it open.
    """
    counts = pl.DataFrame(votes).group_by("model", "identity", "template", "predicted").len("votes")
    ranked = counts.with_columns(most=pl.col("votes").max().over("model", "identity", "template"))
    leaders = ranked.filter(pl.col("votes") == pl.col("most"))
    return leaders.group_by("model", "identity", "template").agg(
        majority=pl.when(pl.len() == 1).then(pl.col("predicted").first())
    )


def benjamini_hochberg(p_values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The q-values: the smallest false discovery rate at which each is a finding (Benjamini and Hochberg, 1995)."""
    order = np.argsort(p_values, kind="stable")
    scaled = p_values[order] * len(p_values) / np.arange(1, len(p_values) + 1)
    q_values = np.empty_like(p_values)
    q_values[order] = np.minimum.accumulate(scaled[::-1])[::-1]
    return q_values


def wilson_interval(hits: float, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion; (0, 1), so nothing known, where total is 0."""
    if not total:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share, spread = hits / total, z * z / total
    middle = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread * spread / 4) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)
