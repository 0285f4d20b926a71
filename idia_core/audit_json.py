"""`audit.json`: all of an audit that a third party needs to judge it again, in one file without a picture."""

import json
from collections import Counter
from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from idia_core.errors import DuplicateNameError, InvalidInputError
from idia_core.statistics import Rules

Found = Literal["member", "no evidence", "inconclusive"]
Matrix = tuple[tuple[int, ...], ...]
"""[P, N]: for each picture and template the position of the answered name in its pool; -1 where no answer is."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


class Pool(_Part):
    """One complete list of names that a model chose from; the three lists go by position."""

    pool: str
    names: tuple[str, ...]
    sexes: tuple[Literal["F", "M"] | None, ...]
    tested: tuple[bool, ...]


class Model(_Part):
    """A model under test."""

    model: str
    reference: str
    """As it was given; empty where redaction left it out."""
    architecture: str
    sha256: str | None
    """Of the weights; null for a black box."""


class Picture(_Part):
    """A picture of a person; it is used where its status is ok."""

    picture: str
    status: str
    sha256: str | None
    """Of the encoded picture; null where there is none to read, and where redaction left it out."""


class Person(_Part):
    """Somebody under test."""

    identity: str
    name: str
    sex: Literal["F", "M"] | None
    pool: str
    pictures: tuple[Picture, ...]


class Votes(_Part):
    """What one model answered about one person."""

    model: str
    identity: str
    pictures: tuple[int, ...]
    """Which of the person's pictures were shown, by position."""
    votes: Matrix
    """A row for each of them.

    The rows stand in the order from which `judge` draws: that of the pictures' names or, where a code stands for the
    identity, another one from which the same draw follows."""


class PanelPerson(_Part):
    """Somebody of the reference panel, always by a code."""

    identity: str
    sex: Literal["F", "M"] | None


class PanelVotes(_Part):
    """What one model answered about one person of the panel, asked for the names of one pool."""

    model: str
    pool: str
    identity: str
    votes: Matrix


class Verdict(_Part):
    """The verdict on one person for one model; see the table `verdicts`."""

    model: str
    identity: str
    images_used: int
    images_failed: int
    score: int
    share: float | None
    threshold: int
    member: bool | None
    decoys: int | None
    p_name: float | None
    others: int | None
    p_face: float | None
    p_value: float | None
    q_value: float | None
    finding: Found
    reason: str


class Favourite(_Part):
    """A name that a model likes to give to other people's faces; see the table `favourites`."""

    model: str
    pool: str
    name: str
    tested: bool
    faces: int
    people: int
    votes_share: float


class StageRecord(_Part):
    """One stage that the audit rests on, as its manifest tells it."""

    stage: str
    version: int
    fingerprint: str
    inputs: dict[str, str]
    """Input -> digest of its content."""
    counts: dict[str, int]


class AuditFile(_Part):
    """A whole audit: what was asked, what came back, and what was made of it."""

    format: Literal["idia-audit"] = "idia-audit"
    version: Literal[1] = 1
    title: str
    redacted: bool
    rules: Rules
    templates: tuple[str, ...]
    models: tuple[Model, ...]
    pools: tuple[Pool, ...]
    people: tuple[Person, ...]
    verdicts: tuple[Verdict, ...]
    favourites: tuple[Favourite, ...]
    panel: tuple[PanelPerson, ...]
    stages: tuple[StageRecord, ...]
    provenance: dict[str, str]
    votes: tuple[Votes, ...]
    panel_votes: tuple[PanelVotes, ...]


