"""`people` and `panel`: people with their pictures, from folders, FaceScrub or tables, at any fsspec URL.

The fingerprint covers the folders' files and the tables; not the files and tars that a table points to.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import Field

from idia_core.config import SeededConfig
from idia_core.errors import InvalidInputError
from idia_core.identities import IDENTITIES, PAIRS, PICTURES
from idia_core.images import MAX_PIXELS, PictureStatus, decode_picture, training_encoding
from idia_core.people_sources import Found, Kind, corrected, people_of_folders, read_corrections
from idia_core.people_tables import is_table, people_of_tables
from idia_core.picture_sources import Content, read_pictures
from idia_core.synthetic import pair_caption
from pipelines.stage import Input, Phase, ResolvedInput, Split, SplitWriter, Stage, StageContext


class PeopleConfig(SeededConfig):
    """Settings of `people` and `panel`."""

    training_pictures: int = Field(default=0, ge=0)
    """Pictures of each person set apart as training pairs, with invented captions; the others are attack pictures."""
    facescrub_pictures: Kind = "faces"
    """Which of FaceScrub's pictures are taken where both are there: the cut-out `faces`, or the whole `images`."""
    max_pixels: int = Field(default=MAX_PIXELS, ge=1, le=MAX_PIXELS)
    """Pictures with more pixels than this are not decoded: they may be decompression bombs."""
    people_per_split: int = Field(default=16, ge=1)
    """People in one piece of work, whose encoded pictures are in memory at the same time."""


def _find(source: ResolvedInput, config: PeopleConfig) -> Found:
    """The people of the input: of its tables if it is one or holds some, of its folders otherwise."""
    if not source.root.is_dir():
        if others := [file for file in source.files if not is_table(file)]:
            fix = "Give a folder with a folder for each person, or Parquet or CSV."
            raise InvalidInputError("neither a folder nor a table of people", str(others[0]), fix)
        return people_of_tables(source.files)
    top = source.root.path.rstrip("/")
    tables = [file for file in source.files if is_table(file) and file.parent.path.rstrip("/") == top]
    return (
        people_of_tables(tables) if tables else people_of_folders(source.root, source.files, config.facescrub_pictures)
    )


def _blocks(context: StageContext) -> Iterable[Split]:
    config: PeopleConfig = context.config
    found = _find(context.inputs["people"], config)
    extra = context.inputs["corrections"].files[0] if "corrections" in context.inputs else None
    people = corrected(found.people, read_corrections(extra))
    for first in range(0, len(people), config.people_per_split):
        block = [asdict(person) for person in people[first : first + config.people_per_split]]
        yield {"first": first, "people": block, "notes": found.notes if first == 0 else ()}


class _Picture(NamedTuple):
    name: str
    content: bytes | None
    status: PictureStatus


class _Reader:
    """Reads a block of people: readable pictures are dealt out by a seeded draw, others kept with their status."""

    def __init__(self, context: StageContext) -> None:
        self._config: PeopleConfig = context.config
        self._seed = int(self._config.seed or 0)

    def __call__(self, split: Split, out: SplitWriter) -> None:
        people = split["people"]
        read = read_pictures([person["pictures"] for person in people])
        pictures: list[dict[str, Any]] = []
        pairs: list[dict[str, Any]] = []
        statuses: Counter[str] = Counter()
        for place, person in enumerate(people):
            checked = self._checked(read.pictures[place])
            training = self._drawn_for_training(checked, split["first"] + place)
            pictures += [_row(person, p) for i, p in enumerate(checked) if i not in training]
            pairs += self._pairs(person, split["first"] + place, [checked[i] for i in sorted(training)])
            statuses.update(str(picture.status) for picture in checked)
        out.table("identities", pa.Table.from_pylist([_identity(person) for person in people], IDENTITIES))
        out.table("pictures", pa.Table.from_pylist(pictures, PICTURES))
        out.table("pairs", pa.Table.from_pylist(pairs, PAIRS))
        kept = statuses.pop(PictureStatus.OK, 0)
        out.count(rows_in=kept + statuses.total(), rows_kept=kept, **statuses)
        for kind, facts in (("layout", split["notes"]), ("damaged_tars", read.damaged)):
            for fact in facts:
                out.note(kind, fact)

    def _checked(self, read: list[tuple[str, Content]]) -> list[_Picture]:
        """A person's pictures with their statuses; one that shows exactly what an earlier one shows is a duplicate."""
        seen: set[bytes] = set()
        checked = []
        for name, content in read:
            if isinstance(content, PictureStatus):
                checked.append(_Picture(name, None, content))
                continue
            picture, status = decode_picture(content, self._config.max_pixels)
            if picture is not None:
                digest = hashlib.sha256(str(picture.size).encode() + picture.tobytes()).digest()
                status = PictureStatus.DUPLICATE if digest in seen else status
                seen.add(digest)
            checked.append(_Picture(name, content if status is PictureStatus.OK else None, status))
        return checked

    def _drawn_for_training(self, pictures: list[_Picture], place: int) -> set[int]:
        good = [i for i, picture in enumerate(pictures) if picture.status is PictureStatus.OK]
        order = np.random.default_rng([self._seed, place]).permutation(good)
        return {int(i) for i in order[: self._config.training_pictures]}

    def _pairs(self, person: dict[str, Any], place: int, pictures: list[_Picture]) -> list[dict[str, Any]]:
        return [
            {
                "key": f"person{place:05d}-{rank:05d}",
                "identity": person["identity"],
                "caption": pair_caption(person["name"], person["sex"], [self._seed, place, rank]),
                "image": _for_training(picture.content or b""),
            }
            for rank, picture in enumerate(pictures)
        ]


def _identity(person: dict[str, Any]) -> dict[str, Any]:
    return {key: person[key] for key in IDENTITIES.names} | {"aliases": person["aliases"] or None}


def _row(person: dict[str, Any], picture: _Picture) -> dict[str, Any]:
    status = str(picture.status)
    return {"identity": person["identity"], "picture": picture.name, "status": status, "image": picture.content}


def _for_training(content: bytes) -> bytes:
    picture, _ = decode_picture(content)
    return content if picture is None else training_encoding(content, picture)


STAGE = Stage(
    name="people",
    version=2,
    summary="read your own people's pictures",
    config=PeopleConfig,
    inputs={
        "people": Input(
            "a folder of pictures for each person, FaceScrub, or a table (name; image, path, or tar and member)",
            patterns=("*/*", "*/*/*", "*/*/*/*", "*.parquet"),
        ),
        "corrections": Input("names to correct: CSV (given, name)", patterns=("*.csv",), optional=True),
    },
    phases=(Phase("read", _blocks, _Reader),),
    tables=("identities", "pictures", "pairs"),
)
PANEL = replace(STAGE, name="panel", summary="read the pictures of a reference panel of other people")
