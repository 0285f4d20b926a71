"""`evidence`: the pages of an audit, one for all of it and one for each person, and `audit.json`."""

import hashlib
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

import pyarrow as pa
from pydantic import Field, TypeAdapter

from idia_core.attack import PANEL, PANEL_VOTES, VOTES
from idia_core.audit_json import AuditFile, Favourite, Model, Person, Picture, StageRecord, Verdict, Votes, to_json
from idia_core.audit_tables import by_hash, panel_of, pools_of, votes_of
from idia_core.config import StageConfig
from idia_core.errors import MissingInputError
from idia_core.evidence import DATA, OVERVIEW, PICTURES_SHOWN, page_of, render_overview, render_person
from idia_core.images import PictureStatus, decode_picture, encode_thumbnail
from idia_core.manifest import Manifest, Provenance, read_manifest
from idia_core.redaction import Codes, redact
from idia_core.statistics import Rules
from pipelines.report import collect_seals
from pipelines.rows_of_people import blocks_of, rows_of
from pipelines.stage import Input, Phase, Split, SplitWriter, Stage, StageContext, once

PICTURE_SIDE, FACE_SIDE = 176, 80
PEOPLE = pa.schema(
    [  # a person as `audit.json` will have it, after redaction
        pa.field("person", pa.string(), nullable=False),
        pa.field("votes", pa.string(), nullable=False),
        pa.field("face", pa.binary()),
    ]
)
_VOTES = TypeAdapter(tuple[Votes, ...])
UNTOLD = ("--out", "--address", "--workers", "--questions", "--per-second")
"""Options that change nothing of what is found; nor do settings of `resources`."""


class EvidenceConfig(StageConfig):
    """Settings of `evidence`."""

    title: str = "Who was in the training data?"
    """Heading of the pages; not used with `redact`."""
    redact: bool = False
    """Put codes for names, and leave out pictures, hashes of pictures, paths and the command."""
    people_per_split: int = Field(default=64, ge=1)
    """People whose pages are one piece of work."""


def _order(context: StageContext) -> list[str]:
    """The people in the order of their pages: as they were asked about, or in that of their codes."""
    asked = context.inputs["asked"].read("identity")["identity"].to_pylist()
    return by_hash(asked, _key(context)) if context.config.redact else asked


def _key(context: StageContext) -> str:
    """What shuffles the codes: only who has all the pictures could shuffle people of known names in the same way."""
    return context.inputs["pictures"].digest


def _blocks(context: StageContext) -> Iterable[Split]:
    size, tables = context.config.people_per_split, {field: context.inputs[field] for field in ("pictures", "votes")}
    for place, block in enumerate(blocks_of(_order(context), size, **tables)):
        yield {"first": place * size, **block}


class _Source:
    """What all pages share, from the small tables and the seals of the stages before."""

    def __init__(self, context: StageContext) -> None:
        self.context, self.config = context, context.config
        self.asked: dict[str, dict[str, Any]] = {
            row["identity"]: row for row in context.inputs["asked"].read("identity", "name", "sex", "pool").to_pylist()
        }
        self.base = self._base()
        self.codes = self._codes() if self.config.redact else None

    def _base(self) -> AuditFile:
        """The audit without people, votes and panel."""
        inputs = self.context.inputs
        judged, attacked = self._seal("verdicts"), self._seal("votes")
        models = inputs["models"].read("model", "reference", "architecture", "sha256").to_pylist()
        return AuditFile(
            title=self.config.title,
            redacted=False,
            rules=Rules(**(judged.config["rules"] | {"seed": int(judged.config["seed"] or 0)})),
            templates=tuple(attacked.config["templates"]),
            models=tuple(Model(**row) for row in sorted(models, key=lambda row: str(row["model"]))),
            pools=pools_of(inputs["names"].read("pool", "name", "sex", "tested")),
            people=(),
            verdicts=tuple(Verdict(**row) for row in inputs["verdicts"].read(*Verdict.model_fields).to_pylist()),
            favourites=tuple(
                Favourite(**row) for row in inputs["favourites"].read(*Favourite.model_fields).to_pylist()
            ),
            panel=(),
            stages=tuple(_stage_record(name, manifest) for name, manifest in self._manifests().items()),
            provenance=_provenance(judged.provenance),
            votes=(),
            panel_votes=(),
        )

    def _codes(self) -> Codes:
        people = [Person(**row, pictures=()) for row in self.asked.values()]
        return Codes.draw(people, self.base.pools, self.base.models, _key(self.context))

    def _seal(self, field: str) -> Manifest:
        folder = self.context.inputs[field].root.parent
        if manifest := read_manifest(folder):
            return manifest
        raise MissingInputError("no manifest beside the table", f"stage evidence, {field}", "Give a stage's own table.")

    def _manifests(self) -> dict[str, Manifest]:
        out, found = self.context.folder.parent, dict[str, Manifest]()
        for source in self.context.inputs.values():
            collect_seals(out, source.source, found)
        return found

    def shown(self, audit: AuditFile) -> AuditFile:
        """The audit as it may be shown."""
        return redact(audit, self.codes) if self.codes else audit


