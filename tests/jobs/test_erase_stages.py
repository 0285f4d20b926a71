"""`idia erase` on stages of every kind: what is written anew, what goes as a whole, and what still knows the person."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from rich.console import Console
from upath import UPath

from idia_core.attack import VOTES
from idia_core.candidates import CANDIDATE_NAMES
from idia_core.config import Study
from idia_core.download import LEDGER
from idia_core.embeddings import METADATA, write_embeddings
from idia_core.identities import IDENTITIES, PICTURES
from idia_core.manifest import (
    InputRecord,
    Manifest,
    Receipt,
    fingerprint,
    provenance,
    read_manifest,
    total_counts,
    write_manifest,
)
from idia_core.retrieval import CANDIDATE_PAIRS
from idia_core.tars import TarWriter
from idia_core.wanted_urls import WANTED_URLS
from jobs.erase import erase_people
from pipelines.stage import SplitWriter

PICTURES_OF = {name: f"a picture of {place}".encode() for place, name in enumerate(("Ann Lee", "Bob Ray"))}
CAPTION = {"http://a/1": "Annie Lee at sea", "http://a/2": "Bob Ray at sea", "http://a/3": "Ann Lee Jones at sea"}


class Folder:
    """A study's folder that stages are sealed in."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def seal(
        self, folder: str, stage: str, write: Callable[[SplitWriter], None], inputs: tuple[str, ...] = ()
    ) -> Manifest:
        """Seal what `write` writes as a stage made from others' tables, each `stage.table`, under the table's name."""
        out = SplitWriter(UPath(self.out / folder), "test", 0, report=lambda *_: None)
        write(out)
        records = {}
        for source in inputs:
            maker, _, table = source.partition(".")
            records[table] = InputRecord(source=source, digest=self.read(maker).digest(table), files=1)
        digests = {field: record.digest for field, record in records.items()}
        receipts = (out.receipt("key"),)
        seal = Manifest(
            stage=stage,
            version=1,
            fingerprint=fingerprint(stage, 1, {}, digests),
            config={},
            resources={},
            inputs=records,
            counts=total_counts(receipts),
            receipts=tuple[Receipt, ...](receipts),
            provenance=provenance(["idia", "run", "ann_lee.yaml"], "2024-01-01", 0),
        )
        write_manifest(UPath(self.out / folder), seal)
        return seal

    def read(self, folder: str) -> Manifest:
        """A seal that is there."""
        seal = read_manifest(UPath(self.out / folder))
        assert seal is not None
        return seal

    def rows(self, path: str) -> list[dict[str, Any]]:
        """The rows of a table."""
        return pl.read_parquet(f"{self.out}/{path}/*.parquet").to_dicts()


