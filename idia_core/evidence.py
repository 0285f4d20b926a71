"""The pages of an audit: one for all of it and one for each person, in plain words, from what `audit.json` holds.

Axes: P pictures of one person, N templates, K names of a pool.
"""

import base64
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from jinja2 import Environment

from idia_core.audit_json import AuditFile, Favourite, Model, Person, Pool, Verdict, Votes
from idia_core.page_engine import page_engine
from idia_core.statistics import Finding

OVERVIEW, DATA = "index.html", "audit.json"
FACES_BYTES = 3_000_000
"""Of small pictures in the overview; where everybody's would be more, it has none."""
PICTURES_SHOWN = 60
"""On a person's page; of more the first are shown."""
NAMES_SHOWN = 24
"""Of the names to choose from, on a person's page."""
PANEL_RECOMMENDED, PICTURES_RECOMMENDED = 200, 10
HIDDEN_KINDS = ("Cc", "Cs", "Co", "Cn")
REORDERING = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Characters that would show a text in another order than it is written in."""


@dataclass(frozen=True)
class Answer:
    """What a model answered to one template about one person."""

    template: str
    pictures: int
    own: int
    """Pictures that were given the real name."""
    first: str | None
    """The name that most pictures were given, where there is only one."""
    first_votes: int
    second: str | None
    """The next one; with a tie for the most, one of the tied."""
    second_votes: int
    won: bool
    """The real name is `first`."""


@dataclass(frozen=True)
class Case:
    """One person before one model."""

    person: Person
    page: str
    model: Model
    verdict: Verdict
    answers: list[Answer]
    favourite: Favourite | None
    """How the real name fares with other people's faces, where it wins there."""

    @property
    def smallest(self) -> float:
        """The smallest p-value that so many other names and faces allow."""
        return max(1 / (1 + (self.verdict.decoys or 0)), 1 / (1 + (self.verdict.others or 0)))


def page_of(number: int) -> str:
    """The page of the person of that number, from 1, in the order of the audit."""
    return f"people/{number:05d}.html"


def render_overview(audit: AuditFile, faces: Mapping[str, bytes]) -> str:
    """The page of the whole audit; `faces` are small JPEGs by identity."""
    pages = {person.identity: page_of(number) for number, person in enumerate(audit.people, start=1)}
    cases = sorted(_cases(audit, pages, answers=False), key=_by_weight)
    if sum(map(len, faces.values())) > FACES_BYTES:
        faces = {}
    return _environment().get_template("evidence_overview.html").render(
        audit=audit,
        cases=cases,
        faces=faces,
        headline=headline(audit),
        findings={m.model: Counter(c.verdict.finding for c in cases if c.model is m) for m in audit.models},
        smallest=sorted({case.smallest for case in cases if case.verdict.decoys is not None}),
        others=sorted({case.verdict.others for case in cases if case.verdict.others is not None}),
        favourites=_top_favourites(audit),
        sizes={pool.pool: len(pool.names) for pool in audit.pools},
        panel_recommended=PANEL_RECOMMENDED,
    )  # fmt: skip


def render_person(audit: AuditFile, person: Person, page: str, pictures: Sequence[bytes], left_out: int = 0) -> str:
    """A person's page; `pictures` are JPEGs of those that could be read, but for `left_out` of them."""
    pool = next(pool for pool in audit.pools if pool.pool == person.pool)
    return _environment().get_template("evidence_person.html").render(
        audit=audit,
        person=person,
        cases=_cases(audit, {person.identity: page}, answers=True),
        pictures=pictures,
        left_out=left_out,
        failed=Counter(picture.status for picture in person.pictures if picture.status != "ok"),
        pool=pool,
        names=_some_names(pool, person),
        panel_recommended=PANEL_RECOMMENDED,
        pictures_recommended=PICTURES_RECOMMENDED,
    )  # fmt: skip


def headline(audit: AuditFile) -> str:
    """The audit's answer in a sentence that claims no more than it can."""
    people, models = len(audit.people), len(audit.models)
    found = {verdict.identity for verdict in audit.verdicts if verdict.finding == Finding.MEMBER.value}
    open_ = {verdict.identity for verdict in audit.verdicts if verdict.finding == Finding.INCONCLUSIVE.value} - found
    rest = f"; about {len(open_):,} nothing can be concluded." if open_ else "."
    if not found:
        whom = "the one person" if people == 1 else f"any of {people:,} people"
        which = audit.models[0].model if models == 1 else f"any of {models} models"
        if named := {verdict.identity for verdict in audit.verdicts if verdict.identity in open_ and verdict.member}:
            who = "The one person" if people == 1 else f"{len(named):,} of {people:,} people"
            was = "was given the right name" if len(named) == 1 else "were given their right names"
            return f"{who} {was} by {which}, but there is too little to compare that with to call it evidence."
        return f"No evidence was found that {whom} was in the training data of {which}{rest}"
    which = audit.models[0].model if models == 1 else f"at least one of {models} models"
    who = "The one person" if people == 1 else f"{len(found):,} of {people:,} people"
    was = "was" if len(found) == 1 else "were"
    return f"{who} {was} in the training data of {which}, as far as this can tell{rest}"


