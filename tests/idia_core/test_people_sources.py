"""Finding people in folders and in FaceScrub's, and correcting their names."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from upath import UPath

from idia_core.errors import DuplicateNameError, InvalidInputError, MissingInputError
from idia_core.people_sources import Found, Kind, Person, corrected, people_of_folders, read_corrections


def files_below(root: UPath, names: Iterable[str]) -> list[UPath]:
    """Write small files and return them, sorted."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return [root / name for name in sorted(names)]


def names_and_pictures(found: Found) -> dict[str, list[str]]:
    """The pictures' names by person."""
    return {person.name: [picture["picture"] for picture in person.pictures] for person in found.people}


FACESCRUB = [
    f"{group}/{kind}/{person}/{kind}_{i}.jpeg"
    for group, persons in (("actors", ("Adam_Lee", "Robert_Di_Niro")), ("actresses", ("Tatyana_M._Ali", "Ada_Ray")))
    for kind in ("faces", "images")
    for person in persons
    for i in range(2)
]


@pytest.fixture
def facescrub(tmp_path: Path) -> tuple[UPath, list[UPath]]:
    """FaceScrub's layout with both kinds of pictures, and its files."""
    root = UPath(tmp_path / "facescrub")
    return root, files_below(root, FACESCRUB)


@pytest.mark.parametrize("scheme", ["local", "memory"])
def test_a_folder_is_a_person(scheme: str, tmp_path: Path) -> None:
    """Folders go by their names, hidden files and folders are passed over, an empty folder is a person too."""
    root = UPath(tmp_path) if scheme == "local" else UPath("memory://people-sources")
    files = files_below(root, ["Zoë_Ball/b.jpg", "Zoë_Ball/a.png", "Ada_Lee/0.jpg", "Ada_Lee/.hidden", ".git/config"])
    (root / "Bob_Ray").mkdir()
    found = people_of_folders(root, files)
    assert names_and_pictures(found) == {"Ada Lee": ["0.jpg"], "Bob Ray": [], "Zoë Ball": ["a.png", "b.jpg"]}
    assert [(person.identity, person.sex, person.locale) for person in found.people] == [
        (name, None, None) for name in ("Ada Lee", "Bob Ray", "Zoë Ball")
    ]
    assert UPath(found.people[0].pictures[0]["url"]).read_bytes() == b"x"
    assert found.people[0].where == str(root / "Ada_Lee")
    assert found.notes == (f"1 files are in other folders and not read, first {root / '.git/config'}",)


def test_a_folder_without_folders_is_missing_input(tmp_path: Path) -> None:
    """Pictures that lie about in one folder belong to nobody."""
    files = files_below(UPath(tmp_path), ["0.jpg"])
    with pytest.raises(MissingInputError, match=r"no sub-folder of pictures .*First_Last/"):
        people_of_folders(UPath(tmp_path), files)


@pytest.mark.parametrize("kind", ["faces", "images"])
def test_facescrub_is_read_as_it_is(kind: Kind, facescrub: tuple[UPath, list[UPath]]) -> None:
    """Actors are men, actresses women; of faces and whole pictures those asked for are taken, and a note says so."""
    root, files = facescrub
    found = people_of_folders(root, files, kind)
    pictures = [f"{kind}_0.jpeg", f"{kind}_1.jpeg"]
    assert names_and_pictures(found) == dict.fromkeys(
        ["Ada Ray", "Adam Lee", "Robert Di Niro", "Tatyana M. Ali"], pictures
    )
    assert [person.sex for person in found.people] == ["F", "M", "M", "F"]
    assert found.notes[:2] == (f"'{kind}' is read in {root / 'actors'}", f"'{kind}' is read in {root / 'actresses'}")
    assert found.notes[2].startswith("8 files are in other folders")


@pytest.mark.parametrize(
    ("level", "sexes"),
    [
        ("actors", ["M", "M"]),
        ("actresses", ["F", "F"]),
        ("actors/faces", ["M", "M"]),
        ("actresses/images", ["F", "F"]),
    ],
)
def test_facescrub_from_any_level_on(level: str, sexes: list[str], facescrub: tuple[UPath, list[UPath]]) -> None:
    """One group, or one group's faces, is read like the whole, with the sex of the group."""
    root, files = facescrub
    inside = [file for file in files if str(file).startswith(f"{root / level}/")]
    found = people_of_folders(root / level, inside)
    kind = "images" if level.endswith("images") else "faces"
    assert [person.sex for person in found.people] == sexes
    assert {name for names in names_and_pictures(found).values() for name in names} == {
        f"{kind}_0.jpeg",
        f"{kind}_1.jpeg",
    }


