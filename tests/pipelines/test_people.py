"""The stages `people` and `panel`: people's pictures from folders, FaceScrub and tables."""

import io
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from rich.console import Console

from idia_core.config import Study
from idia_core.drawing import draw_face, encode_jpeg, invent_people
from idia_core.errors import DuplicateNameError, InvalidInputError
from idia_core.manifest import Manifest
from jobs.run import run_study

pytestmark = pytest.mark.usefixtures("local_ray")
NAMES = ["Ada Lee", "Bob Ray", "Eva Holm", "Ida Moss", "Tim O'Dell"]
PICTURES = 4
FACES = [
    [encode_jpeg(draw_face(person, [3, place, i])) for i in range(PICTURES)]
    for place, person in enumerate(invent_people(len(NAMES), 3, [*"FMFFM"]))
]
SIDE = 1000  # more than any of the faces has

Read = Callable[..., tuple[dict[str, pl.DataFrame], Manifest]]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Run the stage on an input of the test's folder; returns its tables and its manifest."""

    def run(people: str = "in", stage: str = "people", **fields: Any) -> tuple[dict[str, pl.DataFrame], Manifest]:
        inputs = {"people": str(tmp_path / people), **fields.pop("inputs", {})}
        out = tmp_path / fields.pop("out", "out")
        study = Study(name="test", out=str(out), seed=5, stages={stage: {"inputs": inputs, **fields}})
        manifest = run_study(study, Console(quiet=True))[stage].seal()
        tables = {
            name: pl.read_parquet(out / stage / name / "*.parquet") for name in ("identities", "pictures", "pairs")
        }
        return tables, manifest

    return run


def write_folders(root: Path) -> None:
    """A folder of faces for each person."""
    for name, faces in zip(NAMES, FACES, strict=True):
        folder = root / name.replace(" ", "_")
        folder.mkdir(parents=True)
        for i, face in enumerate(faces):
            (folder / f"{i}.jpg").write_bytes(face)


def outputs(folder: Path) -> dict[str, bytes]:
    """The bytes of every part."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*.parquet"))}


def test_every_kind_of_bad_picture_is_counted(tmp_path: Path, read: Read) -> None:
    """Each is a row with its reason and without bytes; somebody without a readable picture is still there."""
    write_folders(tmp_path / "in")
    ada = tmp_path / "in/Ada_Lee"
    (ada / "broken.jpg").write_bytes(b"<html>not found</html>")
    (ada / "cut.jpg").write_bytes(FACES[0][0][:-200])
    (ada / "empty.jpg").touch()
    (ada / "large.png").write_bytes(_png(Image.new("L", (SIDE + 1, SIDE))))
    Image.open(ada / "0.jpg").save(ada / "same.png")
    (tmp_path / "in/Nobody_Here").mkdir()
    (tmp_path / "in/Nobody_Here/0.jpg").write_bytes(b"x")
    tables, manifest = read(max_pixels=SIDE**2)
    pictures = tables["pictures"].filter(identity="Ada Lee")
    assert dict(pictures.select("picture", "status").iter_rows()) == {
        **{f"{i}.jpg": "ok" for i in range(PICTURES)},
        "broken.jpg": "broken",
        "cut.jpg": "truncated",
        "empty.jpg": "empty",
        "large.png": "too_large",
        "same.png": "duplicate",
    }
    assert tables["pictures"].filter(pl.col("status") != "ok")["image"].is_null().all()
    assert pictures.filter(status="ok")["image"].to_list() == FACES[0]
    assert manifest.counts == {
        "rows_in": 26,
        "rows_kept": 20,
        "broken": 2,
        "duplicate": 1,
        "empty": 1,
        "too_large": 1,
        "truncated": 1,
    }
    assert sorted(tables["identities"]["name"]) == sorted([*NAMES, "Nobody Here"])
    assert tables["pictures"].filter(identity="Nobody Here")["status"].to_list() == ["broken"]


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("training", [0, 3])
def test_blocks_and_workers_change_nothing(training: int, tmp_path: Path, read: Read) -> None:
    """One worker and two write the same bytes; blocks of one person and of all hold the same rows in the same order."""
    write_folders(tmp_path / "in")
    whole, _ = read(training_pictures=training, out="whole")
    for workers in (1, 2):
        fields = {"training_pictures": training, "people_per_split": 2, "resources": {"workers": workers}}
        parts, _ = read(out=f"out{workers}", **fields)
        assert len(list((tmp_path / f"out{workers}/people/identities").glob("*.parquet"))) == 3
        for name, table in whole.items():
            assert parts[name].equals(table)
    assert outputs(tmp_path / "out1") == outputs(tmp_path / "out2")


def test_pictures_are_dealt_out_for_training(tmp_path: Path, read: Read) -> None:
    """Each person's are parted: some become pairs with captions that name the person, the others are for the attack."""
    write_folders(tmp_path / "in")
    tables, _ = read(training_pictures=3)
    pairs, pictures = tables["pairs"], tables["pictures"]
    assert Counter(pairs["identity"]) == dict.fromkeys(NAMES, 3)
    assert Counter(pictures["identity"]) == dict.fromkeys(NAMES, 1)
    assert pairs["key"].to_list() == [f"person{place:05d}-{rank:05d}" for place in range(5) for rank in range(3)]
    assert all(name in caption for name, caption in pairs.select("identity", "caption").iter_rows())
    for name, faces in zip(NAMES, FACES, strict=True):
        shown = pairs.filter(identity=name)["image"].to_list() + pictures.filter(identity=name)["image"].to_list()
        assert sorted(shown) == sorted(faces)