def write_rows(name: str, schema: pa.Schema, *rows: dict[str, Any]) -> Callable[[SplitWriter], None]:
    """Writes a table."""
    return lambda out: out.table(name, pa.Table.from_pylist(list(rows), schema))


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Three people: Ann Lee with an alias, Bob Ray, and another whose name begins with hers."""
    folder = Folder(tmp_path / "out")
    names = {"Ann Lee": ["Annie Lee"], "Bob Ray": [], "Ann Lee Jones": []}
    people = [{"identity": name, "name": name, "aliases": aliases} for name, aliases in names.items()]
    shown = [{"identity": n, "picture": "0.jpg", "status": "ok", "image": image} for n, image in PICTURES_OF.items()]

    def write(out: SplitWriter) -> None:
        write_rows("identities", IDENTITIES, *people)(out)
        write_rows("pictures", PICTURES, *shown)(out)

    folder.seal("people", "people", write)
    return folder


def erase(folder: Folder, **stages: dict[str, Any]) -> str:
    """Erase Ann Lee; what is said."""
    console = Console(file=io.StringIO(), width=300)
    erase_people(Study(name="test", out=str(folder.out), stages=stages), ["Ann Lee"], console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_pictures_are_found_in_tars_by_their_urls(folder: Folder) -> None:
    """The sample goes from the tar and the rows from the ledger, though neither names anybody; the others stay."""
    row = {"picture": "0.jpg", "rank": 1, "similarity": 0.5, "status": "kept"}
    owners = dict(zip(CAPTION, ("Ann Lee", "Bob Ray", "Ann Lee Jones"), strict=True))
    candidates = [{"identity": owners[url], "url": url, "caption": CAPTION[url], "place": 0} | row for url in CAPTION]
    folder.seal("retrieve", "retrieve", write_rows("candidates", CANDIDATE_PAIRS, *candidates))

    def write(out: SplitWriter) -> None:
        urls = [{"number": i, "url": url, "caption": ""} for i, url in enumerate(CAPTION)]
        write_rows("urls", WANTED_URLS, *urls)(out)
        with out.open("tars/part-00000.tar", rows=3) as file, TarWriter(file) as tar:
            for number in range(3):
                tar.add(f"{number:09d}", "jpg", f"fetched {number}".encode(), b"")
        fetched = [{"status": "ok", "detail": "", "key": f"{i:09d}"} | url for i, url in enumerate(urls)]
        write_rows("ledger", LEDGER, *fetched)(out)

    folder.seal("download", "download", write, ("retrieve.candidates",))
    erase(folder)
    assert [row["url"] for row in folder.rows("retrieve/candidates")] == ["http://a/2", "http://a/3"]
    for table in ("urls", "ledger"):
        assert [row["number"] for row in folder.rows(f"download/{table}")] == [1, 2]
    with tarfile.open(folder.out / "download/tars/part-00000.tar") as tar:
        assert tar.getnames() == ["000000001.jpg", "000000001.txt", "000000002.jpg", "000000002.txt"]
    seal = folder.read("download")
    assert seal.inputs["candidates"].digest == folder.read("retrieve").digest("candidates")
    assert seal.counts["rows_erased"] == 3
    assert seal.provenance.argv[2] != "ann_lee.yaml"


def test_names_that_models_chose_are_replaced_in_the_votes_on_others(folder: Folder) -> None:
    """So that these can be judged again: the same word stands in the list of names and in the votes."""

    def write(out: SplitWriter) -> None:
        names = [{"pool": "all", "name": name, "tested": True} for name in ("Ann Lee", "Bob Ray", "Ann Lee Jones")]
        write_rows("names", CANDIDATE_NAMES, *names)(out)
        vote = {"model": "m", "image": "0.jpg", "template": "{0}"}
        chosen = {"Ann Lee": "Bob Ray", "Bob Ray": "Ann Lee", "Ann Lee Jones": "Ann Lee Jones"}
        write_rows("votes", VOTES, *(vote | {"identity": i, "predicted": p} for i, p in chosen.items()))(out)

    folder.seal("attack", "attack", write)
    erase(folder)
    token = folder.rows("attack/names")[0]["name"]
    assert token.startswith("erased-")
    assert [row["name"] for row in folder.rows("attack/names")] == [token, "Bob Ray", "Ann Lee Jones"]
    votes = {row["identity"]: row["predicted"] for row in folder.rows("attack/votes")}
    assert votes == {"Bob Ray": token, "Ann Lee Jones": "Ann Lee Jones"}


def test_vectors_of_the_base_become_nothing_at_their_places(folder: Folder) -> None:
    """Others keep theirs, so that an index over them stays right; that it still has the old ones is said."""

    def write(out: SplitWriter) -> None:
        rows = [{"image_path": f"key{i}", "caption": c, "source": "x", "part": 0, "row": i} for i, c in captions]
        with out.open("img_emb/img_emb_00000.npy", rows=3) as file:
            write_embeddings(file, np.ones((3, 2), np.float16))
        with out.open("metadata/metadata_00000.parquet", rows=3) as file:
            pa.parquet.write_table(pa.Table.from_pylist(rows, METADATA), file)

    def write_index(out: SplitWriter) -> None:
        rows = [{"image_path": "key0", "caption": "Ann Lee", "source": "x", "part": 0, "row": 0}]
        with out.open("shards/00000/metadata/metadata_00000.parquet", rows=1) as file:
            pa.parquet.write_table(pa.Table.from_pylist(rows, METADATA), file)
        out.write("shards/00000/image.index", b"vectors")

    captions = list(enumerate(CAPTION.values()))
    folder.seal("embed", "embed", write)
    folder.seal("index", "index", write_index, ("embed.img_emb", "embed.metadata"))
    said = erase(folder)
    assert np.load(folder.out / "embed/img_emb/img_emb_00000.npy").tolist() == [[0, 0], [1, 1], [1, 1]]
    rows = folder.rows("embed/metadata")
    assert [row["caption"] for row in rows[1:]] == list(CAPTION.values())[1:]
    assert rows[0]["caption"] == rows[0]["image_path"] != "key0"
    assert "still knows the person: index: keeps the vectors" in said
    assert folder.read("index").inputs["img_emb"].digest == folder.read("embed").digest("img_emb")


def test_pages_and_training_sets_go_as_a_whole_and_models_are_named(folder: Folder) -> None:
    """A page of what changed goes even where it names nobody. A model on other pairs is not named."""
    plan = pa.schema([("set", pa.string()), ("identity", pa.string()), ("key", pa.string())])
    rows = [{"set": "k1", "identity": name, "key": "0"} for name in PICTURES_OF]
    folder.seal("evidence", "evidence", lambda out: out.write("page/index.html", b"<img>"), ("people.pictures",))
    folder.seal("shards", "shards", write_rows("plan", plan, *rows))
    folder.seal("others", "shards", write_rows("plan", plan, *rows[1:]))
    for made, source in (("train", "shards.plan"), ("train2", "others.plan")):
        folder.seal(made, "train", lambda out: out.write("checkpoints/k1.pt", b"weights"), (source,))
    said = erase(folder)
    assert not (folder.out / "evidence").exists()
    assert not (folder.out / "shards").exists()
    assert (folder.out / "train/checkpoints/k1.pt").read_bytes() == b"weights"
    assert "train: trained on the person's pairs, train again: checkpoints/k1.pt" in said
    assert "train2" not in said
    record = (folder.out / "erasures.jsonl").read_text()
    assert '"taken_back": ["evidence", "shards"]' in record
    assert "checkpoints/k1.pt" in record


def test_what_is_kept_aside_is_erased_and_found_again_under_its_new_fingerprint(folder: Folder) -> None:
    """Its folder's name begins the fingerprint, which changes with the digest of what it was made from."""
    schema = pa.schema([("identity", pa.string())])
    rows = [{"identity": name} for name in PICTURES_OF]
    old = folder.seal("kept/select-0", "select", write_rows("selection", schema, *rows), ("people.pictures",))
    (folder.out / "kept/select-0").rename(folder.out / f"kept/select-{old.fingerprint[:12]}")
    erase(folder)
    (kept,) = (folder.out / "kept").iterdir()
    seal = folder.read(f"kept/{kept.name}")
    assert kept.name == f"select-{seal.fingerprint[:12]}" != f"select-{old.fingerprint[:12]}"
    digests = {"pictures": folder.read("people").digest("pictures")}
    assert seal.fingerprint == fingerprint("select", 1, {}, digests)
    assert folder.rows(f"kept/{kept.name}/selection") == [{"identity": "Bob Ray"}]


