"""`report`: one self-contained page that says who was in the training data."""

from itertools import islice

import polars as pl
import pyarrow as pa
from upath import UPath

from idia_core.config import StageConfig
from idia_core.images import decode_picture, encode_thumbnail
from idia_core.leakage import LEAKAGE
from idia_core.manifest import Manifest, read_manifest
from idia_core.pair_funnel import FUNNEL
from idia_core.report import Leakage, ModelInfo, PersonCard, ReportData, StageInfo, render_report
from idia_core.report_training import RETRIEVAL_RANK, RUNS, ZEROSHOT
from pipelines.stage import Input, Phase, Split, SplitWriter, Stage, StageContext, once

THUMBNAIL_SIDE, THUMBNAILS = 96, 3
MODELS = pa.schema(
    [
        pa.field("model", pa.string(), nullable=False),
        pa.field("architecture", pa.string(), nullable=False),
        pa.field("images_per_member", pa.int64(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("epochs", pa.int64(), nullable=False),
        pa.field("training_pairs", pa.int64()),
        pa.field("loss", pa.float64()),
    ]
)
OPTIONAL = {
    "curves": ("model", "epoch", "loss"),
    "runs": RUNS,
    "zeroshot": ZEROSHOT,
    "retrieval_rank": RETRIEVAL_RANK,
    "funnel": tuple(FUNNEL.names),
}
APART = (
    "Attack pictures were set apart when each person's pictures were dealt out, and no training pair was made from "
    "one. Every training picture was compared with every attack picture, by its file and by a perceptual hash that "
    "re-encoding, resizing and mirroring hardly change, and every training caption was searched for the names of the "
    "people kept out. What was found was left out of the training, and is counted here."
)


class ReportConfig(StageConfig):
    """Settings of `report`."""

    title: str = "Who was in the training data?"
    """Heading of the page."""


class _Writer:
    """Gathers the tables and renders the page."""

    def __init__(self, context: StageContext) -> None:
        self._context = context

    def __call__(self, split: Split, out: SplitWriter) -> None:
        out.write("page/report.html", render_report(self._data()).encode())

    def _data(self) -> ReportData:
        inputs, config = self._context.inputs, self._context.config
        manifests = self._manifests()
        attack = next(m for m in manifests.values() if m.stage == "attack")
        models = inputs["models"].read_as(MODELS).to_pylist()
        return ReportData(
            study=self._context.folder.parent.name,
            title=config.title,
            models=[
                ModelInfo(*(m[column] for column in MODELS.names))
                for m in sorted(models, key=lambda m: (str(m["architecture"]), int(m["images_per_member"])))
            ],
            people=self._people(),
            verdicts=inputs["verdicts"].read(
                "model", "identity", "images_used", "images_failed", "score", "threshold", "member"
            ),
            metrics=inputs["metrics"].read("model", "group", "images", "draw", "tp", "fn", "fp", "tn"),
            templates=len(attack.config["templates"]),
            candidates=int(attack.config["candidates"]),
            leakage=self._leakage(),
            stages=[_stage_info(name, manifest) for name, manifest in manifests.items()],
            provenance=_provenance(attack),
            **{field: inputs[field].read(*columns) if field in inputs else None for field, columns in OPTIONAL.items()},
        )

    def _people(self) -> list[PersonCard]:
        inputs = self._context.inputs
        selection = pl.DataFrame(inputs["selection"].read("identity", "role", "occurrences"))
        pictures = pl.DataFrame(inputs["pictures"].read("identity", "picture", "status", "image"))
        shown = pictures.filter(pl.col("status") == "ok").sort("identity", "picture")
        cards = []
        for identity, role, occurrences in selection.filter(pl.col("role") != "excluded").rows():
            images = shown.filter(pl.col("identity") == identity)["image"]
            decoded = (decode_picture(image)[0] for image in images)
            thumbnails = [encode_thumbnail(p, THUMBNAIL_SIDE) for p in islice(filter(None, decoded), THUMBNAILS)]
            cards.append(PersonCard(identity, role, occurrences, thumbnails))
        return cards

    def _leakage(self) -> Leakage:
        (row,) = self._context.inputs["leakage"].read(*LEAKAGE.names).to_pylist()
        counts = {name: count for name, count in row.items() if count is not None}
        return Leakage(counts, APART)

    def _manifests(self) -> dict[str, Manifest]:
        """The seals of every stage that this page rests on by its name, each after those it was made from."""
        out, found = self._context.folder.parent, dict[str, Manifest]()
        for source in self._context.inputs.values():
            collect_seals(out, source.source, found)
        return found


def collect_seals(out: UPath, source: str, found: dict[str, Manifest]) -> None:
    """Add the seal of the stage that `stage.table` names, after those of the stages that it was made from."""
    stage = source.partition(".")[0]
    manifest = None if stage in found else read_manifest(out / stage)
    if manifest is not None:
        for record in manifest.inputs.values():
            collect_seals(out, record.source, found)
        found.setdefault(stage, manifest)


def _stage_info(name: str, manifest: Manifest) -> StageInfo:
    counts = manifest.counts
    return StageInfo(
        name=name,
        version=str(manifest.version),
        fingerprint=manifest.fingerprint,
        seconds=manifest.provenance.seconds,
        rows_in=counts.get("rows_in", 0),
        rows_kept=counts.get("rows_kept", 0),
        dropped={key: n for key, n in counts.items() if n and key not in ("rows_in", "rows_kept")},
        splits=len(manifest.receipts),
        inputs=[f"{field}: {record.source}" for field, record in manifest.inputs.items()],
    )


def _provenance(manifest: Manifest) -> dict[str, str]:
    made = manifest.provenance
    facts = {
        "commit": f"{made.commit}{' with uncommitted changes' if made.dirty else ''}",
        "command": " ".join(made.argv),
        "seed": str(manifest.config.get("seed")),
        "started": made.started,
        "python": made.python,
    }
    return facts | made.versions


STAGE = Stage(
    name="report",
    version=3,
    summary="write the page",
    config=ReportConfig,
    inputs={
        "models": Input("models (model, architecture, images_per_member, sha256, epochs)"),
        "selection": Input("roles (identity, role, occurrences)"),
        "pictures": Input("attack pictures (identity, picture, status, image)"),
        "verdicts": Input("verdicts"),
        "metrics": Input("metrics"),
        "leakage": Input("what was compared to keep training and attack apart"),
        "curves": Input("the loss of the trainings (model, epoch, loss)", optional=True),
        "runs": Input("attempts of the trainings (model, attempt, first_epoch, last_epoch, reason)", optional=True),
        "zeroshot": Input("zero-shot results (model, pictures, failed, top1, top5)", optional=True),
        "retrieval_rank": Input("retrieval results (model, pairs, failed, rank1, rank5)", optional=True),
        "funnel": Input("what was left of each person's pairs at each step, as pairs writes it", optional=True),
    },
    phases=(Phase("page", once, _Writer),),
    tables=("page",),
)
