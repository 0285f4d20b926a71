"""What the workers of `attack` share: models, numbered candidate names, pictures, and the answers to them.

Axes: P pictures, N templates, K candidate names, D embedding dimensions.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, groupby
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
from PIL.Image import Image

from idia_core.black_box import BlackBox
from idia_core.http_retries import RateLimit
from idia_core.images import PictureStatus, decode_picture
from idia_core.manifest import RECEIPTS
from idia_core.model_reference import Kind, ModelReference
from idia_core.models import ClipModel
from pipelines.rows_of_people import blocks_of, rows_of
from pipelines.stage import ResolvedInput, Split, SplitWriter, StageContext
from pipelines.voters import BlackBoxVoter, LocalVoter, TextBlocks

DECOYS_COMPARED = 1000
"""The most decoys of a pool whose plain cosine similarity is kept beside the real name's."""
ANSWERS = "answers"
"""Folder, beside the receipts, of what black boxes have answered; it goes when the stage is sealed."""
PICTURE = ("identity", "picture", "status", "image")


def models(context: StageContext) -> list[dict[str, Any]]:
    """The rows of `models`, by name: model, reference, sha256."""
    found: list[dict[str, Any]] = context.inputs["models"].read("model", "reference", "sha256").to_pylist()
    return sorted(found, key=lambda model: str(model["model"]))


def reference_of(context: StageContext, model: Mapping[str, Any]) -> ModelReference:
    """What a row of `models` refers to; a relative path is one in the folder of the stage that made the row."""
    return ModelReference.parse(model["reference"], context.inputs["models"].root.parent)


def is_black_box(context: StageContext, model: Mapping[str, Any]) -> bool:
    """True for a model that is asked over HTTP."""
    return reference_of(context, model).kind is Kind.BLACK_BOX


class LastModel:
    """The model that was loaded last; it stays while it is the one that is wanted."""

    def __init__(self, context: StageContext) -> None:
        self._context = context
        self._name = ""
        self._model: ClipModel | None = None

    def get(self, split: Split) -> ClipModel:
        """The model of a split."""
        if self._model is None or self._name != split["model"]:
            self._model = None  # frees its memory before the next is loaded
            config = self._context.config
            reference = reference_of(self._context, split)
            self._name = split["model"]
            self._model = ClipModel(reference, config.device, config.batch_size)
        return self._model


class Pools:
    """The candidate names, numbered in the order of `names`; a pool is the ascending numbers of its names."""

    def __init__(self, context: StageContext) -> None:
        table = pl.DataFrame(context.table("names"))
        self.names = np.array(table["name"].unique(maintain_order=True).to_list())
        self.number: dict[str, int] = {str(name): number for number, name in enumerate(self.names)}
        rows = table.with_columns(number=pl.col("name").replace_strict(self.number, return_dtype=pl.Int64)).sort(
            "number"
        )
        decoys = rows.filter(~pl.col("tested")).group_by("pool", maintain_order=True).head(DECOYS_COMPARED)
        self.numbers, self.decoys = _by_pool(rows), _by_pool(decoys)


def _by_pool(rows: pl.DataFrame) -> dict[str, npt.NDArray[np.int64]]:
    return {str(pool): mine["number"].to_numpy() for (pool,), mine in rows.group_by("pool", maintain_order=True)}


class Answers(NamedTuple):
    """The names that a model chose from one pool for some pictures of one person."""

    pool: str
    identity: str
    pictures: Sequence[str]
    predicted_PN: npt.NDArray[np.int64]
    """Numbers of names."""
    image_D: npt.NDArray[np.float32] | None
    """The mean of the pictures' embeddings; a black box does not tell it."""


def blocks_of_people(context: StageContext, field: str, identities: Sequence[str]) -> Iterator[Split]:
    """The splits of a phase that shows those people's pictures, a block after another, to every model.

    A black box gets one split, so that one process sees to its limits.
    """
    blocks = blocks_of(identities, context.config.people_per_split, pictures=context.inputs[field])
    for model in models(context):
        together = [blocks] if is_black_box(context, model) else [[block] for block in blocks]
        yield from (model | {"blocks": some} for some in together if some)


