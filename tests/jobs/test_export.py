"""`idia export`: a table of a study as a file that other tools edit, and that is fetched from."""

from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner
from upath import UPath

from idia_core.config import Study
from idia_core.errors import MissingInputError, SealError, UsageError
from idia_core.manifest import Manifest, Receipt, provenance, write_manifest
from idia_core.retrieval import CANDIDATE_PAIRS
from jobs.cli import app
from jobs.run import run_study
from pipelines.stage import SplitWriter
from tests.picture_server import served
from tests.pipelines.audits import QUIET


def seal_retrieve(out: Path, rows: list[dict[str, Any]]) -> None:
    """`out`/retrieve as the stage leaves it, with two parts of candidates and a file that is no table."""
    writer = SplitWriter(UPath(out / "retrieve"), "test", 0, report=lambda *_: None)
    for part, mine in enumerate((rows[:2], rows[2:])):
        writer.part = part
        writer.table("candidates", pa.Table.from_pylist(mine, CANDIDATE_PAIRS))
    writer.write("retrieved/notes.txt", b"x")
    seal = Manifest(
        stage="retrieve",
        version=1,
        fingerprint="0" * 64,
        config={},
        resources={},
        inputs={},
        counts={},
        receipts=(Receipt(split="test", key="", files=tuple(writer.files)),),
        provenance=provenance([], "2024-01-01", 0),
    )
    write_manifest(UPath(out / "retrieve"), seal)


def candidate(place: int, url: str) -> dict[str, Any]:
    """A row."""
    row = {"identity": "Zoë Ball", "place": place, "picture": "0.jpg", "rank": place + 1, "similarity": 1 / 3}
    return row | {"url": url, "caption": f'Zoë Ball, "{place}"', "status": "kept", "sha256": None}


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study whose `retrieve` is done."""
    seal_retrieve(tmp_path / "out", [candidate(place, f"http://a.example/{place}") for place in range(5)])
    stages = {"retrieve": {"inputs": {}, "model": "ViT-B-32"}, "download": {"inputs": {"candidates": "x"}}}
    path = tmp_path / "study.json"
    path.write_text(Study(name="test", out=str(tmp_path / "out"), stages=stages).model_dump_json(), encoding="utf-8")
    return path


def export(study: Path, *words: str) -> Any:
    """What the command ends with."""
    return CliRunner().invoke(app, ["export", str(study), *words], env={"COLUMNS": "300"})


@pytest.mark.usefixtures("local_ray")
def test_candidates_go_out_are_edited_and_are_fetched(tmp_path: Path) -> None:
    """By an editor of lines: one is taken out, and the others' pictures and captions come."""
    with served() as server:
        seal_retrieve(tmp_path / "out", [candidate(place, server.url("good", place)) for place in range(5)])
        edited = tmp_path / "candidates.tsv"
        stages: dict[str, Any] = {
            "retrieve": {"inputs": {}, "model": "ViT-B-32"},
            "download": {"inputs": {"candidates": str(edited)}, "allow_private_addresses": [server.place]},
        }
        study = Study(name="test", out=str(tmp_path / "out"), stages=stages)
        (tmp_path / "study.json").write_text(study.model_dump_json(), encoding="utf-8")
        said = export(tmp_path / "study.json", "retrieve.candidates", str(edited))
        assert said.output.strip() == f"5 rows of retrieve.candidates are in {edited}"
        lines = edited.read_text(encoding="utf-8").splitlines()
        edited.write_text("\n".join([*lines[:3], *lines[4:]]), encoding="utf-8")
        only = study.model_copy(update={"stages": {"download": stages["download"]}})
        run_study(only, QUIET)
    urls = pl.read_parquet(tmp_path / "out/download/urls/*.parquet")
    assert urls["caption"].to_list() == [f'Zoë Ball, "{place}"' for place in (0, 1, 3, 4)]
    assert set(pl.read_parquet(tmp_path / "out/download/ledger/*.parquet")["status"]) == {"ok"}


def test_every_part_is_in_the_file_and_none_is_written_over(study: Path, tmp_path: Path) -> None:
    """In order; a file of that name stays, and so do the stage's own."""
    target = tmp_path / "elsewhere/c.parquet"
    assert export(study, "retrieve.candidates", str(target)).exit_code == 0
    assert pq.read_table(target)["place"].to_pylist() == [*range(5)]
    before = target.read_bytes()
    assert isinstance(error := export(study, "retrieve.candidates", str(target)).exception, UsageError)
    assert str(error).startswith("there is a file already")
    assert target.read_bytes() == before
    inside = str(tmp_path / "out/retrieve/candidates/x.csv")
    assert isinstance(export(study, "retrieve.candidates", inside).exception, UsageError)
    assert export(study, "retrieve.candidates", "memory://export/c.csv").exit_code == 0
    assert UPath("memory://export/c.csv").read_text().count("\n") == 6


def test_what_is_no_table_is_an_error(study: Path, tmp_path: Path) -> None:
    """Each of its own type: not there, not done, no rows, gone."""
    target = str(tmp_path / "x.csv")
    assert "no table 'candidate'" in str(error := export(study, "retrieve.candidate", target).exception)
    assert isinstance(error, UsageError)
    assert "holds files such as 'retrieved/notes.txt'" in str(
        error := export(study, "retrieve.retrieved", target).exception
    )
    assert isinstance(error, UsageError)
    assert isinstance(export(study, "download.ledger", target).exception, MissingInputError)
    assert isinstance(export(study, "retrieve.retrievable", target).exception, MissingInputError)
    (tmp_path / "out/retrieve/candidates/part-00001.parquet").unlink()
    assert isinstance(export(study, "retrieve.candidates", target).exception, SealError)
    assert not Path(target).exists()
