"""What an erasure will do: who is meant, what the sealed stages hold of them, and what lies outside of idia's reach."""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import pyarrow.parquet as pq
from upath import UPath

from idia_core.config import Study
from idia_core.erased_files import Found, Way, look
from idia_core.erasure import IDENTITY, NAME, Eraser, Marks, Person, Spotter
from idia_core.errors import MissingInputError, UsageError
from idia_core.manifest import RECEIPTS, Manifest, read_manifest
from idia_core.storage import TEMPORARY_SUFFIX, as_path, find_files
from jobs.plan import ANY_FILE
from jobs.stages import ERASING, KEPT, stage_configs, stage_of, upstream_of
from pipelines.split_log import LOGS

RECORDS = "erasures.jsonl"
WHO = (IDENTITY, NAME, "aliases", "person")
SUMMARIES = ("judge", "evaluate", "figures", "evidence", "report")
"""Stages whose numbers and pages come of everybody together: they are made anew without the person, in minutes."""
SETS, PLAN, TRAIN, INDEX, RECOGNISER = "shards", "plan", "train", "index", "recogniser"
TRAINED = ("crops", "losses")
"""A recogniser with both tables was trained on the faces in the first."""
MOST_TEXT = 64 << 20
"""Bytes of a list outside of the study that are searched."""


@dataclass(frozen=True)
class Stages:
    """What a study's folder holds: sealed stages, also those kept aside, and stages that were interrupted."""

    out: UPath
    sealed: Mapping[str, Manifest]
    begun: tuple[str, ...]

    @classmethod
    def find(cls, out: UPath) -> "Stages":
        """Those below `out`; `MissingInputError` where there are none."""
        places = [*out.iterdir(), *((out / KEPT).iterdir() if (out / KEPT).exists() else [])] if out.exists() else []
        folders = {str(path.relative_to(out)): path for path in sorted(places, key=str) if path.is_dir()}
        seals = {name: seal for name, path in folders.items() if (seal := read_manifest(path))}
        begun = tuple(name for name, path in folders.items() if name not in seals and (path / RECEIPTS).exists())
        if not seals:
            raise MissingInputError("there is no sealed stage", str(out), "Check `out` in the study.")
        return cls(out, seals, begun)

    def files(self, folder: str) -> list[str]:
        """The files of a stage, sealed or not, below its folder, in the order of their paths."""
        if seal := self.sealed.get(folder):
            return sorted(file.path for receipt in seal.receipts for file in receipt.files)
        root = self.out / folder
        return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file() and p.suffix != TEMPORARY_SUFFIX)

    def loose(self) -> Iterator[str]:
        """Files below `out` that no stage wrote; the logs are none of them, as an erasure deletes them all."""
        known = {f"{folder}/{path}" for folder in (*self.sealed, *self.begun) for path in self.files(folder)}
        known |= {f"{folder}/manifest.json" for folder in self.sealed}
        for path in sorted(self.out.rglob("*"), key=str):
            name = str(path.relative_to(self.out))
            if path.is_file() and name not in known and not name.startswith((RECORDS, ERASING, f"{LOGS}/")):
                yield name


@dataclass
class Plan:
    """What is found of a person, and what becomes of it."""

    person: Person
    marks: Marks = field(default_factory=Marks)
    files: dict[str, dict[str, Found]] = field(default_factory=dict)
    """By folder and path."""
    taken_back: set[str] = field(default_factory=set)
    """Folders that go as a whole; the next run makes them anew."""
    knows: set[str] = field(default_factory=set)
    """Models and indexes that stay as they are, and what to do about each."""
    outside: set[str] = field(default_factory=set)
    """Places where the person still is."""
    unread: set[str] = field(default_factory=set)
    """Inputs that were not looked into."""

    def rewritten(self) -> dict[str, dict[str, Found]]:
        """What is found in stages that stay."""
        return {folder: files for folder, files in self.files.items() if files and folder not in self.taken_back}