class Asker:
    """Shows the pictures of a split's people to its model, under each of their pools of names."""

    def __init__(self, context: StageContext, field: str, pools_of: Mapping[str, Sequence[str]]) -> None:
        self._context, self._input, self._pools_of = context, context.inputs[field], pools_of
        self.pools, self._models = Pools(context), LastModel(context)
        self._voter: tuple[str, LocalVoter] | None = None

    def ask(self, split: Split, out: SplitWriter) -> Iterator[Answers]:
        """The answers, person by person; counts the pictures that could not be shown, by reason."""
        failed, shown = Counter[str](), list[tuple[str, str]]()
        decoded = self._decoded(split, shown, failed)
        if is_black_box(self._context, split):
            yield from self._ask_black_box(split, decoded, out)
        else:
            yield from self._ask_model(split, (picture for _, _, picture in decoded), shown)
        out.count(rows_in=len(shown) + failed.total(), rows_kept=len(shown), **failed)

    def _decoded(
        self, split: Split, shown: list[tuple[str, str]], failed: Counter[str]
    ) -> Iterator[tuple[str, str, Image]]:
        """Identity, id and content of every picture that can be shown, one at a time, as it is wanted."""
        for row in (row for block in split["blocks"] for row in _rows(self._input, block)):
            status = row["status"]
            if status == PictureStatus.OK:
                picture, status = decode_picture(row["image"])
                if picture is not None:
                    shown.append((row["identity"], row["picture"]))
                    yield row["identity"], row["picture"], picture
                    continue
            failed[str(status)] += 1

    def _ask_model(self, split: Split, pictures: Iterator[Image], shown: list[tuple[str, str]]) -> Iterator[Answers]:
        first = next(pictures, None)
        if first is None:
            return
        voter = self._local(split)
        images_PD = voter.embed(chain([first], pictures))
        for identity in dict.fromkeys(identity for identity, _ in shown):
            mine = [place for place, (owner, _) in enumerate(shown) if owner == identity]
            for pool in self._pools_of[identity]:
                predicted_PN = voter.vote(images_PD[mine], pool)
                names = [shown[place][1] for place in mine]
                yield Answers(pool, identity, names, predicted_PN, images_PD[mine].mean(axis=0))

    def _local(self, split: Split) -> LocalVoter:
        if self._voter is None or self._voter[0] != split["model"]:
            blocks = TextBlocks(self._context.folder, split["model"], len(self.pools.names))
            self._voter = (split["model"], LocalVoter(self._models.get(split), blocks, self.pools.numbers))
        return self._voter[1]

    def cosines(
        self, split: Split, image_D: npt.NDArray[np.float32], identity: str, name: str
    ) -> tuple[float, list[float]]:
        """The mean cosine over the templates of a person's mean picture with the real name, and with the decoys."""
        voter, decoys = self._local(split), self.pools.decoys[self._pools_of[identity][0]]
        own = voter.cosines(image_D, np.array([self.pools.number[name]]))
        return float(own[0]), voter.cosines(image_D, decoys).tolist()

    def _ask_black_box(
        self, split: Split, decoded: Iterator[tuple[str, str, Image]], out: SplitWriter
    ) -> Iterator[Answers]:
        settings = self._context.config.resources
        limit = RateLimit(settings.questions_per_second) if settings.questions_per_second else None
        box = BlackBox(split["reference"], settings.black_box, limit)
        voter = BlackBoxVoter(box, split["reference"], self._context.folder / RECEIPTS / ANSWERS, settings.connections)
        people = sum(len(block["identities"]) for block in split["blocks"])
        for done, (identity, group) in enumerate(groupby(decoded, key=lambda found: found[0])):
            out.report(min(1.0, done / people), f"{split['model']} {identity}")
            mine = list(group)
            for pool in self._pools_of[identity]:
                numbers = self.pools.numbers[pool]
                pictures = [picture for _, _, picture in mine]
                chosen_PN = voter.vote(pictures, self._context.config.templates, self.pools.names[numbers].tolist())
                yield Answers(pool, identity, [name for _, name, _ in mine], numbers[chosen_PN], None)


def _rows(pictures: ResolvedInput, block: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The pictures, still encoded, of a block of people, in the people's order and that of the pictures' names."""
    tables = rows_of(pictures, block["pictures"], block["identities"], PICTURE)
    order = {identity: place for place, identity in enumerate(block["identities"])}
    rows = [row for table in tables for row in table.to_pylist()]
    return sorted(rows, key=lambda row: (order[row["identity"]], row["picture"]))