def test_facescrub_is_read_as_it_is(tmp_path: Path, read: Read) -> None:
    """Sexes come from the groups, a misspelt name is corrected, faces are taken, and the manifest says so."""
    for group, name, place in (("actresses", "Ada_Lee", 0), ("actors", "Robert_Di_Niro", 1)):
        for kind, picture in (("faces", 0), ("images", 1)):
            folder = tmp_path / "in" / group / kind / name
            folder.mkdir(parents=True)
            (folder / f"{name}_1.jpeg").write_bytes(FACES[place][picture])
    tables, manifest = read()
    assert tables["identities"].to_dicts() == [
        {"identity": "Ada Lee", "name": "Ada Lee", "sex": "F", "aliases": None, "locale": None},
        {
            "identity": "Robert De Niro",
            "name": "Robert De Niro",
            "sex": "M",
            "aliases": ["Robert Di Niro"],
            "locale": None,
        },
    ]
    assert tables["pictures"].select("identity", "picture", "image").rows() == [
        ("Ada Lee", "Ada_Lee_1.jpeg", FACES[0][0]),
        ("Robert De Niro", "Robert_Di_Niro_1.jpeg", FACES[1][0]),
    ]
    assert manifest.facts["layout"][0] == f"'faces' is read in {tmp_path}/in/actors"
    tables, _ = read(out="images", facescrub_pictures="images")
    assert tables["pictures"]["image"].to_list() == [FACES[0][1], FACES[1][1]]


def test_corrections_are_an_input_of_their_own(tmp_path: Path, read: Read) -> None:
    """Names are corrected by a user's table, whose content is part of the fingerprint."""
    write_folders(tmp_path / "in")
    file = tmp_path / "corrections.csv"
    file.write_text("given,name\nEva_Holm,Eva Holmes\n")
    tables, first = read(inputs={"corrections": str(file)})
    assert tables["identities"].filter(name="Eva Holmes")["aliases"].to_list() == [["Eva Holm"]]
    file.write_text("given,name\nEva_Holm,Eva Holms\n")
    tables, second = read(inputs={"corrections": str(file)})
    assert "Eva Holms" in tables["identities"]["name"].to_list()
    assert first.fingerprint != second.fingerprint


def write_tables(root: Path) -> None:
    """The same people as a folder of Parquet with pictures, a CSV of paths, and a CSV of members of a tar."""
    write_folders(root / "folders")
    rows = [(name, i, face) for name, faces in zip(NAMES, FACES, strict=True) for i, face in enumerate(faces)]
    (root / "parquet").mkdir()
    for part in range(3):  # people go over the borders of files and row groups
        mine = rows[part * 7 : part * 7 + 7]
        columns = {"name": [name for name, _, _ in mine], "image": [face for _, _, face in mine]}
        pq.write_table(pa.table(columns), root / f"parquet/{part}.parquet", row_group_size=3)
    paths = [f"{name},folders/{name.replace(' ', '_')}/{i}.jpg\n" for name, i, _ in rows]
    (root / "paths.csv").write_text("".join(["name,path\n", *paths]))
    members = [f"{name},faces.tar,{name}/{i}.jpg\n" for name, i, _ in rows]
    (root / "members.csv").write_text("".join(["name,tar,member\n", *members]))
    with tarfile.open(root / "faces.tar", "w") as archive:
        for name, i, face in rows:
            info = tarfile.TarInfo(f"{name}/{i}.jpg")
            info.size = len(face)
            archive.addfile(info, io.BytesIO(face))


