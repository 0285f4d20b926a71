"""`retrieval_rank`: for how many pictures every model ranks their own caption among the first (paper, Table 2)."""

from idia_core.retrieval_rank import RETRIEVAL_RANK, rank_hits, read_pairs
from pipelines.stage import Input, Phase, Split, SplitWriter, Stage, StageContext
from pipelines.tested_models import TestedModelsConfig, each_model, load_model, row_of, telling


class RetrievalRankConfig(TestedModelsConfig):
    """Settings of `retrieval_rank`."""


class _Ranker:
    """Shows a model every picture, and ranks all captions for each."""

    def __init__(self, context: StageContext) -> None:
        self._context = context

    def __call__(self, split: Split, out: SplitWriter) -> None:
        model, stream = load_model(self._context, split)
        report = telling(split, out)
        hits = rank_hits(model, stream, read_pairs(self._context.inputs["pairs"].files), report)
        row = row_of(RETRIEVAL_RANK, split, {f"rank{k}": expected for k, expected in hits.items()}, stream)
        out.table("retrieval_rank", row)
        out.count(**stream.counts)


STAGE = Stage(
    name="retrieval_rank",
    version=1,
    summary="rank the captions of a validation set",
    config=RetrievalRankConfig,
    inputs={
        "models": Input("models (model, architecture, reference, sha256)"),
        "pairs": Input(
            "validation pairs: tars of jpg and txt, or Parquet (key, caption, image)", ("*.tar", "*.parquet")
        ),
    },
    phases=(Phase("rank", each_model, _Ranker),),
    tables=("retrieval_rank",),
)
