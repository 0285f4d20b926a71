"""Lists of where people's pictures are: FaceScrub's, with a box around each face, and files of a person's URLs."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import NamedTuple
from unicodedata import category

import pyarrow as pa
from upath import UPath

from idia_core.base_lists import BOM
from idia_core.errors import DuplicateNameError, InvalidInputError
from idia_core.face_detection import Box
from idia_core.identities import IDENTITIES
from idia_core.names import name_from_folder, name_key
from idia_core.wanted_urls import SHA256, WANTED_URLS

PORTRAIT_ROWS = pa.schema(
    [
        pa.field("list", pa.string(), nullable=False),  # the file's folder and name
        pa.field("line", pa.int64(), nullable=False),  # 1 for the first one
        pa.field("identity", pa.string()),  # null where the row tells none
        pa.field("place", pa.int64()),  # 1.. among the person's rows; null without a person
        pa.field("url", pa.string()),
        pa.field("box", pa.string()),  # x1,y1,x2,y2 as it is given; null where none is, or none is wanted
        pa.field("expected_sha256", pa.string()),  # of the file that should be there; null where it is not told
        pa.field("number", pa.int64()),  # of the URL; null where it is not fetched for this row
        pa.field("status", pa.string()),  # a `RowStatus`; null where the URL decides
        pa.field("detail", pa.string(), nullable=False),
    ]
)
"""A row of a list."""
FACESCRUB = ("name", "url", "bbox", "sha256")
"""Columns of FaceScrub's lists that are read."""
SEXES = {"actress": "F", "actor": "M"}
"""What in the name of one of FaceScrub's files tells the sex of all who are in it."""
LONGEST_FOLDER = 255
"""Bytes of a name in most file systems."""


class RowStatus(StrEnum):
    """Why there is no picture of a row, whatever is at its URL."""

    BAD_ROW = "bad_row"  # columns are missing, or what is in them is not what belongs there
    BAD_BOX = "bad_box"  # not four numbers, or a box without an inside
    BOX_OUTSIDE = "box_outside"  # nothing of the box is in the picture
    DUPLICATE_ROW = "duplicate_row"  # the person has the URL and the box before
    DUPLICATE_PICTURE = "duplicate_picture"  # an earlier row of the person shows the same, pixel by pixel


class PortraitLists(NamedTuple):
    """What lists hold."""

    identities: pa.Table
    """The people, as IDENTITIES, in the order in which they appear."""
    rows: pa.Table
    """Every row, as PORTRAIT_ROWS: a person's one after another, those without a person last."""
    urls: pa.Table
    """The distinct URLs that are to be fetched, as WANTED_URLS without hashes: each row checks its own."""


@dataclass
class _Row:
    where: str
    line: int
    name: str | None = None
    url: str | None = None
    box: str | None = None
    sha256: str | None = None
    status: RowStatus | None = None
    detail: str = ""


@dataclass
class _Person:
    name: str
    sex: str | None
    where: str
    """Of the first row that tells the sex, or of the first one."""
    aliases: list[str] = field(default_factory=list)
    rows: list[_Row] = field(default_factory=list)


def parse_box(text: str) -> Box:
    """The box of `x1,y1,x2,y2`: pixels between the left and upper edges and the right and lower ones.

    Raises `ValueError`, which says why it is none.
    """
    numbers = text.split(",")
    if len(numbers) != 4 or not all(re.fullmatch(r"\s*-?[0-9]{1,9}\s*", number) for number in numbers):
        raise ValueError(f"'{text}' is not four numbers")
    left, top, right, bottom = map(int, numbers)
    if right <= left or bottom <= top:
        raise ValueError(f"'{text}' has no inside")
    return Box(left, top, right - left, bottom - top)


class _List(NamedTuple):
    """A file of rows: whose they are, if they are one person's, and the sex of all who are in it."""

    person: str | None
    sex: str | None
    rows: list[_Row]


