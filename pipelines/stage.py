"""What a stage is: a config, inputs, and phases of splits that workers turn into files."""

import shutil
import tempfile
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from upath import UPath

from idia_core.config import StageConfig
from idia_core.errors import InvalidInputError
from idia_core.manifest import FileEntry, Receipt
from idia_core.secrets import without_secrets
from idia_core.storage import TEMPORARY_SUFFIX, HashedFile, is_local, write_whole

Split = Mapping[str, Any]
"""One piece of a phase's work: JSON-like, a pure function of the inputs, never of the number of workers."""


@dataclass(frozen=True)
class Input:
    """What a stage declares about one of its inputs."""

    holds: str
    """What is in it, for error messages: 'captions (Parquet)'."""
    patterns: tuple[str, ...] = ("*.parquet",)
    """Which files count when a folder is given."""
    optional: bool = False


@dataclass(frozen=True)
class ResolvedInput:
    """An input found: its files in sorted order and a digest that changes with their content."""

    source: str
    root: UPath
    """The folder of the table, or the path that was given."""
    files: tuple[UPath, ...]
    digest: str

    def read(self, *columns: str) -> pa.Table:
        """Those columns of all rows of a Parquet input that is known to be small.

        Raises `InvalidInputError` for a file that is no Parquet or lacks a column.
        """
        return pa.concat_tables([read_parquet(file, columns) for file in self.files])

    def read_as(self, schema: pa.Schema) -> pa.Table:
        """All rows as `schema`; a column that may be null need not be there."""
        must = [field.name for field in schema if not field.nullable]
        return pa.concat_tables([_read_as(file, schema, must) for file in self.files])


@dataclass(frozen=True)
class StageContext:
    """What every phase of a running stage may use; travels to the workers."""

    stage: str
    config: Any
    inputs: Mapping[str, ResolvedInput]
    folder: UPath
    """Where the stage writes; the parts of earlier phases are read from here."""
    kept: tuple[UPath, ...] = ()
    """Folders of what this stage wrote under other fingerprints."""
    fingerprint: str | None = None
    """What its output depends on; None before the inputs are there."""

    def table(self, name: str) -> pa.Table:
        """A table that an earlier phase of this stage wrote, known to be small."""
        files = sorted((self.folder / name).glob("*.parquet"), key=str)
        return pa.concat_tables([pq.read_table(f.path, filesystem=f.fs) for f in files])


@contextmanager
def open_parquet(file: UPath) -> Iterator[pq.ParquetFile]:
    """A Parquet file at any URL; `InvalidInputError` names the file and what is wrong with it."""
    try:
        with pq.ParquetFile(file.path, filesystem=file.fs) as parquet:
            yield parquet
    except (pa.ArrowInvalid, OSError) as error:
        what = f"not a readable Parquet file: {str(error).splitlines()[0]}"
        raise InvalidInputError(what, str(file), "Fetch it again.") from None


def read_parquet(file: UPath, columns: Iterable[str]) -> pa.Table:
    """Those columns of one Parquet file; `InvalidInputError` names one that is not there."""
    with open_parquet(file) as parquet:
        present, wanted = parquet.schema_arrow.names, list(columns)
        if missing := [column for column in wanted if column not in present]:
            raise InvalidInputError(f"no column '{missing[0]}'", str(file), f"It has: {', '.join(present)}.")
        return parquet.read(wanted)


def _read_as(file: UPath, schema: pa.Schema, must: list[str]) -> pa.Table:
    with open_parquet(file) as parquet:
        present = parquet.schema_arrow.names
    may = [name for name in schema.names if name in present and name not in must]
    table = read_parquet(file, [*must, *may])
    for wanted in schema:
        if wanted.name not in table.column_names:
            table = table.append_column(wanted, pa.nulls(len(table), wanted.type))
    return table.select(schema.names).cast(schema)


class Report(Protocol):
    """Tells how a split is getting on."""

    def __call__(self, fraction: float, text: str, row: Mapping[str, str] | None = None) -> None:
        """The fraction done (0 to 1), a few words, and the same as a row of a table where splits run for hours."""


class Worker(Protocol):
    """Turns a split into files; built once in each worker process, so that models are loaded once."""

    def __call__(self, split: Split, out: "SplitWriter") -> None:
        """Write the split's output."""


