"""`recogniser`: what tells people's faces apart, a trained classifier or a gallery (paper, Appendix C)."""

import io
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image
from upath import UPath

from cluster import recogniser_entry as entry
from idia_core.classifier import Classifier, read_state
from idia_core.errors import ConfigError, InvalidInputError
from idia_core.gallery import FACENET_SIDE, Gallery, GalleryRecipe, enrolled, load_embedder
from idia_core.manifest import WORK, digest_of
from idia_core.model_reference import ModelReference, named_files
from idia_core.models import weights_sha256
from idia_core.recogniser_training import (
    CROPS,
    LABELLED,
    CropMaker,
    TrainingJob,
    held_out,
    write_pictures,
)
from idia_core.recognition import (
    ANSWERS,
    GALLERY,
    RECORD,
    STRANGER,
    TEST,
    TRAIN,
    WEIGHTS,
    RecogniserRecord,
    accuracy_of,
    answers_of,
    calibrated,
    calibration_of,
    confusions_of,
    read_record,
)
from idia_core.storage import is_local, sha256_of
from pipelines.recogniser_config import RecogniserConfig
from pipelines.rows_of_people import blocks_of, rows_of
from pipelines.stage import Input, Phase, ResolvedInput, Split, SplitWriter, Stage, StageContext, once

GALLERY_PIXELS = 256
"""The side of the pictures that a gallery is made of; each embedder resizes them to its own."""
UNKNOWN_SIDE = 224
"""Stands for the side that a CLIP model wants until the model is loaded."""
SCORED_AT_A_TIME = 512


def _named_files(config: RecogniserConfig) -> Mapping[str, str]:
    if config.gallery is None:
        return {} if config.recipe.weights is None else {"recipe.weights": config.recipe.weights}
    if config.gallery.model is not None:
        return named_files("gallery.model", config.gallery.model)
    return {} if config.gallery.weights is None else {"gallery.weights": config.gallery.weights}


def work_root(context: StageContext) -> Path:
    """The folder of an unfinished training; on the machine that trains where the stage writes to an object store."""
    if is_local(context.folder):
        return Path(context.folder.path) / WORK
    return Path(tempfile.gettempdir()) / f"idia-{digest_of([str(context.folder), context.fingerprint])[:12]}"


def _people_in(table: ResolvedInput) -> list[str]:
    return sorted(set(table.read("identity")["identity"].to_pylist()))


def _blocks(context: StageContext) -> Iterable[Split]:
    """Blocks of people, and of strangers; those whose pictures are not wanted are only counted, with the reason."""
    config: RecogniserConfig = context.config
    if config.gallery and (config.gallery.embedder == "classifier") != ("classifier" in context.inputs):
        what = "the embedder `classifier`, and no other, takes the input `classifier`"
        raise ConfigError(what, "stage recogniser, gallery.embedder", "Give both or none.")
    known = list(dict.fromkeys(context.inputs["identities"].read("identity")["identity"].to_pylist()))
    groups = [("pictures", "people", known)]
    groups += [("pictures", "unknown_identity", sorted({*_people_in(context.inputs["pictures"])} - {*known}))]
    if "strangers" in context.inputs:
        strangers = _people_in(context.inputs["strangers"])
        groups += [("strangers", "strangers", [person for person in strangers if person not in {*known}])]
        groups += [("strangers", "known_person", [person for person in strangers if person in {*known}])]
    for table, use, people in groups:
        for block in blocks_of(people, config.people_per_split, pictures=context.inputs[table]):
            yield {"table": table, "use": use} | block


class _Preparer:
    """Decodes a block of people's pictures, cuts squares out of them, and draws which are held out."""

    def __init__(self, context: StageContext) -> None:
        config: RecogniserConfig = context.config
        side = GALLERY_PIXELS if config.gallery else config.recipe.stored_pixels
        self._context, self._config = context, config
        self._maker = CropMaker(side, config.detector, config.margin, config.device)

    def __call__(self, split: Split, out: SplitWriter) -> None:
        table, wanted = self._context.inputs[split["table"]], split["use"] in ("people", "strangers")
        columns = ("identity", "picture", "status", "image") if wanted else ("identity",)
        tables = rows_of(table, split["pictures"], split["identities"], columns)
        if not wanted:
            count = sum(len(table) for table in tables)
            out.count(rows_in=count, **{split["use"]: count})
            return
        rows = [row for table in tables for row in table.to_pylist()]
        order = {identity: place for place, identity in enumerate(split["identities"])}
        rows.sort(key=lambda row: (order[row["identity"]], row["picture"]))
        with ThreadPoolExecutor(max(1, int(self._config.resources.cpus))) as pool:
            made = list(pool.map(self._maker.crop, [row["status"] for row in rows], [row["image"] for row in rows]))
        crops = [
            row | {"role": STRANGER, "image": crop, "status": s} for row, (crop, s) in zip(rows, made, strict=True)
        ]
        if split["use"] == "people":
            self._deal(crops)
        out.table("crops", pa.Table.from_pylist(crops, CROPS))
        statuses = Counter(crop["status"] for crop in crops)
        kept = statuses.pop("ok", 0)
        out.count(rows_in=len(crops), rows_kept=kept, **statuses)

    def _deal(self, crops: list[dict[str, Any]]) -> None:
        for identity in {crop["identity"] for crop in crops}:
            mine = [crop for crop in crops if crop["identity"] == identity]
            good = [crop["picture"] for crop in mine if crop["status"] == "ok"]
            tested = held_out(good, self._config.held_out, int(self._config.seed or 0), identity)
            for crop in mine:
                crop["role"] = TEST if crop["picture"] in tested else TRAIN


