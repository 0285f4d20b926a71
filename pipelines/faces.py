"""`faces`: the faces on base pictures, and whose they are (paper, Appendix C)."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import polars as pl
import pyarrow as pa

from idia_core.base_inputs import base_files, read_split
from idia_core.base_samples import BaseSample
from idia_core.face_search import Looked, NamedFace
from idia_core.images import encode_thumbnail
from idia_core.presence import CANDIDATES, CROPS, FACES
from idia_core.sample_status import SampleStatus
from pipelines.base_reading import BACKGROUND, splits_of
from pipelines.candidates import FIND_PHASE
from pipelines.face_looking import detector_files, face_search, recogniser_input
from pipelines.faces_config import FacesConfig
from pipelines.failures import check_failures, note_damage
from pipelines.given_model import WEIGHTS, model_files
from pipelines.stage import Input, Phase, Split, SplitWriter, Stage, StageContext, once

LOOKED = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("part", pa.int64(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("status", pa.string(), nullable=False),  # a `SampleStatus` or `PictureStatus`
        pa.field("width", pa.int64(), nullable=False),  # of the full-size upright picture; 0 where it has none
        pa.field("height", pa.int64(), nullable=False),
        pa.field("faces", pa.int64(), nullable=False),
    ]
)
CROP_SIDE = 112
"""Pixels of the faces that are kept for people to look at."""
NO_FACE = "no_face"
"""Counts the pictures that can be decoded and show no face."""
Place = tuple[int, str]
"""A pair's place in its split, and its key."""


def _candidates(context: StageContext) -> pl.DataFrame:
    if context.config.mode == "full":
        return pl.DataFrame(CANDIDATES.empty_table())
    return pl.DataFrame(context.table("candidates"))


def _splits(context: StageContext) -> Iterable[Split]:
    """The pieces of the base, numbered as `embed` numbers them; those without a candidate are not looked at."""
    config: FacesConfig = context.config
    with_candidates = set(_candidates(context)["part"].unique().to_list())
    for part, split in enumerate(splits_of(context)):
        if config.mode == "full" or part in with_candidates:
            yield {**split, "part": part}


class _Wanted:
    """Which pictures are looked at, and whose sheets their faces are kept for."""

    def __init__(self, candidates: pl.DataFrame, crops_per_person: int) -> None:
        best = candidates.group_by("identity", "part", "row").agg(pl.col("similarity").max())
        nearest = best.sort("identity", "similarity", "part", "row", descending=[False, True, False, False])
        shown = nearest.group_by("identity", maintain_order=True).head(crops_per_person)
        self._rows = {int(part): set(rows["row"]) for (part,), rows in best.partition_by("part", as_dict=True).items()}
        self._sheets = {
            (int(part), int(row)): sorted(rows["identity"])
            for (part, row), rows in shown.partition_by("part", "row", as_dict=True).items()
        }

    def rows(self, part: int) -> set[int]:
        """The places of the candidates in a split."""
        return self._rows.get(part, set())

    def sheets(self, part: int, row: int) -> list[str]:
        """The people for whom a picture's faces are kept."""
        return self._sheets.get((part, row), [])


