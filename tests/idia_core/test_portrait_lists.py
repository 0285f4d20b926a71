"""FaceScrub's lists and lists of URLs: who is in them, and what is wrong with a row."""

from pathlib import Path
from typing import Any

import pytest
from upath import UPath

from idia_core.errors import DuplicateNameError, InvalidInputError
from idia_core.identities import IDENTITIES
from idia_core.people_sources import read_corrections
from idia_core.portrait_lists import PORTRAIT_ROWS, PortraitLists, parse_box, read_portrait_lists
from idia_core.wanted_urls import WANTED_URLS

HASH = "ab" * 32
HEADER = "name\timage_id\tface_id\turl\tbbox\tsha256"


def facescrub(*rows: str) -> str:
    """A list as it is published; the rows are given with spaces for tabs, and `_` for a space."""
    return "\n".join([HEADER, *("\t".join(row.split(" ")).replace("_", " ") for row in rows)]) + "\n"


def write(folder: Path, name: str, content: str | bytes) -> Path:
    """A file of a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(folder: Path, *, boxes: bool = True) -> PortraitLists:
    """All lists of a folder."""
    return read_portrait_lists([UPath(path) for path in folder.rglob("*.txt")], read_corrections(), boxes=boxes)


def rows(found: PortraitLists, *columns: str) -> list[Any]:
    """Columns of the rows."""
    return list(zip(*(found.rows[column].to_pylist() for column in columns), strict=True))


def test_both_kinds_of_lists_become_one(tmp_path: Path) -> None:
    """A person of two lists, under two spellings and two ways to write an accent, is one; the file tells the sex."""
    lists = tmp_path / "lists"
    write(lists, "facescrub_actors.txt", facescrub(f"Robert_Di_Niro 1 2 http://a/1 1,2,30,40 {HASH.upper()}"))
    write(
        lists,
        "facescrub_actresses.txt",
        facescrub("Zoë_Ball 3 4 http://a/2 0,0,9,9 ", "Zoë_Ball 3 5 http://a/3 0,0,9,9 "),
    )
    write(lists / "more", "Robert_De_Niro.txt", "\ufeff# mine\r\nhttp://b/1 \r\n\r\n  # not this\nhttp://a/2")
    write(lists / "more", "Zoe\u0308_Ball.txt", "")
    write(lists, "Ida_Moss.txt", b"http://b/\xff\nhttp://b/2\n")
    found = read(lists)
    assert found.identities.schema.equals(IDENTITIES)
    people = {person["identity"]: (person["sex"], person["aliases"]) for person in found.identities.to_pylist()}
    assert people == {
        "Ida Moss": (None, None),
        "Robert De Niro": ("M", ["Robert Di Niro"]),
        "Zoë Ball": ("F", None),
    }
    assert found.rows.schema.equals(PORTRAIT_ROWS)
    assert rows(found, "list", "line", "identity", "place", "url", "box", "expected_sha256", "number", "status") == [
        ("lists/Ida_Moss.txt", 1, "Ida Moss", 1, None, None, None, None, "bad_row"),
        ("lists/Ida_Moss.txt", 2, "Ida Moss", 2, "http://b/2", None, None, 0, None),
        ("lists/facescrub_actors.txt", 2, "Robert De Niro", 1, "http://a/1", "1,2,30,40", HASH, 1, None),
        ("more/Robert_De_Niro.txt", 2, "Robert De Niro", 2, "http://b/1", None, None, 2, None),
        ("more/Robert_De_Niro.txt", 5, "Robert De Niro", 3, "http://a/2", None, None, 3, None),
        ("lists/facescrub_actresses.txt", 2, "Zoë Ball", 1, "http://a/2", "0,0,9,9", None, 3, None),
        ("lists/facescrub_actresses.txt", 3, "Zoë Ball", 2, "http://a/3", "0,0,9,9", None, 4, None),
    ]
    assert found.urls.schema.equals(WANTED_URLS)
    assert found.urls["url"].to_pylist() == ["http://b/2", "http://a/1", "http://b/1", "http://a/2", "http://a/3"]
    assert found.urls["number"].to_pylist() == [*range(5)]


def test_bad_rows_are_told_with_file_and_line(tmp_path: Path) -> None:
    """None of them is fetched; those whose name is readable are their person's, the others come last."""
    good = "Ann_Lee 1 1 http://a/1 0,0,9,9 "
    bad = [
        "Ann_Lee 2 2 http://a/2",
        "Ann_Lee 3 3 http://a/3 0,0,9 ",
        "Ann_Lee 4 4 http://a/4 9,0,9,9 ",
        "Ann_Lee 5 5 http://a/5 0,0,9,9 abc",
        "Ann_Lee 6 6  0,0,9,9 ",
        " 7 7 http://a/7 0,0,9,9 ",
        "../../etc 8 8 http://a/8 0,0,9,9 ",
        "X 9 9 http://a/9 0,0,9,9 ",
    ]
    path = write(tmp_path / "in", "facescrub_actresses.txt", facescrub(good, *bad))
    path.write_bytes(path.read_bytes() + b"Bob\xff\t1\t1\thttp://a/1\t0,0,1,1\t\n")
    found = read(tmp_path / "in")
    assert rows(found, "line", "identity", "status", "detail") == [
        (2, "Ann Lee", None, ""),
        (3, "Ann Lee", "bad_row", "4 of 6 columns"),
        (4, "Ann Lee", "bad_box", "'0,0,9' is not four numbers"),
        (5, "Ann Lee", "bad_box", "'9,0,9,9' has no inside"),
        (6, "Ann Lee", "bad_row", "'abc' is no SHA-256"),
        (7, "Ann Lee", "bad_row", "no URL"),
        (8, None, "bad_row", "the name is blank"),
        (9, None, "bad_row", "the name begins with a dot"),
        (10, None, "bad_row", "the name is one letter"),
        (11, None, "bad_row", "not UTF-8"),
    ]
    assert found.urls["url"].to_pylist() == ["http://a/1"]
    without = read(tmp_path / "in", boxes=False)
    assert without.urls["url"].to_pylist() == ["http://a/1", "http://a/3", "http://a/4"]
    assert set(without.rows["box"].to_pylist()) == {None}


