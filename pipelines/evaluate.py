"""`evaluate`: how often the attack is right, for growing numbers of attack pictures (paper, Section 5.2)."""

from collections.abc import Iterable

import polars as pl
import pyarrow as pa
from pydantic import Field

from idia_core.config import SeededConfig
from idia_core.evaluation import METRICS, OUTCOMES, confusion, evaluate_identity, picture_counts, rates
from pipelines.stage import Input, Phase, Split, SplitWriter, Stage, StageContext, once


class EvaluateConfig(SeededConfig):
    """Settings of `evaluate`."""

    pictures: int = Field(default=30, ge=1)
    """The most attack pictures a person; 1, 3, 5, ... and this many are tried."""
    draws: int = Field(default=20, ge=1)
    """Random draws of the pictures for each number."""
    threshold: int = Field(default=1, ge=1)
    """tau, as in `attack`."""


def _models(context: StageContext) -> Iterable[Split]:
    models = context.inputs["votes"].read("model")["model"].unique().to_pylist()
    return [{"model": model} for model in sorted(models)]


class _Drawer:
    """Scores every person of one model under every draw."""

    def __init__(self, context: StageContext) -> None:
        self._inputs, self._config = context.inputs, context.config

    def __call__(self, split: Split, out: SplitWriter) -> None:
        config: EvaluateConfig = self._config
        columns = ("model", "identity", "image", "template", "predicted")
        votes = pl.DataFrame(self._inputs["votes"].read(*columns)).filter(pl.col("model") == split["model"])
        people = pl.DataFrame(self._inputs["identities"].read("identity", "name"))
        rows: list[dict[str, object]] = []
        for place, (identity, name) in enumerate(people.iter_rows()):
            mine = votes.filter(pl.col("identity") == identity)
            if mine.is_empty():
                continue
            seed = (int(config.seed or 0), place)
            found = evaluate_identity(mine, name, picture_counts(config.pictures), config.draws, seed)
            rows += [
                {"model": split["model"], "identity": identity, "images": images, "draw": draw, "score": score}
                for images, draw, score in found
            ]
        out.table("outcomes", pa.Table.from_pylist(rows, OUTCOMES))
        out.count(rows_in=votes.height, rows_kept=votes.height)


class _Counter:
    """Counts right and wrong verdicts, and averages the rates over the draws."""

    def __init__(self, context: StageContext) -> None:
        self._context = context

    def __call__(self, split: Split, out: SplitWriter) -> None:
        inputs = self._context.inputs
        sexes = pl.DataFrame(inputs["identities"].read("identity", "sex"))
        roles = pl.DataFrame(inputs["selection"].read("identity", "role"))
        people = roles.join(sexes, on="identity").to_arrow()
        metrics = confusion(self._context.table("outcomes"), people, self._context.config.threshold)
        out.table("metrics", metrics.cast(METRICS))
        out.table("rates", rates(metrics).to_arrow())


STAGE = Stage(
    name="evaluate",
    version=1,
    summary="rates over draws of pictures",
    config=EvaluateConfig,
    inputs={
        "votes": Input("raw votes (model, identity, image, template, predicted)"),
        "selection": Input("the truth (identity, role)"),
        "identities": Input("people (identity, name, sex)"),
    },
    phases=(Phase("draws", _models, _Drawer), Phase("metrics", once, _Counter)),
    tables=("outcomes", "metrics", "rates"),
)
