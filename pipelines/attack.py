"""`attack`: the Identity Inference Attack on every model and person (paper, Section 4)."""

import io
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
from PIL.Image import Image
from pydantic import Field, field_validator
from upath import UPath

from idia_core.attack import VERDICTS, VOTES, judge, predict
from idia_core.config import SeededConfig
from idia_core.images import PictureStatus, decode_picture
from idia_core.models import ClipModel
from idia_core.names import candidate_names
from idia_core.prompts import TEMPLATES, fill
from pipelines.stage import Input, Phase, Split, SplitWriter, Stage, StageContext, once


class AttackConfig(SeededConfig):
    """Settings of `attack`; the defaults are the paper's."""

    candidates: int = Field(default=1000, ge=2)
    """K: names that the model chooses from; the tested people's real names are among them."""
    mixed_candidates: bool = False
    """Invent the other names with accents, hyphens and initials too, as the built-in world's people have them, instead
    of plain first x last names. A tested name of a form that is rare among the candidates can be a model's favourite
    for faces that it does not know, which is a false alarm."""
    templates: tuple[str, ...] = TEMPLATES
    """The prompts, `{0}` standing for the name."""
    threshold: int = Field(default=1, ge=1)
    """tau: in how many templates the majority must be the real name."""
    people_per_split: int = Field(default=8, ge=1)
    """People in one piece of work."""
    device: str = "cpu"
    """Where the models run: cpu, cuda, cuda:1."""

    @field_validator("templates")
    @classmethod
    def _different(cls, templates: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(templates)) < max(1, len(templates)):
            raise ValueError("templates must be given, and each once")
        return templates


class _Namer:
    """Draws the candidate names."""

    def __init__(self, context: StageContext) -> None:
        self._context = context

    def __call__(self, split: Split, out: SplitWriter) -> None:
        config: AttackConfig = self._context.config
        names = people(self._context)["name"].to_list()
        out.table(
            "names", candidate_names(names, config.candidates, int(config.seed or 0), mixed=config.mixed_candidates)
        )


def _models(context: StageContext) -> list[dict[str, Any]]:
    models: list[dict[str, Any]] = context.inputs["models"].read("model", "architecture", "checkpoint").to_pylist()
    return sorted(models, key=lambda model: str(model["model"]))


class _TextEncoder:
    """Embeds every prompt of every candidate, once a model: `text_embeddings/MODEL.npy`, float32 [N, K, D]."""

    def __init__(self, context: StageContext) -> None:
        self._context = context

    def __call__(self, split: Split, out: SplitWriter) -> None:
        templates = self._context.config.templates
        names = self._context.table("names")["name"].to_pylist()
        prompts = fill(templates, names)
        texts = load_model(self._context, split).encode_texts(prompts)
        with out.open(f"text_embeddings/{split['model']}.npy") as file:
            np.save(file, texts.reshape(len(templates), len(names), -1))


def _blocks(context: StageContext) -> Iterable[Split]:
    identities, size = people(context)["identity"].to_list(), context.config.people_per_split
    for model in _models(context):
        for start in range(0, len(identities), size):
            yield model | {"identities": identities[start : start + size]}


