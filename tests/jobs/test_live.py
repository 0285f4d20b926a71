"""How far a stage is, from what a driver left on disk."""

import os
from pathlib import Path

import pytest
from upath import UPath

from idia_core.manifest import RECEIPTS
from idia_core.progress_record import ProgressRecord, write_record
from jobs.live import Live, live
from jobs.plan import PlannedStage, State
from pipelines.scan import STAGE, ScanConfig

BEGAN = 1_000_000.0


def stage(folder: Path, state: State = State.BEGUN) -> PlannedStage:
    """`scan` in a folder."""
    return PlannedStage(STAGE, ScanConfig(), UPath(folder), state, "was interrupted")


def left_behind(folder: Path, receipts: int, **fields: object) -> None:
    """The record of a driver that began at BEGAN with 100 splits to do, and receipts a second after another."""
    record = {"phase": "match", "splits": 100, "before": 0, "done": receipts, "began": BEGAN, "seen": BEGAN + 100}
    write_record(UPath(folder), ProgressRecord.model_validate(record | fields))
    for number in range(receipts):
        file = folder / RECEIPTS / f"match-{number:06d}.json"
        file.write_text("{}")
        os.utime(file, (BEGAN + number, BEGAN + number))


def looked_at(folder: Path, after: float) -> Live:
    """The stage, so many seconds after the driver began."""
    found = live(stage(folder), BEGAN + after)
    assert found is not None
    return found


def test_the_time_left_follows_from_the_splits_of_this_run(tmp_path: Path) -> None:
    """20 of the 100 were done before; 20 more in 100 seconds leave 60, for 300 seconds."""
    left_behind(tmp_path, 40, before=20, rows=5000)
    found = looked_at(tmp_path, 100)
    assert (found.alive, found.done, found.share, found.left) == (True, 40, 0.4, 300.0)
    assert found.told() == "phase 2 of 3, match: 40 of 100 splits, 50 rows/s, 0:05:00 left"


def test_what_runs_counts_as_far_as_it_is(tmp_path: Path) -> None:
    """Two splits, half done each, are one split; of a driver that is gone they are none."""
    left_behind(tmp_path, 0, fraction=0.04)
    assert looked_at(tmp_path, 100).left is None
    left_behind(tmp_path, 9, fraction=1.0)
    assert looked_at(tmp_path, 100).left == pytest.approx(900.0)
    left_behind(tmp_path, 9, fraction=1.0, ended=True)
    assert looked_at(tmp_path, 100).left == pytest.approx(91 * 100 / 9)


def test_receipts_tell_more_than_an_old_record(tmp_path: Path) -> None:
    """A driver that was killed may have written its record before the last receipts."""
    left_behind(tmp_path, 30, done=10)
    found = looked_at(tmp_path, 10_000)
    assert (found.alive, found.done) == (False, 30)
    assert found.told() == "phase 2 of 3, match: 30 of 100 splits, 0:03:53 left at the rate it had"
    assert found.driver().startswith("no driver: process ")
    assert found.driver().endswith("was last heard of 2:45:00 ago")


def test_a_driver_that_waits_for_hours_is_told_of(tmp_path: Path) -> None:
    """It says that it lives, and no split has ended."""
    left_behind(tmp_path, 2, seen=BEGAN + 10_800)
    assert "no split has ended for 2:59:59" in looked_at(tmp_path, 10_800).told()


def test_before_the_first_split_ends_no_time_is_told(tmp_path: Path) -> None:
    """There is no rate yet."""
    left_behind(tmp_path, 0)
    assert looked_at(tmp_path, 5).told() == "phase 2 of 3, match: 0 of 100 splits"


def test_reasons_are_counted_and_the_most_frequent_comes_first(tmp_path: Path) -> None:
    """Rows in and kept are no reasons."""
    left_behind(tmp_path, 1, counts={"rows_in": 9, "rows_kept": 5, "null_caption": 1, "not_utf8": 3, "empty": 0})
    assert list(looked_at(tmp_path, 5).counted().items()) == [("not_utf8", 3), ("null_caption", 1)]


def test_a_sealed_stage_or_one_without_a_record_is_not_shown(tmp_path: Path) -> None:
    """So it is for a record of a phase that the stage no longer has."""
    assert live(stage(tmp_path)) is None
    left_behind(tmp_path, 1)
    assert live(stage(tmp_path, State.DONE)) is None
    left_behind(tmp_path, 1, phase="former")
    assert live(stage(tmp_path)) is None
