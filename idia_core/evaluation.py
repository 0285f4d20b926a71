"""How often the attack is right: rates over random draws of attack pictures (paper, Section 5.2).

Axes: P pictures of one identity, N templates, U names, R draws.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from idia_core.compiled import jit
from idia_core.errors import InvalidInputError

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
WINS = pa.schema(
    [
        pa.field("model", pa.string(), nullable=False),
        pa.field("identity", pa.string(), nullable=False),
        pa.field("template", pa.string(), nullable=False),
        pa.field("pictures", pa.int64(), nullable=False),  # all that the person has
        pa.field("votes", pa.int64(), nullable=False),  # for the real name
        pa.field("won", pa.bool_(), nullable=False),  # whether it alone has the most
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

    `predicted_PN` holds indices of names, or -1 for no answer. A tie for the most votes is no majority.
    """
    won_R: npt.NDArray[np.int64] = (margins(predicted_PN, name, chosen_RP) > 0).sum(axis=1)
    return won_R


def margins(predicted_PN: npt.NDArray[np.int64], name: int, chosen_RP: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """How many more votes `name` has than any other, for each draw and template: [R, N]; 0 is a tie.

    Votes are those of the chosen pictures; a name that nobody voted for may be any number.
    """
    names = max(int(predicted_PN.max(initial=-1)), name) + 1
    margins_RN: npt.NDArray[np.int64] = _count_margins(predicted_PN, name, chosen_RP, np.zeros(names, np.int64))
    return margins_RN


@jit
def _count_margins(
    predicted_PN: npt.NDArray[np.int64],
    name: int,
    chosen_RP: npt.NDArray[np.int64],
    votes_U: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """The loops of `margins`; `votes_U` is all zeros, before and after."""
    draws, templates = len(chosen_RP), predicted_PN.shape[1]
    margins_RN = np.empty((draws, templates), np.int64)
    for draw in range(draws):
        pictures = np.flatnonzero(chosen_RP[draw])
        for template in range(templates):
            most = 0
            for picture in pictures:
                vote = predicted_PN[picture, template]
                if vote >= 0:
                    votes_U[vote] += 1
                    if vote != name:
                        most = max(most, votes_U[vote])
            margins_RN[draw, template] = (votes_U[name] if name >= 0 else 0) - most
            for picture in pictures:
                if predicted_PN[picture, template] >= 0:
                    votes_U[predicted_PN[picture, template]] = 0
    return margins_RN


@dataclass(frozen=True)
class VoteGrid:
    """One model's votes as arrays: each person's pictures x templates, holding places in `names`."""

    model: str
    names: dict[str, int]
    """The place of every name that got a vote."""
    templates: list[str]
    """In alphabetical order, as the columns are."""
    people: dict[str, npt.NDArray[np.int64]]
    """predicted_PN of each identity, -1 where a picture has no answer to a template."""


def vote_grid(model: str, votes: pl.DataFrame) -> VoteGrid:
    """The votes of that model as arrays; the order of the rows does not matter.

    `votes` has the columns identity, image, template, predicted. Raises InvalidInputError where a picture answers a
    template twice.
    """
    names, templates = (votes[column].unique().sort().to_list() for column in ("predicted", "template"))
    rows = votes.sort("identity", "image").select(
        "identity",
        row=pl.struct("identity", "image").rle_id(),
        column=pl.col("template").cast(pl.Enum(templates)).to_physical(),
        name=pl.col("predicted").cast(pl.Enum(names)).to_physical(),
    )
    pictures = int(rows["row"][-1]) + 1 if len(rows) else 0
    predicted_PN = np.full((pictures, len(templates)), -1, np.int64)
    predicted_PN[rows["row"].to_numpy(), rows["column"].to_numpy()] = rows["name"].to_numpy()
    if (predicted_PN >= 0).sum() < len(rows):
        raise InvalidInputError("a picture answers a template twice", "table votes", "Run the attack again.")
    spans = rows.group_by("identity", maintain_order=True).agg(first=pl.col("row").min(), last=pl.col("row").max())
    people = {identity: predicted_PN[first : last + 1] for identity, first, last in spans.iter_rows()}
    return VoteGrid(model, {name: place for place, name in enumerate(names)}, templates, people)


def evaluate_identity(
    predicted_PN: npt.NDArray[np.int64], name: int, counts: Sequence[int], draws: int, seed: Sequence[int]
) -> npt.NDArray[np.int64]:
    """Rows of (images, draw, score) of one identity under one model, for every number of pictures and draw: [R, 3].

    A count above the number of pictures there are is left out. The draws of a count depend on the seed and on it alone.
    """
    pictures = len(predicted_PN)
    tried = [count for count in counts if count <= pictures]
    if not tried:
        return np.empty((0, 3), np.int64)
    drawn = [draw_pictures(pictures, count, draws, np.random.default_rng([*seed, count])) for count in tried]
    score_R = scores(predicted_PN, name, np.concatenate(drawn))
    return np.stack([np.repeat(tried, draws), np.tile(np.arange(draws), len(tried)), score_R], axis=1)


def draw_outcomes(
    grid: VoteGrid, people: Sequence[tuple[str, str]], counts: Sequence[int], draws: int, seed: int
) -> pa.Table:
    """`OUTCOMES` of one model: the score of every person (identity, name) for each number of pictures and draw.

    A person's draws are seeded with the place in `people`; people without votes have no rows.
    """
    found = {
        identity: evaluate_identity(grid.people[identity], grid.names.get(name, -1), counts, draws, (seed, place))
        for place, (identity, name) in enumerate(people)
        if identity in grid.people
    }
    rows_R3 = np.concatenate([np.empty((0, 3), np.int64), *found.values()])
    identities = pa.array(found, pa.string()).take(
        pa.array(np.repeat(np.arange(len(found)), [len(rows) for rows in found.values()]), pa.int64())
    )
    return pa.table([pa.repeat(grid.model, len(rows_R3)), identities, *rows_R3.T.copy()], schema=OUTCOMES)


def template_wins(grid: VoteGrid, people: Sequence[tuple[str, str]]) -> pa.Table:
    """`WINS` of one model: in which templates all pictures' votes make the real name of (identity, name) the winner."""
    columns: dict[str, list[object]] = {column: [] for column in WINS.names}
    for identity, name in people:
        if identity not in grid.people:
            continue
        predicted_PN, place = grid.people[identity], grid.names.get(name, -1)
        everything_RP = np.ones((1, len(predicted_PN)), np.int64)
        columns["identity"] += [identity] * len(grid.templates)
        columns["template"] += grid.templates
        columns["pictures"] += [len(predicted_PN)] * len(grid.templates)
        columns["votes"] += ((predicted_PN == place) & (place >= 0)).sum(axis=0).tolist()
        columns["won"] += (margins(predicted_PN, place, everything_RP)[0] > 0).tolist()
    columns["model"] = [grid.model] * len(columns["won"])
    return pa.table(columns, schema=WINS)


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
