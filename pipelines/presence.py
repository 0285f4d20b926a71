"""`presence`: how often each person appears in the base already, and a contact sheet of each (paper, Appendix C)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from idia_core.config import StageConfig
from idia_core.contact_sheet import CROP, INDEX, Sheet, ShownFace, render_index, render_sheet, shown_faces
from idia_core.errors import InvalidInputError
from idia_core.evidence import page_of
from idia_core.images import PictureStatus, decode_picture, encode_thumbnail
from idia_core.presence import (
    AGREEMENT,
    CANDIDATES,
    CROPS,
    PICTURE,
    SEEN,
    check_people,
    faces_of_people,
    faces_on_candidates,
    presence_among_candidates,
    presence_in_all,
)
from pipelines.rows_of_people import blocks_of, rows_of
from pipelines.stage import Input, Phase, Split, SplitWriter, Stage, StageContext, once, read_parquet

SIDE = 168
"""Pixels of the pictures on a sheet, which shows them at two thirds of it."""
OWN_PICTURES = pa.schema(
    [
        pa.field("identity", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("image", pa.binary()),
    ]
)
COLUMNS: Mapping[str, pa.Schema] = {
    "candidates": pa.schema([CANDIDATES.field(column) for column in ("identity", *PICTURE, "rank")]),
    "agreement": pa.schema([AGREEMENT.field(column) for column in ("identity", *PICTURE, "clip_identity")]),
    "crops": pa.schema([CROPS.field(column) for column in (*CROP, "key")]),
    "pictures": OWN_PICTURES,
}
"""What is read of the inputs that may be missing, a block of people at a time; images only when they are shown."""


class PresenceConfig(StageConfig):
    """Settings of `presence`."""

    pictures_shown: int = Field(default=8, ge=0)
    """The person's own pictures on a contact sheet."""
    hits_shown: int = Field(default=60, ge=0)
    """Faces on a contact sheet that were taken for the person."""
    misses_shown: int = Field(default=24, ge=0)
    """Faces on a contact sheet that were not."""
    people_per_split: int = Field(default=64, ge=1)
    """People who are counted in one pass over the faces."""


def _people(context: StageContext) -> dict[str, str]:
    """Everybody's name by identity, in the order of the pages."""
    rows = context.inputs["identities"].read("identity", "name").to_pylist()
    check_people([row["identity"] for row in rows], "stage presence, input identities")
    return {row["identity"]: row["name"] for row in sorted(rows, key=lambda row: str(row["identity"]))}


def _blocks(context: StageContext) -> Iterable[Split]:
    if "agreement" in context.inputs and "candidates" not in context.inputs:
        what = "there is `agreement` but no `candidates`"
        raise InvalidInputError(
            what, "stage presence, inputs", "Give both, or neither where all of a base was looked at."
        )
    size, people = context.config.people_per_split, list(_people(context))
    tables = {field: context.inputs[field] for field in COLUMNS if field in context.inputs}
    for place, block in enumerate(blocks_of(people, size, **tables)):
        yield {"first": place * size, **block}


class _Picked(NamedTuple):
    """The faces on one person's sheet, rows of `SHOWN`, and how many more there are."""

    hits: pa.Table
    more_hits: int
    misses: pa.Table
    more_misses: int


def _pick(shown: pa.Table, identity: str, config: PresenceConfig) -> _Picked:
    mine = shown.filter(pc.equal(shown["identity"], identity))
    hits, misses = mine.filter(mine["hit"]), mine.filter(pc.invert(mine["hit"]))
    return _Picked(
        hits.slice(0, config.hits_shown),
        max(0, hits.num_rows - config.hits_shown),
        misses.slice(0, config.misses_shown),
        max(0, misses.num_rows - config.misses_shown),
    )


