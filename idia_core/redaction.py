"""Codes for names and pictures, so that an audit can be shown without saying whom it is about."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel

from idia_core.audit_json import AuditFile, Matrix, Model, Person, Picture, Pool, Votes
from idia_core.audit_tables import by_hash, drawn_alike

PartT = TypeVar("PartT", bound=BaseModel)
TITLE = "Audit"
PUBLISHED = re.compile(r"(?!local-dir:)[\w.-]+:[\w-]+|hf-hub:[\w.-]+/[\w.-]+")
"""References that may be told: open_clip's own and the hub's. The name of a file or a server may hold anything."""


@dataclass(frozen=True)
class Codes:
    """What stands for whom; `key` keeps the order of the codes from being guessed with the names at hand."""

    identities: dict[str, str]
    names: dict[str, str]
    models: dict[str, str]
    key: str

    @classmethod
    def draw(cls, people: Sequence[Person], pools: Sequence[Pool], models: Sequence[Model], key: str) -> "Codes":
        """Codes for everybody, in an order that the key shuffles."""
        order = by_hash((person.identity for person in people), key)
        identities = _numbered("Person", order)
        names: dict[str, str] = {}
        for person in sorted(people, key=lambda person: identities[person.identity]):
            names.setdefault(person.name, identities[person.identity])
        others = by_hash({name for pool in pools for name in pool.names} - set(names), key)
        names |= _numbered("Name", others)
        told = {m.model: m.model if _published(m) else f"Model {i}" for i, m in enumerate(models, start=1)}
        return cls(identities, names, told, key)


def _numbered(word: str, texts: Sequence[str]) -> dict[str, str]:
    """Codes that sort as they count."""
    width = max(4, len(str(len(texts))))
    return {text: f"{word} {i:0{width}d}" for i, text in enumerate(texts, start=1)}


def redact(audit: AuditFile, codes: Codes) -> AuditFile:
    """The audit with codes for people, names, pictures and private models, from which the same verdicts follow.

    Everything stands in the order of its codes. Hashes of pictures go too, as who has a picture could look for its
    hash, and with them the digests of inputs, the command and the title. Other people's names go because a list of them
    would tell whose are missing.
    """
    pictures = {person.identity: _shuffled(person, codes) for person in audit.people}
    people = [_person(person, pictures[person.identity], codes) for person in audit.people]
    models, places = codes.models, _places(audit.pools, codes)
    verdicts = [_copy(v, model=models[v.model], identity=codes.identities[v.identity]) for v in audit.verdicts]
    favourites = [_copy(f, model=models[f.model], name=codes.names[f.name]) for f in audit.favourites]
    return _copy(
        audit,
        title=TITLE,
        redacted=True,
        models=tuple(_model(model, codes) for model in audit.models),
        pools=tuple(_pool(pool, codes) for pool in audit.pools),
        people=tuple(sorted(people, key=lambda person: person.identity)),
        verdicts=tuple(sorted(verdicts, key=lambda v: (v.model, v.identity))),
        favourites=tuple(sorted(favourites, key=lambda f: (f.model, f.pool, -f.faces, -f.votes_share, f.name))),
        stages=tuple(_copy(stage, inputs={}) for stage in audit.stages),
        provenance={key: value for key, value in audit.provenance.items() if key != "command"},
        votes=_votes(audit, pictures, codes),
        panel_votes=tuple(
            _copy(v, model=models[v.model], votes=_renumbered(v.votes, places[v.pool])) for v in audit.panel_votes
        ),
    )


def _copy(part: PartT, **changed: Any) -> PartT:
    return part.model_copy(update=changed)


def _published(model: Model) -> bool:
    return PUBLISHED.fullmatch(model.reference) is not None


def _model(model: Model, codes: Codes) -> Model:
    reference = model.reference if _published(model) else ""
    return model.model_copy(update={"model": codes.models[model.model], "reference": reference})


def _order(pool: Pool, codes: Codes) -> list[int]:
    """The names' positions in the order of their codes; their own order could be drawn again by who knows the seed."""
    return sorted(range(len(pool.names)), key=lambda k: codes.names[pool.names[k]])


def _pool(pool: Pool, codes: Codes) -> Pool:
    order = _order(pool, codes)
    return Pool(
        pool=pool.pool,
        names=tuple(codes.names[pool.names[k]] for k in order),
        sexes=tuple(pool.sexes[k] for k in order),
        tested=tuple(pool.tested[k] for k in order),
    )


def _places(pools: Sequence[Pool], codes: Codes) -> dict[str, list[int]]:
    """For each pool where the name at each old position stands now; the last one is for -1, no answer."""
    found = {}
    for pool in pools:
        places = {old: new for new, old in enumerate(_order(pool, codes))}
        found[pool.pool] = [*(places[k] for k in range(len(pool.names))), -1]
    return found


def _renumbered(votes: Matrix, places: Sequence[int]) -> Matrix:
    return tuple(tuple(places[k] for k in row) for row in votes)


def _shuffled(person: Person, codes: Codes) -> list[int]:
    """The positions of a person's pictures in an order that tells nothing of their names."""
    key = f"{codes.key}\0{person.identity}"
    return [int(place) for place in by_hash(map(str, range(len(person.pictures))), key)]


def _person(person: Person, order: Sequence[int], codes: Codes) -> Person:
    return Person(
        identity=codes.identities[person.identity],
        name=codes.names[person.name],
        sex=person.sex,
        pool=person.pool,
        pictures=tuple(
            Picture(picture=f"Picture {i:03d}", status=person.pictures[old].status, sha256=None)
            for i, old in enumerate(order, start=1)
        ),
    )


def _votes(audit: AuditFile, orders: Mapping[str, Sequence[int]], codes: Codes) -> tuple[Votes, ...]:
    pool_of = {person.identity: person.pool for person in audit.people}
    now_at = {identity: {old: new for new, old in enumerate(order)} for identity, order in orders.items()}
    places = _places(audit.pools, codes)
    renamed = [(v.identity, codes.identities[v.identity], len(v.votes)) for v in audit.votes]
    found = []
    for votes, rows in zip(audit.votes, drawn_alike(renamed, audit.rules.seed), strict=True):
        matrix = _renumbered(votes.votes, places[pool_of[votes.identity]])
        found.append(
            Votes(
                model=codes.models[votes.model],
                identity=codes.identities[votes.identity],
                pictures=tuple(now_at[votes.identity][votes.pictures[row]] for row in rows),
                votes=tuple(matrix[row] for row in rows),
            )
        )
    return tuple(sorted(found, key=lambda v: (v.model, v.identity)))
