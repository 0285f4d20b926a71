"""`portraits`: pictures of people from lists of URLs, cut out, named and counted; and an audit's people out of them."""

import hashlib
import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from idia_core.config import Study
from idia_core.drawing import draw_face, encode_jpeg, invent_people
from idia_core.face_detection import Box
from idia_core.identities import IDENTITIES, PICTURES
from idia_core.portraits import LEDGER, portrait_of
from jobs.cli import app
from jobs.run import run_study
from tests.picture_server import PictureServer, served
from tests.pipelines.audits import QUIET
from tests.pipelines.shard_inputs import contents

pytestmark = pytest.mark.usefixtures("local_ray")
HEADER = "name\timage_id\tface_id\turl\tbbox\tsha256"
ANN, BOB, ZOE = "Ann Lee", "Bob O'Ray", "Zoë Ball"
FACES = {
    name: [encode_jpeg(draw_face(person, [9, place, i])) for i in range(4)]
    for place, (name, person) in enumerate(zip((ANN, BOB, ZOE), invent_people(3, 9, [*"FMF"]), strict=True))
}
BOX = (4, 6, 50, 60)


@pytest.fixture
def server() -> Iterator[PictureServer]:
    """Serves the faces as `/faces/NAME/NUMBER.jpg`, and misbehaves elsewhere."""
    with served() as running:
        for name, faces in FACES.items():
            for number, face in enumerate(faces):
                running.files[f"/faces/{name.split(maxsplit=1)[0].encode().hex()}/{number}.jpg"] = face
        yield running


def face_url(server: PictureServer, name: str, number: int) -> str:
    """Where a face is."""
    return f"http://{server.place}/faces/{name.split(maxsplit=1)[0].encode().hex()}/{number}.jpg"


def row(url: str, name: str = ANN, box: str | tuple[int, ...] = BOX, sha256: str = "") -> str:
    """A line of one of FaceScrub's lists."""
    return "\t".join((name, "1", "2", url, box if isinstance(box, str) else ",".join(map(str, box)), sha256))


def write_lists(folder: Path, server: PictureServer) -> list[tuple[str, str]]:
    """Lists of all that can happen; identity or "", and status of each row as the ledger must have them."""
    (folder / "lists/more").mkdir(parents=True)
    known = hashlib.sha256(FACES[ANN][0]).hexdigest()
    women = {
        row(face_url(server, ANN, 0), sha256=known): (ANN, "ok"),
        row(face_url(server, ANN, 1), sha256=known): (ANN, "wrong_hash"),
        row(server.url("page", 0), sha256=known): (ANN, "wrong_hash"),
        row(face_url(server, ANN, 2), box=(1000, 0, 1010, 10)): (ANN, "box_outside"),
        row(face_url(server, ANN, 2), box="1,2,3"): (ANN, "bad_box"),
        row(face_url(server, ANN, 0), box=(20, 20, 5000, 5000)): (ANN, "ok"),
        row(server.url("flaky", 3), box=(0, 0, 30, 30)): (ANN, "http_error"),
        f"{ANN}\t1\t2": (ANN, "bad_row"),
        row(server.url("not_found", 0), name=ZOE): (ZOE, "http_error"),
    }
    men = {
        row(server.url("good", 1), name=BOB): (BOB, "ok"),
        row(server.url("double", 1), name=BOB): (BOB, "duplicate_picture"),
        row("http://10.0.0.1/x.jpg", name=BOB): (BOB, "blocked_address"),
        row(face_url(server, ANN, 0), name=BOB, box=(0, 0, 20, 20)): (BOB, "ok"),
        row("", name=""): ("", "bad_row"),
    }
    for name, rows in (("actresses", women), ("actors", men)):
        text = "\n".join([HEADER, *rows])
        (folder / f"lists/facescrub_{name}.txt").write_text(text, encoding="utf-8")
    mine = [face_url(server, ZOE, 1), "no URL", "# a note", "", face_url(server, ZOE, 2), face_url(server, ZOE, 1)]
    (folder / "lists/more/Zoe\u0308_Ball.txt").write_text("\n".join(mine), encoding="utf-8")
    zoe = [(ZOE, "ok"), (ZOE, "bad_url"), (ZOE, "ok"), (ZOE, "duplicate_row")]
    return [*men.values(), *women.values(), *zoe]


