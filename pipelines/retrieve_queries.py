"""The first phase of `retrieve`: who is looked for, and what a base is asked.

Axes: B pictures, D embedding dimensions.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from idia_core.caption_names import CaptionNames, Named, check_people
from idia_core.errors import InvalidInputError
from idia_core.identities import IDENTITIES, Role, attackable
from idia_core.images import decode_picture, training_encoding
from idia_core.index_metadata import IndexMetadata
from idia_core.manifest import WORK
from idia_core.models import ClipModel
from idia_core.picture_stream import PictureStream
from idia_core.retrieval import Query
from idia_core.retrieval_index import index_folders
from idia_core.storage import write_whole
from idia_core.zeroshot import SLOT
from pipelines.candidates import check_model
from pipelines.given_model import given_model
from pipelines.retrieve_config import RetrieveConfig
from pipelines.rows_of_people import blocks_of, rows_of
from pipelines.stage import Phase, Split, SplitWriter, StageContext, read_parquet

QUERIES = pa.schema(
    [
        pa.field("identity", pa.string(), nullable=False),
        pa.field("picture", pa.string(), nullable=False),
        pa.field("embedding", pa.list_(pa.float32())),
        pa.field("image", pa.binary()),
    ]
)
PICTURE = ("identity", "picture", "status", "image")
Tag = tuple[str, str]
"""Whose question it is, and the picture's name or the text."""


def folders_of(context: StageContext) -> list[UPath]:
    """The index's folders; none where a service is asked."""
    if context.config.service is not None:
        return []
    index = context.inputs["index"]
    return index_folders(index.files, index.root)


def people_of(context: StageContext) -> list[Named]:
    """Everybody in `identities`, in the order of these."""
    rows = context.inputs["identities"].read_as(IDENTITIES).sort_by("identity").to_pylist()
    return [Named(row["identity"], row["name"], tuple(row["aliases"] or ())) for row in rows]


def caption_names(context: StageContext) -> CaptionNames:
    """Tells whom captions name; those who are not looked for have names too."""
    return CaptionNames(people_of(context), context.config.strict)


def looked_for(context: StageContext) -> set[str]:
    """The identities that are looked for: all, or those with a role in `selection`."""
    everybody = {person.identity for person in people_of(context)}
    if "selection" not in context.inputs:
        return everybody
    roles = context.inputs["selection"].read("identity", "role").to_pylist()
    return everybody & {row["identity"] for row in roles if row["role"] != Role.EXCLUDED}


def blocks(context: StageContext) -> list[list[str]]:
    """The identities of everybody, some at a time: what is asked about them is asked together."""
    identities, each = [person.identity for person in people_of(context)], context.config.people_per_split
    return [identities[first : first + each] for first in range(0, len(identities), each)]


def check_inputs(context: StageContext) -> None:
    """Raise `InvalidInputError` for what can be known to be wrong before anything is embedded."""
    config, where = context.config, "stage retrieve, inputs"
    if (config.service is None) == ("index" not in context.inputs):
        both = "neither an index nor a service is" if config.service is None else "an index and a service are"
        raise InvalidInputError(f"{both} given", where, "Give the input `index`, or `service`.")
    if config.by != "text" and "pictures" not in context.inputs:
        raise InvalidInputError(f"by: {config.by} needs the input `pictures`", where, "Give it, or take by: text.")
    check_people(people_of(context))
    for folder in folders_of(context)[:1]:
        IndexMetadata(folder)


def _checked_blocks(context: StageContext) -> Iterable[Split]:
    """The blocks, with the places of the files of their pictures."""
    check_inputs(context)
    config: RetrieveConfig = context.config
    tables = {} if config.by == "text" else {"pictures": context.inputs["pictures"]}
    return blocks_of([person.identity for person in people_of(context)], config.people_per_split, **tables)


def queries_file(context: StageContext, block: int) -> UPath:
    """Where a block's questions are, as QUERIES."""
    return context.folder / WORK / f"queries/{block:05d}.parquet"


def read_queries(context: StageContext, block: int) -> list[Query]:
    """The questions of a block, by person, in the order in which they are asked."""
    as_text = context.config.by == "text"
    rows = read_parquet(queries_file(context, block), QUERIES.names).to_pylist()
    return [
        Query(
            row["identity"],
            row["picture"],
            place,
            None if row["embedding"] is None else np.array(row["embedding"], np.float32),
            row["image"],
            row["picture"] if as_text else None,
        )
        for place, row in enumerate(rows)
    ]


class _Embedder:
    """Writes a block's questions, pictures in the order of their names; counts pictures that cannot be shown."""

    def __init__(self, context: StageContext) -> None:
        config: RetrieveConfig = context.config
        self._context, self._config = context, config
        self._names = {person.identity: person.name for person in people_of(context)}
        self._looked_for = looked_for(context)
        self._model: ClipModel | None = None
        if config.embeds:
            reference = given_model(context)
            if "embedded_by" in context.inputs:
                check_model(context, reference)
            self._model = ClipModel(reference, config.device, config.batch_size)

    def __call__(self, split: Split, out: SplitWriter) -> None:
        identities = [identity for identity in split["identities"] if identity in self._looked_for]
        asked = self._texts(identities) if self._config.by == "text" else self._pictures(split, identities, out)
        with write_whole(queries_file(self._context, out.part)) as file:
            pq.write_table(pa.Table.from_pylist(list(asked), QUERIES), file)

    def _texts(self, identities: list[str]) -> Iterator[dict[str, Any]]:
        tags = [(one, text.replace(SLOT, self._names[one])) for one in identities for text in self._config.texts]
        found = self._model.encode_texts(text for _, text in tags) if self._model else [None] * len(tags)
        for (identity, text), embedding_D in zip(tags, found, strict=True):
            yield {"identity": identity, "picture": text, "embedding": embedding_D}

    def _pictures(self, split: Split, identities: list[str], out: SplitWriter) -> list[dict[str, Any]]:
        rows = rows_of(self._context.inputs["pictures"], split["pictures"], identities, PICTURE)
        shown = (((r["identity"], r["picture"]), r["image"]) for some in rows for r in attackable(some).to_pylist())
        asked = self._embedded(self._model, shown, out) if self._model else _upright(shown, out)
        return sorted(asked, key=lambda row: (row["identity"], row["picture"]))

    def _embedded(
        self, model: ClipModel, pictures: Iterable[tuple[Tag, bytes]], out: SplitWriter
    ) -> Iterator[dict[str, Any]]:
        stream = PictureStream(model, max(1, int(self._config.resources.cpus)))
        for tags, embeddings_BD in stream.embed(pictures):
            for (identity, picture), embedding_D in zip(tags, embeddings_BD, strict=True):
                yield {"identity": identity, "picture": picture, "embedding": embedding_D}
            out.report(0, stream.words)
        out.count(**stream.failed)


def _upright(pictures: Iterable[tuple[Tag, bytes]], out: SplitWriter) -> Iterator[dict[str, Any]]:
    """The pictures that can be shown, so encoded that a service sees them as a model here would."""
    for (identity, picture), content in pictures:
        decoded, status = decode_picture(content)
        if decoded is None:
            out.count(**{str(status): 1})
        else:
            yield {"identity": identity, "picture": picture, "image": training_encoding(content, decoded)}


EMBED_PHASE = Phase("embed", _checked_blocks, _Embedder)
