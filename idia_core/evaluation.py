"""How often the attack is right: rates over random draws of attack pictures (paper, Section 5.2).

Axes: P pictures of one identity, N templates, U distinct names voted for, R draws.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

METRICS = pa.schema(
    [
        pa.field("model", pa.string(), nullable=False),
        pa.field("group", pa.string(), nullable=False),  # 'all', 'F' or 'M'
        pa.field("images", pa.int64(), nullable=False),  # attack pictures a person
        pa.field("draw", pa.int64(), nullable=False),
        *(pa.field(cell, pa.int64(), nullable=False) for cell in ("tp", "fn", "fp", "tn")),
    ]
)
OUTCOMES = pa.schema(
    [
        pa.field("model", pa.string(), nullable=False),
        pa.field("identity", pa.string(), nullable=False),
        pa.field("images", pa.int64(), nullable=False),
        pa.field("draw", pa.int64(), nullable=False),
        pa.field("score", pa.int64(), nullable=False),
    ]
)


def picture_counts(most: int) -> list[int]:
    """The numbers of attack pictures to try: 1, 3, 5, ... and `most` itself, as the paper's 1, 3, ..., 29, 30."""
    return sorted({*range(1, most + 1, 2), most})


def draw_pictures(pictures: int, count: int, draws: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """`draws` random choices of `count` of the pictures, without replacement: [R, P] of 0 and 1."""
    order_RP = rng.random((draws, pictures)).argsort(axis=1)
    return (order_RP < count).astype(np.int64)


def scores(predicted_PN: npt.NDArray[np.int64], name: int, chosen_RP: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """S for each draw: the templates in which `name` alone has the most votes of the chosen pictures: [R].

    `predicted_PN` holds indices of names. A tie for the most votes is no majority.
    """
    voted_U, local = np.unique(predicted_PN, return_inverse=True)
    if name not in voted_U:
        return np.zeros(len(chosen_RP), np.int64)
    onehot_PNU = (local.reshape(predicted_PN.shape)[..., None] == np.arange(len(voted_U))).astype(np.int64)
    votes_RNU = np.einsum("rp,pnu->rnu", chosen_RP, onehot_PNU, optimize=True)
    own_RN = votes_RNU[..., voted_U == name][..., 0]
    others_RN = np.where(voted_U == name, -1, votes_RNU).max(axis=2)
    won_R: npt.NDArray[np.int64] = (own_RN > others_RN).sum(axis=1)
    return won_R


def evaluate_identity(
    votes: pl.DataFrame, name: str, counts: Sequence[int], draws: int, seed: Sequence[int]
) -> list[tuple[int, int, int]]:
    """`(images, draw, score)` of one identity under one model, for every number of pictures and draw.

    `votes` has the columns image, template, predicted; a count above the number of pictures there are is left out.
    """
    table = votes.sort("image").pivot(on="template", index="image", values="predicted").drop("image")
    names, predicted = np.unique(table.to_numpy().astype(str), return_inverse=True)
    predicted_PN = predicted.reshape(table.shape)
    index = int(np.flatnonzero(names == name)[0]) if name in names else -1
    rows: list[tuple[int, int, int]] = []
    for count in counts:
        if count > len(predicted_PN):
            continue
        rng = np.random.default_rng([*seed, count])
        found = scores(predicted_PN, index, draw_pictures(len(predicted_PN), count, draws, rng))
        rows += [(count, draw, int(score)) for draw, score in enumerate(found)]
    return rows


def confusion(outcomes: pa.Table, people: pa.Table, threshold: int) -> pa.Table:
    """`METRICS` from `OUTCOMES`: true and false positives and negatives for each model, group, picture count and draw.

    `people` has identity, role and sex; only the roles 'member' and 'non_member' count. The groups are all people and
    each known sex.
    """
    tested = pl.DataFrame(people).filter(pl.col("role").is_in(["member", "non_member"])).cast({"sex": pl.String})
    joined = pl.DataFrame(outcomes).join(tested, on="identity")
    said, is_member = pl.col("score") >= threshold, pl.col("role") == "member"
    cells = {"tp": is_member & said, "fn": is_member & ~said, "fp": ~is_member & said, "tn": ~is_member & ~said}
    keys = ["model", "group", "images", "draw"]
    groups = [joined.with_columns(group=pl.lit("all")), joined.rename({"sex": "group"}).drop_nulls("group")]
    frames = [
        frame.group_by(keys).agg(**{cell: flag.sum().cast(pl.Int64) for cell, flag in cells.items()})
        for frame in groups
    ]
    return pl.concat([frame.select(METRICS.names) for frame in frames]).sort(keys).to_arrow().cast(METRICS)


def rates(metrics: pa.Table) -> pl.DataFrame:
    """Mean and standard deviation over the draws of TPR, FPR, FNR, TNR and accuracy, per model, group and images.

    A rate over nobody is null.
    """
    members, others = _or_null(pl.col("tp") + pl.col("fn")), _or_null(pl.col("fp") + pl.col("tn"))
    frame = pl.DataFrame(metrics).with_columns(
        tpr=pl.col("tp") / members,
        fnr=pl.col("fn") / members,
        fpr=pl.col("fp") / others,
        tnr=pl.col("tn") / others,
        accuracy=(pl.col("tp") + pl.col("tn")) / pl.sum_horizontal(members, others),
    )
    names = ("tpr", "fpr", "fnr", "tnr", "accuracy")
    statistics = [pl.col(name).mean().alias(f"{name}_mean") for name in names]
    spreads = {name: pl.when(pl.col(name).count() > 0).then(pl.col(name).std().fill_null(0.0)) for name in names}
    statistics += [spread.alias(f"{name}_sd") for name, spread in spreads.items()]
    return frame.group_by("model", "group", "images").agg(statistics, draws=pl.len()).sort("model", "group", "images")


def _or_null(people: pl.Expr) -> pl.Expr:
    """A number of people to divide by; null where there are none."""
    return pl.when(people > 0).then(people)
