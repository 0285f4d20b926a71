"""`people`: your own people, a folder of pictures each."""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
from pydantic import Field
from upath import UPath

from idia_core.config import SeededConfig
from idia_core.errors import MissingInputError
from idia_core.identities import IDENTITIES, PAIRS, PICTURES
from idia_core.images import PictureStatus, decode_picture, training_encoding
from idia_core.leakage import pixel_digest
from idia_core.names import check_names, name_from_folder
from idia_core.synthetic import pair_caption
from pipelines.stage import Input, Phase, Split, SplitWriter, Stage, StageContext


class PeopleConfig(SeededConfig):
    """Settings of `people`."""

    training_pictures: int = Field(default=0, ge=0)
    """Pictures of each person set apart as training pairs, with invented captions; the others are attack pictures."""


def _folders(context: StageContext) -> Iterable[Split]:
    source = context.inputs["folder"]
    folders = sorted((child for child in source.root.iterdir() if child.is_dir()), key=lambda child: child.name)
    where = f"stage people, {source.root}"
    if not folders:
        raise MissingInputError("no sub-folder of pictures", where, "Make one for each person: First_Last/*.jpg.")
    check_names([name_from_folder(folder.name) for folder in folders])
    for place, folder in enumerate(folders):
        files = sorted(str(file) for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
        yield {"name": name_from_folder(folder.name), "place": place, "files": files}


class _Reader:
    """Reads one person's folder: readable pictures are dealt out by a seeded draw, others kept with their status."""

    def __init__(self, context: StageContext) -> None:
        self._config: PeopleConfig = context.config

    def __call__(self, split: Split, out: SplitWriter) -> None:
        name, seed = split["name"], int(self._config.seed or 0)
        read = [_read(UPath(file)) for file in split["files"]]
        statuses = _mark_duplicates(read)
        good = [i for i, status in enumerate(statuses) if status is PictureStatus.OK]
        order = np.random.default_rng([seed, split["place"]]).permutation(good)
        training = {int(i) for i in order[: self._config.training_pictures]}
        names = [UPath(file).name.encode(errors="replace").decode() for file in split["files"]]
        pictures = [
            {"identity": name, "picture": names[i], "status": str(status), "image": read[i][0] if i in good else None}
            for i, status in enumerate(statuses)
            if i not in training
        ]
        pairs = [
            {
                "key": f"person{split['place']:05d}-{rank:05d}",
                "identity": name,
                "caption": pair_caption(name, None, [seed, split["place"], rank]),
                "image": _for_training(read[i][0]),
            }
            for rank, i in enumerate(sorted(training))
        ]
        out.table("identities", pa.Table.from_pylist([{"identity": name, "name": name}], IDENTITIES))
        out.table("pictures", pa.Table.from_pylist(pictures, PICTURES))
        out.table("pairs", pa.Table.from_pylist(pairs, PAIRS))
        bad = {str(status): statuses.count(status) for status in set(statuses) - {PictureStatus.OK}}
        out.count(rows_in=len(read), rows_kept=len(good), **bad)


def _read(file: UPath) -> tuple[bytes, PictureStatus]:
    content = file.read_bytes()
    return content, decode_picture(content)[1]


def _mark_duplicates(read: list[tuple[bytes, PictureStatus]]) -> list[PictureStatus]:
    """The pictures' statuses; one that shows exactly what an earlier one shows is a duplicate."""
    seen: set[str] = set()
    statuses = []
    for content, status in read:
        digest = pixel_digest(content)
        statuses.append(PictureStatus.DUPLICATE if status is PictureStatus.OK and digest in seen else status)
        seen.add(digest)
    return statuses


def _for_training(content: bytes) -> bytes:
    picture, _ = decode_picture(content)
    return content if picture is None else training_encoding(content, picture)


STAGE = Stage(
    name="people",
    version=1,
    summary="read your own people's pictures",
    config=PeopleConfig,
    inputs={"folder": Input("a sub-folder of pictures for each person", patterns=("*/*",))},
    phases=(Phase("read", _folders, _Reader),),
    tables=("identities", "pictures", "pairs"),
)
