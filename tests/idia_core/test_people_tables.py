"""Finding people in Parquet and CSV tables."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from idia_core.errors import InvalidInputError, UsageError
from idia_core.people_sources import Person
from idia_core.people_tables import people_of_tables


def table(file: Path, **columns: Any) -> UPath:
    """A table of those columns, CSV or Parquet by its name."""
    if file.suffix == ".csv":
        rows = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
        file.write_text("\n".join(rows) + "\n", encoding="utf-8")
    else:
        pq.write_table(pa.table(columns), file)
    return UPath(file)


@pytest.mark.parametrize("name", ["people.csv", "people.parquet"])
def test_several_rows_are_one_person(name: str, tmp_path: Path) -> None:
    """Rows of one identity are put together: their pictures, aliases, and what only one of them says."""
    file = table(
        tmp_path / name,
        identity=["1", "2", "1", "1"],
        name=[" Jörg  Ott", "Ada Lee", "Jo\u0308rg Ott", "Jörg Ott"],
        aliases=["J. Ott; Jorg Ott", "", "", "Jorg Ott;;Ott"],
        sex=["", "female", "m", "M"],
        locale=["de_DE", "", "", "de_DE"],
        path=["a.jpg", "/data/b.jpg", "c/d.jpg", "memory://x/e.jpg"],
        width=["1", "2", "3", "4"],
    )
    found = people_of_tables([file])
    assert found.people == [
        Person(
            identity="1",
            name="Jörg Ott",
            where=f"{file}, row 1",
            sex="M",
            aliases=["J. Ott", "Jorg Ott", "Ott"],
            locale="de_DE",
            pictures=[
                {"picture": "a.jpg", "url": str(tmp_path / "a.jpg")},
                {"picture": "c/d.jpg", "url": str(tmp_path / "c/d.jpg")},
                {"picture": "memory://x/e.jpg", "url": "memory://x/e.jpg"},
            ],
        ),
        Person(
            identity="2",
            name="Ada Lee",
            where=f"{file}, row 2",
            sex="F",
            pictures=[{"picture": "/data/b.jpg", "url": "/data/b.jpg"}],
        ),
    ]
    assert found.notes == (f"{file}: columns not used: width",)


@pytest.mark.parametrize("sex", ["F", "f", "FEMALE", "Female"])
def test_sexes_have_several_spellings(sex: str, tmp_path: Path) -> None:
    """All of them are F."""
    assert people_of_tables([table(tmp_path / "a.csv", name=["A B"], sex=[sex], path=["x"])]).people[0].sex == "F"


def test_pictures_in_parquet_are_kept_as_runs_of_rows(tmp_path: Path) -> None:
    """The plan holds where the pictures are, never the pictures; runs end where another person or file begins."""
    images = pa.array([b"x", b"y", None, b"z"])
    names = pa.array(["Ada Lee", "Ada Lee", "Bob Ray", "Ada Lee"]).dictionary_encode()
    aliases = pa.array([["A. Lee"], None, [], None], pa.list_(pa.string()))
    files = [
        table(tmp_path / "a.parquet", name=names, image=images, aliases=aliases, identity=[7, 7, 8, 7]),
        table(tmp_path / "b.parquet", name=["Ada Lee"], image=pa.array([b"u"], pa.large_binary()), identity=[7]),
    ]
    ada, bob = people_of_tables(files).people
    runs = [(0, files[0], 0, 2), (1, files[0], 3, 4), (2, files[1], 0, 1)]
    assert ada.pictures == [{"parquet": str(file), "start": start, "stop": stop} for _, file, start, stop in runs]
    assert bob.pictures == [{"parquet": str(files[0]), "start": 2, "stop": 3}]
    assert (ada.identity, ada.aliases, bob.aliases) == ("7", ["A. Lee"], [])


def test_pictures_in_tars(tmp_path: Path) -> None:
    """A tar is found beside the table or by its URL; a row without a place is a picture that is missing."""
    file = table(
        tmp_path / "people.csv",
        name=["Ada Lee"] * 3,
        tar=["tars/0.tar", "memory://t/1.tar", "tars/0.tar"],
        member=["a/0.jpg", "0.jpg", ""],
    )
    assert people_of_tables([file]).people[0].pictures == [
        {"picture": "tars/0.tar/a/0.jpg", "tar": str(tmp_path / "tars/0.tar"), "member": "a/0.jpg"},
        {"picture": "memory://t/1.tar/0.jpg", "tar": "memory://t/1.tar", "member": "0.jpg"},
        {"picture": "people.csv:2"},
    ]


def test_a_table_at_a_url(tmp_path: Path) -> None:
    """Relative paths begin in the table's folder there."""
    file = UPath("memory://people-tables/in/people.csv")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("name,path\nAda Lee,faces/0.jpg\n")
    (file.parent / "people.parquet").write_bytes(
        table(tmp_path / "x.parquet", name=["Ada Lee"], path=["faces/0.jpg"]).read_bytes()
    )
    for found in (people_of_tables([file]), people_of_tables([file.parent / "people.parquet"])):
        assert found.people[0].pictures == [{"picture": "faces/0.jpg", "url": "memory://people-tables/in/faces/0.jpg"}]


