"""Every stage that a study may name."""

from pipelines import (
    attack,
    evaluate,
    evidence,
    figures,
    judge,
    models,
    people,
    report,
    retrieval_rank,
    scan,
    select,
    shards,
    train,
    verify,
    world,
    zeroshot,
)
from pipelines.stage import Stage

ALL: tuple[Stage, ...] = (
    *(people.STAGE, people.PANEL, models.STAGE),
    *(world.STAGE, scan.STAGE, select.STAGE, shards.STAGE),
    *(verify.STAGE, train.STAGE, zeroshot.STAGE, retrieval_rank.STAGE),
    *(attack.STAGE, judge.STAGE, evidence.STAGE, evaluate.STAGE, figures.STAGE, report.STAGE),
)
STAGES: dict[str, Stage] = {stage.name: stage for stage in ALL}
