"""Every stage that a study may name."""

from pipelines import (
    attack,
    download,
    embed,
    evaluate,
    evidence,
    faces,
    figures,
    index,
    judge,
    models,
    own_pairs,
    pairs,
    people,
    portraits,
    presence,
    recogniser,
    report,
    retrieval_rank,
    retrieve,
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
    *(portraits.STAGE, people.STAGE, people.PANEL, models.STAGE),
    *(world.STAGE, scan.STAGE),
    *(embed.STAGE, index.STAGE, recogniser.STAGE, faces.STAGE, presence.STAGE),
    *(select.STAGE, retrieve.STAGE, download.STAGE, pairs.STAGE, own_pairs.STAGE, shards.STAGE),
    *(verify.STAGE, train.STAGE, zeroshot.STAGE, retrieval_rank.STAGE),
    *(attack.STAGE, judge.STAGE, evidence.STAGE, evaluate.STAGE, figures.STAGE, report.STAGE),
)
STAGES: dict[str, Stage] = {stage.name: stage for stage in ALL}