class _Looker:
    """Finds the faces on the pictures of a split, and names them."""

    def __init__(self, context: StageContext) -> None:
        config: FacesConfig = context.config
        self._config = config
        self._search = face_search(context)
        self._wanted = _Wanted(_candidates(context), config.crops_per_person)

    def __call__(self, split: Split, out: SplitWriter) -> None:
        part = read_split(split)
        note_damage(part, split, out, self._config.tolerate_failed_inputs)
        looked, faces, crops = [list[dict[str, Any]]() for _ in range(3)]
        kept = Counter[str]()
        for seen in self._search.look(self._pictures(split, part.samples)):
            row, key = seen.tag
            place = {"key": key, "source": split["url"], "part": split["part"], "row": row}
            looked.append(place | _about(seen))
            faces += [place | self._face(number, found) for number, found in enumerate(seen.faces)]
            for number, found in enumerate(seen.faces):
                sheets = self._sheets(place, found, kept)
                crops += [place | {"face": number, "identity": who, "image": _thumbnail(found)} for who in sheets]
            out.report(0.0, f"{len(faces):,} faces on {len(looked):,} pictures")
        out.table("looked", pa.Table.from_pylist(looked, LOOKED))
        out.table("faces", pa.Table.from_pylist(faces, FACES))
        out.table("crops", pa.Table.from_pylist(crops, CROPS))
        out.count(**_counts(looked))

    def _pictures(self, split: Split, samples: Iterable[BaseSample]) -> Iterator[tuple[Place, bytes | str]]:
        """The pictures of a split that are looked at, or why they cannot be."""
        everything, rows = self._config.mode == "full", self._wanted.rows(split["part"])
        for row, sample in enumerate(samples):
            if everything or row in rows:
                fine = sample.status is SampleStatus.OK and sample.picture is not None
                yield (row, sample.key), bytes(sample.picture or b"") if fine else str(sample.status)

    def _face(self, number: int, found: NamedFace) -> dict[str, Any]:
        """What FACES says of a face besides its place."""
        box, named = found.face.box, found.recognition
        return {
            "face": number,
            **box._asdict(),
            "detector": self._config.detector.kind,
            "detector_score": found.face.score,
            "identity": named.identity,
            "identity_score": named.score,
        }

    def _sheets(self, place: dict[str, Any], found: NamedFace, kept: Counter[str]) -> list[str]:
        """The people for whose sheets a face is kept; in mode `full` whom it is taken for, while there is room."""
        if self._config.mode == "retrieved":
            return self._wanted.sheets(place["part"], place["row"])
        identity = found.recognition.identity
        if identity is None or kept[identity] >= self._config.crops_per_person:
            return []
        kept[identity] += 1
        return [identity]


def _thumbnail(found: NamedFace) -> bytes:
    return encode_thumbnail(found.crop, CROP_SIDE)


def _about(seen: Looked[Place]) -> dict[str, Any]:
    """What LOOKED says of a picture besides its place."""
    return {"status": seen.status, "width": seen.width, "height": seen.height, "faces": len(seen.faces)}


def _counts(looked: list[dict[str, Any]]) -> Counter[str]:
    """How many pictures were looked at and show a face, and how many are of no use, by what they are."""
    counts = Counter(NO_FACE if row["status"] == "ok" and not row["faces"] else row["status"] for row in looked)
    return Counter(rows_in=len(looked), rows_kept=counts.pop("ok", 0)) + counts


class _Checker:
    """Sees that not too many files failed."""

    def __init__(self, context: StageContext) -> None:
        self._context = context

    def __call__(self, split: Split, out: SplitWriter) -> None:
        check_failures(self._context, base_files(self._context.inputs["background"].files))


def _named_files(config: FacesConfig) -> Mapping[str, str]:
    return {**model_files(config.inputs, config.model), **detector_files(config)}


STAGE = Stage(
    name="faces",
    version=1,
    summary="find faces on base pictures and name them",
    config=FacesConfig,
    inputs={
        "background": BACKGROUND,
        "identities": Input("people (identity, name)"),
        "pictures": Input("their pictures (identity, picture, status, image)"),
        "recogniser": recogniser_input(),
        "index": Input(
            "the base's index, of mode retrieved", patterns=("*/*.index", "*/metadata/*.parquet"), optional=True
        ),
        "embeddings": Input("the base's embeddings, of mode retrieved", patterns=("*.npy",), optional=True),
        "embedded_by": Input("the model that made them (model, sha256)", optional=True),
        "weights": WEIGHTS,
    },
    phases=(FIND_PHASE, Phase("look", _splits, _Looker), Phase("check", once, _Checker)),
    tables=("candidates", "agreement", "looked", "faces", "crops"),
    named_files=_named_files,
)
