"""`own_pairs`: anybody's list of pairs, as `shards` wants them."""

import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from idia_core.config import Study
from idia_core.errors import InvalidInputError
from idia_core.identities import PAIRS
from idia_core.own_pairs import REJECTED_PAIRS
from jobs.run import run_study
from tests.picture_server import served
from tests.pipelines.audits import QUIET
from tests.pipelines.shard_inputs import (
    MEMBERS,
    contents,
    members_pairs,
    picture,
    set_pairs,
    study,
    write_base,
    write_people,
)

pytestmark = pytest.mark.usefixtures("local_ray")


def write_list(folder: Path, name: str, rows: Sequence[Sequence[str]]) -> Path:
    """A list whose first row names its columns."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    return folder / name


def run(folder: Path, out: str = "out", **fields: Any) -> dict[str, int]:
    """The stage alone on `folder`/lists; what it counts."""
    inputs = {"list": str(folder / "lists")} | fields.pop("inputs", {})
    stages = {"own_pairs": {"inputs": inputs, **fields}}
    return run_study(Study(name="test", out=str(folder / out), stages=stages), QUIET)["own_pairs"].seal().counts


def table(folder: Path, name: str, out: str = "out") -> pl.DataFrame:
    """A table of the stage."""
    return pl.DataFrame(pq.read_table(folder / out / "own_pairs" / name))


def test_every_row_is_a_pair_or_has_a_reason(tmp_path: Path) -> None:
    """From paths beside the list, absolute ones and URLs of files; several files of any form are one list."""
    (tmp_path / "lists/pictures").mkdir(parents=True)
    for name in ("a", "b"):
        (tmp_path / f"lists/pictures/{name}.jpg").write_bytes(picture(name))
    (tmp_path / "lists/empty.jpg").touch()
    (tmp_path / "elsewhere.png").write_bytes(picture("c", "PNG"))
    header = ("key", "identity", "caption", "path")
    write_list(
        tmp_path / "lists",
        "a.tsv",
        [
            header,
            ("", "Zoe\u0308  Ball", 'Zoë "B" Ball', "pictures/a.jpg"),
            ("mine-1", "Zoë Ball", "", str(tmp_path / "elsewhere.png")),
            ("mine-1", "Zoë Ball", "again", "pictures/a.jpg"),
            ("x.y", "Ann", "Ann", "pictures/b.jpg"),
            ("", "Ann", "Ann", "no.jpg"),
            ("", "Ann", "Ann", ""),
            ("", "Ann", "Ann", "pictures"),
            ("", "Ann", "Ann", "empty.jpg"),
            ("", "Ann", "Ann", "http://127.0.0.1/a.jpg"),
            ("", "Ann", "Ann", "nonsense://a"),
        ],
    )
    rows = pa.table({"name": ["Ann"], "text": ["Ann, again"], "filepath": [f"file://{tmp_path}/lists/pictures/b.jpg"]})
    pq.write_table(rows, tmp_path / "lists/b.parquet")
    counts = run(tmp_path, rows_per_split=4)
    pairs = table(tmp_path, "pairs")
    assert pairs.rows() == [
        ("own00000000", "Zoë Ball", 'Zoë "B" Ball', picture("a")),
        ("mine-1", "Zoë Ball", "", picture("c", "PNG")),
        ("own00000010", "Ann", "Ann, again", picture("b")),
    ]
    assert pq.read_schema(next((tmp_path / "out/own_pairs/pairs").iterdir())).equals(PAIRS)
    rejected = table(tmp_path, "rejected")
    assert rejected.columns == REJECTED_PAIRS.names
    assert list(rejected.select("key", "status").iter_rows()) == [
        ("mine-1", "duplicate_key"),
        ("x.y", "unusable_key"),
        ("own00000004", "missing"),
        ("own00000005", "no_picture"),
        ("own00000006", "missing"),
        ("own00000007", "empty"),
        ("own00000008", "unsafe_path"),
        ("own00000009", "unsafe_path"),
    ]
    reasons = Counter(rejected["status"])
    assert counts == {"rows_in": 11, "rows_kept": 3, **reasons}
    run(tmp_path, "two", rows_per_split=4, resources={"workers": 2})
    assert contents(tmp_path / "out/own_pairs") == contents(tmp_path / "two/own_pairs")


def test_training_sets_begin_with_a_list(tmp_path: Path) -> None:
    """The same sets as with the pairs as Parquet."""
    write_base(tmp_path)
    write_people(tmp_path)
    rows = [("key", "identity", "caption", "path")]
    for pair in members_pairs():
        path = tmp_path / f"lists/pictures/{pair['key']}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pair["image"])
        rows.append((pair["key"], pair["identity"], pair["caption"], f"pictures/{pair['key']}.jpg"))
    write_list(tmp_path / "lists", "mine.tsv", rows)
    run_study(study(tmp_path, "plain"), QUIET)
    listed = study(tmp_path, "listed", inputs={"pairs": "own_pairs.pairs"})
    stages = {"own_pairs": {"inputs": {"list": str(tmp_path / "lists/mine.tsv")}}, **listed.stages}
    run_study(listed.model_copy(update={"stages": stages}), QUIET)
    for name in ("K001", "K003"):
        assert set_pairs(tmp_path, name, "listed") == set_pairs(tmp_path, name, "plain")
    assert contents(tmp_path / "listed/shards/tars") == contents(tmp_path / "plain/shards/tars")


def test_pictures_at_urls_are_those_of_a_download(tmp_path: Path) -> None:
    """One list goes into both stages; what was not fetched says why."""
    with served() as server:
        urls = [server.url(kind, number) for number, kind in enumerate(("good", "not_found", "good"))]
        lines = [(name, f"{name} {url}", url) for name, url in zip((*MEMBERS, "Bob"), urls, strict=True)]
        listed = write_list(tmp_path / "lists", "mine.tsv", [("identity", "caption", "url"), *lines])
        stages: dict[str, Any] = {
            "download": {
                "inputs": {"candidates": str(listed)},
                "allow_private_addresses": [server.place],
                "urls_per_split": 2,
            },
            "own_pairs": {"inputs": {"list": str(listed), "ledger": "download.ledger", "tars": "download.tars"}},
        }
        run_study(Study(name="test", out=str(tmp_path / "out"), stages=stages), QUIET)
    pairs, rejected = table(tmp_path, "pairs"), table(tmp_path, "rejected")
    assert list(pairs.select("identity", "caption").iter_rows()) == [lines[0][:2], lines[2][:2]]
    assert all(Image.open(io.BytesIO(image)).format == "JPEG" for image in pairs["image"])
    assert list(rejected.select("identity", "picture", "status").iter_rows()) == [(MEMBERS[1], urls[1], "http_error")]
    write_list(tmp_path / "lists", "mine.tsv", [("identity", "caption", "url"), ("Ann", "Ann", "http://other/")])
    told = {"ledger": str(tmp_path / "out/download/ledger"), "tars": str(tmp_path / "out/download/tars")}
    assert run(tmp_path, "later", inputs=told) == {"rows_in": 1, "rows_kept": 0, "not_fetched": 1}
    (tmp_path / "out/download/tars/part-00001.tar").unlink()
    with pytest.raises(InvalidInputError, match=r"no tar 'part-00001\.tar'"):
        run(tmp_path, "without", inputs=told)


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        ([("identity", "caption"), ("Ann", "Ann")], "no column 'path' or 'url'"),
        ([("caption", "path"), ("Ann", "a.jpg")], "no column 'identity'"),
        ([("identity", "path"), ("Ann", "a.jpg")], "no column 'caption'"),
        ([("identity", "caption", "path"), (" ", "Ann", "a.jpg")], "there is no identity"),
        ([("identity", "caption", "path")], "there is no row"),
        ([("identity", "caption", "url"), ("Ann", "Ann", "http://a/")], "the pictures are at URLs"),
    ],
)
def test_a_list_of_another_form_is_an_error(tmp_path: Path, rows: list[tuple[str, ...]], what: str) -> None:
    """It says which file, and what to do."""
    path = write_list(tmp_path / "lists", "mine.tsv", rows)
    with pytest.raises(InvalidInputError, match=what) as caught:
        run(tmp_path)
    assert str(path) in caught.value.where
    assert caught.value.fix
