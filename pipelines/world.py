"""`world`: the built-in world of drawn people, background pictures and captions, all from a seed."""

from collections.abc import Iterable

import pyarrow as pa

from idia_core.drawing import Person, draw_background, encode_jpeg
from idia_core.drawing.scenery import SETTINGS
from idia_core.drawn_model import random_weights
from idia_core.identities import PAIRS, PICTURES
from idia_core.synthetic import anonymous_caption, pair_caption, plant_captions
from pipelines.stage import Input, Phase, Split, SplitWriter, Stage, StageContext, once
from pipelines.world_config import (
    ATTACK,
    BACKGROUND,
    LABELLED,
    PAIRS_PER_SPLIT,
    PEOPLE_PER_SPLIT,
    PLANTED,
    TRAINING,
    VALIDATION,
    WorldConfig,
    drawn,
    everybody,
    identities,
)
from pipelines.world_web import WEB_PHASE

CENTRED_ON = 64
"""Pictures, or a few more, of which the mean is taken to be nothing by a model with random weights."""
APPEARANCES = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),  # of the background
        pa.field("identity", pa.string()),  # null for a stranger
        pa.field("person", pa.int64(), nullable=False),  # the number of the drawn person, strangers after the others
    ]
)
"""Who is on the background's pictures of people."""
VALIDATED = pa.schema([*PAIRS, pa.field("label", pa.int64(), nullable=False)])
CLASSES = pa.schema([pa.field("label", pa.int64(), nullable=False), pa.field("name", pa.string(), nullable=False)])
"""A picture without people belongs to the class of its setting, `by the sea` for one."""


def _people(context: StageContext) -> Iterable[Split]:
    for start in range(0, context.config.people, PEOPLE_PER_SPLIT):
        yield {"start": start, "stop": min(start + PEOPLE_PER_SPLIT, context.config.people)}


class _Portraitist:
    """Draws people: the pictures they are attacked with, and pairs of other pictures with captions."""

    def __init__(self, context: StageContext) -> None:
        self._config: WorldConfig = context.config
        self._seed = int(self._config.seed or 0)
        self._identities = identities(context).to_pylist()
        self._people = everybody(context, strangers=0)

    def __call__(self, split: Split, out: SplitWriter) -> None:
        places = range(split["start"], split["stop"])
        pairs = [self._pair(place, i) for place in places for i in range(self._config.training_pictures)]
        pictures = [self._picture(ATTACK, place, i) for place in places for i in range(self._config.attack_pictures)]
        faces = [self._picture(LABELLED, place, i) for place in places for i in range(self._config.labelled_pictures)]
        out.table("pairs", pa.Table.from_pylist(pairs, PAIRS))
        out.table("pictures", pa.Table.from_pylist(pictures, PICTURES))
        if faces:
            out.table("faces", pa.Table.from_pylist(faces, PICTURES))
        total = len(pairs) + len(pictures) + len(faces)
        out.count(rows_in=total, rows_kept=total)

    def _draw(self, person: Person, *seed: int) -> bytes:
        return drawn(person, self._seed, *seed)

    def _pair(self, place: int, i: int) -> dict[str, object]:
        identity = self._identities[place]
        seed = (TRAINING, place, i)
        return {
            "key": f"person{place:05d}-{i:05d}",
            "identity": identity["identity"],
            "caption": pair_caption(identity["name"], identity["sex"], [self._seed, *seed]),
            "image": self._draw(self._people[place], *seed),
        }

    def _picture(self, purpose: int, place: int, i: int) -> dict[str, object]:
        image = self._draw(self._people[place], purpose, place, i)
        identity = self._identities[place]["identity"]
        return {"identity": identity, "picture": f"{i:05d}.jpg", "status": "ok", "image": image}


def _runs(pairs: int) -> Iterable[Split]:
    for start in range(0, pairs, PAIRS_PER_SPLIT):
        yield {"start": start, "stop": min(start + PAIRS_PER_SPLIT, pairs)}


def _backgrounds(context: StageContext) -> Iterable[Split]:
    return _runs(context.config.background_pairs)


def _validation(context: StageContext) -> Iterable[Split]:
    return _runs(context.config.validation_pairs)


class _Painter:
    """Draws pictures without people."""

    def __init__(self, context: StageContext) -> None:
        self._seed = int(context.config.seed or 0)

    def __call__(self, split: Split, out: SplitWriter) -> None:
        rows = self._draw(split, BACKGROUND, "background")
        out.table("background", pa.Table.from_pylist(rows, PAIRS))
        out.count(rows_in=len(rows), rows_kept=len(rows))

    def _draw(self, split: Split, purpose: int, name: str) -> list[dict[str, object]]:
        rows = list[dict[str, object]]()
        for i in range(split["start"], split["stop"]):
            picture, caption = draw_background([self._seed, purpose, i])
            rows.append({"key": f"{name}{i:07d}", "caption": caption, "image": encode_jpeg(picture)})
        return rows


