"""`idia erase`: takes a person out of all that a study's sealed stages hold, and leaves a record that it was done."""

import getpass
import json
import os
import secrets
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError
from rich.console import Console
from upath import UPath

from idia_core.config import Study
from idia_core.erased_files import PRIVATE, Way, rewrite
from idia_core.erasure import Eraser, Marks, Person, salted
from idia_core.erasure_seals import Erased, with_files, with_new_digests, without_names
from idia_core.errors import SealError, UsageError
from idia_core.manifest import FileEntry, Manifest, read_manifest, write_manifest
from idia_core.storage import as_path, is_local, move_tree, remove_tree, sha256_of, sole_writer, write_whole
from jobs.erasure_plan import RECORDS, Plan, Stages, find_person, make_plan
from jobs.findings import say
from jobs.plan import KEPT_DIGITS
from jobs.stages import ERASING, KEPT
from pipelines.split_log import LOGS


class State(BaseModel):
    """What an erasure that is interrupted goes on from; it names the person, and is deleted at the end."""

    model_config = ConfigDict(extra="forbid")
    person: Person
    begun: str
    marks: Marks = Marks()
    taken_back: set[str] = set()
    knows: set[str] = set()
    rows: dict[str, dict[str, int]] = {}
    """By folder and path, as they were found."""
    seals: dict[str, Manifest] | None = None
    """The new seals, once all files are written."""


def erase_people(study: Study, names: Iterable[str], console: Console, *, dry_run: bool = False) -> None:
    """Erase people one after another.

    Raises `UsageError` for a name that nobody has, `BusyError` while a run writes there, and `MissingInputError` where
    nothing is sealed.
    """
    out = as_path(study.out)
    Stages.find(out)  # before the lock makes the folder
    with sole_writer(out):
        for name in dict.fromkeys(names):
            _erase(study, name, console, dry_run=dry_run)


def _erase(study: Study, name: str, console: Console, *, dry_run: bool) -> None:
    out = as_path(study.out)
    stages, (file, state) = Stages.find(out), _unfinished(out, name)
    if state and state.seals is not None and not dry_run:
        _seal(stages.out, file, state, console)
        return
    if state is None:
        try:
            person = find_person(stages, name, f"erased-{file.stem.removeprefix(ERASING)}")
        except UsageError:
            if done := _erased_before(out, name):
                say(console, f"'{name}' was erased on {done}: nothing in the sealed tables has that name")
                return
            raise
        state = State(person=person, begun=datetime.now(UTC).isoformat())
    earlier = Plan(state.person, state.marks, taken_back=set(state.taken_back), knows=set(state.knows))
    plan = make_plan(study, stages, state.person, earlier)
    print_plan(plan, stages, console, dry_run=dry_run)
    if dry_run:
        return
    state.marks, state.taken_back, state.knows = plan.marks, plan.taken_back, plan.knows
    for folder, files in plan.rewritten().items():
        state.rows.setdefault(folder, {}).update(
            {path: found.rows for path, found in files.items() if found.way is not Way.KNOWS}
        )
    _write_private(file, state.model_dump_json())
    before = {folder: seal for folder, seal in stages.sealed.items() if folder not in plan.taken_back}
    for folder in sorted(plan.taken_back):
        _take_back(out / folder)
    remove_tree(out / LOGS)  # an error may tell of anybody
    state.seals = _rewrite(out, before, plan, state)
    _write_private(file, state.model_dump_json())
    _seal(out, file, state, console)


def _take_back(folder: UPath) -> None:
    """Delete a stage, its seal first: without one it is not done."""
    (folder / "manifest.json").unlink(missing_ok=True)
    remove_tree(folder)


def _rewrite(out: UPath, before: dict[str, Manifest], plan: Plan, state: State) -> dict[str, Manifest]:
    """Write all files anew that hold the person; the new seals."""
    after = dict[str, Manifest]()
    for folder, seal in before.items():
        eraser, erased = Eraser(plan.person, plan.marks, folder), dict[str, Erased]()
        entries = [file for receipt in seal.receipts for file in receipt.files]
        for entry in sorted(entries, key=lambda file: (file.path.endswith(".parquet"), file.path)):
            # Metadata come after their vectors: they tell which of these are the person's.
            rows = state.rows.get(folder, {}).get(entry.path)
            if rows is not None and (done := _erase_file(out / folder, entry, plan, eraser)) is not None:
                erased[entry.path] = done._replace(rows=rows)
        named = with_files(seal, erased, state.begun)
        after[folder] = without_names(named, eraser.spotter)
    return with_new_digests(before, after)