def test_facescrub_with_one_kind_of_pictures(tmp_path: Path) -> None:
    """Where only whole pictures were downloaded they are taken, though faces are preferred."""
    root = UPath(tmp_path)
    found = people_of_folders(root, files_below(root, [name for name in FACESCRUB if "/images/" in name]))
    assert [len(pictures) for pictures in names_and_pictures(found).values()] == [2, 2, 2, 2]
    assert found.notes == tuple(f"'images' is read in {root / group}" for group in ("actors", "actresses"))


def test_the_four_misspelt_names_are_corrected() -> None:
    """FaceScrub's misspelt folders get the names that captions use; the spelling that was given becomes an alias."""
    given = ["Freddy Prinze Jr.", "Leslie Neilsen", "Robert Di Niro", "Tatyana M. Ali", "Adam Lee"]
    people = corrected([Person(name, name, name) for name in given], read_corrections())
    assert [(person.identity, person.name, person.aliases) for person in people] == [
        ("Freddie Prinze Jr", "Freddie Prinze Jr", ["Freddy Prinze Jr."]),
        ("Leslie Nielsen", "Leslie Nielsen", ["Leslie Neilsen"]),
        ("Robert De Niro", "Robert De Niro", ["Robert Di Niro"]),
        ("Tatyana Ali", "Tatyana Ali", ["Tatyana M. Ali"]),
        ("Adam Lee", "Adam Lee", []),
    ]


def corrections_file(folder: Path, *lines: str) -> UPath:
    """A user's table of corrections."""
    (folder / "corrections.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return UPath(folder / "corrections.csv")


def test_users_add_corrections_of_their_own(tmp_path: Path) -> None:
    """Folder or name, in any letter case; a user's line goes before ours; a given identity and aliases stay."""
    file = corrections_file(
        tmp_path, "given,name", "ada_lovelase,Ada Lovelace", "robert di niro,Bob De Niro", "Jorg  Ott,Jörg Ott"
    )
    found = [
        Person("Ada Lovelase", "Ada Lovelase", "a"),
        Person("7", "Robert Di Niro", "b", aliases=["Bob De Niro", "Bobby"]),
        Person("Leslie Neilsen", "Leslie Neilsen", "c"),
        Person("Jorg Ott", "Jorg Ott", "d", aliases=["Jorg Ott"]),
    ]
    people = corrected(found, read_corrections(file))
    assert [(person.identity, person.name, person.aliases) for person in people] == [
        ("Ada Lovelace", "Ada Lovelace", ["Ada Lovelase"]),
        ("7", "Bob De Niro", ["Robert Di Niro", "Bobby"]),
        ("Leslie Nielsen", "Leslie Nielsen", ["Leslie Neilsen"]),
        ("Jörg Ott", "Jörg Ott", ["Jorg Ott"]),
    ]


def test_a_name_that_is_there_twice_says_both_places() -> None:
    """Also when it is only after its correction that the name is another person's."""
    twice: Sequence[Person] = [Person(n, n, f"in {n}") for n in ("Robert De Niro", "Adam Lee", "Robert Di Niro")]
    with pytest.raises(DuplicateNameError, match=r"\(in Robert De Niro and in Robert Di Niro\)"):
        corrected(twice, read_corrections())


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["wrong,right", "a,b"], r"no column 'given' .*It has: wrong, right"),
        (["given,name", "Ada,"], r"a name is blank .*row 1"),
        (["given,name", "Ada,b,c"], "not a readable table of corrections"),
    ],
)
def test_a_wrong_table_of_corrections_is_an_error(lines: list[str], message: str, tmp_path: Path) -> None:
    """The error names what is missing, and where."""
    with pytest.raises(InvalidInputError, match=message):
        read_corrections(corrections_file(tmp_path, *lines))