def study(folder: Path, server: PictureServer, out: str = "out", **fields: Any) -> Study:
    """The stage alone."""
    config: dict[str, Any] = {
        "inputs": {"lists": str(folder / "lists")},
        "allow_private_addresses": [server.place],
        "retries": 0,
        "resources": {"workers": 1},
    }
    return Study(name="test", out=str(folder / out), stages={"portraits": config | fields})


def portraits(
    folder: Path, server: PictureServer, out: str = "out", *, retry_failed: bool = False, **fields: Any
) -> dict[str, int]:
    """Run it; what the seal counts."""
    plans = run_study(study(folder, server, out, **fields), QUIET, retry_failed=retry_failed)
    return plans["portraits"].seal().counts


def table(folder: Path, name: str, out: str = "out") -> pl.DataFrame:
    """A table of the stage."""
    return pl.DataFrame(pq.read_table(folder / out / "portraits" / name))


def tree(folder: Path, out: str = "out") -> dict[str, bytes]:
    """The pictures in people's folders."""
    top = folder / out / "portraits/people"
    files = [path for path in top.rglob("*") if path.is_file() and path.suffix != ".parquet"]
    return {str(path.relative_to(top)): path.read_bytes() for path in sorted(files)}


def test_every_row_has_its_status_and_every_face_its_place(tmp_path: Path, server: PictureServer) -> None:
    """The ledger, the counts, the tables and the folders say the same."""
    expected = write_lists(tmp_path, server)
    counts = portraits(tmp_path, server, urls_per_split=4, people_per_split=2)
    ledger = table(tmp_path, "ledger")
    assert ledger.to_arrow().schema.names == LEDGER.names
    found = Counter((name or "", status) for name, status in ledger.select("identity", "status").iter_rows())
    assert found == Counter(expected)
    statuses = Counter(status for _, status in expected)
    kept = statuses.pop("ok")
    people = {"people": 3, "people_without_pictures": 0}
    assert counts == {"rows_in": len(expected), "rows_kept": kept, **statuses, **people}
    faces = tree(tmp_path)
    assert [*faces] == [
        *(f"Ann_Lee/00000{place}.jpg" for place in (1, 6)),
        *(f"Bob_O'Ray/00000{place}.jpg" for place in (1, 4)),
        *(f"Zoë_Ball/00000{place}.jpg" for place in (2, 4)),
    ]
    pictures = {f"{who.replace(' ', '_')}/{name}": image for who, name, _, image in table(tmp_path, "pictures").rows()}
    assert pictures == faces
    assert set(table(tmp_path, "pictures")["status"]) == {"ok"}
    with Image.open(io.BytesIO(faces["Ann_Lee/000001.jpg"])) as cut, Image.open(io.BytesIO(FACES[ANN][0])) as whole:
        assert cut.size == (46, 54)
        assert faces["Ann_Lee/000001.jpg"] == portrait_of(FACES[ANN][0], Box(4, 6, 46, 54)).image
        assert Image.open(io.BytesIO(faces["Ann_Lee/000006.jpg"])).size == (whole.width - 20, whole.height - 20)
    assert faces["Zoë_Ball/000002.jpg"] == FACES[ZOE][1]
    assert pq.read_schema(next((tmp_path / "out/portraits/identities").iterdir())).equals(IDENTITIES)
    assert pq.read_schema(next((tmp_path / "out/portraits/pictures").iterdir())).equals(PICTURES)
    assert dict(table(tmp_path, "identities").select("identity", "sex").iter_rows()) == {ANN: "F", BOB: "M", ZOE: "F"}
    told = pl.read_csv(tmp_path / "out/portraits/csv/statuses.csv")
    assert told.row(0, named=True) == {"status": "ok", "http_status": 200, "rows": kept}
    told = pl.read_csv(tmp_path / "out/portraits/csv/people.csv")
    assert {name: (rows, good) for name, _, rows, good in told.iter_rows()} == {ANN: (8, 2), BOB: (4, 2), ZOE: (5, 2)}
    assert server.asked[f"/faces/{b'Ann'.hex()}/0.jpg"] == 1  # of two people, and with three boxes


