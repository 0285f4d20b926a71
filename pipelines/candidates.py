"""The first phase of `faces`: the base pictures nearest to each person's pictures, and whom CLIP takes them for.

Axes: B pictures, D embedding dimensions, C people.
"""

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from idia_core.embeddings import open_numbered
from idia_core.errors import InvalidInputError
from idia_core.identities import attackable
from idia_core.index import ShardedIndex
from idia_core.model_reference import ModelReference
from idia_core.models import ClipModel, weights_sha256
from idia_core.picture_stream import PictureStream
from idia_core.presence import AGREEMENT, CANDIDATES
from idia_core.zeroshot import build_classifier
from pipelines.faces_config import FacesConfig
from pipelines.given_model import given_model
from pipelines.rows_of_people import blocks_of, rows_of
from pipelines.stage import Phase, Split, SplitWriter, StageContext

PICTURE = ("identity", "picture", "status", "image")
PLACE = ("source", "part", "row", "image_path")
ASKED = 4096
"""Candidates whose embeddings are in memory at the same time."""
NEEDED = ("index", "embeddings", "embedded_by")
"""Inputs of mode `retrieved` alone."""


def _blocks(context: StageContext) -> Iterable[Split]:
    """Some people each; nothing to look up where every picture of the base is looked at."""
    config: FacesConfig = context.config
    if config.mode == "full":
        return []
    if missing := [name for name in NEEDED if name not in context.inputs]:
        what = f"mode: retrieved needs the input '{missing[0]}'"
        raise InvalidInputError(what, "stage faces, inputs", "Give what `embed` and `index` wrote, or set mode: full.")
    identities = sorted(context.inputs["identities"].read("identity")["identity"].to_pylist())
    return blocks_of(identities, config.people_per_split, pictures=context.inputs["pictures"])


def check_model(context: StageContext, reference: ModelReference) -> None:
    """Raise `InvalidInputError` where the base was embedded with another model: their embeddings cannot be compared."""
    theirs = context.inputs["embedded_by"].read("model", "sha256").to_pylist()[0]
    if theirs["sha256"] != weights_sha256(reference):
        what = f"the base was embedded with other weights, those of '{theirs['model']}'"
        raise InvalidInputError(what, f"stage {context.stage}, model", "Give that model, or embed the base again.")


class _Finder:
    """Looks up the nearest base pictures of each picture of a person, and asks CLIP who is on them."""

    def __init__(self, context: StageContext) -> None:
        config: FacesConfig = context.config
        self._context, self._config = context, config
        reference = given_model(context)
        check_model(context, reference)
        self._model = ClipModel(reference, config.device, config.batch_size)
        self._embeddings = open_numbered(context.inputs["embeddings"].files)
        self._threads = max(1, int(config.resources.cpus))
        self._cache = tempfile.TemporaryDirectory()  # for an index on an object store; gone with the worker
        index = context.inputs["index"].root
        self._index = ShardedIndex.open(index, Path(self._cache.name), self._threads, config.probes)
        people = pl.DataFrame(context.inputs["identities"].read("identity", "name")).sort("identity")
        self._identities = np.array(people["identity"].to_list())
        self._names_CD = build_classifier(self._model, people["name"].to_list(), config.templates)

    def __call__(self, split: Split, out: SplitWriter) -> None:
        stream = PictureStream(self._model, self._threads)
        found = [self._nearest(tags, embeddings_BD) for tags, embeddings_BD in stream.embed(self._pictures(split))]
        nobody = pl.DataFrame(CANDIDATES.empty_table()).with_columns(pl.lit(0, pl.Int64).alias("id"))
        candidates = pl.concat([nobody, *found]).sort("identity", "picture", "rank")
        out.table("candidates", candidates.drop("id").to_arrow().cast(CANDIDATES))
        out.table("agreement", self._agreement(candidates))
        out.count(**stream.counts)

    def _pictures(self, split: Split) -> Iterable[tuple[tuple[str, str], bytes]]:
        for rows in rows_of(self._context.inputs["pictures"], split["pictures"], split["identities"], PICTURE):
            for row in attackable(rows).to_pylist():
                yield (row["identity"], row["picture"]), row["image"]

    def _nearest(self, tags: list[tuple[str, str]], embeddings_BD: npt.NDArray[np.float32]) -> pl.DataFrame:
        """Rows of CANDIDATES, and the numbers that the index knows the base pictures by."""
        similarities_BK, ids_BK = self._index.search(embeddings_BD, self._config.neighbours)
        places, ranks = np.nonzero(ids_BK >= 0)
        ids = ids_BK[places, ranks]
        base = pl.DataFrame(self._index.metadata(ids, PLACE))
        about: dict[str, Any] = {
            "identity": [tags[place][0] for place in places],
            "picture": [tags[place][1] for place in places],
            "rank": ranks + 1,
            "similarity": similarities_BK[places, ranks].astype(float),
        }
        placed = pl.DataFrame(about).with_columns(*(base[name] for name in PLACE), pl.Series("id", ids))
        return placed.rename({"image_path": "key"}).select(*CANDIDATES.names, "id")

    def _agreement(self, candidates: pl.DataFrame) -> pa.Table:
        """CLIP's answer, among all people's names, for each picture that is a candidate of a person."""
        asked = candidates.unique(["identity", "id"]).sort("identity", "id")
        answers = list[str]()
        for start in range(0, asked.height, ASKED):
            images_BD = self._embeddings.read(asked["id"].slice(start, ASKED).to_numpy())
            answers += self._identities[(images_BD @ self._names_CD.T).argmax(axis=1)].tolist()
        return (
            asked.with_columns(pl.Series("clip_identity", answers, pl.String))
            .select(AGREEMENT.names)
            .to_arrow()
            .cast(AGREEMENT)
        )


FIND_PHASE = Phase("find", _blocks, _Finder)