def test_tables_give_what_folders_give(tmp_path: Path, read: Read) -> None:
    """Whatever holds the pictures, people and bytes are the same, dealt out the same; a glob is a table too."""
    write_tables(tmp_path)
    expected, _ = read("folders", training_pictures=1, out="0")
    for number, people in enumerate(["parquet", "parquet/*.parquet", "paths.csv", "members.csv"], 1):
        tables, manifest = read(people, training_pictures=1, people_per_split=2, out=str(number))
        assert tables["identities"].equals(expected["identities"])
        assert tables["pairs"].equals(expected["pairs"])
        assert tables["pictures"].drop("picture").equals(expected["pictures"].drop("picture"))
        assert tables["pictures"].select("identity", "picture").is_unique().all()
        assert manifest.counts["rows_kept"] == 20


def test_what_a_table_points_to_may_be_missing(tmp_path: Path, read: Read) -> None:
    """A file or member that is not there is counted, and so are those behind a tar's cut, with the tar's name."""
    write_tables(tmp_path)
    (tmp_path / "folders/Ada_Lee/0.jpg").unlink()
    tables, manifest = read("paths.csv", out="paths")
    assert manifest.counts == {"rows_in": 20, "rows_kept": 19, "missing": 1}
    assert tables["pictures"].filter(status="missing")["picture"].to_list() == ["folders/Ada_Lee/0.jpg"]
    tar = tmp_path / "faces.tar"
    tar.write_bytes(tar.read_bytes()[:5000])
    _, manifest = read("members.csv", out="members")
    assert manifest.counts["missing"] + manifest.counts["rows_kept"] == 20
    assert manifest.counts["missing"] > 10
    assert manifest.facts["damaged_tars"] == (f"{tar}: unexpected end of data",)


def test_what_a_table_says_of_people_is_kept(tmp_path: Path, read: Read) -> None:
    """Identity, name, sex, aliases and locale go into the table of people."""
    (tmp_path / "0.jpg").write_bytes(FACES[0][0])
    (tmp_path / "in.csv").write_text(
        "identity,name,sex,aliases,locale,path\n7,Ada Ött,female,A. Ott;Ada O.,de_DE,0.jpg\n"
    )
    tables, manifest = read("in.csv")
    assert tables["identities"].rows() == [("7", "Ada Ött", "F", ["A. Ott", "Ada O."], "de_DE")]
    assert tables["pictures"].rows() == [("7", "0.jpg", "ok", FACES[0][0])]
    assert manifest.facts == {}


def test_the_panel_is_read_like_people(tmp_path: Path, read: Read) -> None:
    """The reference panel is a stage of its own with the same tables."""
    write_folders(tmp_path / "in")
    people, _ = read()
    panel, manifest = read(stage="panel")
    assert manifest.stage == "panel"
    assert all(panel[name].equals(table) for name, table in people.items())


def test_the_same_name_twice_says_both_places(tmp_path: Path, read: Read) -> None:
    """In one group of FaceScrub and in the other, after its name was corrected."""
    for folder in ("actors/faces/Robert_Di_Niro", "actresses/faces/robert_de_niro"):
        (tmp_path / "in" / folder).mkdir(parents=True)
        (tmp_path / "in" / folder / "0.jpg").write_bytes(FACES[0][0])
    with pytest.raises(
        DuplicateNameError, match=r"\(.*/actors/faces/Robert_Di_Niro and .*/actresses/faces/robert_de_niro\)"
    ):
        read()


def test_a_file_that_is_no_table_is_an_error(tmp_path: Path, read: Read) -> None:
    """A picture, or a glob of pictures, does not say who is on it."""
    write_folders(tmp_path / "in")
    with pytest.raises(InvalidInputError, match=r"neither a folder nor a table of people .*0\.jpg"):
        read("in/*/0.jpg")
