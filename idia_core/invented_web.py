"""The web of the built-in world: pictures under captions at URLs, as LAION lists them, and what became of each URL.

People's pictures are there under captions that name them, with all that comes between a name and a pair: links that are
dead, URLs, captions and pictures that come again, pictures of somebody else, and names that only resemble.
"""

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from idia_core.errors import InvalidInputError
from idia_core.synthetic import ENDINGS, anonymous_caption, pair_caption

WEB = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("url", pa.string(), nullable=False),
        pa.field("caption", pa.string(), nullable=False),
        pa.field("image", pa.binary(), nullable=False),
    ]
)
LINKS = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("url", pa.string(), nullable=False),
        pa.field("identity", pa.string()),  # whom the caption names; null where it names nobody
        pa.field("shows", pa.string(), nullable=False),  # a `Shows`
        pa.field("repeats", pa.string()),  # the column that is that of an earlier row of the same person
        pa.field("answers", pa.string(), nullable=False),  # an `Answers`
    ]
)
"""The truth about the web."""
TRAPS = 5
"""Pairs of each person that are there beside the wanted ones, under captions that name the person."""
FEWEST = 3
"""Of a person's links that work, so that there is one for each trap."""


class Shows(StrEnum):
    """What is on a picture."""

    PERSON = "person"  # a new picture of the person
    COPY = "copy"  # one of those, encoded anew
    ATTACK_PICTURE = "attack_picture"  # the first of those, encoded anew
    SOMEBODY_ELSE = "somebody_else"
    SCENE = "scene"


class Answers(StrEnum):
    """What a server has at a URL."""

    PICTURE = "picture"
    GONE = "gone"
    PAGE = "page"
    OPTED_OUT = "opted_out"


class Link(NamedTuple):
    """A row of the web; `number` is that of the picture among those of its kind, and the same for the same picture."""

    path: str
    """Of the URL, below the site."""
    caption: str
    shows: Shows
    number: int
    answers: Answers = Answers.PICTURE
    repeats: str | None = None
    named: bool = True


def links_of_person(place: int, name: str, sex: str | None, counts: tuple[int, int], seed: Sequence[int]) -> list[Link]:
    """The links under captions that name the person, and one whose caption has a longer name.

    `counts` are those of the wanted pairs, each a new picture of its own, and of the dead links among them: a page, one
    that asks not to be used, and others that are gone. No two captions are equal but where one is meant to repeat.
    Raises `InvalidInputError` where fewer than FEWEST links work.
    """
    pairs, dead = counts
    if pairs - dead < FEWEST:
        what = f"{pairs - dead} of {pairs} links of a person work, and it takes {FEWEST}"
        raise InvalidInputError(what, "world.web", "Ask for more `pairs`, or less `link_rot`.")
    order = np.random.default_rng(seed).permutation(pairs).tolist()
    fates = dict(zip(order, [Answers.PAGE, Answers.OPTED_OUT, *[Answers.GONE] * dead][:dead], strict=False))
    first, second, third = order[dead : dead + FEWEST]
    captions = _captions(name, sex, pairs + TRAPS - 1, seed)
    longer = pair_caption(name + ENDINGS[place % len(ENDINGS)], sex, [*seed, 0])
    own = [_own(place, number, captions[number], fates.get(number, Answers.PICTURE)) for number in range(pairs)]
    copy, again, stranger, attack = captions[pairs:]
    return [
        *own,
        own[first]._replace(path=f"{place:05d}/copy.jpg", caption=copy, shows=Shows.COPY),
        own[second]._replace(caption=again, repeats="url"),
        _own(place, pairs, captions[third], Answers.PICTURE)._replace(repeats="caption"),
        Link(f"{place:05d}/other.jpg", stranger, Shows.SOMEBODY_ELSE, 2 * place),
        Link(f"{place:05d}/attack.jpg", attack, Shows.ATTACK_PICTURE, 0),
        Link(f"{place:05d}/longer.jpg", longer, Shows.SOMEBODY_ELSE, 2 * place + 1, named=False),
    ]


def _captions(name: str, sex: str | None, count: int, seed: Sequence[int]) -> list[str]:
    """Different captions that name the person."""
    found, number = dict[str, None](), 0
    while len(found) < count:
        found[pair_caption(name, sex, [*seed, number])] = None
        number += 1
    return list(found)


def _own(place: int, number: int, caption: str, answers: Answers) -> Link:
    folder = "noai/" if answers is Answers.OPTED_OUT else ""
    return Link(f"{folder}{place:05d}/{number:03d}.jpg", caption, Shows.PERSON, number, answers)


def links_of_others(start: int, stop: int, first: int, seed: Sequence[int]) -> Iterator[Link]:
    """Links under captions that name nobody: a stranger, whose number is counted from `first` on, and a scene in turn.

    The caption of a scene is empty: whoever draws it knows.
    """
    for number in range(start, stop):
        path = f"others/{number:07d}.jpg"
        if number % 2:
            yield Link(path, "", Shows.SCENE, number, named=False)
        else:
            caption = anonymous_caption(None, [*seed, number])
            yield Link(path, caption, Shows.SOMEBODY_ELSE, first + number, named=False)
