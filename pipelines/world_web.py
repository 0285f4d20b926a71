"""The phase of `world` that draws its web: what was embedded of it, the files that are still there, and the truth."""

from collections.abc import Iterable, Iterator

import pyarrow as pa

from idia_core.drawing import draw_background, draw_face, encode_jpeg
from idia_core.invented_web import LINKS, WEB, Answers, Link, Shows, links_of_others, links_of_person
from pipelines.stage import Phase, Split, SplitWriter, StageContext
from pipelines.world_config import (
    ATTACK,
    PAIRS_PER_SPLIT,
    PEOPLE_PER_SPLIT,
    WEB_SEED,
    WebConfig,
    WorldConfig,
    drawn,
    everybody,
    identities,
)

STRANGERS = 8
"""People of the web who are nowhere else."""
COPY_QUALITY = 60
"""Of a JPEG that is encoded anew."""
PAGE = b"<!DOCTYPE html><title>Gone</title><p>The picture that was here has been taken down."


def _web(context: StageContext) -> Iterable[Split]:
    """Some people each, and then some other links each."""
    config: WorldConfig = context.config
    if config.web is None:
        return
    for others, total, each in ((False, config.people, PEOPLE_PER_SPLIT), (True, config.web.others, PAIRS_PER_SPLIT)):
        for start in range(0, total, each):
            yield {"others": others, "start": start, "stop": min(start + each, total)}


class _Weaver:
    """Draws the pictures of links."""

    def __init__(self, context: StageContext) -> None:
        self._config: WorldConfig = context.config
        self._web = self._config.web or WebConfig()
        self._seed = int(self._config.seed or 0)
        self._identities = identities(context).to_pylist()
        self._people = everybody(context, self._config.strangers + STRANGERS)

    def __call__(self, split: Split, out: SplitWriter) -> None:
        rows, truth = list[dict[str, object]](), list[dict[str, object]]()
        for number, (place, link) in enumerate(self._links(split)):
            image, caption = self._shown(place, link)
            row = {"key": f"{out.part:05d}{number:05d}", "url": f"{self._web.site}/{link.path}"}
            identity = self._identities[place]["identity"] if link.named else None
            rows.append(row | {"caption": caption, "image": image})
            truth.append(row | link._asdict() | {"identity": identity})
            if link.answers is not Answers.GONE and link.repeats != "url":
                out.write(f"site/{link.path}", PAGE if link.answers is Answers.PAGE else image)
        out.table("web", pa.Table.from_pylist(rows, WEB))
        out.table("links", pa.Table.from_pylist(truth, LINKS))
        out.count(rows_in=len(rows), rows_kept=len(rows))

    def _links(self, split: Split) -> Iterator[tuple[int, Link]]:
        """The links of a split, each with the place of the person whose they are, or the links' own."""
        numbers, seed, people = range(split["start"], split["stop"]), self._seeds(), self._config.people
        if split["others"]:
            yield from enumerate(links_of_others(numbers.start, numbers.stop, 2 * people, [*seed, people]))
            return
        dead = round(self._web.pairs * self._web.link_rot)
        for place in numbers:
            person = self._identities[place]
            links = links_of_person(place, person["name"], person["sex"], (self._web.pairs, dead), [*seed, place])
            yield from ((place, link) for link in links)

    def _seeds(self, *more: int) -> tuple[int, ...]:
        return (self._seed, WEB_SEED, *more)

    def _shown(self, place: int, link: Link) -> tuple[bytes, str]:
        """The picture of a link, and its caption."""
        if link.shows is Shows.SCENE:
            picture, caption = draw_background(self._seeds(link.number))
            return encode_jpeg(picture), caption
        if link.shows is Shows.SOMEBODY_ELSE:
            stranger = self._config.people + self._config.strangers + link.number % STRANGERS
            return drawn(self._people[stranger], *self._seeds(stranger, link.number)), link.caption
        purpose = ATTACK if link.shows is Shows.ATTACK_PICTURE else WEB_SEED
        picture = draw_face(self._people[place], (self._seed, purpose, place, link.number))
        is_new = link.shows is Shows.PERSON
        return encode_jpeg(picture) if is_new else encode_jpeg(picture, COPY_QUALITY), link.caption


WEB_PHASE = Phase("web", _web, _Weaver)