class _PersonWriter:
    """Writes the pages of some people, and keeps what the overview will need of them."""

    def __init__(self, context: StageContext) -> None:
        self._source = _Source(context)
        self._inputs, self._config = context.inputs, context.config

    def __call__(self, split: Split, out: SplitWriter) -> None:
        base, identities = self._source.base, split["identities"]
        album = self._album(split)
        people = [Person(**self._source.asked[i], pictures=tuple(album[i].pictures)) for i in identities]
        found = rows_of(self._inputs["votes"], split["votes"], identities, VOTES.names)
        cast = pa.concat_tables([VOTES.empty_table(), *(rows.cast(VOTES) for rows in found)])
        votes = votes_of(cast, people, base.pools, base.templates)
        audit = self._source.shown(base.model_copy(update={"people": tuple(people), "votes": votes}))
        rows = []
        # Redaction sorts people by their codes, and so were the identities: the two go together still.
        for place, (identity, person) in enumerate(zip(identities, audit.people, strict=True)):
            shown = album[identity]
            page = page_of(split["first"] + place + 1)
            out.write(f"page/{page}", render_person(audit, person, page, shown.small, shown.more).encode())
            own = tuple(vote for vote in audit.votes if vote.identity == person.identity)
            rows.append({"person": person.model_dump_json(), "votes": _VOTES.dump_json(own), "face": shown.face})
        out.table("people", pa.Table.from_pylist(rows, PEOPLE))
        out.count(rows_in=len(identities), rows_kept=len(people))

    def _album(self, split: Split) -> dict[str, "_Shown"]:
        found = {identity: _Shown() for identity in split["identities"]}
        columns = ("identity", "picture", "status", "image")
        for rows in rows_of(self._inputs["pictures"], split["pictures"], split["identities"], columns):
            for row in rows.to_pylist():
                found[row["identity"]].add(row, hidden=self._config.redact)
        for shown in found.values():
            shown.pictures.sort(key=lambda picture: picture.picture)
        return found


@dataclass
class _Shown:
    """One person's pictures as the page has them."""

    pictures: list[Picture] = field(default_factory=list)
    small: list[bytes] = field(default_factory=list)
    more: int = 0
    """Pictures that are not among the small ones, because there are many."""
    face: bytes | None = None

    def add(self, row: dict[str, Any], *, hidden: bool) -> None:
        """Take in a row of `pictures`; unless hidden, as a small picture."""
        content = row["image"] if row["status"] == PictureStatus.OK else None
        digest = None if content is None else hashlib.sha256(content).hexdigest()
        self.pictures.append(Picture(picture=row["picture"], status=row["status"], sha256=digest))
        if content is None or hidden:
            return
        if len(self.small) == PICTURES_SHOWN:
            self.more += 1
        elif (decoded := decode_picture(content)[0]) is not None:
            self.small.append(encode_thumbnail(decoded, PICTURE_SIDE))
            self.face = self.face or encode_thumbnail(decoded, FACE_SIDE)


class _AuditWriter:
    """Writes the overview and `audit.json`."""

    def __init__(self, context: StageContext) -> None:
        self._source, self._context = _Source(context), context

    def __call__(self, split: Split, out: SplitWriter) -> None:
        rows = self._context.table("people").to_pylist()
        people = tuple(Person.model_validate_json(row["person"]) for row in rows)
        votes = tuple(vote for row in rows for vote in _VOTES.validate_json(row["votes"]))
        base, inputs = self._source.base, self._context.inputs
        panel, panel_votes = PANEL.empty_table(), PANEL_VOTES.empty_table()
        if "panel_votes" in inputs and "panel_identities" in inputs:
            panel = inputs["panel_identities"].read(*PANEL.names)
            panel_votes = inputs["panel_votes"].read(*PANEL_VOTES.names)
        bystanders, cast = panel_of(panel, panel_votes, base.pools, base.templates, base.rules.seed)
        audit = self._source.shown(base.model_copy(update={"panel": bystanders, "panel_votes": cast}))
        place = {model.model: i for i, model in enumerate(audit.models)}
        by_model = tuple(sorted(votes, key=lambda vote: place[vote.model]))
        audit = audit.model_copy(update={"people": people, "votes": by_model})
        faces = {p.identity: row["face"] for p, row in zip(people, rows, strict=True) if row["face"] is not None}
        out.write(f"page/{OVERVIEW}", render_overview(audit, faces).encode())
        out.write(f"page/{DATA}", to_json(audit).encode())


def _stage_record(name: str, manifest: Manifest) -> StageRecord:
    return StageRecord(
        stage=name,
        version=manifest.version,
        fingerprint=manifest.fingerprint,
        inputs={name: record.digest for name, record in manifest.inputs.items()},
        counts=manifest.counts,
    )


def _provenance(made: Provenance) -> dict[str, str]:
    """Who made the verdicts with what; not when, nor with how many workers, so that equal audits are equal files."""
    commit = f"{made.commit}{' with uncommitted changes' if made.dirty else ''}"
    return {"command": _command(made.argv), "commit": commit, "python": made.python, **made.versions}


def _command(argv: Sequence[str]) -> str:
    """The command without where it writes and how fast."""
    words, told = iter(argv), []
    for place, word in enumerate(words):
        value = next(words, "") if word in (*UNTOLD, "--set") else ""
        if word.startswith(UNTOLD) or ".resources." in f".{value or word}":
            continue
        told += [PurePath(word).name if place == 0 else word, *([value] if value else [])]
    return shlex.join(told)


STAGE = Stage(
    name="evidence",
    version=1,
    summary="write the pages and audit.json",
    config=EvidenceConfig,
    inputs={
        "models": Input("models (model, reference, architecture, sha256)"),
        "asked": Input("people under test (identity, name, sex, pool)"),
        "pictures": Input("their pictures (identity, picture, status, image)"),
        "names": Input("candidate names (pool, name, sex, tested)"),
        "votes": Input("votes, as `attack` sealed them"),
        "verdicts": Input("verdicts, as `judge` sealed them"),
        "favourites": Input("the models' favourite names"),
        "panel_votes": Input("votes on the reference panel", optional=True),
        "panel_identities": Input("the reference panel (identity, sex)", optional=True),
    },
    phases=(Phase("people", _blocks, _PersonWriter), Phase("audit", once, _AuditWriter)),
    tables=("page", "people"),
)