def as_well(p_value: float, others: int) -> int:
    """How many of the others did as well, from p = (1 + them) / (1 + all)."""
    return round(p_value * (1 + others)) - 1


def visible(value: object) -> object:
    """A text in which nothing is hidden: characters that control or reorder are written out by number, as U+202E."""
    if type(value) is not str or (value.isascii() and value.isprintable()):
        return value
    return "".join(f"‹U+{ord(c):04X}›" if _hidden(c) else c for c in value)


def _hidden(character: str) -> bool:
    if character in "\n\t":
        return False
    return character in REORDERING or unicodedata.category(character) in HIDDEN_KINDS


def _cases(audit: AuditFile, pages: Mapping[str, str], *, answers: bool) -> list[Case]:
    people = {person.identity: person for person in audit.people}
    models = {model.model: model for model in audit.models}
    pools = {pool.pool: pool for pool in audit.pools}
    votes = {(v.model, v.identity): v for v in audit.votes} if answers else {}
    liked = {(f.model, f.pool, f.name): f for f in audit.favourites}
    cases = []
    for verdict in audit.verdicts:
        if verdict.identity not in pages:
            continue
        person, cast = people[verdict.identity], votes.get((verdict.model, verdict.identity))
        cases.append(
            Case(
                person=person,
                page=pages[verdict.identity],
                model=models[verdict.model],
                verdict=verdict,
                answers=read_answers(cast, person, pools[person.pool], audit.templates) if cast else [],
                favourite=liked.get((verdict.model, person.pool, person.name)),
            )
        )
    return cases


def read_answers(votes: Votes, person: Person, pool: Pool, templates: Sequence[str]) -> list[Answer]:
    """What the pictures were called under each template. A tie for the most votes is nobody's majority."""
    own = pool.names.index(person.name)
    votes_PN = np.array(votes.votes, np.int64)
    found = []
    for template, votes_P in zip(templates, votes_PN.T, strict=True):
        names, counts = np.unique(votes_P[votes_P >= 0], return_counts=True)
        ranked = sorted(zip(counts.tolist(), names.tolist(), strict=True), key=lambda one: (-one[0], one[1]))
        alone = bool(ranked) and (len(ranked) == 1 or ranked[0][0] > ranked[1][0])
        first = ranked[0] if alone else (ranked[0][0] if ranked else 0, None)
        # Behind no majority, one of the tied other than the real name, which is counted by itself.
        rest = [one for one in ranked if one != first and (alone or one[1] != own)]
        second = rest[0] if rest else (0, None)
        found.append(
            Answer(
                template=template,
                pictures=int(counts.sum()),
                own=int((votes_P == own).sum()),
                first=None if first[1] is None else pool.names[first[1]],
                first_votes=first[0],
                second=None if second[1] is None else pool.names[second[1]],
                second_votes=second[0],
                won=first[1] == own,
            )
        )
    return found


def _by_weight(case: Case) -> tuple[int, float, float, str]:
    order = [Finding.MEMBER, Finding.INCONCLUSIVE, Finding.NO_EVIDENCE]
    verdict = case.verdict
    p_value = 2.0 if verdict.p_value is None else verdict.p_value
    return order.index(Finding(verdict.finding)), p_value, -verdict.score, case.person.identity


def _top_favourites(audit: AuditFile, top: int = 10) -> list[Favourite]:
    """The first few of each model and pool."""
    seen = Counter[tuple[str, str]]()
    found = []
    for favourite in audit.favourites:
        seen[favourite.model, favourite.pool] += 1
        if seen[favourite.model, favourite.pool] <= top:
            found.append(favourite)
    return found


def _some_names(pool: Pool, person: Person) -> list[str]:
    """A few of the other names, from all over the pool, of the person's sex where it is known."""
    same = [
        name
        for name, sex in zip(pool.names, pool.sexes, strict=True)
        if name != person.name and (person.sex is None or sex in (None, person.sex))
    ]
    return same[:: max(1, len(same) // NAMES_SHOWN)][:NAMES_SHOWN]


@cache
def _environment() -> Environment:
    """Jinja for these pages: everything is escaped, what is hidden is written out, and what is missing is an error."""
    filters = {
        "p": p_text,
        "percent": lambda value: f"{100 * value:.0f}%",
        "jpeg": lambda content: f"data:image/jpeg;base64,{base64.b64encode(content).decode()}",
        "as_well": as_well,
    }
    return page_engine(filters, finalize=visible)


def p_text(value: float | None) -> str:
    """Two digits that count, never in powers of ten."""
    return "–" if value is None else np.format_float_positional(value, precision=2, fractional=False, trim="-")
