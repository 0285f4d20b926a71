"""The study's report: one HTML page that carries all that it shows and asks the network for nothing."""

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa
from markupsafe import Markup

from idia_core import figures
from idia_core.errors import DuplicateNameError, InvalidInputError
from idia_core.figures import Counts, ModelCounts
from idia_core.loss_curves import draw_curves
from idia_core.report_funnel import funnel_part
from idia_core.report_page import both_widths, each_architecture, template
from idia_core.report_training import abilities, restarts

MEMBER, NON_MEMBER = "member", "non_member"
PICTURE_BYTES = 8_000_000  # of JPEG in a page; base64 adds a third, so a page stays under about 12 MB
VERDICTS = ("model", "identity", "images_used", "images_failed", "score", "threshold", "member")
MODEL_FACTS = ("model", "architecture", "images_per_member")
METRICS = ("model", "group", "images", "draw", "tp", "fn", "fp", "tn")


@dataclass(frozen=True)
class ModelInfo:
    """A model under test; `images_per_member` is K, the pictures of each member in its training data."""

    name: str
    architecture: str
    images_per_member: int
    checkpoint_sha256: str
    epochs: int
    training_pairs: int | None = None
    loss: float | None = None
    """The last that was logged."""


@dataclass(frozen=True)
class PersonCard:
    """A person under test, with the truth and one to three small attack pictures as JPEG bytes."""

    identity: str
    role: Literal["member", "non_member"]
    occurrences: int | None = None
    thumbnails: list[bytes] = field(default_factory=list)


@dataclass(frozen=True)
class Leakage:
    """How attack and training pictures were kept apart: what was compared, and what was found and left out."""

    counts: dict[str, int]
    sentence: str


@dataclass(frozen=True)
class StageInfo:
    """What one stage did, as its manifest tells it."""

    name: str
    version: str
    fingerprint: str
    seconds: float
    rows_in: int
    rows_kept: int
    dropped: dict[str, int]
    splits: int
    inputs: list[str]


@dataclass(frozen=True)
class ReportData:
    """Everything that a report shows; `verdicts` and `metrics` have the columns in VERDICTS and METRICS."""

    study: str
    title: str
    models: list[ModelInfo]
    people: list[PersonCard]
    verdicts: pa.Table
    metrics: pa.Table
    templates: int
    candidates: int
    leakage: Leakage
    stages: list[StageInfo]
    provenance: dict[str, str]
    curves: pa.Table | None = None
    """How the loss fell (loss_curves.CURVES)."""
    runs: pa.Table | None = None
    """The attempts that each training took (report_training.RUNS)."""
    zeroshot: pa.Table | None = None
    retrieval_rank: pa.Table | None = None
    """Table 2 (report_training.ZEROSHOT and RETRIEVAL_RANK)."""
    funnel: pa.Table | None = None
    """What was left of people's pairs at each step (pair_funnel.FUNNEL)."""


@dataclass(frozen=True)
class Verdict:
    """One cell of the verdict table."""

    score: int
    threshold: int
    member: bool
    right: bool
    images_used: int
    images_failed: int


@dataclass(frozen=True)
class Row:
    """One person in the verdict table; a model that did not test the person has None."""

    person: PersonCard
    pictures: list[str]
    verdicts: list[Verdict | None]

    @property
    def images_used(self) -> int:
        """The most pictures that any model's verdict rests on."""
        return max((v.images_used for v in self.verdicts if v), default=0)

    @property
    def images_failed(self) -> int:
        """The most pictures that any model could not use."""
        return max((v.images_failed for v in self.verdicts if v), default=0)

    @property
    def wrong(self) -> int:
        """How many models were wrong about the person."""
        return sum(not v.right for v in self.verdicts if v)


def render_report(data: ReportData) -> str:
    """The report as one HTML document, the same bytes for the same data.

    Raises InvalidInputError where a column is missing or the tables name people or models that the rest does not know,
    and DuplicateNameError where a person, a model or a verdict comes twice.
    """
    verdicts = _check(data)
    models = count_verdicts(data)
    rows, left_out = _rows(data, verdicts)
    rates = figures.rates_over_draws(data.metrics)
    return template("report.html").render(
        data=data,
        headline=headline(data),
        best=best_model(models),
        worst=max(models, key=lambda model: model.counts.fn),
        models=models,
        rows=rows,
        pictures_left_out=left_out,
        roles=Counter(person.role for person in data.people),
        thresholds=sorted({verdict.threshold for verdict in verdicts.values()}),
        example=_example(data, rows),
        seconds=sum(stage.seconds for stage in data.stages),
        draws=max(rate.draws for rate in rates),
        most_images=max(rate.images for rate in rates),
        by_training=both_widths(figures.rates_by_training_pictures, models),
        by_attack=each_architecture(figures.rates_by_attack_pictures, rates, models),
        matrices=each_architecture(figures.confusion_matrices, models, models),
        loss=_loss(data),
        restarts=restarts(data.runs) if data.runs is not None else None,
        abilities=abilities(data.models, data.zeroshot, data.retrieval_rank),
        funnel=funnel_part(data.funnel, {person.identity: person.role for person in data.people}),
    )


