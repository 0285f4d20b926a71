"""The log of what becomes of splits."""

import json
import stat
from pathlib import Path
from typing import Any

from upath import UPath

from idia_core.storage import keep_private
from pipelines.split_log import SplitLog


def lines(text: str) -> list[dict[str, Any]]:
    """What was logged, without the times."""
    return [{k: v for k, v in json.loads(line).items() if k != "time"} for line in text.splitlines()]


def test_lines_are_json_with_stage_and_phase_and_are_appended(tmp_path: Path) -> None:
    """A later run's lines follow an earlier one's; a field without a value is left out; no secret is told."""
    for number in range(2):
        log = SplitLog(UPath(tmp_path / "out/scan"), "files")
        log.open()
        log.line("ended", split=f"files-{number}", seconds=1.5, rows=None)
        log.line("failed", "error", why="no answer from https://ann:s3cret@h/x")
        log.close()
    about = {"stage": "scan", "phase": "files"}
    failed = about | {"level": "error", "event": "failed", "why": "no answer from https://***@h/x"}
    found = lines((tmp_path / "out/logs/scan.jsonl").read_text())
    ended = [about | {"level": "info", "event": "ended", "split": f"files-{n}", "seconds": 1.5} for n in range(2)]
    assert found == [ended[0], failed, ended[1], failed]
    times = [json.loads(line)["time"] for line in (tmp_path / "out/logs/scan.jsonl").read_text().splitlines()]
    assert times == sorted(times)
    assert times[0].endswith("+00:00")


def test_flushed_lines_can_be_read_before_the_end(tmp_path: Path) -> None:
    """While a phase runs."""
    log = SplitLog(UPath(tmp_path / "out/scan"), "files")
    log.open()
    log.line("started", split="files-0")
    log.flush()
    assert len((tmp_path / "out/logs/scan.jsonl").read_text().splitlines()) == 1
    log.close()


def test_an_object_store_gets_an_object_for_each_phase_of_a_run(tmp_path: Path) -> None:
    """It is named after stage, time and phase; where nothing was said there is none."""
    out = UPath(f"memory://{tmp_path.name}/out")
    for said in (1, 0):
        log = SplitLog(out / "scan", "files")
        log.open()
        for _ in range(said):
            log.line("started", split="files-0")
        log.close()
    (found,) = (out / "logs").iterdir()
    assert found.name.startswith("scan-20")
    assert found.name.endswith("-files.jsonl")
    assert lines(found.read_text())[0]["event"] == "started"


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    """There is a file where the folder should be."""
    (tmp_path / "logs").write_text("in the way")
    log = SplitLog(UPath(tmp_path / "scan"), "files")
    log.open()
    log.line("started", split="files-0")
    log.flush()
    log.close()
    assert (tmp_path / "logs").read_text() == "in the way"


def test_what_is_written_is_its_users_alone(tmp_path: Path, monkeypatch: Any) -> None:
    """Once the process was told to; IDIA_UMASK lets a group read along."""
    import os  # noqa: PLC0415

    before = os.umask(0)
    try:
        for mask, modes in ((None, (0o600, 0o700)), ("027", (0o640, 0o750))):
            if mask:
                monkeypatch.setenv("IDIA_UMASK", mask)
            keep_private()
            log = SplitLog(UPath(tmp_path / f"{mask}/scan"), "files")
            log.open()
            log.close()
            folder = tmp_path / f"{mask}/logs"
            found = stat.S_IMODE((folder / "scan.jsonl").stat().st_mode), stat.S_IMODE(folder.stat().st_mode)
            assert found == modes
    finally:
        os.umask(before)