@dataclass
class _Known:
    """Everybody in the tables: their other names by identity, and names without one."""

    people: dict[str, set[str]] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)

    def add(self, row: Mapping[str, object]) -> None:
        name, aliases = row.get(NAME), row.get("aliases")
        found = {str(text) for text in (name, *(aliases if isinstance(aliases, list) else ())) if text}
        if IDENTITY not in row:
            self.names |= {str(name)} if name else set()
        elif row[IDENTITY]:
            self.people.setdefault(str(row[IDENTITY]), set()).update(found)


def find_person(stages: Stages, given: str, stand_in: str) -> Person:
    """Whom a name means in the stages' tables; `UsageError` with near names where it means nobody, or several."""
    known = _everybody(stages)
    meant = [given] if given in known.people else [i for i, names in known.people.items() if given in names]
    if len(meant) > 1:
        what, fix = f"{len(meant)} people are called '{given}'", f"Say which: {', '.join(map(repr, sorted(meant)))}."
        raise UsageError(what, "--identity", fix)
    if not meant and given not in known.names:
        everybody = sorted(set(known.people).union(known.names, *known.people.values()))
        near = difflib.get_close_matches(given, everybody, n=3)
        fix = f"Did you mean {' or '.join(map(repr, near))}?" if near else "Give the name as the tables have it."
        raise UsageError(f"nobody in the sealed tables is called '{given}'", "--identity", fix)
    identity = meant[0] if meant else given
    own = {identity} | known.people.get(identity, set())
    others = {name for other, names in known.people.items() if other != identity for name in (other, *names)}
    names = (identity, *sorted(own - others - {identity}))
    spotter = Spotter(Person(identity=identity, names=names, longer=(), stand_in=stand_in))
    short = min(map(len, names))
    longer = (name for name in (others | known.names) - own if len(name) > short and spotter.names(name))
    return Person(identity=identity, names=names, longer=tuple(sorted(longer)), stand_in=stand_in)


def _everybody(stages: Stages) -> _Known:
    known = _Known()
    for folder in stages.sealed:
        for path in stages.files(folder):
            if path.endswith(".parquet"):
                _add_people(stages.out / folder / path, known)
    return known


def _add_people(file: UPath, known: _Known) -> None:
    with pq.ParquetFile(file.path, filesystem=file.fs) as parquet:
        columns = [name for name in WHO[:3] if name in parquet.schema_arrow.names]
        if not {IDENTITY, NAME} & set(columns):
            return
        for group in range(parquet.num_row_groups):
            table = parquet.read_row_group(group, columns)
            rows = table.to_pylist() if "aliases" in columns else table.group_by(columns).aggregate([]).to_pylist()
            for row in rows:
                known.add(row)


def make_plan(study: Study, stages: Stages, person: Person, earlier: Plan | None = None) -> Plan:
    """What is found of a person, and what will become of it; on top of what an interrupted erasure knew."""
    plan = earlier or Plan(person)
    while True:  # a row found by its name may tell of a picture that is elsewhere without one
        before = len(plan.marks)
        for folder in stages.sealed:
            eraser = Eraser(person, plan.marks, folder)
            found = {path: look(stages.out / folder, path, eraser) for path in _there(stages, folder)}
            plan.files[folder] = {path: what for path, what in found.items() if what.way}
            for what in found.values():
                plan.marks |= what.marks
        if len(plan.marks) == before:
            break
    _decide(stages, plan)
    for folder in stages.begun:
        kind = study.kind(folder) if folder in study.stages else folder
        eraser, root = Eraser(person, plan.marks, folder), stages.out / folder
        learns = kind == TRAIN and any(path.startswith(f"{PLAN}/") for files in plan.files.values() for path in files)
        if learns or any(look(root, path, eraser).way for path in _there(stages, folder)):
            plan.taken_back.add(folder)
    _look_outside(study, stages, plan)
    return plan


def _there(stages: Stages, folder: str) -> Iterator[str]:
    """The files of a stage that are there: an erasure that was interrupted has deleted some."""
    return (path for path in stages.files(folder) if (stages.out / folder / path).exists())


