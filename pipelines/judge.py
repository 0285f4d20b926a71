"""`judge`: verdicts, p-values and findings from the raw votes, without a model (paper, Section 4, and two nulls)."""

from pydantic import field_validator

from idia_core.config import SeededConfig
from idia_core.nulls import Audit
from idia_core.statistics import Rules, favourites, judge
from pipelines.stage import Input, Phase, Split, SplitWriter, Stage, StageContext, once


class JudgeConfig(SeededConfig):
    """Settings of `judge`; its seed decides which pictures two people are compared by."""

    rules: Rules = Rules()
    """How votes are judged."""

    @field_validator("rules")
    @classmethod
    def _one_seed(cls, rules: Rules) -> Rules:
        if "seed" in rules.model_fields_set:
            raise ValueError("the seed of the rules is the stage's, judge.seed")
        return rules


class _Judge:
    """Judges everybody under every model."""

    def __init__(self, context: StageContext) -> None:
        self._inputs, config = context.inputs, context.config
        self._rules = config.rules.model_copy(update={"seed": int(config.seed or 0)})

    def __call__(self, split: Split, out: SplitWriter) -> None:
        read = self._inputs
        audit = Audit(
            models=sorted(read["models"].read("model")["model"].to_pylist()),
            votes=read["votes"].read("model", "identity", "image", "template", "predicted"),
            asked=read["asked"].read("identity", "name", "sex", "pool", "pictures"),
            names=read["names"].read("pool", "name", "sex", "tested"),
            panel_votes=read["panel_votes"].read("model", "pool", "identity", "image", "template", "predicted"),
            panel=read["panel"].read("identity", "sex"),
        )
        verdicts = judge(audit, self._rules)
        out.table("verdicts", verdicts)
        out.csv("verdicts", verdicts)
        out.table("favourites", favourites(audit, self._rules))
        out.count(rows_in=len(audit.votes), rows_kept=len(audit.votes))


STAGE = Stage(
    name="judge",
    version=1,
    summary="verdicts, p-values and findings",
    config=JudgeConfig,
    inputs={
        "models": Input("models (model)"),
        "asked": Input("people under test (identity, name, sex, pool, pictures)"),
        "names": Input("candidate names (pool, name, sex, tested)"),
        "votes": Input("votes"),
        "panel": Input("the reference panel (identity, sex)"),
        "panel_votes": Input("votes on the panel"),
    },
    phases=(Phase("judge", once, _Judge),),
    tables=("verdicts", "favourites", "csv"),
)
