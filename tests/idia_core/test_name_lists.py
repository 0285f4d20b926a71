"""Lists of names: Parquet, CSV and text, read as written, with what is blank counted."""

import io
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from idia_core.errors import InvalidInputError
from idia_core.name_lists import NAMES, PATTERNS, read_name_list
from idia_core.storage import find_files


@pytest.fixture(params=["local", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> UPath:
    """An empty folder, once on this machine's disk and once on an object store."""
    if request.param == "local":
        return UPath(tmp_path)
    return UPath(f"memory://{tmp_path.name}-{random.randrange(10**9)}")


def as_parquet(**columns: Any) -> bytes:
    """A Parquet file with those columns."""
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def read(root: UPath, file: str, content: bytes | str) -> tuple[list[tuple[str, list[str]]], int]:
    """The names, each with its aliases, and the number of blank rows of a list with that content."""
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    names, blank = read_name_list(path)
    assert names.schema.equals(NAMES)
    names.validate(full=True)
    return list(zip(names["name"].to_pylist(), names["aliases"].to_pylist(), strict=True)), blank


def refusal(root: UPath, file: str, content: bytes) -> str:
    """The one line that says why the list is refused, with FILE for its path."""
    with pytest.raises(InvalidInputError) as caught:
        read(root, file, content)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(str(root / file), "FILE")


# What is read


def test_text_has_a_name_a_line(root: UPath) -> None:
    """Lines end in any way, the last one in none; a mark of the byte order is no part of a name; blanks count."""
    text = "\ufeffAnn Lee\r\n\r\n  \t\nZoë Ball\nJoe B. Kern, Jr."
    assert read(root, "a.txt", text) == ([("Ann Lee", []), ("Zoë Ball", []), ("Joe B. Kern, Jr.", [])], 2)


def test_csv_has_a_column_of_names(root: UPath) -> None:
    """Other columns are left aside, quotes are undone, and a number or 'null' is text like any other."""
    text = 'id,name,born\n1,Ann Lee,1950\n2,"Kern, Joe ""B.""",\n3,1999,1999\n4,null,\n'
    assert read(root, "a.csv", text) == ([("Ann Lee", []), ('Kern, Joe "B."', []), ("1999", []), ("null", [])], 0)


def test_csv_of_a_spreadsheet_is_read(root: UPath) -> None:
    """The byte order's mark before the header and carriage returns do no harm."""
    assert read(root, "a.csv", "\ufeffname,aliases\r\nAnn Lee,A. Lee\r\nBob Ray,\r\n") == (
        [("Ann Lee", ["A. Lee"]), ("Bob Ray", [])],
        0,
    )


def test_blank_rows_of_csv_are_counted(root: UPath) -> None:
    """An empty line, empty fields, quoted nothing and white space are blank, also beside an alias."""
    text = 'name,aliases\nAnn Lee,\n\n,\n"",\n"  ",\n,A. Lee\nBob Ray,\n'
    assert read(root, "a.csv", text) == ([("Ann Lee", []), ("Bob Ray", [])], 5)
    assert read(root, "b.csv", 'name\nAnn Lee\n\n""\n') == ([("Ann Lee", [])], 2)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
def test_parquet_has_a_column_of_names(root: UPath, kind: pa.DataType) -> None:
    """Null, empty and white space are blank; the order is kept."""
    names = pa.array(["Zoë Ball", None, "", "Ann Lee", "\t "], kind)
    assert read(root, "a.parquet", as_parquet(id=range(5), name=names)) == ([("Zoë Ball", []), ("Ann Lee", [])], 3)


def test_a_column_of_nothing_but_nulls_is_blank(root: UPath) -> None:
    """Parquet without a type for it is no error, for names and for aliases."""
    assert read(root, "a.parquet", as_parquet(name=pa.nulls(3))) == ([], 3)
    assert read(root, "b.parquet", as_parquet(name=["Ann Lee"], aliases=pa.nulls(1))) == ([("Ann Lee", [])], 0)


@pytest.mark.parametrize("file", ["a.txt", "a.csv", "a.parquet"])
def test_a_list_without_a_name_is_empty(root: UPath, file: str) -> None:
    """It is for the search to say that there is nothing to search for."""
    content = {"a.txt": b"", "a.csv": b"name\n", "a.parquet": as_parquet(name=pa.array([], pa.string()))}
    assert read(root, file, content[file]) == ([], 0)


# Aliases


def test_aliases_are_text_with_semicolons_between(root: UPath) -> None:
    """White space around them goes, and so do blanks; a comma is part of an alias."""
    text = 'name,aliases\nAnn Lee,"A. Lee ; Lee, Ann;;"\nBob Ray, ; \nIda Moss,Ida\n'
    expected = [("Ann Lee", ["A. Lee", "Lee, Ann"]), ("Bob Ray", []), ("Ida Moss", ["Ida"])]
    assert read(root, "a.csv", text) == (expected, 0)
    columns = {"name": ["Ann Lee", "Bob Ray", "Ida Moss"], "aliases": [" A. Lee;Lee, Ann ", None, "Ida"]}
    assert read(root, "a.parquet", as_parquet(**columns)) == (expected, 0)


@pytest.mark.parametrize("kind", [pa.list_(pa.string()), pa.large_list(pa.large_string())])
def test_aliases_are_a_list(root: UPath, kind: pa.DataType) -> None:
    """Nulls and blanks in it are left out, and a semicolon is part of an alias."""
    aliases = pa.array([["A. Lee ", None, " ", "x;y"], None, []], kind)
    found = read(root, "a.parquet", as_parquet(name=["Ann Lee", "Bob Ray", "Ida Moss"], aliases=aliases))
    assert found == ([("Ann Lee", ["A. Lee", "x;y"]), ("Bob Ray", []), ("Ida Moss", [])], 0)


def test_empty_lists_of_aliases_need_no_type(root: UPath) -> None:
    """What pandas and pyarrow write where nobody has an alias is a list of nulls, and says that there is none."""
    found = read(root, "a.parquet", as_parquet(name=["Ann Lee", "Bob Ray"], aliases=[[], []]))
    assert found == ([("Ann Lee", []), ("Bob Ray", [])], 0)


# What is refused


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("a.csv", b"person,born\nAnn Lee,1950\n", "no column 'name' (FILE). It has: person, born."),
        ("a.csv", b"name;aliases\nAnn Lee;\n", "no column 'name' (FILE). It has: name;aliases."),
        ("a.parquet", as_parquet(Name=["Ann Lee"]), "no column 'name' (FILE). It has: Name."),
        ("a.parquet", as_parquet(name=[1]), "column 'name' holds Int64, not text (FILE). Write it as text."),
        ("a.parquet", as_parquet(name=[["Ann"]]), "column 'name' holds List(String), not text (FILE)."),
        ("a.parquet", as_parquet(name=["Ann"], aliases=[[1]]), "column 'aliases' holds List(Int64), not text (FILE)."),
        ("a.parquet", as_parquet(name=["Ann"], aliases=[1.5]), "column 'aliases' holds Float64, not text (FILE)."),
    ],
)
def test_a_list_without_a_column_of_names_is_refused(root: UPath, file: str, content: bytes, message: str) -> None:
    """The message says what the list has instead."""
    assert refusal(root, file, content).startswith(message)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("a.txt", b"Ann Lee\nJos\xe9\n"),
        ("a.txt", "Ann Lee\n".encode("utf-16")),
        ("a.csv", b""),
        ("a.csv", b"name\nJos\xe9\n"),
        ("a.csv", b"name\nAnn Lee\nBob,Ray\n"),
        ("a.parquet", b""),
        ("a.parquet", b"name\nAnn Lee\n"),
        ("a.parquet", as_parquet(name=["Ann Lee"] * 99)[:-20]),
    ],
)
def test_what_cannot_be_read_is_refused(root: UPath, file: str, content: bytes) -> None:
    """The message names the file and says in which forms a list may come."""
    message = refusal(root, file, content)
    assert message.startswith("not a readable list of names: ")
    assert message.endswith("(FILE). Give Parquet or CSV with a column 'name', or UTF-8 text.")


