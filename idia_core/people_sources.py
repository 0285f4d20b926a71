"""People found in folders: one for each person, or FaceScrub's; and the spellings of names that are corrected."""

import importlib.resources
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import polars as pl
from upath import UPath

from idia_core.errors import InvalidInputError, MissingInputError
from idia_core.names import check_names, name_from_folder, name_key, tidy_name

SEX_OF_GROUP = {"actors": "M", "actresses": "F"}
"""FaceScrub's upper folders."""
Kind = Literal["faces", "images"]
KINDS: tuple[Kind, Kind] = ("faces", "images")
"""FaceScrub's folders below those: cut-out faces and the whole pictures."""


@dataclass
class Person:
    """Somebody whose pictures were found; `asdict` makes it JSON-like."""

    identity: str
    name: str
    where: str
    """The folder or the table's row where the person was found first."""
    sex: str | None = None
    aliases: list[str] = field(default_factory=list)
    locale: str | None = None
    pictures: list[dict[str, Any]] = field(default_factory=list)
    """Where each picture is, as `idia_core.picture_sources` reads them; never its bytes."""


class Found(NamedTuple):
    """The people in their order, and what a reader of the manifest should know about where they were looked for."""

    people: list[Person]
    notes: tuple[str, ...]


def people_of_folders(root: UPath, files: Iterable[UPath], kind: Kind = "faces") -> Found:
    """The people of a folder that has a folder for each (`First_Last/*`), in the order of the folders' names.

    FaceScrub is read as it is, from the top or from any level on: `actors|actresses/faces|images/First_Last/*`, with
    the sex from the upper level, and of `faces` and `images` those of `kind` where there are both. `files` are those
    below `root`; hidden ones are passed over. Raises MissingInputError when there is no folder of a person.
    """
    inside: dict[str, list[UPath]] = {}
    for file in files:
        if not file.name.startswith("."):
            inside.setdefault(_key(file.parent), []).append(file)
    levels, notes = _levels(root, kind)
    found = [(folder, sex) for level, sex in levels for folder in _folders(level)]
    if not found:
        fix = "Make one for each person: First_Last/*.jpg."
        raise MissingInputError("no sub-folder of pictures", str(root), fix)
    people = [_person(folder, sex, inside.pop(_key(folder), [])) for folder, sex in sorted(found, key=_by_name)]
    if inside:
        unread = [file for files in inside.values() for file in files]
        notes.append(f"{len(unread)} files are in other folders and not read, first {min(unread, key=str)}")
    return Found(people, tuple(notes))


def _by_name(found: tuple[UPath, str | None]) -> tuple[str, str]:
    return found[0].name, str(found[0])


def _key(folder: UPath) -> str:
    return folder.path.rstrip("/")


def _folders(level: UPath) -> list[UPath]:
    return [child for child in level.iterdir() if child.is_dir() and not child.name.startswith(".")]


def _levels(root: UPath, kind: Kind) -> tuple[list[tuple[UPath, str | None]], list[str]]:
    """The folders that hold people's folders, each with the sex of all who are in it, and which of FaceScrub's."""
    children = {child.name: child for child in _folders(root)}
    levels: list[tuple[UPath, str | None]] = []
    notes: list[str] = []
    for group in [children[name] for name in SEX_OF_GROUP if name in children] or [root]:
        below = {child.name: child for child in _folders(group)}
        is_facescrub = group.name in SEX_OF_GROUP or below.keys() <= {*KINDS}
        kinds = [name for name in (kind, *KINDS) if name in below] if is_facescrub else []
        above = group.parent.name if group.name in KINDS else group.name
        levels.append((below[kinds[0]] if kinds else group, SEX_OF_GROUP.get(above)))
        if kinds:
            notes.append(f"'{kinds[0]}' is read in {group}")
    return levels, notes


def _person(folder: UPath, sex: str | None, files: Sequence[UPath]) -> Person:
    name = name_from_folder(folder.name)
    pictures: list[dict[str, Any]] = [
        {"picture": file.name.encode(errors="replace").decode(), "url": str(file)} for file in sorted(files, key=str)
    ]
    return Person(name, name, str(folder), sex, pictures=pictures)


def read_corrections(file: UPath | None = None) -> dict[str, str]:
    """The names that are corrected: `name_key` of the given spelling -> the name; FaceScrub's four and those of `file`.

    The file is CSV with the columns `given` (a folder's name or a person's) and `name`; its lines go before ours.
    Raises InvalidInputError for another file.
    """
    own = importlib.resources.files("idia_core").joinpath("person_aliases.csv").read_bytes()
    sources = [(own, "person_aliases.csv"), *([(file.read_bytes(), str(file))] if file else [])]
    corrections: dict[str, str] = {}
    for content, place in sources:
        try:
            frame = pl.read_csv(content, infer_schema=False)
        except pl.exceptions.PolarsError as error:
            what = f"not a readable table of corrections: {str(error).splitlines()[0]}"
            raise InvalidInputError(what, place, "Give CSV with the columns given and name.") from None
        for column in ("given", "name"):
            if column not in frame.columns:
                raise InvalidInputError(f"no column '{column}'", place, f"It has: {', '.join(frame.columns)}.")
        for number, (given, name) in enumerate(frame.select("given", "name").iter_rows(), 1):
            if not tidy_name(given or "") or not tidy_name(name or ""):
                raise InvalidInputError("a name is blank", f"{place}, row {number}", "Fill it in or take it out.")
            corrections[name_key(name_from_folder(given))] = tidy_name(name)
    return corrections


def corrected(people: Iterable[Person], corrections: Mapping[str, str]) -> list[Person]:
    """The people under their corrected names, with the spelling that was given as an alias, each name once.

    Raises DuplicateNameError, which says both places, for a name that is there twice, also after correction, and
    InvalidInputError for one that is blank.
    """
    named = [_corrected(person, corrections.get(name_key(person.name))) for person in people]
    check_names([person.name for person in named], [person.where for person in named])
    return named


def _corrected(person: Person, name: str | None) -> Person:
    name = name or person.name
    spellings = {name_key(alias): alias for alias in (person.name, *person.aliases)}
    spellings.pop(name_key(name), None)
    identity = name if person.identity == person.name else person.identity
    return replace(person, identity=identity, name=name, aliases=list(spellings.values()))