class _Voter:
    """Asks a model for the name on every picture of some people; keeps the model while it stays the same."""

    def __init__(self, context: StageContext) -> None:
        self._context = context
        self._names = np.array(context.table("names")["name"].to_pylist())
        self._loaded: tuple[str, ClipModel, npt.NDArray[np.float32]] | None = None

    def __call__(self, split: Split, out: SplitWriter) -> None:
        model, texts_NKD = self._load(split)
        read = [(row, *_decoded(row)) for row in _pictures(self._context, split["identities"])]
        shown = [(row, picture) for row, picture, _ in read if picture is not None]
        votes = VOTES.empty_table()
        if shown:
            predicted_PN = predict(model.encode_images([picture for _, picture in shown]), texts_NKD)
            votes = self._votes(split["model"], [row for row, _ in shown], predicted_PN)
        out.table("votes", votes)
        failed = Counter(str(reason) for _, picture, reason in read if picture is None)
        out.count(rows_in=len(read), rows_kept=len(shown), **failed)

    def _load(self, split: Split) -> tuple[ClipModel, npt.NDArray[np.float32]]:
        if self._loaded is None or self._loaded[0] != split["model"]:
            path = self._context.folder / "text_embeddings" / f"{split['model']}.npy"
            texts_NKD = np.load(io.BytesIO(path.read_bytes()))
            self._loaded = (split["model"], load_model(self._context, split), texts_NKD)
        return self._loaded[1], self._loaded[2]

    def _votes(self, model: str, rows: list[dict[str, Any]], predicted_PN: npt.NDArray[np.int64]) -> pa.Table:
        templates = self._context.config.templates
        per_picture = len(templates)
        columns = {
            "model": pa.repeat(model, len(rows) * per_picture),
            "identity": np.repeat([row["identity"] for row in rows], per_picture),
            "image": np.repeat([row["picture"] for row in rows], per_picture),
            "template": np.tile(templates, len(rows)),
            "predicted": self._names[predicted_PN.ravel()],
        }
        return pa.table(columns, schema=VOTES)


class _Judge:
    """Turns all votes into verdicts."""

    def __init__(self, context: StageContext) -> None:
        self._context = context

    def __call__(self, split: Split, out: SplitWriter) -> None:
        context = self._context
        votes = context.table("votes")
        keys = ["model", "identity"]
        used = pl.DataFrame(votes).group_by(keys).agg(images_used=pl.col("image").n_unique())
        pictures = pl.DataFrame(context.inputs["pictures"].read("identity")).group_by("identity").len("pictures")
        models = pl.DataFrame({"model": [model["model"] for model in _models(context)]})
        asked = models.join(people(context), how="cross").join(used, on=keys, how="left", maintain_order="left")
        asked = asked.join(pictures, on="identity", how="left", maintain_order="left")
        asked = asked.with_columns(pl.col("images_used", "pictures").fill_null(0).cast(pl.Int64))
        asked = asked.with_columns(images_failed=pl.col("pictures") - pl.col("images_used"))
        verdicts = judge(votes, asked.to_arrow(), context.config.threshold)
        out.table("verdicts", verdicts.cast(VERDICTS))


def people(context: StageContext) -> pl.DataFrame:
    """The people under test, in the identities' order: identity, name; all, or those with a role in `selection`."""
    identities = pl.DataFrame(context.inputs["identities"].read("identity", "name"))
    if "selection" not in context.inputs:
        return identities
    chosen = pl.DataFrame(context.inputs["selection"].read("identity", "role")).filter(pl.col("role") != "excluded")
    return identities.join(chosen, on="identity", how="semi", maintain_order="left")


def load_model(context: StageContext, model: Split) -> ClipModel:
    """The model of a row of the `models` input; its checkpoint lies in the folder of the stage that made it."""
    folder: UPath = context.inputs["models"].root.parent
    return ClipModel(model["architecture"], Path((folder / model["checkpoint"]).path), context.config.device)


def _pictures(context: StageContext, identities: list[str]) -> list[dict[str, Any]]:
    columns = ("identity", "picture", "status", "image")
    pictures = pl.DataFrame(context.inputs["pictures"].read(*columns))
    return pictures.filter(pl.col("identity").is_in(identities)).sort("identity", "picture").to_dicts()


def _decoded(row: dict[str, Any]) -> tuple[Image | None, str]:
    """The picture of a row of `pictures`, or None and why not."""
    return decode_picture(row["image"]) if row["status"] == PictureStatus.OK else (None, row["status"])


STAGE = Stage(
    name="attack",
    version=1,
    summary="ask the models for names, and judge",
    config=AttackConfig,
    inputs={
        "models": Input("models (model, architecture, checkpoint)"),
        "identities": Input("people (identity, name)"),
        "selection": Input("who is tested (identity, role); everybody without it", optional=True),
        "pictures": Input("attack pictures (identity, picture, status, image)"),
    },
    phases=(
        Phase("names", once, _Namer),
        Phase("texts", _models, _TextEncoder),
        Phase("votes", _blocks, _Voter),
        Phase("verdicts", once, _Judge),
    ),
    tables=("names", "text_embeddings", "votes", "verdicts"),
)
