"""The Identity Inference Attack: votes, majorities, scores and verdicts (paper, Section 4).

Axes: I identities, P pictures of one identity, N templates, K candidate names, D embedding dimensions, R draws.
"""

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

VOTES = pa.schema(
    [
        pa.field("model", pa.string(), nullable=False),
        pa.field("identity", pa.string(), nullable=False),
        pa.field("image", pa.string(), nullable=False),  # the picture's id in `pictures`
        pa.field("template", pa.string(), nullable=False),
        pa.field("predicted", pa.string(), nullable=False),  # the candidate name with the largest cosine similarity
    ]
)
VERDICTS = pa.schema(
    [
        pa.field("model", pa.string(), nullable=False),
        pa.field("identity", pa.string(), nullable=False),
        pa.field("images_used", pa.int64(), nullable=False),
        pa.field("images_failed", pa.int64(), nullable=False),
        pa.field("score", pa.int64(), nullable=False),  # S: templates whose majority is the real name
        pa.field("threshold", pa.int64(), nullable=False),  # tau
        pa.field("member", pa.bool_()),  # S >= tau; null where no picture could be used
    ]
)


def predict(images_PD: npt.NDArray[np.float32], texts_NKD: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """For each picture and template the candidate whose prompt is nearest: [P, N] indices into K.

    Both sides are L2-normalised, so the dot product is the cosine similarity; softmax and temperature would not change
    the argmax. The first of exactly equal candidates wins.
    """
    return np.stack([(images_PD @ texts_KD.T).argmax(axis=1) for texts_KD in texts_NKD], axis=1)


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


def judge(votes: pa.Table, people: pa.Table, threshold: int) -> pa.Table:
    """The paper's verdicts from raw votes, without a model.

    `people` has a row for each model and identity under test: model, identity, name, images_used, images_failed.
    Returns a `VERDICTS` table in the order of `people`.
    """
    asked = pl.DataFrame(people)
    won = majorities(votes).join(asked.select("model", "identity", "name"), on=["model", "identity"])
    scores = won.filter(pl.col("majority") == pl.col("name")).group_by("model", "identity").len("score")
    verdicts = asked.join(scores, on=["model", "identity"], how="left", maintain_order="left").with_columns(
        score=pl.col("score").fill_null(0).cast(pl.Int64), threshold=pl.lit(threshold, pl.Int64)
    )
    member = pl.when(pl.col("images_used") > 0).then(pl.col("score") >= pl.col("threshold"))
    return verdicts.with_columns(member=member).select(VERDICTS.names).to_arrow().cast(VERDICTS)
