"""Common names from the files of the US Social Security Administration and Census, as distributed."""

import zipfile
from pathlib import Path

import pytest
from upath import UPath

from idia_core.errors import InvalidInputError, MissingInputError
from idia_core.name_files import read_first_names, read_last_names

YOB = {
    "yob1999.txt": "Emily,F,26539\r\nHannah,F,21677\r\nAlexis,F,19\r\nJacob,M,35361\r\nAlexis,M,27\r\n",
    "yob2000.txt": "Hannah,F,23085\nEmily,F,5\nJacob,M,34471\nMichael,M,90000\n",
}
FIRST = {"F": ("Hannah", "Emily", "Alexis"), "M": ("Michael", "Jacob", "Alexis")}
CENSUS_2010 = (
    "name,rank,count,prop100k,cum_prop100k,pctwhite\n"
    "SMITH,1,2442977,828.19,828.19,70.9\nMCDONALD,2,1000,1,2,3\nO'NEIL,3,1000,1,2,3\n"
    "NULL,4,300,1,2,3\nALL OTHER NAMES,0,29312001,9936.97,9936.97,66.65\n"
)
CENSUS_1990 = (
    "SMITH          1.006  1.006      1\nJOHNSON        0.810  1.816      2\nDE LA          0.699  2.515      3\n"
)
LAST = ("Smith", "Mcdonald", "O'Neil", "Null")


@pytest.fixture
def years(tmp_path: Path) -> Path:
    """A folder as names.zip unpacks: a file a year, and the notes beside them."""
    for name, text in YOB.items():
        (tmp_path / name).write_bytes(text.encode())
    (tmp_path / "NationalReadMe.pdf").write_bytes(b"%PDF")
    return tmp_path


def test_a_folder_of_years_is_summed(years: Path) -> None:
    """Births of a name and sex are summed over the years; a name of both sexes is in both lists."""
    assert read_first_names(str(years), 10) == FIRST
    assert read_first_names(str(years), 1) == {"F": ("Hannah",), "M": ("Michael",)}
    assert read_first_names(str(years / "yob1999.txt"), 10) == {
        "F": ("Emily", "Hannah", "Alexis"),
        "M": ("Jacob", "Alexis"),
    }


def test_the_zip_is_read_as_it_is(years: Path) -> None:
    """The distributed names.zip gives what its unpacked files give."""
    with zipfile.ZipFile(years / "names.zip", "w") as archive:
        for file in [*years.glob("*.txt"), years / "NationalReadMe.pdf"]:
            archive.write(file, file.name)
    assert read_first_names(str(years / "names.zip"), 10) == FIRST


@pytest.mark.parametrize(
    "text",
    [
        "first_name,sex,births\nEmily,F,5\nHANNAH,F,9\nJacob,M,3\n",
        "\ufeffName,Gender,Count\nEmily,Female,5\nHannah,female,9\nJacob,M,3\n",
        'year,sex,number,name\n1999,f,4,Emily\n2000,f,1,"Emily"\n2000,f,9,hannah\n2000,m,3,Jacob\n',
    ],
)
def test_first_names_with_a_header(text: str, tmp_path: Path) -> None:
    """Columns are known by the names that such tables give them, in any order and letter case."""
    (tmp_path / "first.csv").write_text(text, encoding="utf-8")
    found = read_first_names(str(tmp_path / "first.csv"), 10)
    assert {sex: tuple(name.title() for name in names) for sex, names in found.items()} == {
        "F": ("Hannah", "Emily"),
        "M": ("Jacob",),
    }


def test_last_names_of_2010(tmp_path: Path) -> None:
    """Names in capitals are written as names, equal counts go by the alphabet, and the row of all others is no name."""
    (tmp_path / "Names_2010Census.csv").write_text(CENSUS_2010)
    assert read_last_names(str(tmp_path / "Names_2010Census.csv"), 10) == LAST
    assert read_last_names(str(tmp_path / "Names_2010Census.csv"), 2) == LAST[:2]
    with zipfile.ZipFile(tmp_path / "names.zip", "w") as archive:
        archive.write(tmp_path / "Names_2010Census.csv", "Names_2010Census.csv")
        archive.writestr("Names_2010Census.xlsx", b"PK")
    assert read_last_names(str(tmp_path / "names.zip"), 10) == LAST


def test_last_names_at_a_url_with_a_plain_header() -> None:
    """Any fsspec URL and a header such as last_name,count do."""
    file = UPath("memory://last-names/last.csv")
    file.write_text("last_name,count\nSmith,5\nde la Cruz,7\n")
    assert read_last_names(str(file), 10) == ("de la Cruz", "Smith")


def test_last_names_of_1990(tmp_path: Path) -> None:
    """The fixed columns go by rank; a line with other columns is an error that shows it."""
    file = tmp_path / "dist.all.last"
    file.write_text(CENSUS_1990.replace("DE LA", "DELA"))
    assert read_last_names(str(tmp_path), 10) == ("Smith", "Johnson", "Dela")
    file.write_text(CENSUS_1990)
    with pytest.raises(InvalidInputError, match=r"a line reads 'DE LA 0\.699 2\.515 3'"):
        read_last_names(str(file), 10)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("first_name,births\nEmily,5\n", r"no column 'sex' .*It has: first_name, births"),
        ("name,sex,births\nEmily,F,5\nJacob,boy,3\n", r"a sex is neither F nor M .*, name 1\)"),
        ("name,sex,births\nEmily,F,many\n", "not a readable list of names"),
        ("name,sex,births\nEmily,F,5\n", "no male first names"),
        ("", "not a readable list of names"),
    ],
)
def test_other_files_of_first_names_are_errors(text: str, message: str, tmp_path: Path) -> None:
    """What is missing or wrong is said, with what is there."""
    (tmp_path / "first.csv").write_text(text)
    with pytest.raises(InvalidInputError, match=message):
        read_first_names(str(tmp_path / "first.csv"), 10)


def test_files_that_are_not_what_they_should_be(tmp_path: Path) -> None:
    """A broken zip, one without names, bytes that are no text, two lists at once and a missing file are told apart."""
    (tmp_path / "broken.zip").write_bytes(b"PK\x03\x04")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme.md", "x")
    (tmp_path / "a.csv").write_bytes(b"last_name,count\nM\xfcller,1\n")
    (tmp_path / "b.csv").write_text("last_name,count\nOtt,1\n")
    for path, message in (
        ("broken.zip", "not a readable zip"),
        ("other.zip", r"no \*\.csv or dist\.all\.last in it"),
        ("a.csv", "not UTF-8"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            read_last_names(str(tmp_path / path), 10)
    (tmp_path / "a.csv").write_text("last_name,count\nOtt,1\n")
    with pytest.raises(InvalidInputError, match="2 files of last names"):
        read_last_names(str(tmp_path), 10)
    with pytest.raises(MissingInputError, match="no file matches"):
        read_last_names(str(tmp_path / "nothing.csv"), 10)
