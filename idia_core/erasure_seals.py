"""Seals after an erasure, so that what is left counts as what the same settings and inputs made."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from idia_core.erasure import Spotter
from idia_core.manifest import FileEntry, Manifest, fingerprint, total_counts

ERASED = "erased"
"""The kind of facts that say when rows of a person were taken out of a sealed stage."""
ROWS_ERASED = "rows_erased"


class Erased(NamedTuple):
    """What became of one file: its new entry, None where it is gone, and how many rows were the person's."""

    entry: FileEntry | None
    rows: int


def with_files(seal: Manifest, files: Mapping[str, Erased], when: str) -> Manifest:
    """A stage's seal with the entries of its files by path, with a count of the rows and the fact that it was done."""
    if not files:
        return seal
    receipts = []
    for receipt in seal.receipts:
        own = [files[file.path] for file in receipt.files if file.path in files]
        kept = [files[file.path].entry if file.path in files else file for file in receipt.files]
        counts = receipt.counts
        if rows := sum(erased.rows for erased in own):
            counts = counts | {ROWS_ERASED: counts.get(ROWS_ERASED, 0) + rows}
        new = {"files": tuple(entry for entry in kept if entry), "counts": counts}
        receipts.append(receipt.model_copy(update=new) if own else receipt)
    facts = seal.facts | {ERASED: (*seal.facts.get(ERASED, ()), when)}
    return seal.model_copy(update={"receipts": tuple(receipts), "counts": total_counts(receipts), "facts": facts})


def without_names(seal: Manifest, spotter: Spotter) -> Manifest:
    """The seal with the stand-in for the person's names in its config, inputs, facts and command."""
    return Manifest.model_validate(_without(seal.model_dump(mode="json"), spotter))


def _without(value: Any, spotter: Spotter) -> Any:
    if isinstance(value, str):
        return spotter.without(value)
    if isinstance(value, list | tuple):
        return [_without(item, spotter) for item in value]
    if isinstance(value, dict):
        return {spotter.without(key): _without(item, spotter) for key, item in value.items()}
    return value


def with_new_digests(before: Mapping[str, Manifest], after: Mapping[str, Manifest]) -> dict[str, Manifest]:
    """The new seals of all stages, by folder, with the digests of each other's new tables, and so new fingerprints.

    Then the next run finds every stage done: what a stage would make of its erased inputs is what it now holds.
    """
    moved = {
        seal.digest(table): after[folder].digest(table)
        for folder, seal in before.items()
        if folder in after
        for table in seal.tables()
    }
    return {folder: _with_digests(before[folder], seal, moved) for folder, seal in after.items()}


def _with_digests(before: Manifest, seal: Manifest, moved: Mapping[str, str]) -> Manifest:
    inputs = {
        field: record.model_copy(update={"digest": moved.get(record.digest, record.digest)})
        for field, record in seal.inputs.items()
    }
    if _fingerprint(before) != before.fingerprint:  # another version's: it would not be taken for done anyway
        return seal.model_copy(update={"inputs": inputs})
    renewed = seal.model_copy(update={"inputs": inputs})
    return renewed.model_copy(update={"fingerprint": _fingerprint(renewed)})


def _fingerprint(seal: Manifest) -> str:
    digests = {field: record.digest for field, record in seal.inputs.items()}
    return fingerprint(seal.stage, seal.version, seal.config, digests)
