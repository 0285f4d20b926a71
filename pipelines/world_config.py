"""The settings of `world`, and who is in it."""

import pyarrow as pa
from pydantic import Field

from idia_core.config import SeededConfig, Strict
from idia_core.drawing import Person, draw_face, encode_jpeg, invent_people
from idia_core.identities import IDENTITIES
from idia_core.synthetic import invent_identities
from pipelines.stage import StageContext

PEOPLE_PER_SPLIT, PAIRS_PER_SPLIT = 3, 100
TRAINING, ATTACK, BACKGROUND, VALIDATION, PLANTED, LABELLED, WEB_SEED = range(7)
"""First word of a picture's seed after the world's own: what the picture is for."""


class WebConfig(Strict):
    """The web of the world."""

    pairs: int = Field(default=16, ge=3)
    """Links of each person: other pictures under captions with the person's name. There are five more that repeat
    something, or show an attack picture or somebody else; and one whose caption has a longer name."""
    link_rot: float = Field(default=0.25, ge=0, lt=1)
    """The share of these links that no longer work."""
    others: int = Field(default=200, ge=0)
    """Links under captions that name nobody, of strangers and scenes."""
    site: str = Field(default="http://127.0.0.1:18765", pattern=r"^https?://[^/]+$")
    """Where the URLs begin; files for a server that is there are in `site`."""


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
    labelled_pictures: int = Field(default=0, ge=0)
    """Other pictures of each person, `faces`, to teach a recogniser."""
    web: WebConfig | None = None
    """A web that can be embedded, indexed, searched and fetched from; none when not given."""
    model: bool = False
    """Write a CLIP model with random weights, `model`, which tells pictures apart and has learned nothing."""
    caption_rows: int = Field(default=200_000, ge=0)
    """Rows of the caption collection in which the names are planted."""


def identities(context: StageContext) -> pa.Table:
    """The people of the world: those given, or invented ones."""
    if "identities" in context.inputs:
        return context.inputs["identities"].read(*IDENTITIES.names)
    return invent_identities(context.config.people, context.config.seed).cast(IDENTITIES)


def everybody(context: StageContext, strangers: int) -> list[Person]:
    """The drawn people, and so many strangers after them; the first of these are always the same."""
    config: WorldConfig = context.config
    sexes = [
        *(identity["sex"] for identity in identities(context).to_pylist()),
        *("FM"[i % 2] for i in range(strangers)),
    ]
    return invent_people(config.people + strangers, int(config.seed or 0), sexes)


def drawn(person: Person, *seed: int) -> bytes:
    """A picture of the person, as a JPEG."""
    return encode_jpeg(draw_face(person, seed))