def read_portrait_lists(files: Sequence[UPath], corrections: Mapping[str, str], *, boxes: bool) -> PortraitLists:
    """The people and rows of FaceScrub's lists and of lists of URLs (`First_Last.txt`); without `boxes` none is read.

    A file that has tabs in its first line is one of FaceScrub's. Blank lines, and in lists of URLs those that begin
    with `#`, are passed over. `corrections` (as `read_corrections` makes them) rename people, and people whose names
    are the same by `name_key` are one. Raises InvalidInputError for a list that lacks a column, a file whose name can
    be no person's, and where there is no URL to fetch at all; DuplicateNameError for somebody in lists of both sexes.
    """
    people, loose = dict[str, _Person](), list[_Row]()
    for file in sorted(files, key=str):
        listed = _read(file)
        if listed.person is not None:
            _known(people, listed.person, None, str(file), corrections)
        for row in listed.rows:
            if row.name is None:
                loose.append(row)
            else:
                where = f"{file}, line {row.line}"
                _known(people, row.name, listed.sex, where, corrections).rows.append(row)
    rows = [row for person in people.values() for row in person.rows]
    for person in people.values():
        _judge(person.rows, boxes=boxes)
    numbers = {url: number for number, url in enumerate(dict.fromkeys(row.url for row in rows if row.status is None))}
    if not numbers:
        fix = "Give FaceScrub's lists, or files such as First_Last.txt with a URL in each line."
        raise InvalidInputError(f"there is no URL to fetch among {len(rows) + len(loose)} rows", str(files[0]), fix)
    return PortraitLists(
        _identities(people.values()), _table(people.values(), loose, numbers, boxes=boxes), _wanted(numbers)
    )


def _read(file: UPath) -> _List:
    """The rows of a file, without blank lines."""
    where, content = f"{file.parent.name}/{file.name}", file.read_bytes().removeprefix(BOM)
    lines = [(n, line.strip(b"\r")) for n, line in enumerate(content.split(b"\n"), 1) if line.strip()]
    if lines and b"\t" in lines[0][1]:
        return _List(None, _sex_of(file), list(_facescrub(file, where, lines)))
    name = name_from_folder(file.name.rpartition(".")[0])
    if fault := _name_fault(name):
        fix = "Call it First_Last.txt after a person, or take it away."
        raise InvalidInputError(f"a list of a person's URLs whose name {fault}", str(file), fix)
    return _List(name, None, [_url(name, where, n, line) for n, line in lines if not line.lstrip().startswith(b"#")])


def _sex_of(file: UPath) -> str | None:
    found = re.search("|".join(SEXES), file.name.lower())
    return SEXES[found[0]] if found else None


def _url(name: str, where: str, number: int, line: bytes) -> _Row:
    try:
        return _Row(where, number, name, line.decode().strip())
    except UnicodeDecodeError:
        return _Row(where, number, name, status=RowStatus.BAD_ROW, detail="not UTF-8")


def _facescrub(file: UPath, where: str, lines: Sequence[tuple[int, bytes]]) -> Iterator[_Row]:
    """The rows below the line that names the columns."""
    header = lines[0][1].decode(errors="replace").split("\t")
    for column in FACESCRUB:
        if column not in header:
            fix = f"Give FaceScrub's lists as they are published; its first line is: {', '.join(header)[:200]}."
            raise InvalidInputError(f"no column '{column}'", f"{file}, line {lines[0][0]}", fix)
    for number, line in lines[1:]:
        try:
            yield _row_of(where, number, line.decode().split("\t"), header)
        except UnicodeDecodeError:
            yield _Row(where, number, status=RowStatus.BAD_ROW, detail="not UTF-8")


def _row_of(where: str, number: int, fields: Sequence[str], header: Sequence[str]) -> _Row:
    """A row; its person is told where the name alone is as it should be."""
    given = {column: text.strip() for column, text in zip(header, fields, strict=False)}
    name = name_from_folder(given["name"])
    if fault := _name_fault(name):
        return _Row(where, number, status=RowStatus.BAD_ROW, detail=f"the name {fault}")
    sha256 = given.get("sha256", "").lower() or None
    row = _Row(where, number, name, given.get("url"), given.get("bbox"), sha256)
    if len(fields) < len(header):
        return _bad(row, f"{len(fields)} of {len(header)} columns")
    if not row.url:
        return _bad(row, "no URL")
    return row if sha256 is None or re.fullmatch(SHA256, sha256) else _bad(row, f"'{sha256}' is no SHA-256")


