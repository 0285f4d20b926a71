"""What other thresholds would have done: the receiver operating characteristic of the attack.

The statistic of a person is S, the number of templates whose majority is the real name, or the finer T = (S, share):
share is the part of all votes that the real name got, and orders people of the same S.
"""

import math

import polars as pl
import pyarrow as pa

from idia_core.statistics import wilson_interval

CELLS = tuple(pa.field(cell, pa.int64(), nullable=False) for cell in ("tp", "fn", "fp", "tn"))
RATES = tuple(pa.field(rate, pa.float64()) for rate in ("tpr", "tpr_low", "tpr_high", "fpr", "fpr_low", "fpr_high"))
"""A rate over nobody is null, and its 95% Wilson interval is 0 to 1."""
ROC = pa.schema(
    [
        pa.field("model", pa.string(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("images", pa.int64(), nullable=False),  # the most pictures that a person has
        pa.field("threshold", pa.int64(), nullable=False),  # tau: a member has S of at least this
        *CELLS,
        *RATES,
    ]
)
OPERATING_POINTS = pa.schema(
    [
        pa.field("model", pa.string(), nullable=False),
        pa.field("target_fpr", pa.float64(), nullable=False),
        pa.field("threshold", pa.int64()),  # a member has T of at least (threshold, threshold_share)
        pa.field("threshold_share", pa.float64()),
        *(pa.field(rate, pa.float64()) for rate in ("tpr", "tpr_low", "tpr_high", "fpr")),
        pa.field("resolved", pa.bool_(), nullable=False),  # whether there are 1 / target_fpr non-members or more
    ]
)
TARGETS = (0.001, 0.01)


def standings(wins: pa.Table, people: pa.Table) -> pl.DataFrame:
    """What each model found on all pictures of each person: model, identity, member, images, templates, score, share.

    `wins` is evaluation's WINS; `people` has identity and role, and only the roles 'member' and 'non_member' count.
    """
    tested = pl.DataFrame(people).filter(pl.col("role").is_in(["member", "non_member"]))
    found = (
        pl.DataFrame(wins)
        .group_by("model", "identity")
        .agg(
            images=pl.col("pictures").max(),
            templates=pl.len().cast(pl.Int64),
            score=pl.col("won").sum().cast(pl.Int64),
            share=pl.col("votes").sum() / pl.col("pictures").sum(),
        )
    )
    joined = found.join(tested, on="identity").with_columns(member=pl.col("role") == "member")
    return joined.drop("role").sort("model", "identity")


def rated(said: pl.Series, member: pl.Series) -> dict[str, int | float | None]:
    """The four cells of one rule's confusion matrix, and both rates with their 95% Wilson intervals."""
    tp, fn = int((said & member).sum()), int((~said & member).sum())
    fp, tn = int((said & ~member).sum()), int((~said & ~member).sum())
    row: dict[str, int | float | None] = {"tp": tp, "fn": fn, "fp": fp, "tn": tn}
    for rate, hits, people in (("tpr", tp, tp + fn), ("fpr", fp, fp + tn)):
        low, high = wilson_interval(hits, people)
        row |= {rate: hits / people if people else None, f"{rate}_low": low, f"{rate}_high": high}
    return row


def roc(standing: pl.DataFrame) -> pa.Table:
    """`ROC` over all people: tau swept from 0, which everybody reaches, to one more than there are templates."""
    rows = [
        {"model": model, "group": "all", "images": max(people["images"].to_list()), "threshold": threshold}
        | rated(people["score"] >= threshold, people["member"])
        for (model,), people in standing.group_by("model", maintain_order=True)
        for threshold in range(max(people["templates"].to_list()) + 2)
    ]
    return pa.Table.from_pylist(rows, ROC)


def operating_points(standing: pl.DataFrame) -> pa.Table:
    """`OPERATING_POINTS`: the true-positive rate where the false-positive rate is at most 0.1% and 1%.

    Swept are the T = (S, share) of all people, which are finer than S alone; the lowest that keeps to the target is the
    threshold. It is null, with nobody found, where even the highest does not, and the rates are null without members or
    non-members. With fewer than 1 / target non-members a false-positive rate of zero says less than the target does:
    then `resolved` is false.
    """
    rows = [
        _point(people, target) | {"model": model, "target_fpr": target}
        for (model,), people in standing.group_by("model", maintain_order=True)
        for target in TARGETS
    ]
    return pa.Table.from_pylist(rows, OPERATING_POINTS)


def _point(people: pl.DataFrame, target: float) -> dict[str, int | float | bool | None]:
    others = int((~people["member"]).sum())
    allowed = math.floor(target * others + 1e-9)  # 0.001 of 3,000 people is 3, whatever floating point makes of it
    levels = people.group_by("score", "share").agg(accused=(~pl.col("member")).sum())
    levels = levels.sort("score", "share", descending=True).filter(pl.col("accused").cum_sum() <= allowed)
    threshold = levels.row(-1)[:2] if len(levels) and others else None
    reached = [threshold is not None and found >= threshold for found in people.select("score", "share").iter_rows()]
    said = pl.Series(reached, dtype=pl.Boolean)
    row = rated(said, people["member"])
    point = {rate: row[rate] if others else None for rate in ("tpr", "tpr_low", "tpr_high", "fpr")}
    score, share = threshold or (None, None)
    return point | {"threshold": score, "threshold_share": share, "resolved": allowed >= 1}