def test_parquet_with_any_byte_changed_is_read_or_refused(tmp_path: Path) -> None:
    """Damage ends in a typed error, never in another one."""
    whole = as_parquet(name=["Ann Lee", "Bob Ray"] * 50, aliases=[["x"], []] * 50)
    rng = random.Random(7)
    refused = 0
    for _ in range(1500):
        damaged = bytearray(whole)
        for _ in range(3):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        try:
            read(UPath(tmp_path), "a.parquet", bytes(damaged))
        except InvalidInputError:
            refused += 1
    assert 1000 < refused < 1500


def test_patterns_find_the_lists_of_a_folder(root: UPath) -> None:
    """Parquet, CSV and text are lists of names."""
    for name in ("a.parquet", "b.csv", "c.txt", "d.tsv", "e.json"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    assert [file.name for file in find_files(str(root), PATTERNS, "")] == ["a.parquet", "b.csv", "c.txt"]


def test_names_with_spaces_around_them(tmp_path: Path) -> None:
    """In text the spaces around a name are layout; in a table they may be meant, and nobody is taken for another."""
    assert read(UPath(tmp_path), "a.txt", " Ann Lee \nBob Ray\n") == ([("Ann Lee", []), ("Bob Ray", [])], 0)
    with pytest.raises(InvalidInputError, match="the name ' Ann Lee' begins or ends with white space"):
        read(UPath(tmp_path), "a.csv", b'name\n" Ann Lee"\n')
