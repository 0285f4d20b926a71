"""`evaluate`: how often the attack is right, and simpler ones beside it (paper, Section 5.2)."""

from collections.abc import Iterable

import polars as pl
import pyarrow as pa
from pydantic import Field

from idia_core.baselines import baselines
from idia_core.config import SeededConfig
from idia_core.evaluation import confusion, draw_outcomes, picture_counts, rates, template_wins, vote_grid
from idia_core.identities import IDENTITIES
from idia_core.roc import operating_points, roc, standings
from pipelines.stage import Input, Phase, ResolvedInput, Split, SplitWriter, Stage, StageContext, read_parquet

VOTE_COLUMNS = ("model", "identity", "image", "template", "predicted")


class EvaluateConfig(SeededConfig):
    """Settings of `evaluate`."""

    pictures: int = Field(default=30, ge=1)
    """The most attack pictures a person; 1, 3, 5, ... and this many are tried."""
    draws: int = Field(default=20, ge=1)
    """Random draws of the pictures for each number."""
    threshold: int = Field(default=1, ge=1)
    """tau, as in `attack`."""
    decoy_quantile: float = Field(default=0.99, gt=0, lt=1)
    """The share of decoy names whose similarity the plain cosine attack, a baseline, takes for no evidence."""


def _models(context: StageContext) -> Iterable[Split]:
    parts = (read_parquet(file, ["model"])["model"].unique() for file in context.inputs["votes"].files)
    return [{"model": model} for model in sorted({model for part in parts for model in part.to_pylist()})]


class _Evaluator:
    """Scores every person of one model under every draw, counts right and wrong, and sweeps the threshold."""

    def __init__(self, context: StageContext) -> None:
        self._inputs, self._config = context.inputs, context.config
        self._people = pl.DataFrame(self._inputs["identities"].read_as(IDENTITIES)).select("identity", "name", "sex")
        self._roles = pl.DataFrame(self._inputs["selection"].read("identity", "role"))

    def __call__(self, split: Split, out: SplitWriter) -> None:
        config: EvaluateConfig = self._config
        votes = _of_model(self._inputs["votes"], VOTE_COLUMNS, split["model"])
        grid = vote_grid(split["model"], pl.DataFrame(votes))
        people = self._people.select("identity", "name").rows()
        counts = picture_counts(config.pictures)
        outcomes = draw_outcomes(grid, people, counts, config.draws, int(config.seed or 0))
        out.table("outcomes", outcomes)
        metrics = confusion(outcomes, self._roles.join(self._people, on="identity").to_arrow(), config.threshold)
        out.table("metrics", metrics)
        out.table("rates", rates(metrics).to_arrow())
        wins = template_wins(grid, people)
        standing = standings(wins, self._roles.to_arrow())
        out.table("roc", roc(standing))
        out.table("operating_points", operating_points(standing))
        out.table(
            "baselines",
            baselines(wins, self._similarities(split), self._roles.to_arrow(), config.threshold, config.decoy_quantile),
        )
        out.count(rows_in=votes.num_rows, rows_kept=votes.num_rows)

    def _similarities(self, split: Split) -> pa.Table | None:
        if "similarities" not in self._inputs:
            return None
        return _of_model(self._inputs["similarities"], ("model", "identity", "cosine", "decoys"), split["model"])


def _of_model(table: ResolvedInput, columns: tuple[str, ...], model: str) -> pa.Table:
    """Those columns of the rows of one model; its files are read one at a time, as all models' rows can be many."""
    return pa.concat_tables(
        [
            part.filter(pa.compute.equal(part["model"], model))
            for part in (read_parquet(f, columns) for f in table.files)
        ]
    )


STAGE = Stage(
    name="evaluate",
    version=2,
    summary="rates over draws of pictures, thresholds and baselines",
    config=EvaluateConfig,
    inputs={
        "votes": Input("raw votes (model, identity, image, template, predicted)"),
        "selection": Input("the truth (identity, role)"),
        "identities": Input("people (identity, name, sex)"),
        "similarities": Input("plain cosine similarities (model, identity, cosine, decoys)", optional=True),
    },
    phases=(Phase("models", _models, _Evaluator),),
    tables=("outcomes", "metrics", "rates", "roc", "operating_points", "baselines"),
)