def test_interrupted_stages_with_the_person_go_and_others_stay(folder: Folder) -> None:
    """They have no seal that could stay."""
    for stage, name in (("scan", "Ann Lee"), ("judge", "Bob Ray")):
        (folder.out / stage / "_receipts").mkdir(parents=True)
        (folder.out / stage / "_receipts/split.json").write_text(f'{{"what": "{name}"}}')
    said = erase(folder)
    assert "scan: will be deleted as a whole; it was interrupted" in said
    assert not (folder.out / "scan").exists()
    assert (folder.out / "judge/_receipts/split.json").exists()


def test_what_lies_outside_is_named_and_left(folder: Folder, tmp_path: Path) -> None:
    """Inputs by their columns and folders, stray files of the study's folder; what was not read is counted."""
    own = tmp_path / "people"
    for name, image in PICTURES_OF.items():
        (own / name.replace(" ", "_")).mkdir(parents=True)
        (own / name.replace(" ", "_") / "0.jpg").write_bytes(image)
    pl.DataFrame({"name": ["Ann Lee"]}).write_parquet(tmp_path / "names.parquet")
    pl.DataFrame({"TEXT": ["Ann Lee"], "URL": ["http://a/1"]}).write_parquet(tmp_path / "captions.parquet")
    (folder.out / "notes.txt").write_text("Ann Lee wrote")
    inputs = {"captions": str(tmp_path / "captions.parquet"), "identities": str(tmp_path / "names.parquet")}
    said = erase(folder, people={"inputs": {"people": str(own)}}, scan={"inputs": inputs})
    prefix = "still holds the person, remove it there before the next run: "
    found = [line.removeprefix(prefix) for line in said.splitlines() if line.startswith(prefix)]
    assert found == sorted(map(str, (folder.out / "notes.txt", own / "Ann_Lee/0.jpg", tmp_path / "names.parquet")))
    assert f"1 inputs, such as {tmp_path / 'captions.parquet'}" in said
    assert (own / "Ann_Lee/0.jpg").exists()