def _decide(stages: Stages, plan: Plan) -> None:
    """Which stages go as a whole, and which models know the person."""
    changed, plans = set[str](), set[str]()
    for folder, files in plan.files.items():
        seal, tables = stages.sealed[folder], {path.partition("/")[0] for path in files}
        changed |= {seal.digest(table) for table in tables}
        plans |= {seal.digest(table) for table in tables & {PLAN}}
        tars = any(path.endswith(".tar") for path in files)
        if (seal.stage == SETS and (tars or PLAN in tables)) or (seal.stage in SUMMARIES and tables):
            plan.taken_back.add(folder)
        if seal.stage == INDEX and files:
            plan.knows.add(f"{folder}: keeps the vectors of the person's pictures; delete the folder to index anew")
        if seal.stage == RECOGNISER and set(TRAINED) <= set(seal.tables()) and TRAINED[0] in tables:
            plan.knows.add(f"{folder}: was trained on the person's faces; delete the folder to train it again")
        for path, found in files.items():
            if found.way is Way.KNOWS:
                plan.knows.add(f"{folder}/{path}: names the person in a file that cannot be written anew")
    for folder, seal in stages.sealed.items():
        if seal.stage == TRAIN and PLAN in seal.inputs and seal.inputs[PLAN].digest in plans:
            names = sorted(file.path for file in seal.files("checkpoints"))
            plan.knows.add(f"{folder}: trained on the person's pairs, train again: {', '.join(names)}")
    _take_back_summaries(stages, plan, changed)


def _take_back_summaries(stages: Stages, plan: Plan, changed: set[str]) -> None:
    """Summaries go whose inputs change, and those made from them."""
    summaries = {folder: seal for folder, seal in stages.sealed.items() if seal.stage in SUMMARIES}
    before = -1
    while len(changed) > before:
        before = len(changed)
        for folder, seal in summaries.items():
            if folder in plan.taken_back or any(record.digest in changed for record in seal.inputs.values()):
                plan.taken_back.add(folder)
                changed |= set(map(seal.digest, seal.tables()))


def _look_outside(study: Study, stages: Stages, plan: Plan) -> None:
    eraser = Eraser(plan.person, plan.marks, "")
    if eraser.spotter.names(study.model_dump_json()):
        plan.outside.add(f"the file of the study {study.name}")
    loose = (path for path in stages.loose() if path.partition("/")[0] not in plan.taken_back)
    plan.outside |= {str(stages.out / path) for path in loose if look(stages.out, path, eraser).way}
    for file in _inputs(study):
        holds = _holds(file, eraser)
        if holds is None:
            plan.unread.add(str(file))
        elif holds:
            plan.outside.add(str(file))


def _inputs(study: Study) -> Iterator[UPath]:
    """The files from outside of the study that its stages read, and the caches that they keep."""
    for name, config in stage_configs(study).items():
        stage = stage_of(study, name)
        given = [(source, stage.inputs[field].patterns) for field, source in config.inputs.items()]
        given += [(path, ANY_FILE.patterns) for path in stage.named_files(config).values()]
        if cache := getattr(config.resources, "text_cache", None):
            given.append((cache, ("*/*.json",)))
        for source, patterns in given:
            if upstream_of(source) not in study.stages:
                yield from _found(source, patterns)


def _found(source: str, patterns: tuple[str, ...]) -> Iterable[UPath]:
    try:
        return find_files(source, patterns, "")
    except MissingInputError:
        return ()  # it was taken away since


def _holds(file: UPath, eraser: Eraser) -> bool | None:
    """Whether a file outside holds the person, by its path, its columns of people, or its text; None if not looked."""
    if eraser.spotter.names(str(as_path(str(file)))):
        return True
    if file.suffix == ".parquet":
        with pq.ParquetFile(file.path, filesystem=file.fs) as parquet:
            columns = [name for name in WHO if name in parquet.schema_arrow.names]
            groups = range(parquet.num_row_groups if columns else 0)
            found = any(eraser.clean(parquet.read_row_group(group, columns)).rows for group in groups)
        return found if columns else None
    size = file.stat().st_size
    if file.suffix in {".csv", ".tsv", ".txt", ".json"} and size <= MOST_TEXT:
        return eraser.spotter.names(file.read_bytes().decode("utf-8", "replace"))
    if size in eraser.marks.sizes:
        return eraser.is_picture(file.read_bytes())
    return False if file.suffix in {".jpg", ".jpeg", ".png", ".webp", ".pt"} else None