def test_a_picture_is_wanted_once_of_a_person(tmp_path: Path) -> None:
    """A box says more than none, wherever the row stands; two boxes are two faces; two people may share a URL."""
    write(tmp_path, "Ann_Lee.txt", "http://a/1\nhttp://a/2\nhttp://a/2\n")
    boxes = ("0,0,9,9", "0,0,5,5", "0, 0,9,9")
    two = [f"Ann Lee\t{place}\t1\thttp://a/1\t{box}\t" for place, box in enumerate(boxes)]
    write(tmp_path, "facescrub_actresses.txt", "\n".join([HEADER, *two, "Bea Ray\t1\t1\thttp://a/1\t0,0,9,9\t"]))
    found, name = read(tmp_path), tmp_path.name
    assert rows(found, "identity", "place", "status", "detail") == [
        ("Ann Lee", 1, "duplicate_row", f"as {name}/facescrub_actresses.txt, line 2"),
        ("Ann Lee", 2, None, ""),
        ("Ann Lee", 3, "duplicate_row", f"as {name}/Ann_Lee.txt, line 2"),
        ("Ann Lee", 4, None, ""),
        ("Ann Lee", 5, None, ""),
        ("Ann Lee", 6, "duplicate_row", f"as {name}/facescrub_actresses.txt, line 2"),
        ("Bea Ray", 1, None, ""),
    ]
    whole = read(tmp_path, boxes=False)
    assert [status for (status,) in rows(whole, "status")].count("duplicate_row") == 4


def test_somebody_in_lists_of_both_sexes_is_an_error(tmp_path: Path) -> None:
    """It names both places; two people of one name cannot be told apart."""
    row = facescrub("Ann_Lee 1 1 http://a/1 0,0,9,9 ")
    first = write(tmp_path, "facescrub_actors.txt", row)
    second = write(tmp_path, "facescrub_actresses.txt", row)
    with pytest.raises(DuplicateNameError, match="a list of women and in one of men") as caught:
        read(tmp_path)
    assert caught.value.where == f"{first}, line 2 and {second}, line 2"


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("facescrub_actors.txt", "name\turl\tbbox\nA B\thttp://a/1\t0,0,1,1\n", "no column 'sha256'"),
        ("facescrub_actors.txt", "Ann Lee\t1\t1\thttp://a/1\t0,0,1,1\t\n", "no column 'name'"),
        ("facescrub_actors.txt", f"{HEADER}\n", "no URL to fetch among 0 rows"),
        ("Ann_Lee.txt", "# nothing\n", "no URL to fetch among 0 rows"),
        ("A.txt", "http://a/1\n", "whose name is one letter"),
    ],
)
def test_a_list_of_another_form_is_an_error(tmp_path: Path, name: str, content: str, what: str) -> None:
    """One line that says which."""
    path = write(tmp_path, name, content)
    with pytest.raises(InvalidInputError, match=what) as caught:
        read(tmp_path)
    assert str(path) in caught.value.where


def test_boxes() -> None:
    """Corners become a box; what is none says why."""
    assert parse_box(" 10,-5, 30,20") == (10, -5, 20, 25)
    for text in ("", "1,2,3,4,5", "1,2,3,x", "1.5,2,3,4", "1,2,3,1e9", "5,5,4,6", "5,5,6,5"):
        with pytest.raises(ValueError, match=r"not four numbers|no inside"):
            parse_box(text)