class _Counter:
    """Counts a block of people in one pass over the faces, and writes their sheets."""

    def __init__(self, context: StageContext) -> None:
        self._context, self._config, self._names = context, context.config, _people(context)

    def __call__(self, split: Split, out: SplitWriter) -> None:
        identities, candidates = split["identities"], self._rows("candidates", split)
        batches = (read_parquet(file, SEEN) for file in self._context.inputs["faces"].files)
        if candidates is None:
            seen = faces_of_people(batches, identities)
            faces, presence = seen.faces, presence_in_all(identities, seen)
        else:
            faces = faces_on_candidates(batches, candidates)
            agreement = self._rows("agreement", split)
            presence = presence_among_candidates(identities, candidates, faces, agreement)
        out.table("presence", presence)
        crops = self._rows("crops", split)
        shown = shown_faces(COLUMNS["crops"].empty_table() if crops is None else crops, faces, candidates)
        self._write_sheets(split, presence, shown, out, full=candidates is None)
        looked_for = pc.sum(pc.is_valid(presence["hit_rate"])).as_py()
        out.count(rows_in=len(identities), rows_kept=looked_for, no_candidates=len(identities) - looked_for)

    def _rows(self, field: str, split: Split) -> pa.Table | None:
        """The block's rows of an input; None where it is not given."""
        if field not in self._context.inputs:
            return None
        schema = COLUMNS[field]
        found = rows_of(self._context.inputs[field], split[field], split["identities"], schema.names)
        return pa.concat_tables([schema.empty_table(), *(rows.cast(schema) for rows in found)])

    def _write_sheets(self, split: Split, presence: pa.Table, shown: pa.Table, out: SplitWriter, *, full: bool) -> None:
        own = self._own_pictures(split)
        picked = {identity: _pick(shown, identity, self._config) for identity in split["identities"]}
        images = self._images(split, [faces for one in picked.values() for faces in (one.hits, one.misses)])
        for place, row in enumerate(presence.to_pylist(), start=split["first"] + 1):
            identity, one = row["identity"], picked[row["identity"]]
            sheet = Sheet(
                identity=identity,
                name=self._names[identity],
                presence=row,
                pictures=own.get(identity, ()),
                hits=self._faces(one.hits, images, out),
                more_hits=one.more_hits,
                misses=self._faces(one.misses, images, out),
                more_misses=one.more_misses,
            )
            out.write(f"sheets/{page_of(place)}", render_sheet(sheet, full=full).encode())

    def _images(self, split: Split, shown: Sequence[pa.Table]) -> dict[tuple[Any, ...], bytes]:
        """The crops that are shown, with one row group of the others in memory at a time."""
        images = dict[tuple[Any, ...], bytes]()
        if "crops" not in self._context.inputs:
            return images
        wanted = pl.DataFrame(pa.concat_tables(shown)).select(CROP)
        for rows in rows_of(self._context.inputs["crops"], split["crops"], split["identities"], (*CROP, "image")):
            found = pl.DataFrame(rows).join(wanted, on=CROP, how="semi", maintain_order="left")
            for *crop, image in found.iter_rows():
                images.setdefault(tuple(crop), image)
        return images

    def _faces(self, faces: pa.Table, images: Mapping[tuple[Any, ...], bytes], out: SplitWriter) -> list[ShownFace]:
        shown = []
        for row in faces.to_pylist():
            image = _small(images[tuple(row[column] for column in CROP)])
            out.count(unreadable_crops=int(image is None))
            taken_for = self._names.get(row["taken_for"], row["taken_for"])
            shown.append(ShownFace(image, row["key"], taken_for, row["score"], row["rank"]))
        return shown

    def _own_pictures(self, split: Split) -> Mapping[str, Sequence[bytes]]:
        """Small JPEGs of the first readable pictures of each of the block's people."""
        found = dict[str, list[bytes]]()
        if "pictures" not in self._context.inputs:
            return found
        table = self._context.inputs["pictures"]
        for rows in rows_of(table, split["pictures"], split["identities"], OWN_PICTURES.names):
            for row in _readable(rows):
                mine = found.setdefault(row["identity"], [])
                if len(mine) < self._config.pictures_shown and (image := _small(row["image"])) is not None:
                    mine.append(image)
        return found


def _readable(pictures: pa.Table) -> Iterator[dict[str, Any]]:
    """The rows with a picture, one in memory at a time."""
    good = pictures.filter(pc.equal(pictures["status"], str(PictureStatus.OK)))
    for place in range(good.num_rows):
        yield good.slice(place, 1).to_pylist()[0]


def _small(image: bytes) -> bytes | None:
    picture, _ = decode_picture(image)
    return None if picture is None else encode_thumbnail(picture, SIDE)


class _Summary:
    """Writes the page of all people, and the table as CSV."""

    def __init__(self, context: StageContext) -> None:
        self._context = context

    def __call__(self, split: Split, out: SplitWriter) -> None:
        names, presence = _people(self._context), self._context.table("presence")
        out.csv("presence", presence)
        rows = [
            row | {"name": names[row["identity"]], "page": page_of(place)}
            for place, row in enumerate(presence.to_pylist(), start=1)
        ]
        out.write(f"sheets/{INDEX}", render_index(rows, full="candidates" not in self._context.inputs).encode())
        out.count(candidates_of_others=self._candidates_of_others(list(names)))

    def _candidates_of_others(self, identities: Sequence[str]) -> int:
        """Rows of candidates that were not counted, as nobody of `identities` is who they are for."""
        wanted, others = pa.array(identities, pa.string()), 0
        for file in self._context.inputs["candidates"].files if "candidates" in self._context.inputs else ():
            mine = pc.is_in(read_parquet(file, ["identity"])["identity"], wanted)
            others += len(mine) - (pc.sum(mine).as_py() or 0)
        return others


STAGE = Stage(
    name="presence",
    version=1,
    summary="count how often people are in the base",
    config=PresenceConfig,
    inputs={
        "identities": Input("people (identity, name)"),
        "faces": Input("faces found in the base (part, row, face, identity, identity_score)"),
        "candidates": Input("base pictures near to people's own (identity, part, row, rank)", optional=True),
        "agreement": Input("whom CLIP takes candidates for (identity, part, row, clip_identity)", optional=True),
        "crops": Input("faces cut out (key, part, row, face, identity, image)", optional=True),
        "pictures": Input("people's own pictures (identity, status, image)", optional=True),
    },
    phases=(Phase("count", _blocks, _Counter), Phase("summary", once, _Summary)),
    tables=("presence", "sheets", "csv"),
)