def _crops(context: StageContext) -> Iterator[pa.Table]:
    """The good crops, a block of people at a time; strangers come last."""
    for file in sorted((context.folder / "crops").glob("*.parquet"), key=str):
        table = pq.read_table(file.path, filesystem=file.fs)
        yield table.filter(pc.equal(table["status"], "ok"))


def _training_pictures(context: StageContext) -> dict[str, int]:
    """How many pictures of each person are trained on, in the people's order; `InvalidInputError` for fewer than two.

    Of a person without any nothing can be known.
    """
    counts = Counter[str]()
    for table in _crops(context):
        counts.update(table.filter(pc.equal(table["role"], TRAIN))["identity"].to_pylist())
    people = list(dict.fromkeys(context.inputs["identities"].read("identity")["identity"].to_pylist()))
    if len(counts) < 2:
        what = f"{len(counts)} people have a picture to learn from, and it takes two"
        raise InvalidInputError(what, f"stage {context.stage}, input pictures", "See the statuses in `crops`.")
    return {identity: counts[identity] for identity in people}


def _trainings(context: StageContext) -> Iterable[Split]:
    return [] if context.config.kind == "gallery" else [{}]


class _Trainer:
    """Trains the classifier by a torchrun on this machine, from its last checkpoint on."""

    def __init__(self, context: StageContext) -> None:
        self._context, self._config, self._work = context, context.config, work_root(context)

    def __call__(self, split: Split, out: SplitWriter) -> None:
        counts = _training_pictures(self._context)
        people = [identity for identity, count in counts.items() if count]
        self._work.mkdir(parents=True, exist_ok=True)
        pictures = self._work / "pictures.arrow"
        write_pictures(pictures, (_labelled(table, people) for table in _crops(self._context)))
        job = TrainingJob(
            recipe=self._config.recipe,
            people=len(people),
            pictures=str(pictures),
            seed=int(self._config.seed or 0),
            device=self._config.device,
        )
        tell = partial(_tell, self._config.recipe.epochs, out)
        entry.run_ranks(self._work, job, self._digest(job), tell)
        out.write(f"recogniser/{WEIGHTS}", (self._work / entry.WEIGHTS).read_bytes())
        losses = entry.losses_in(self._work)
        out.table("losses", pa.table({"epoch": range(1, len(losses) + 1), "loss": losses}))

    def _digest(self, job: TrainingJob) -> str:
        """What all checkpoints of this training depend on."""
        started_from = self._context.inputs.get("recipe.weights")
        told = job.model_dump(mode="json", exclude={"pictures"}) | {"pictures": sha256_of(UPath(job.pictures))}
        return digest_of([told, started_from.digest if started_from else None])


def _tell(epochs: int, out: SplitWriter, losses: Sequence[float]) -> None:
    out.report(len(losses) / epochs, f"epoch {len(losses)} of {epochs}, loss {losses[-1]:.3f}")


def _labelled(crops: pa.Table, people: Sequence[str]) -> pa.Table:
    mine = crops.filter(pc.equal(crops["role"], TRAIN))
    labels = pc.index_in(mine["identity"], pa.array(people, pa.string())).cast(pa.int64())
    return pa.table({"label": labels, "image": mine["image"]}).cast(LABELLED)