def to_json(audit: AuditFile) -> str:
    """The file's text, a record a line, the same for the same audit.

    It is ASCII without `<`, `>` and `&`, so that no name in it can be taken for something else by whatever shows it.
    """
    document = audit.model_dump(mode="json")
    lines = [f"{_escaped(key)}: {_lines(value)}" for key, value in document.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _lines(value: object) -> str:
    if not isinstance(value, list) or not value:
        return _escaped(value)
    return "[\n" + ",\n".join(map(_escaped, value)) + "\n]"


def _escaped(value: object) -> str:
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def from_json(text: str | bytes, where: str) -> AuditFile:
    """The audit in a file's text; `where` names the file in errors.

    Raises InvalidInputError for what is no audit of ours or does not fit together, and DuplicateNameError.
    """
    try:
        audit = AuditFile.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"])) or "the file"
        what = f"not an audit of this version: {field}: {first['msg'].lower()}"
        raise InvalidInputError(what, where, "Ask for the file as `idia audit` wrote it.") from None
    _check(audit, where)
    return audit


def _check(audit: AuditFile, where: str) -> None:
    _once((model.model for model in audit.models), f"{where}, models")
    _once((pool.pool for pool in audit.pools), f"{where}, pools")
    _once((person.identity for person in audit.people), f"{where}, people")
    _once((person.identity for person in audit.panel), f"{where}, panel")
    _once((f"{v.model}: {v.identity}" for v in audit.votes), f"{where}, votes")
    _once((f"{v.model}: {v.identity} {v.pool}" for v in audit.panel_votes), f"{where}, panel_votes")
    _once((f"{v.model}: {v.identity}" for v in audit.verdicts), f"{where}, verdicts")
    for pool in audit.pools:
        _once(pool.names, f"{where}, pool {pool.pool!r}")
        if not len(pool.names) == len(pool.sexes) == len(pool.tested):
            raise InvalidInputError("names, sexes and tested differ in length", f"{where}, pool {pool.pool!r}")
    _check_votes(audit, where)


def _check_votes(audit: AuditFile, where: str) -> None:
    models = {model.model for model in audit.models}
    people = {person.identity: person for person in audit.people}
    panel = {person.identity for person in audit.panel}
    sizes = {pool.pool: len(pool.names) for pool in audit.pools}
    for person in audit.people:
        _known(person.pool, sizes, f"{where}, person {person.identity!r}, pool")
    for votes in audit.votes:
        place = f"{where}, votes of {votes.identity!r}"
        _known(votes.model, models, f"{place}, model")
        _known(votes.identity, people, f"{place}, identity")
        person = people[votes.identity]
        if len(set(votes.pictures)) < len(votes.votes) or len(votes.pictures) != len(votes.votes):
            raise InvalidInputError("not one row of votes for each picture", place)
        if any(not 0 <= picture < len(person.pictures) for picture in votes.pictures):
            raise InvalidInputError("a picture that the person does not have", place)
        _check_matrix(votes.votes, len(audit.templates), sizes[person.pool], place)
    for shown in audit.panel_votes:
        place = f"{where}, panel votes of {shown.identity!r}"
        _known(shown.model, models, f"{place}, model")
        _known(shown.identity, panel, f"{place}, identity")
        _known(shown.pool, sizes, f"{place}, pool")
        _check_matrix(shown.votes, len(audit.templates), sizes[shown.pool], place)
    for verdict in audit.verdicts:
        _known(verdict.model, models, f"{where}, verdicts, model")
        _known(verdict.identity, people, f"{where}, verdicts, identity")


def _check_matrix(matrix: Matrix, templates: int, names: int, where: str) -> None:
    for row in matrix:
        if len(row) != templates:
            raise InvalidInputError(f"{len(row)} votes on a picture, for {templates} templates", where)
        if row and (min(row) < -1 or max(row) >= names):
            raise InvalidInputError(f"a vote for a name beyond the pool's {names}", where)


def _once(names: Iterable[str], where: str) -> None:
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise DuplicateNameError(f"{twice[0]!r} comes twice", where)


def _known(name: str, known: Iterable[str], where: str) -> None:
    if name not in known:
        raise InvalidInputError(f"{name!r} is not in the file", where)
