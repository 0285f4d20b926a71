"""`world`: the built-in world of drawn people, background pictures and captions, all from a seed."""

from collections.abc import Iterable

import pyarrow as pa
from pydantic import Field

from idia_core.config import SeededConfig
from idia_core.drawing import Person, draw_background, draw_face, encode_jpeg, invent_people
from idia_core.drawing.scenery import SETTINGS
from idia_core.identities import IDENTITIES, PAIRS, PICTURES
from idia_core.synthetic import anonymous_caption, invent_identities, pair_caption, plant_captions
from pipelines.stage import Input, Phase, Split, SplitWriter, Stage, StageContext, once

PEOPLE_PER_SPLIT, PAIRS_PER_SPLIT = 3, 100
TRAINING, ATTACK, BACKGROUND, VALIDATION, PLANTED = range(5)
"""First word of a picture's seed after the world's own: what the picture is for."""
APPEARANCES = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),  # of the background
        pa.field("identity", pa.string()),  # null for a stranger
        pa.field("person", pa.int64(), nullable=False),  # the number of the drawn person, strangers after the others
    ]
)
"""Who is on the background's pictures of people."""
LABELLED = pa.schema([*PAIRS, pa.field("label", pa.int64(), nullable=False)])
CLASSES = pa.schema([pa.field("label", pa.int64(), nullable=False), pa.field("name", pa.string(), nullable=False)])
"""A picture without people belongs to the class of its setting, `by the sea` for one."""


class WorldConfig(SeededConfig):
    """Settings of `world`."""

    people: int = Field(default=0, ge=0)
    """People to draw; 0 when `identities` are given."""
    training_pictures: int = Field(default=25, ge=0)
    """Pairs drawn for each person."""
    attack_pictures: int = Field(default=15, ge=0)
    """Other pictures drawn for each person."""
    background_pairs: int = Field(default=1000, ge=0)
    """Pairs without people."""
    validation_pairs: int = Field(default=0, ge=0)
    """Other pairs without people, labelled with their setting, to test models on."""
    planted_pictures: int = Field(default=0, ge=0)
    """Other pictures of the last person in the background, under captions without a name; the first has none, and those
    between have ever more of them. `appearances` tells which they are."""
    strangers: int = Field(default=0, ge=0)
    """Other people in the background, with as many pictures each as the last person."""
    caption_rows: int = Field(default=200_000, ge=0)
    """Rows of the caption collection in which the names are planted."""


def identities(context: StageContext) -> pa.Table:
    """The people of the world: those given, or invented ones."""
    if "identities" in context.inputs:
        return context.inputs["identities"].read(*IDENTITIES.names)
    return invent_identities(context.config.people, context.config.seed).cast(IDENTITIES)


def _people(context: StageContext) -> Iterable[Split]:
    for start in range(0, context.config.people, PEOPLE_PER_SPLIT):
        yield {"start": start, "stop": min(start + PEOPLE_PER_SPLIT, context.config.people)}


def _drawn(person: Person, *seed: int) -> bytes:
    return encode_jpeg(draw_face(person, seed))


class _Portraitist:
    """Draws people: the pictures they are attacked with, and pairs of other pictures with captions."""

    def __init__(self, context: StageContext) -> None:
        self._config: WorldConfig = context.config
        self._seed = int(self._config.seed or 0)
        self._identities = identities(context).to_pylist()
        sexes = [identity["sex"] for identity in self._identities]
        self._people = invent_people(self._config.people, self._seed, sexes)

    def __call__(self, split: Split, out: SplitWriter) -> None:
        places = range(split["start"], split["stop"])
        pairs = [self._pair(place, i) for place in places for i in range(self._config.training_pictures)]
        pictures = [self._picture(place, i) for place in places for i in range(self._config.attack_pictures)]
        out.table("pairs", pa.Table.from_pylist(pairs, PAIRS))
        out.table("pictures", pa.Table.from_pylist(pictures, PICTURES))
        drawn = len(pairs) + len(pictures)
        out.count(rows_in=drawn, rows_kept=drawn)

    def _draw(self, person: Person, *seed: int) -> bytes:
        return _drawn(person, self._seed, *seed)

    def _pair(self, place: int, i: int) -> dict[str, object]:
        identity = self._identities[place]
        seed = (TRAINING, place, i)
        return {
            "key": f"person{place:05d}-{i:05d}",
            "identity": identity["identity"],
            "caption": pair_caption(identity["name"], identity["sex"], [self._seed, *seed]),
            "image": self._draw(self._people[place], *seed),
        }

    def _picture(self, place: int, i: int) -> dict[str, object]:
        image = self._draw(self._people[place], ATTACK, place, i)
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
        self._people = invent_people(self._config.people + strangers, self._seed, self._sexes)

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
        return {"key": _key(place, i), "caption": caption, "image": _drawn(self._people[place], *seed)}


def _key(place: int, i: int) -> str:
    return f"scene{place:05d}-{i:05d}"


class _Examiner(_Painter):
    """Draws other pictures without people, and labels them."""

    def __call__(self, split: Split, out: SplitWriter) -> None:
        rows = self._draw(split, VALIDATION, "validation")
        labelled = [row | {"label": _label(str(row["caption"]))} for row in rows]
        out.table("validation", pa.Table.from_pylist(labelled, LABELLED))
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
    ),
    tables=(
        *("identities", "pictures", "pairs", "background", "appearances"),
        *("captions", "planted", "validation", "classes"),
    ),
)