def _bad(row: _Row, detail: str) -> _Row:
    return replace(row, sha256=None, status=RowStatus.BAD_ROW, detail=detail)


def _name_fault(name: str) -> str | None:
    """Why a name can be that of neither a person nor a folder; None if it can be."""
    faults = {
        "is blank": not name,
        "is one letter": len(name) == 1 and name.isascii(),
        "is not UTF-8": any("\ud800" <= character <= "\udfff" for character in name),
        "begins with a dot": name.startswith("."),
        "has a '/'": "/" in name,
        "has a control character": any(category(character) == "Cc" for character in name),
        "is too long": len(name.encode(errors="replace")) > LONGEST_FOLDER,
    }
    return next((fault for fault, applies in faults.items() if applies), None)


def _known(
    people: dict[str, _Person], given: str, sex: str | None, where: str, corrections: Mapping[str, str]
) -> _Person:
    """The person of that name, who is entered if new; what is told of the person is added."""
    name = corrections.get(name_key(given), given)
    person = people.setdefault(name_key(name), _Person(name, sex, where))
    if sex is not None and person.sex not in (None, sex):
        what = f"'{person.name}' is in a list of women and in one of men"
        raise DuplicateNameError(what, f"{person.where} and {where}", "Take the person out of one of them.")
    if person.sex is None and sex is not None:
        person.sex, person.where = sex, where
    if name_key(given) != name_key(name):
        person.aliases = [*dict.fromkeys((*person.aliases, given))]
    return person


def _judge(rows: Sequence[_Row], *, boxes: bool) -> None:
    """Give a status to a person's rows that need no fetching: bad boxes, and what is there twice.

    A row with a box says more of a picture than one without, which is then the duplicate wherever it stands.
    """
    parsed = [_box(row) if boxes and row.status is None else None for row in rows]
    taken = dict[tuple[str | None, Box | None], _Row]()
    for with_box in (True, False):
        for row, box in zip(rows, parsed, strict=True):
            if row.status is None and (box is not None) == with_box:
                first = taken.setdefault((row.url, box), row)
                taken.setdefault((row.url, None), row)
                if first is not row:
                    row.status, row.detail = RowStatus.DUPLICATE_ROW, f"as {first.where}, line {first.line}"


def _box(row: _Row) -> Box | None:
    """The row's box; a bad one becomes its status."""
    if not row.box:
        return None
    try:
        return parse_box(row.box)
    except ValueError as error:
        row.status, row.detail = RowStatus.BAD_BOX, str(error)
        return None


def _identities(people: Iterable[_Person]) -> pa.Table:
    rows = [
        {"identity": one.name, "name": one.name, "sex": one.sex, "aliases": one.aliases or None, "locale": None}
        for one in people
    ]
    return pa.Table.from_pylist(rows, IDENTITIES)


def _table(
    people: Iterable[_Person], loose: Iterable[_Row], numbers: Mapping[str | None, int], *, boxes: bool
) -> pa.Table:
    placed = [(person.name, place, row) for person in people for place, row in enumerate(person.rows, 1)]
    rows = [
        {
            "list": row.where,
            "line": row.line,
            "identity": name,
            "place": place,
            "url": row.url,
            "box": (row.box or None) if boxes else None,
            "expected_sha256": row.sha256,
            "number": numbers[row.url] if row.status is None else None,
            "status": row.status,
            "detail": row.detail,
        }
        for name, place, row in [*placed, *((None, None, row) for row in loose)]
    ]
    return pa.Table.from_pylist(rows, PORTRAIT_ROWS)


def _wanted(numbers: Mapping[str | None, int]) -> pa.Table:
    rows = [{"number": number, "url": url, "caption": "", "sha256": None} for url, number in numbers.items()]
    return pa.Table.from_pylist(rows, WANTED_URLS)