def headline(data: ReportData) -> str:
    """The study's answer in one plain sentence, for the model that saw most pictures of each member."""
    models = count_verdicts(data)
    best = best_model(models)
    alone = sum(model.images_per_member == best.images_per_member for model in models) == 1
    pictures = "1 picture" if best.images_per_member == 1 else f"{best.images_per_member} pictures"
    counts = best.counts
    return (
        f"With {pictures} a person, {'the model' if alone else f'model {best.model}'} gave away "
        f"{counts.tp} of {counts.members} members; {counts.fp} of {counts.others} others "
        f"{'was' if counts.fp == 1 else 'were'} accused."
    )


def count_verdicts(data: ReportData) -> list[ModelCounts]:
    """Each model's confusion matrix over people, in the order of `data.models`."""
    roles: dict[str, str] = {person.identity: person.role for person in data.people}
    cells = Counter((v["model"], roles[v["identity"]], v["member"]) for v in data.verdicts.to_pylist())
    return [
        ModelCounts(
            model.name,
            model.architecture,
            model.images_per_member,
            Counts(
                tp=cells[model.name, MEMBER, True],
                fn=cells[model.name, MEMBER, False],
                fp=cells[model.name, NON_MEMBER, True],
                tn=cells[model.name, NON_MEMBER, False],
            ),
        )
        for model in data.models
    ]


def best_model(models: Sequence[ModelCounts]) -> ModelCounts:
    """The first model among those that saw most pictures of each member."""
    return max(models, key=lambda model: model.images_per_member)


def _check(data: ReportData) -> dict[tuple[str, str], Verdict]:
    """The verdicts by model and identity, once all that the page relies on holds."""
    for name, table, columns in (("verdicts", data.verdicts, VERDICTS), ("metrics", data.metrics, METRICS)):
        if missing := [column for column in columns if column not in table.column_names]:
            raise InvalidInputError(f"no column {', '.join(missing)}", f"table {name}", "Run its stage again.")
    if not data.models or any(model.images_per_member < 1 for model in data.models):
        raise InvalidInputError("a report needs models that saw at least 1 picture of each member", "models")
    _no_duplicates([model.name for model in data.models], "models")
    _no_duplicates([person.identity for person in data.people], "people")
    found = data.verdicts.to_pylist()
    _no_duplicates([f"{row['model']}: {row['identity']}" for row in found], "table verdicts")
    _known({row["model"] for row in found} | set(data.metrics["model"].to_pylist()), {m.name for m in data.models})
    _known({row["identity"] for row in found}, {person.identity for person in data.people})
    roles = {person.identity: person.role for person in data.people}
    return {
        (row["model"], row["identity"]): Verdict(
            row["score"],
            row["threshold"],
            row["member"],
            row["member"] == (roles[row["identity"]] == MEMBER),
            row["images_used"],
            row["images_failed"],
        )
        for row in found
    }


def _no_duplicates(names: Sequence[str], where: str) -> None:
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise DuplicateNameError(f"{twice[0]!r} comes twice", where, "Names tell the rows apart: make them unique.")


def _known(names: set[str], known: set[str]) -> None:
    if unknown := sorted(names - known):
        raise InvalidInputError(f"{unknown[0]!r} has a row but is not in the study", "tables verdicts and metrics")


def _rows(data: ReportData, verdicts: Mapping[tuple[str, str], Verdict]) -> tuple[list[Row], int]:
    """The verdict table, members first, and how many pictures did not fit into the page."""
    limit = _pictures_a_person(data.people)
    spent = left_out = 0
    rows = []
    for person in sorted(data.people, key=lambda person: (person.role, person.identity)):
        shown = person.thumbnails[:limit]
        size = sum(map(len, shown))
        if spent + size > PICTURE_BYTES:
            shown, size = [], 0
        spent += size
        left_out += len(person.thumbnails) - len(shown)
        pictures = [f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}" for jpeg in shown]
        rows.append(Row(person, pictures, [verdicts.get((model.name, person.identity)) for model in data.models]))
    return rows, left_out


def _pictures_a_person(people: Sequence[PersonCard]) -> int:
    """The most pictures a person, up to three, with which everybody's fit into PICTURE_BYTES; at least one."""
    for limit in (3, 2):
        if sum(len(jpeg) for person in people for jpeg in person.thumbnails[:limit]) <= PICTURE_BYTES:
            return limit
    return 1


def _example(data: ReportData, rows: Sequence[Row]) -> tuple[str, int, str] | None:
    """Who scored highest anywhere, as name, score and model; None where nobody scored."""
    scored = [
        (verdict.score, row.person.identity, model.name)
        for row in rows
        for model, verdict in zip(data.models, row.verdicts, strict=True)
        if verdict and verdict.score
    ]
    if not scored:
        return None
    score, identity, model = max(scored, key=lambda found: found[0])
    return identity, score, model


def _loss(data: ReportData) -> dict[str, Markup] | None:
    if data.curves is None or not data.curves.num_rows:
        return None
    models = [(model.name, model.architecture, model.images_per_member) for model in data.models]
    facts = pa.Table.from_pylist([dict(zip(MODEL_FACTS, model, strict=True)) for model in models])
    return both_widths(draw_curves, data.curves, facts)