@dataclass(frozen=True)
class Phase:
    """A step of a stage; it starts when the one before it has ended."""

    name: str
    plan: Callable[[StageContext], Iterable[Split]]
    worker: Callable[[StageContext], Worker]
    controls: bool = False
    """Its workers start other work on the cluster and watch it: they take no CPU, all run at once (or as many as
    `resources.workers`), near the driver, and one that fails ends none of the others."""
    outward: bool = False
    """Its splits ask others' servers, or keep what they go on from: none is started a second time beside a first."""
    urgency: Callable[[StageContext, Split], float] | None = None
    """Its splits start from the most urgent one on; without it in the plan's order. Their names stay the plan's."""


def no_files(config: Any) -> Mapping[str, str]:
    """What a stage names whose config names no files."""
    del config
    return {}


class Preview(NamedTuple):
    """What a stage would write, for `--dry-run`."""

    rows: Sequence[Mapping[str, Any]]
    """A table of it, all rows with the same columns."""
    notes: Sequence[str]
    """What it costs, and what the numbers do not know yet."""


@dataclass(frozen=True)
class Stage:
    """A registration: the stage's name, its version (raised whenever its output changes), config, inputs, phases."""

    name: str
    version: int
    summary: str
    config: type[StageConfig]
    inputs: Mapping[str, Input]
    phases: tuple[Phase, ...]
    tables: tuple[str, ...]
    """The tables it writes, for `stage.table` references."""
    named_files: Callable[[Any], Mapping[str, str]] = no_files
    """Files that fields of its config name, such as checkpoints: they are inputs too, so that a change is noticed."""
    preview: Callable[[StageContext], Preview] | None = None
    """What it would write, from its inputs' sizes."""
    works_in: Callable[[StageContext], Path] | None = None
    """A folder, perhaps outside its own, of what its splits go on from when they are interrupted; it goes with the
    seal."""


def once(context: StageContext) -> Iterable[Split]:
    """The plan of a phase that is a single piece of work, such as a summary over all parts."""
    del context
    return [{}]


@dataclass
class SplitWriter:
    """Writes one split's files, each whole or not at all, and counts its rows."""

    folder: UPath
    split: str
    part: int
    report: Report
    """Call it now and then from a long split."""
    files: list[FileEntry] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    facts: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def table(self, name: str, table: pa.Table, prefix: str = "part") -> None:
        """Write `table` as this split's part of the table `name`; of a table of several phases each has its prefix."""
        with self.open(f"{name}/{prefix}-{self.part:05d}.parquet", rows=table.num_rows) as file:
            pq.write_table(table, file, compression="zstd", row_group_size=65_536)

    def csv(self, name: str, table: pa.Table) -> None:
        """Write `table` as `csv/name.csv` too, for people who want one."""
        with self.open(f"csv/{name}.csv") as file:
            pa.csv.write_csv(table, file)

    @contextmanager
    def open(self, path: str, rows: int | None = None) -> Iterator[IO[bytes]]:
        """Open a file of a table, `table/…`, for writing."""
        with write_whole(self.folder / path) as file:
            hashed = HashedFile(file)
            yield hashed  # type: ignore[misc]  # what tools need of a file that they write
        self.files.append(FileEntry(path=path, bytes=hashed.bytes, sha256=hashed.sha256, rows=rows))

    def write(self, path: str, content: bytes) -> None:
        """Write a small file of a table, `table/…`, in one go."""
        with self.open(path) as file:
            file.write(content)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A local folder for tools that want one; gone afterwards, or at the stage's end if the process is killed."""
        name = f".{self.split}.{uuid.uuid4().hex}{TEMPORARY_SUFFIX}"  # a worker that its driver lost may be at it too
        path = Path(self.folder.path) / name if is_local(self.folder) else Path(tempfile.mkdtemp(suffix=name))
        path.mkdir(parents=True, exist_ok=True)
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def count(self, **reasons: int) -> None:
        """Add to the split's counts: `rows_in`, `rows_kept`, or a reason why rows were dropped."""
        self.counts.update(reasons)

    def note(self, kind: str, fact: str) -> None:
        """Add a fact for the manifest, once, and without passwords or tokens."""
        self.facts[kind] = (*dict.fromkeys((*self.facts.get(kind, ()), without_secrets(fact))),)

    def receipt(self, key: str) -> Receipt:
        """The proof that the split is done."""
        counts = dict(sorted(self.counts.items()))
        return Receipt(split=self.split, key=key, files=tuple(self.files), counts=counts, facts=self.facts)
