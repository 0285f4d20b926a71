"""People found in tables: Parquet or CSV, a row a picture, with the pictures in it, beside it or in tars."""

import io
from collections.abc import Iterable
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from idia_core.errors import InvalidInputError
from idia_core.names import SEXES, tidy_name
from idia_core.people_sources import Found, Person
from idia_core.storage import as_path, is_local

TEXTS = ("identity", "name", "sex", "locale", "path", "tar", "member")
COLUMNS = (*TEXTS, "aliases", "image")
PLACES = (("image",), ("path",), ("tar", "member"))
"""The columns that say where a row's picture is: one of these."""


def is_table(file: UPath) -> bool:
    """True for a file that `people_of_tables` takes."""
    return file.name.endswith((".parquet", ".csv"))


def people_of_tables(files: Iterable[UPath]) -> Found:
    """The people of Parquet and CSV tables, in the order in which they appear; several rows may be one person's.

    Columns: `name`; `identity` (the name if there is none), `aliases` (a list, or text with semicolons), `sex`,
    `locale`; and one of `image` (the encoded picture, in Parquet), `path` (from the table's folder on, or any URL), or
    `tar` (likewise) and `member`. No picture is read. Raises InvalidInputError, which names the file or the row, for a
    table of another form and for rows that contradict each other.
    """
    people: dict[str, Person] = {}
    notes: list[str] = []
    for file in files:
        columns, frame = _read(file)
        kind = _place(columns, file)
        if unused := [column for column in columns if column not in COLUMNS]:
            notes.append(f"{file}: columns not used: {', '.join(unused)}")
        for number, row in enumerate(frame.iter_rows(named=True)):
            where = f"{file}, row {number + 1}"
            person = _person(row, where)
            known = people.setdefault(person.identity, person)
            if known is not person:
                _merge(known, person)
            _add_picture(known, row, kind, file, number)
    if not people:
        raise InvalidInputError("no person in the table", str(next(iter(files), "")), "Give a table with rows.")
    return Found(list(people.values()), tuple(notes))


def _read(file: UPath) -> tuple[list[str], pl.DataFrame]:
    """All columns' names, and those of COLUMNS that are not the pictures themselves."""
    try:
        columns, frame = _read_csv(file) if file.name.endswith(".csv") else _read_parquet(file)
    except (pl.exceptions.PolarsError, pa.ArrowException, OSError) as error:
        what = f"not a readable table: {str(error).splitlines()[0]}"
        raise InvalidInputError(what, str(file), "Give Parquet, or CSV in UTF-8.") from None
    if "name" not in columns:
        raise InvalidInputError("no column 'name'", str(file), f"It has: {', '.join(columns)}.")
    for column, kind in frame.schema.items():
        if kind in (pl.String, pl.Null) or (column == "aliases" and kind == pl.List(pl.String)):
            continue
        if column == "identity" and kind.is_integer():
            continue
        raise InvalidInputError(f"column '{column}' holds {kind}, not text", str(file), "Write it as text.")
    return columns, frame.with_columns(pl.col(pl.Null).cast(pl.String), pl.col("^identity$").cast(pl.String))


def _read_csv(file: UPath) -> tuple[list[str], pl.DataFrame]:
    frame = pl.read_csv(io.BytesIO(file.read_bytes()), infer_schema=False)
    if "image" in frame.columns:
        fix = "Give the column path, or tar and member, or write Parquet."
        raise InvalidInputError("column 'image': CSV cannot hold pictures", str(file), fix)
    return frame.columns, frame.select(column for column in frame.columns if column in COLUMNS)


def _read_parquet(file: UPath) -> tuple[list[str], pl.DataFrame]:
    with pq.ParquetFile(file.path, filesystem=file.fs) as parquet:
        columns = parquet.schema_arrow.names
        if "image" in columns and not _is_bytes(kind := parquet.schema_arrow.field("image").type):
            raise InvalidInputError(f"column 'image' holds {kind}, not bytes", str(file), "Write encoded pictures.")
        table = parquet.read([column for column in columns if column in COLUMNS and column != "image"])
    table.validate(full=True)
    plain = [
        column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
        for column in table.columns
    ]
    frame = pl.DataFrame(pa.table(plain, names=table.column_names)) if plain else pl.DataFrame()
    return columns, frame.cast({pl.List(pl.Null): pl.List(pl.String)})


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _place(columns: list[str], file: UPath) -> tuple[str, ...]:
    """Which of PLACES the table has."""
    there = [kind for kind in PLACES if set(kind) <= set(columns)]
    if len(there) != 1:
        what = "no column says where the pictures are" if not there else "several columns say where the pictures are"
        fix = f"Give one of image, path, or tar and member. It has: {', '.join(columns)}."
        raise InvalidInputError(what, str(file), fix)
    return there[0]


def _person(row: dict[str, Any], where: str) -> Person:
    name = tidy_name(row["name"] or "")
    if not name:
        raise InvalidInputError("a name is blank", where, "Fill it in or take the row out.")
    sex = (row.get("sex") or "").strip()
    if sex and sex.casefold() not in SEXES:
        raise InvalidInputError(f"the sex {sex!r} is unknown", where, "Write F, M, female, male, or leave it empty.")
    given = row.get("aliases") or []
    aliases = [tidy_name(alias or "") for alias in (given.split(";") if isinstance(given, str) else given)]
    return Person(
        identity=tidy_name(row.get("identity") or "") or name,
        name=name,
        where=where,
        sex=SEXES.get(sex.casefold()),
        aliases=[alias for alias in aliases if alias],
        locale=(row.get("locale") or "").strip() or None,
    )


def _merge(known: Person, other: Person) -> None:
    """Add what another row says of the same person."""
    for column in ("name", "sex", "locale"):
        old, new = getattr(known, column), getattr(other, column)
        if old and new and old != new:
            what = f"{known.identity!r} has the {column} {old!r} and {new!r}"
            raise InvalidInputError(
                what, f"{known.where} and {other.where}", "Write the same in both, or two identities."
            )
        setattr(known, column, old or new)
    known.aliases += [alias for alias in other.aliases if alias not in known.aliases]


def _add_picture(person: Person, row: dict[str, Any], kind: tuple[str, ...], file: UPath, number: int) -> None:
    """Add where the row's picture is; a run of rows of one Parquet file is one entry."""
    last = person.pictures[-1] if person.pictures else {}
    if kind == ("image",):
        if last.get("parquet") == str(file) and last["stop"] == number:
            last["stop"] += 1
        else:
            person.pictures.append({"parquet": str(file), "start": number, "stop": number + 1})
        return
    given = [row[column] for column in kind]
    if not all(given):
        person.pictures.append({"picture": f"{file.name}:{number}"})
    elif kind == ("path",):
        person.pictures.append({"picture": given[0], "url": beside(file, given[0])})
    else:
        person.pictures.append({"picture": "/".join(given), "tar": beside(file, given[0]), "member": given[1]})


def beside(table: UPath, given: str) -> str:
    """The path or URL of a file that a table names: a relative one begins in the table's folder.

    Raises `UsageError` for a kind of URL that fsspec does not know.
    """
    if "://" in given or given.startswith(("/", "~")):
        return str(as_path(given))
    return str(as_path(f"{table.parent.path.rstrip('/')}/{given}") if is_local(table) else table.parent / given)