ROW = {"name": ["Ada Lee"], "path": ["a.jpg"]}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"nome": ["Ada Lee"], "path": ["a.jpg"]}, r"no column 'name' .*It has: nome, path"),
        (
            {"name": ["Ada Lee"]},
            r"no column says where the pictures are .*one of image, path, or tar and member.*has: name",
        ),
        ({"name": ["Ada Lee"], "tar": ["a.tar"]}, r"no column says where .*It has: name, tar"),
        ({**ROW, "tar": ["t"], "member": ["m"]}, "several columns say where the pictures are"),
        ({**ROW, "sex": ["woman"]}, r"the sex 'woman' is unknown .*row 1\)\. Write F, M, female, male"),
        ({**ROW, "name": [" "]}, r"a name is blank .*row 1"),
        (
            {"identity": ["1", "1"], "name": ["A B", "A C"], "path": ["a", "b"]},
            r"'1' has the name 'A B' and 'A C' .*row 1.*row 2",
        ),
        ({"name": ["A B", "A B"], "sex": ["F", "M"], "path": ["a", "b"]}, r"'A B' has the sex 'F' and 'M'"),
    ],
)
@pytest.mark.parametrize("name", ["people.csv", "people.parquet"])
def test_a_wrong_table_is_an_error_that_says_where(
    name: str, columns: dict[str, list[str]], message: str, tmp_path: Path
) -> None:
    """Missing and contradicting columns and cells name the file or the row, and list what is there."""
    with pytest.raises(InvalidInputError, match=message):
        people_of_tables([table(tmp_path / name, **columns)])


def test_other_wrong_tables(tmp_path: Path) -> None:
    """Columns of another type, pictures in CSV, broken and empty files, and unknown URLs are errors that say so."""
    for columns, message in (
        ({**ROW, "sex": [1]}, "column 'sex' holds Int64, not text"),
        ({"name": ["Ada Lee"], "image": ["a.jpg"]}, "column 'image' holds string, not bytes"),
        ({**ROW, "aliases": [[1]]}, r"column 'aliases' holds List\(Int64\), not text"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            people_of_tables([table(tmp_path / "a.parquet", **columns)])
    with pytest.raises(InvalidInputError, match="CSV cannot hold pictures"):
        people_of_tables([table(tmp_path / "a.csv", name=["A B"], image=["x"])])
    for name in ("broken.parquet", "broken.csv"):
        (tmp_path / name).write_bytes(b"" if name.endswith("csv") else b"PAR1")
        with pytest.raises(InvalidInputError, match="not a readable table"):
            people_of_tables([UPath(tmp_path / name)])
    with pytest.raises(InvalidInputError, match="no person in the table"):
        people_of_tables([table(tmp_path / "none.csv", name=[], path=[])])
    with pytest.raises(UsageError, match="'nowhere://x' is no path"):
        people_of_tables([table(tmp_path / "url.csv", name=["A B"], path=["nowhere://x"])])