class _Examiner:
    """Writes the recogniser, after its threshold is set and its held-out pictures are counted."""

    def __init__(self, context: StageContext) -> None:
        self._context = context
        self._config: RecogniserConfig = context.config

    def __call__(self, split: Split, out: SplitWriter) -> None:
        counts = _training_pictures(self._context)
        known = tuple(identity for identity, count in counts.items() if count)
        record, answers = self._gallery(known, out) if self._config.gallery else self._classifier(known)
        if (threshold := self._config.threshold) is None:
            threshold = calibrated(answers, record.kind, self._config.false_match_rate)
        record = record.model_copy(update={"threshold": threshold})
        out.write(f"recogniser/{RECORD}", record.model_dump_json(indent=2).encode())
        accuracy = accuracy_of(answers, threshold, counts)
        out.table("answers", answers.to_arrow())
        out.table("accuracy", accuracy)
        out.table("confusions", confusions_of(answers, self._config.worst_pairs))
        out.table("calibration", calibration_of(record, answers, accuracy, self._config.false_match_rate))
        out.note("weights_sha256", str(record.weights_sha256))

    def _draft(self, **fields: Any) -> RecogniserRecord:
        told = {"kind": self._config.kind, "margin": self._config.margin, "threshold": 0.0} | fields
        return RecogniserRecord.model_validate(told)

    def _classifier(self, known: tuple[str, ...]) -> tuple[RecogniserRecord, pl.DataFrame]:
        """The classifier's answers to the pictures that it was not taught."""
        recipe, weights = self._config.recipe, self._context.folder / "recogniser" / WEIGHTS
        record = self._draft(
            network=recipe.backbone, identities=known, side=recipe.pixels, weights_sha256=sha256_of(weights)
        )
        scorer = Classifier(recipe.backbone, read_state(weights), recipe.pixels, self._config.device)
        answers = [
            answers_of(scorer.scores(pictures), known, owners)
            for owners, pictures in _pictures(self._context, {TEST, STRANGER})
        ]
        return record, _joined(answers)

    def _gallery(self, known: tuple[str, ...], out: SplitWriter) -> tuple[RecogniserRecord, pl.DataFrame]:
        """The gallery's answers to all pictures."""
        record = self._embedder(known, out)
        embedder = load_embedder(record, self._context.folder / "recogniser", self._config.device)
        owners, embedded = list[tuple[str, str, str]](), list[npt.NDArray[np.float32]]()
        for some, pictures in _pictures(self._context, {TRAIN, TEST, STRANGER}):
            owners += some
            embedded.append(embedder.embed(pictures))
        embeddings_BD = np.concatenate(embedded)
        mine = {identity: list[int]() for identity in known}
        for place, (identity, _, role) in enumerate(owners):
            if role == TRAIN:
                mine[identity].append(place)
        recipe = self._config.gallery or GalleryRecipe()
        people = [(identity, embeddings_BD[places]) for identity, places in mine.items()]
        table = enrolled(people, recipe.keep, relative=recipe.relative)
        with out.open(f"recogniser/{GALLERY}", rows=len(table)) as file:
            pq.write_table(table, file, compression="zstd")
        gallery = Gallery.read(embedder, self._context.folder / "recogniser" / GALLERY, known)
        answers = answers_of(gallery.scores_of(embeddings_BD), known, owners)
        return record.model_copy(update={"side": embedder.side}), _joined([answers])

    def _embedder(self, known: tuple[str, ...], out: SplitWriter) -> RecogniserRecord:
        """The record of the gallery that is to be; the weights of its embedder are copied, but for CLIP's."""
        recipe = self._config.gallery or GalleryRecipe()
        if recipe.embedder == "clip":
            reference = ModelReference.parse(str(recipe.model))
            digest = weights_sha256(reference)
            return self._draft(
                network="clip", identities=known, side=UNKNOWN_SIDE, model=str(reference), weights_sha256=digest
            )
        if recipe.embedder == "facenet":
            network, side, weights = "facenet", FACENET_SIDE, self._context.inputs["gallery.weights"].files[0]
        else:
            folder = self._context.inputs["classifier"].root
            source = read_record(folder)
            network, side, weights = source.network, source.side, folder / WEIGHTS
        out.write(f"recogniser/{WEIGHTS}", weights.read_bytes())
        digest = out.files[-1].sha256
        return self._draft(network=network, identities=known, side=side, weights_sha256=digest)


def _joined(answers: Sequence[pa.Table]) -> pl.DataFrame:
    return pl.DataFrame(pa.concat_tables([ANSWERS.empty_table(), *answers]))


def _pictures(context: StageContext, roles: set[str]) -> Iterator[tuple[list[tuple[str, str, str]], list[Image.Image]]]:
    """Some hundred pictures at a time: who is on each, its name and its role, and the pictures themselves."""
    for table in _crops(context):
        wanted = table.filter(pc.is_in(table["role"], pa.array(sorted(roles), pa.string())))
        for batch in wanted.to_batches(max_chunksize=SCORED_AT_A_TIME):
            rows = batch.to_pylist()
            pictures = [Image.open(io.BytesIO(row["image"])).convert("RGB") for row in rows]
            yield [(row["identity"], row["picture"], row["role"]) for row in rows], pictures


STAGE = Stage(
    name="recogniser",
    version=2,
    summary="learn to tell people's faces apart",
    config=RecogniserConfig,
    inputs={
        "pictures": Input("the people's pictures (identity, picture, status, image)"),
        "identities": Input("the people (identity)"),
        "strangers": Input("pictures of other people, to set the threshold by", optional=True),
        "classifier": Input(
            "the folder of a trained classifier, whose embeddings a gallery is made of",
            patterns=(RECORD, WEIGHTS),
            optional=True,
        ),
    },
    phases=(
        Phase("prepare", _blocks, _Preparer),
        Phase("train", _trainings, _Trainer, outward=True),
        Phase("examine", once, _Examiner),
    ),
    tables=("recogniser", "accuracy", "confusions", "calibration", "answers", "losses", "crops"),
    named_files=_named_files,
    works_in=work_root,
)