def test_an_audit_reads_the_folders(tmp_path: Path, server: PictureServer) -> None:
    """As a folder a person with the sex that the lists told, in a study as by a path; `audit` takes it as well."""
    write_lists(tmp_path, server)
    by_table = study(tmp_path, server)
    both = by_table.model_copy(
        update={"stages": by_table.stages | {"people": {"inputs": {"people": "portraits.people"}}}}
    )
    run_study(both, QUIET)
    path = tmp_path / "study.json"
    path.write_text(both.model_dump_json(), encoding="utf-8")
    printed = CliRunner().invoke(app, ["path", str(path), "portraits.people"]).output.strip()
    by_path = Study(name="test", out=str(tmp_path / "by"), stages={"people": {"inputs": {"people": printed}}})
    run_study(by_path, QUIET)
    for out in ("out", "by"):
        read = {
            name: pl.read_parquet(tmp_path / out / f"people/{name}/*.parquet") for name in ("identities", "pictures")
        }
        assert dict(read["identities"].select("name", "sex").iter_rows()) == {ANN: "F", BOB: "M", ZOE: "F"}
        assert dict(read["pictures"].select("picture", "image").iter_rows()) == tree(tmp_path)
        assert set(read["pictures"]["status"]) == {"ok"}
    words = ["audit", "--model", "idia-rn-tiny:no.pt", "--people", printed, "--out", str(tmp_path / "audit")]
    (tmp_path / "no.pt").touch()
    said = CliRunner().invoke(app, [*words[:2], f"idia-rn-tiny:{tmp_path}/no.pt", *words[3:], "--dry-run"])
    assert said.exit_code == 0, said.output
    for file in Path(printed).glob("*.parquet"):  # without it, as folders
        file.unlink()
    run_study(by_path, QUIET)
    names = pl.read_parquet(tmp_path / "by/people/identities/*.parquet")
    assert dict(names.select("name", "sex").iter_rows()) == {ANN: None, BOB: None, ZOE: None}


def test_whole_pictures_and_a_retry(tmp_path: Path, server: PictureServer) -> None:
    """Another `crop` fetches nothing again; a retry fetches what may have changed, and its pictures are added."""
    write_lists(tmp_path, server)
    portraits(tmp_path, server)
    before, asked = tree(tmp_path), Counter(server.asked)
    portraits(tmp_path, server, crop=False)
    whole = tree(tmp_path)
    assert whole["Ann_Lee/000001.jpg"] == FACES[ANN][0]
    assert whole["Ann_Lee/000004.jpg"] == FACES[ANN][2]  # whatever its box is
    assert Counter(server.asked) == asked
    portraits(tmp_path, server)
    assert tree(tmp_path) == before
    portraits(tmp_path, server, retry_failed=True)
    assert {path for path in server.asked if server.asked[path] > asked[path]} == {"/flaky/3.jpg"}
    after = tree(tmp_path)
    assert after.keys() - before.keys() == {"Ann_Lee/000007.jpg"}
    assert {name: after[name] for name in before} == before


def test_the_bytes_do_not_depend_on_workers(tmp_path: Path, server: PictureServer) -> None:
    """Nor on threads."""
    write_lists(tmp_path, server)
    server.asked["/flaky/3.jpg"] += 1  # so that it is as good to the first run as to the second
    fields = {"urls_per_split": 3, "people_per_split": 1}
    portraits(tmp_path, server, "one", resources={"workers": 1, "threads": 1}, **fields)
    portraits(tmp_path, server, "two", resources={"workers": 2, "threads": 9}, **fields)
    assert contents(tmp_path / "one/portraits") == contents(tmp_path / "two/portraits")


def test_a_dry_run_tells_what_there_is_to_fetch(
    tmp_path: Path, server: PictureServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """People, rows, URLs and hosts, and what is wrong with rows; nothing is asked."""
    monkeypatch.setenv("COLUMNS", "200")
    expected = write_lists(tmp_path, server)
    path = tmp_path / "study.json"
    path.write_text(study(tmp_path, server).model_dump_json(), encoding="utf-8")
    said = CliRunner().invoke(app, ["run", str(path), "--dry-run"]).output
    numbers = [line.split() for line in said.splitlines() if line.strip()[:1].isdigit()]
    assert numbers == [["3", str(len(expected)), "12", "3"]]
    assert "Rows that are not fetched: 1 bad_box, 2 bad_row, 1 duplicate_row." in said
    assert server.asked.total() == 0
