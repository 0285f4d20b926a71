"""The record of a stage's progress, as it lies on disk."""

import os
import subprocess
import sys
from pathlib import Path

from upath import UPath

from idia_core.manifest import RECEIPTS, read_receipts
from idia_core.progress_record import SILENT_SECONDS, ProgressRecord, read_record, receipts_of, write_record

RECORD = ProgressRecord(phase="match", splits=5, before=1, done=2, began=1000.0, seen=1010.0)


def test_a_record_is_read_back_and_is_no_receipt(tmp_path: Path) -> None:
    """What reads the receipts does not see it; where there is none, or something else, there is None."""
    folder = UPath(tmp_path / "scan")
    assert read_record(folder) is None
    write_record(folder, RECORD)
    assert read_record(folder) == RECORD
    assert read_receipts(folder) == []
    (tmp_path / "scan" / RECEIPTS / "progress").write_text("{}")
    assert read_record(folder) is None


def test_where_nothing_can_be_written_nothing_fails(tmp_path: Path) -> None:
    """The record is for show: a run goes on without."""
    (tmp_path / "scan").write_text("a file where the folder should be")
    write_record(UPath(tmp_path / "scan"), RECORD)
    assert read_record(UPath(tmp_path / "scan")) is None


def test_receipts_of_a_phase_are_counted_from_a_listing(tmp_path: Path) -> None:
    """Those of another phase, and what is no receipt, are not; the time is that of the newest."""
    folder = tmp_path / RECEIPTS
    assert receipts_of(UPath(tmp_path), "match") == (0, None)
    folder.mkdir()
    for place, name in enumerate(("match-000000.json", "match-000001.json", "names-000000.json", "match.txt")):
        (folder / name).write_text("not read")
        os.utime(folder / name, (100 + place, 100 + place))
    assert receipts_of(UPath(tmp_path), "match") == (2, 101.0)


def test_receipts_are_counted_at_a_url_too() -> None:
    """An object store tells when an object was created."""
    folder = UPath("memory://progress-record")
    (folder / RECEIPTS / "match-000000.json").write_text("{}")
    count, last = receipts_of(folder, "match")
    assert count == 1
    assert last is not None


def test_a_driver_that_is_silent_or_gone_is_not_alive() -> None:
    """On this machine its process is looked for; of another one only its silence tells."""
    assert RECORD.alive(1011.0)
    assert not RECORD.alive(1010.0 + SILENT_SECONDS)
    assert not RECORD.model_copy(update={"ended": True}).alive(1011.0)
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    dead = RECORD.model_copy(update={"pid": int(gone.stdout)})
    assert not dead.alive(1011.0)
    assert dead.model_copy(update={"host": "elsewhere"}).alive(1011.0)
