"""Fingerprints and seals: what a stage was made from, and proof that it is done."""

import hashlib
import importlib.metadata
import json
import platform
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from upath import UPath

from idia_core.errors import SealError
from idia_core.secrets import value_without_secrets, without_secrets, words_without_secrets
from idia_core.storage import write_text

MANIFEST = "manifest.json"
RECEIPTS = "_receipts"
"""Folder of the receipts of a stage that is not sealed yet; the seal takes them up."""
FINGERPRINT = "fingerprint"
"""Name of the file beside the receipts that says what they are of."""
WORK = "_work"
"""Folder of what splits keep to go on from when they are interrupted, such as checkpoints; it goes with the seal."""
FAILED = "failed_inputs"
"""The kind of facts that name inputs which could not be read: `PATH: reason`."""
PACKAGES = (
    *("ray", "pyarrow", "numpy", "torch", "open_clip_torch", "webdataset", "opencv-python-headless", "faiss-cpu"),
    "Faker",
)


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileEntry(_Record):
    """One file of a stage's output; `path` is relative to the stage's folder."""

    path: str
    bytes: int
    sha256: str
    rows: int | None = None

    @property
    def table(self) -> str:
        """The table that the file belongs to: the first part of its path."""
        return self.path.partition("/")[0]


class Receipt(_Record):
    """Proof that one split is done: the files it wrote and the rows it counted, by reason."""

    split: str
    key: str
    files: tuple[FileEntry, ...] = ()
    counts: dict[str, int] = {}
    facts: dict[str, tuple[str, ...]] = {}
    """What was noticed, by kind: the `edition` of a file, a file among the `failed_inputs`."""
    seconds: float | None = Field(default=None, exclude=True)
    """How long its worker took, if it was just now; never written, as it differs from run to run."""


class InputRecord(_Record):
    """Where an input came from; `digest` changes whenever its content does."""

    source: str
    digest: str
    files: int


class Provenance(_Record):
    """Who made an output, with what and when (UTC)."""

    argv: tuple[str, ...]
    commit: str | None
    dirty: bool | None
    python: str
    versions: dict[str, str]
    started: str
    seconds: float
    split_seconds: float | None = None
    """How long the workers of the splits took that this run did, all together."""
    split_rows: int | None = None
    """The `rows_in` of these splits: those of an earlier, interrupted run are not among them."""


class Manifest(_Record):
    """The seal of a stage: written last, so that a stage without one is not done."""

    stage: str
    version: int
    fingerprint: str
    config: dict[str, Any]
    resources: dict[str, Any]
    inputs: dict[str, InputRecord]
    counts: dict[str, int]
    facts: dict[str, tuple[str, ...]] = {}
    receipts: tuple[Receipt, ...]
    provenance: Provenance

    def files(self, table: str) -> list[FileEntry]:
        """The files of one table, in the order of their paths."""
        return sorted((f for r in self.receipts for f in r.files if f.table == table), key=lambda f: f.path)

    def tables(self) -> list[str]:
        """The names of the tables that the stage wrote."""
        return sorted({f.table for r in self.receipts for f in r.files})

    def digest(self, table: str) -> str:
        """The SHA-256 over the paths and hashes of a table's files: the same content, the same digest."""
        return digest_of([(f.path, f.sha256) for f in self.files(table)])


def digest_of(value: Any) -> str:
    """The SHA-256 of a JSON-like value, independent of the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def fingerprint(stage: str, version: int, config: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """What a stage's output depends on: its version, its config without resources, its inputs' digests."""
    return digest_of({"stage": stage, "version": version, "config": config, "inputs": inputs})


def total_counts(receipts: Iterable[Receipt]) -> dict[str, int]:
    """The counts of all splits, summed by reason."""
    total: Counter[str] = Counter()
    for receipt in receipts:
        total.update(receipt.counts)
    return dict(sorted(total.items()))


def all_facts(receipts: Iterable[Receipt]) -> dict[str, tuple[str, ...]]:
    """The facts of all splits, by kind, each once and in order."""
    found: dict[str, set[str]] = {}
    for receipt in receipts:
        for kind, facts in receipt.facts.items():
            found.setdefault(kind, set()).update(facts)
    return {kind: tuple(sorted(facts)) for kind, facts in sorted(found.items())}


def failed_files(facts: Iterable[str]) -> set[str]:
    """The files among facts of the kind FAILED, each once however many of its splits failed."""
    return {fact.partition(": ")[0] for fact in facts}


def read_receipts(folder: UPath) -> list[Receipt]:
    """The receipts of a stage's folder, whether it is sealed or was interrupted."""
    if manifest := read_manifest(folder):
        return list(manifest.receipts)
    return unsealed_receipts(folder)


def unsealed_receipts(folder: UPath, prefix: str = "") -> list[Receipt]:
    """The receipts of a stage that is not sealed whose names begin so; of a store many are fetched at once."""
    found = sorted((folder / RECEIPTS).glob(f"{prefix}*.json"), key=str)
    contents = folder.fs.cat([path.path for path in found]) if found else {}
    return [Receipt.model_validate_json(content) for _, content in sorted(contents.items())]


def read_manifest(folder: UPath) -> Manifest | None:
    """The seal in `folder`, or None where the stage is not done.

    Raises `SealError` when the file is there but is no manifest of ours.
    """
    path = folder / MANIFEST
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        fix = "Move the folder away and run the stage again."
        raise SealError(f"the manifest cannot be read: {error.errors()[0]['msg']}", str(path), fix) from None


def write_manifest(folder: UPath, manifest: Manifest) -> None:
    """Seal `folder`; passwords and tokens in what was asked for are not written."""
    told = manifest.model_copy(
        update={
            "config": value_without_secrets(manifest.config),
            "resources": value_without_secrets(manifest.resources),
            "inputs": {
                name: record.model_copy(update={"source": without_secrets(record.source)})
                for name, record in manifest.inputs.items()
            },
        }
    )
    write_text(folder / MANIFEST, told.model_dump_json(indent=1) + "\n")


def missing_files(folder: UPath, files: Iterable[FileEntry]) -> list[FileEntry]:
    """Those of the files that are not in `folder` with the size their entry gives."""
    sizes = {str(name): info["size"] for name, info in folder.fs.find(folder.path, detail=True).items()}
    root = folder.path.rstrip("/")
    return [f for f in files if sizes.get(f"{root}/{f.path}") != f.bytes]


def code_version() -> tuple[str | None, bool | None]:
    """The checkout's commit and whether it has uncommitted changes; None, None outside a checkout."""
    root = Path(__file__).parent.parent
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True)
        status = subprocess.run(["git", "status", "--porcelain"], cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None, None
    return commit.stdout.strip(), bool(status.stdout.strip())


def provenance(argv: Iterable[str], started: str, seconds: float, receipts: Iterable[Receipt] = ()) -> Provenance:
    """The provenance of an output made just now by this process, from these receipts among others."""
    timed = [(receipt.seconds, receipt.counts.get("rows_in", 0)) for receipt in receipts if receipt.seconds is not None]
    commit, dirty = code_version()
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return Provenance(
        argv=tuple(words_without_secrets(argv)),
        commit=commit,
        dirty=dirty,
        python=platform.python_version(),
        versions=versions,
        started=started,
        seconds=round(seconds, 3),
        split_seconds=round(sum(took for took, _ in timed), 3),
        split_rows=sum(rows for _, rows in timed),
    )
