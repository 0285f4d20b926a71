"""`figures`: the paper's figures of the attack as PNG and PDF, each with the Parquet that it was drawn from."""

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from matplotlib.figure import Figure

from idia_core.config import StageConfig
from idia_core.figures import to_pdf, to_png
from idia_core.histogram import draw_histogram
from idia_core.method_figures import draw_baselines, draw_matrices, draw_roc, drawn_matrices
from idia_core.rate_figures import (
    draw_attack_pictures,
    draw_heat_maps,
    draw_training_pictures,
    group_models,
    most_pictures,
    study_rates,
)
from pipelines.stage import Input, Phase, Split, SplitWriter, Stage, StageContext, once

MODEL_FACTS = pa.schema(
    [
        pa.field("model", pa.string(), nullable=False),
        pa.field("architecture", pa.string()),
        pa.field("images_per_member", pa.int64()),  # null of a model trained elsewhere
    ]
)
METRICS = ("model", "group", "images", "draw", "tp", "fn", "fp", "tn")
RATES = ("tpr", "fnr", "fpr", "tnr", "accuracy")
INTERVALS = ("tpr", "tpr_low", "tpr_high", "fpr", "fpr_low", "fpr_high")


class FiguresConfig(StageConfig):
    """`figures` has no settings of its own."""


class _Painter:
    """Draws every figure whose inputs are there."""

    def __init__(self, context: StageContext) -> None:
        self._inputs = context.inputs

    def __call__(self, split: Split, out: SplitWriter) -> None:
        inputs, cells = self._inputs, ("tp", "fn", "fp", "tn")
        spread = [f"{rate}_{part}" for part in ("mean", "sd") for rate in RATES]
        table = inputs["rates"].read("model", "group", "images", *spread, "draws")
        rates = study_rates(table, inputs["models"].read_as(MODEL_FACTS) if "models" in inputs else None)
        _save(out, "fig04_attack_pictures", draw_attack_pictures(rates), rates)
        trained = rates.drop_nulls("images_per_member")
        if len(trained):
            _save(out, "fig05_fig08_training_pictures", draw_training_pictures(trained), most_pictures(trained))
            _save(out, "fig06_fig10_heat_maps", draw_heat_maps(trained), trained)
        models = pl.Enum(rates["model"].unique(maintain_order=True))
        matrices = drawn_matrices(inputs["metrics"].read(*METRICS)).sort(pl.col("model").cast(models))
        _save(out, "fig07_confusion_matrices", draw_matrices(matrices), matrices)
        if "histogram" in inputs:
            histogram = inputs["histogram"].read("bin", "people_paper", "people_strict")
            _save(out, "fig09_occurrences", draw_histogram(histogram), pl.DataFrame(histogram))
        roc = pl.DataFrame(inputs["roc"].read("model", "group", "images", "threshold", *cells, *INTERVALS))
        _save(out, "roc", draw_roc(roc, group_models(rates)), roc)
        baselines = pl.DataFrame(inputs["baselines"].read("model", "method", *cells, *INTERVALS))
        baselines = baselines.sort(pl.col("model").cast(models), maintain_order=True)
        _save(out, "baselines", draw_baselines(baselines), baselines)


def _save(out: SplitWriter, name: str, figure: Figure, table: pl.DataFrame) -> None:
    out.write(f"figures/{name}.png", to_png(figure))
    out.write(f"figures/{name}.pdf", to_pdf(figure))
    with out.open(f"figures/{name}.parquet", rows=len(table)) as file:
        pq.write_table(table.to_arrow(), file, compression="zstd")


STAGE = Stage(
    name="figures",
    version=1,
    summary="draw the paper's figures",
    config=FiguresConfig,
    inputs={
        "metrics": Input("confusion matrices (model, group, images, draw, tp, fn, fp, tn)"),
        "rates": Input("rates over the draws (model, group, images, tpr_mean, tpr_sd, ...)"),
        "roc": Input("rates for every threshold (model, threshold, tpr, fpr, ...)"),
        "baselines": Input("rates of simpler attacks (model, method, tpr, fpr, ...)"),
        "models": Input("what is known of the models (model, architecture, images_per_member)", optional=True),
        "histogram": Input("people by occurrences (bin, people_paper, people_strict)", optional=True),
    },
    phases=(Phase("draw", once, _Painter),),
    tables=("figures",),
)
