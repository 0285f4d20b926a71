"""`idia plan`, `status` and `watch` as they are typed."""

import io
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from typer.testing import CliRunner
from upath import UPath

from idia_core.config import Study
from idia_core.manifest import RECEIPTS
from idia_core.progress_record import ProgressRecord, now, write_record
from jobs.cli import app
from jobs.plan import plan_loosely
from jobs.status import print_status, watch_study
from tests.full_size import write_laion, write_people


def planned(*words: str, width: int = 120) -> list[list[str]]:
    """The words of each line that `idia plan` prints on a terminal of so many columns."""
    answer = CliRunner(env={"COLUMNS": str(width)}).invoke(app, ["plan", *words])
    assert answer.exception is None, answer.exception
    return [line.split() for line in answer.output.splitlines()]


def line_of(lines: list[list[str]], stage: str) -> list[str]:
    """The line of a stage."""
    return next(line for line in lines if line[:1] == [stage])


def test_sizes_rates_and_prices_of_the_command_line(tmp_path: Path) -> None:
    """A million captions a second are 413.9 seconds of a core: 0.11 hours, and 0.06 of the money at 0.50 an hour."""
    rates = tmp_path / "rates.yaml"
    rates.write_text("rates: {scan: {cpu: 1e6}}\n")
    words = ["laion400m.yaml", "scan", "--set", f"out={tmp_path}/out", "--sizes", "paper", "--rates", str(rates)]
    lines = planned(*words, "--cpus", "64", "--gpus", "0", "--cpu-price", "0.5")
    assert line_of(lines, "scan")[-8:] == ["416", "54.0", "GB+", "0.11", "0", "7", "s", "0.06"]
    assert line_of(lines, "total") == ["total", "0.11", "0", "7", "s", "0.06"]
    assert line_of(lines, "scan:")[:3] == ["scan:", "1e+06", "captions/s"]


def test_a_narrow_terminal_cuts_no_figure_off(tmp_path: Path) -> None:
    """The paper's own study, whose GPUs cost thousands, in 80 columns."""
    known = "train.resources.pairs_per_second={ViT-B-32: 1100, RN50: 600, RN50x4: 230}"
    words = ["cc3m.yaml", "--set", f"out={tmp_path}/out", "--sizes", "paper", "--set", known]
    lines = planned(*words, "--cpus", "64", "--gpus", "8", "--gpu-price", "2.5", width=80)
    assert line_of(lines, "train")[-5:] == ["8,058.68", "1,611.74", "8.4", "d", "4,029.34"]
    assert line_of(lines, "total")[-2:] == ["d", "4,029.34"]


def test_what_is_not_known_is_said(tmp_path: Path) -> None:
    """Without a size there is no number, and the totals say what they leave out."""
    lines = planned(
        "laion400m.yaml", "scan", "select", "--set", f"out={tmp_path}/out", "--size", "laion400m-meta=9 rows"
    )
    text = " ".join(word for line in lines for word in line)
    assert "The totals are without what is not known: select." in text
    assert "select: give the size of its input: --size 'people/identities.parquet=... rows'" in text
    assert "Money: give prices" in text


@pytest.mark.slow
def test_the_laion_study_with_files_of_full_size(tmp_path: Path) -> None:
    """413,871,360 rows are counted from 32 files without reading them."""
    people, captions = write_people(tmp_path / "people"), write_laion(tmp_path / "laion")
    settings = [
        f"scan.inputs.captions={captions}",
        f"scan.inputs.identities={people['identities']}",
        f"out={tmp_path}/o",
    ]
    words = [word for setting in settings for word in ("--set", setting)]
    scan = line_of(planned("laion400m.yaml", "scan", *words, "--cpus", "64"), "scan")
    assert "416" in scan
    assert scan[-4:-2] == ["0.06", "0"]  # 2 million captions a second of a core


@pytest.fixture
def begun(tmp_path: Path) -> Study:
    """A scan that was begun, whose driver is this process: 3 of 10 splits in a minute."""
    (tmp_path / "captions").mkdir()
    pq.write_table(pa.table({"TEXT": ["a"], "URL": ["b"]}), tmp_path / "captions/part.parquet")
    pq.write_table(pa.table({"name": ["Ann Ash"]}), tmp_path / "people.parquet")
    inputs = {"captions": str(tmp_path / "captions"), "identities": str(tmp_path / "people.parquet")}
    select = {"inputs": {"identities": "people.none", "pictures": "pictures.none", "occurrences": "scan.occurrences"}}
    study = Study(name="small", out=str(tmp_path / "out"), stages={"scan": {"inputs": inputs}, "select": select})
    plan = plan_loosely(study)["scan"]
    write_record(
        plan.folder,
        ProgressRecord(
            phase="match", splits=10, before=0, done=3, rows=600, counts={"empty": 5}, began=now() - 60, seen=now()
        ),
    )
    (plan.folder / RECEIPTS / "fingerprint").write_text(str(plan.fingerprint))
    return study


def shown(study: Study, width: int) -> str:
    """What `idia status` prints on so wide a terminal."""
    file = io.StringIO()
    print_status(study, Console(file=file, width=width))
    return file.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_status_tells_how_far_a_running_stage_is(begun: Study, width: int) -> None:
    """No row is wider than the terminal; the study's folder above them is told whole, to be copied."""
    text = shown(begun, width)
    assert "running" in text
    told = re.search(r"match: 3 of 10 splits, \d+ rows/s, 0:0(\d):\d\d left", " ".join(text.split()))
    assert told
    assert int(told[1]) >= 2  # 140 seconds, and a little more for each that the test took
    assert "5 empty" in text
    title, *rows = text.splitlines()
    assert title == f"small in {begun.out}"
    assert max(len(row.rstrip()) for row in rows) <= width


def test_status_tells_that_a_driver_is_gone(begun: Study) -> None:
    """The record of one that stopped says so at once."""
    folder = UPath(begun.out) / "scan"
    record = ProgressRecord.model_validate_json((folder / RECEIPTS / "progress").read_bytes())
    write_record(folder, record.model_copy(update={"ended": True}))
    text = shown(begun, 100)
    assert "stopped" in text
    assert "scan: no driver: process " in text


def test_watch_without_a_terminal_is_status_once(begun: Study) -> None:
    """Nobody looks on, so it ends."""
    file = io.StringIO()
    watch_study(begun, Console(file=file, width=100))
    assert "3 of 10 splits" in file.getvalue()