def _planted(context: StageContext) -> Iterable[Split]:
    """Some of the people and strangers who are in the background."""
    config: WorldConfig = context.config
    everybody = config.people + config.strangers if config.planted_pictures else 0
    for start in range(0, everybody, PEOPLE_PER_SPLIT):
        yield {"start": start, "stop": min(start + PEOPLE_PER_SPLIT, everybody)}


class _Planter:
    """Draws people into the background."""

    def __init__(self, context: StageContext) -> None:
        self._config: WorldConfig = context.config
        self._seed = int(self._config.seed or 0)
        self._identities = identities(context).to_pylist()
        strangers = self._config.strangers
        self._sexes = [*(identity["sex"] for identity in self._identities), *("FM"[i % 2] for i in range(strangers))]
        self._people = everybody(context, strangers)

    def __call__(self, split: Split, out: SplitWriter) -> None:
        places = [(place, i) for place in range(split["start"], split["stop"]) for i in range(self._times(place))]
        rows = [self._pair(place, i) for place, i in places]
        known = {place: identity["identity"] for place, identity in enumerate(self._identities)}
        shown = [{"key": _key(place, i), "identity": known.get(place), "person": place} for place, i in places]
        out.table("background", pa.Table.from_pylist(rows, PAIRS), "planted")
        out.table("appearances", pa.Table.from_pylist(shown, APPEARANCES))
        out.count(rows_in=len(rows), rows_kept=len(rows))

    def _times(self, place: int) -> int:
        most, last = self._config.planted_pictures, self._config.people - 1
        return most if place >= last else round(most * place / last)

    def _pair(self, place: int, i: int) -> dict[str, object]:
        seed = (self._seed, PLANTED, place, i)
        caption = anonymous_caption(self._sexes[place], seed)
        return {"key": _key(place, i), "caption": caption, "image": drawn(self._people[place], *seed)}


def _key(place: int, i: int) -> str:
    return f"scene{place:05d}-{i:05d}"


class _Examiner(_Painter):
    """Draws other pictures without people, and labels them."""

    def __call__(self, split: Split, out: SplitWriter) -> None:
        rows = self._draw(split, VALIDATION, "validation")
        labelled = [row | {"label": _label(str(row["caption"]))} for row in rows]
        out.table("validation", pa.Table.from_pylist(labelled, VALIDATED))
        out.count(rows_in=len(rows), rows_kept=len(rows))


def _label(caption: str) -> int:
    """The number of the one setting that a caption names."""
    (label,) = (number for number, name in enumerate(SETTINGS) if name in caption)
    return label


class _Writer:
    """Writes the people's names and the captions in which they are planted."""

    def __init__(self, context: StageContext) -> None:
        self._context = context

    def __call__(self, split: Split, out: SplitWriter) -> None:
        config, people = self._context.config, identities(self._context)
        out.table("identities", people)
        classes = [{"label": label, "name": name} for label, name in enumerate(SETTINGS)]
        out.table("classes", pa.Table.from_pylist(classes, CLASSES))
        captions, planted = plant_captions(people["name"].to_pylist(), config.caption_rows, config.seed)
        out.table("captions", captions)
        out.table("planted", planted)
        out.count(rows_in=captions.num_rows, rows_kept=captions.num_rows)


def _model(context: StageContext) -> Iterable[Split]:
    return once(context) if context.config.model else []


class _Modeller:
    """Writes a model with random weights, centred on pictures of the background and of the web."""

    def __init__(self, context: StageContext) -> None:
        self._context = context

    def __call__(self, split: Split, out: SplitWriter) -> None:
        config: WorldConfig = self._context.config
        tables = ("background", "web") if config.web else ("background",)
        images = [image for table in tables for image in self._context.table(table)["image"].to_pylist()]
        step = max(1, len(images) // CENTRED_ON)
        out.write("model/weights.pt", random_weights(int(config.seed or 0), images[::step]))


STAGE = Stage(
    name="world",
    version=1,
    summary="draw people, scenes and captions",
    config=WorldConfig,
    inputs={"identities": Input("people to plant in the captions instead of drawn ones", optional=True)},
    phases=(
        Phase("people", _people, _Portraitist),
        Phase("background", _backgrounds, _Painter),
        Phase("text", once, _Writer),
        Phase("validation", _validation, _Examiner),
        Phase("planted", _planted, _Planter),
        WEB_PHASE,
        Phase("model", _model, _Modeller),
    ),
    tables=(
        *("identities", "pictures", "pairs", "background", "appearances", "faces"),
        *("captions", "planted", "validation", "classes", "web", "site", "links", "model"),
    ),
)