def _erase_file(folder: UPath, entry: FileEntry, plan: Plan, eraser: Eraser) -> Erased | None:
    """Erase what a file holds; None where nothing had to be written, now or before an interruption."""
    found, file = plan.files.get(str(eraser.folder), {}).get(entry.path), folder / entry.path
    if not file.exists():
        return Erased(None, 0)
    if found is None:  # done before the interruption
        rows = _rows_of(file) if entry.path.endswith(".parquet") else entry.rows
        return Erased(FileEntry(path=entry.path, bytes=file.stat().st_size, sha256=sha256_of(file), rows=rows), 0)
    if found.way is Way.DELETE:
        file.unlink()
        return Erased(None, 0)
    return None if found.way is Way.KNOWS else Erased(rewrite(folder, entry, eraser), 0)


def _rows_of(file: UPath) -> int:
    return int(pq.read_metadata(file.path, filesystem=file.fs).num_rows)


def _seal(out: UPath, file: UPath, state: State, console: Console) -> None:
    """Write the new seals, move what is kept aside to where its new fingerprint is looked for, and write the record."""
    for folder, seal in (state.seals or {}).items():
        path = out / folder
        present = read_manifest(path)
        if present is None or present.provenance.started != seal.provenance.started:
            continue  # it was moved before an interruption, or made anew after it
        if present != seal:
            write_manifest(path, seal)
        if folder.startswith(f"{KEPT}/"):
            wanted = (
                out / KEPT / f"{folder.removeprefix(f'{KEPT}/').rpartition('-')[0]}-{seal.fingerprint[:KEPT_DIGITS]}"
            )
            if wanted != path and not wanted.exists():
                move_tree(path, wanted)
    record = _record(state)
    if not any(line["id"] == record["id"] for line in _records(out)):
        lines = [json.dumps(line) for line in (*_records(out), record)]
        _write_private(out / RECORDS, "".join(f"{line}\n" for line in lines))
    file.unlink()
    say(console, f"erased; the record is in {out / RECORDS}")


def _record(state: State) -> dict[str, Any]:
    """What stays of an erasure: of the person no more than a hash by which who knows the name finds it again."""
    salt = secrets.token_hex(16)
    return {
        "id": state.person.stand_in.removeprefix("erased-"),
        "begun": state.begun,
        "done": datetime.now(UTC).isoformat(),
        "user": getpass.getuser(),
        "person": {"salt": salt, "sha256": sorted({salted(salt, name) for name in state.person.names})},
        "stages": {
            folder: {"files": len(files), "rows": sum(files.values())} for folder, files in sorted(state.rows.items())
        },
        "taken_back": sorted(state.taken_back),
        "still_know": sorted(state.knows),
    }


def _records(out: UPath) -> list[dict[str, Any]]:
    path = out / RECORDS
    if not path.exists():
        return []
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except json.JSONDecodeError as error:
        raise SealError(f"the record of erasures cannot be read: {error}", str(path), "Put it right.") from None


def _erased_before(out: UPath, name: str) -> str | None:
    """When somebody of that name was erased; None where nobody was."""
    found = (line for line in _records(out) if salted(line["person"]["salt"], name) in line["person"]["sha256"])
    return next((str(line["done"])[:19] for line in found), None)


def _unfinished(out: UPath, name: str) -> tuple[UPath, State | None]:
    """The file of this person's erasure, and what it says where one was interrupted."""
    for file in sorted(out.glob(f"{ERASING}*.json"), key=str):
        try:
            state = State.model_validate_json(file.read_bytes())
        except ValidationError:
            continue  # another version's
        if name in state.person.names:
            return file, state
    return out / f"{ERASING}{secrets.token_hex(6)}.json", None


def _write_private(path: UPath, text: str) -> None:
    with write_whole(path) as file:
        if is_local(path):
            os.fchmod(file.fileno(), PRIVATE)
        file.write(text.encode())


def print_plan(plan: Plan, stages: Stages, console: Console, *, dry_run: bool) -> None:
    """Say what is found of a person, what becomes of it, and what is left for others to do."""
    verb = "would be" if dry_run else "will be"
    for folder, files in sorted(plan.rewritten().items()):
        rows, deleted = (
            sum(found.rows for found in files.values()),
            [p for p, f in files.items() if f.way is Way.DELETE],
        )
        gone = f", {len(deleted)} of them deleted" if deleted else ""
        say(console, f"{folder}: {rows:,} rows in {len(files):,} files{gone}")
    for folder in sorted(plan.taken_back):
        unsealed = "was interrupted" if folder in stages.begun else "is made anew by the next run"
        say(console, f"{folder}: {verb} deleted as a whole; it {unsealed}")
    for line in sorted(plan.knows):
        say(console, f"still knows the person: {line}")
    for place in sorted(plan.outside):
        say(console, f"still holds the person, remove it there before the next run: {place}")
    if plan.unread:
        shown = ", ".join(sorted(plan.unread)[:3])
        say(console, f"not looked into, as they have no column of people: {len(plan.unread):,} inputs, such as {shown}")
