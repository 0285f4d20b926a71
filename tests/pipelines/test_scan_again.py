"""`scan` again, with more names or files: nothing is searched for twice, and the result is that of one full scan."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from idia_core.errors import InvalidInputError
from jobs.run import KEPT
from tests.pipelines.scans import (
    CAPTIONS,
    FIVE,
    THREE,
    contents,
    cut_short,
    matches,
    occurrences,
    rewritten,
    scan,
    scan_fails,
    without_data,
    write_names,
    write_parquet,
)

pytestmark = pytest.mark.usefixtures("local_ray")


def test_added_names_alone_are_searched_for(root: Path) -> None:
    """A list with three more names, in another order, ends as a fresh scan, though the old names' captions changed."""
    names = [*THREE, *reversed(FIVE)]
    scan(root)
    write_names(root, names)
    fresh = scan(root, out="fresh")
    for path in sorted((root / "captions").iterdir()):
        rewritten(path, lambda content: content.replace(b"Ann Lee", b"Nobody!").replace(b"Bob Ray", b"No one."))
    again = scan(root)
    assert contents(root / "out/scan") == contents(root / "fresh/scan")
    assert (again.counts, again.facts) == (fresh.counts, fresh.facts)
    assert ("1.parquet", 0, "Bob Ray") in matches(root, "source", "row", "name")
    write_names(root, [*names, "Nobody!"])
    scan(root)
    assert occurrences(root)["Nobody!"]["count_paper"] == 6  # so the captions are read for a new name
    assert occurrences(root)["Ann Lee"]["count_paper"] == 6


def test_names_added_to_many_matches_leave_no_trace_in_the_bytes(tmp_path: Path) -> None:
    """Parts of many row groups and pages are the same bytes, wherever their rows came from."""
    write_parquet(tmp_path / "captions/a.parquet", [c and f"{c} {i}" for i in range(15_000) for c in CAPTIONS])
    write_names(tmp_path, FIVE[::2])
    scan(tmp_path)
    write_names(tmp_path, (*FIVE, *THREE))
    scan(tmp_path, out="fresh")
    scan(tmp_path)
    assert contents(tmp_path / "out/scan") == contents(tmp_path / "fresh/scan")
    assert pq.read_metadata(tmp_path / "out/scan/matches/part-00000.parquet").num_row_groups > 1


def test_an_added_file_alone_is_scanned(root: Path) -> None:
    """The old files are not read again: nothing is left of them but footers."""
    scan(root)
    write_parquet(root / "captions/1b.parquet", ["Ida Moss", None])
    fresh = scan(root, out="fresh")
    for number in range(3):
        rewritten(root / f"captions/{number}.parquet", without_data)
    again = scan(root)
    assert contents(root / "out/scan") == contents(root / "fresh/scan")
    assert (again.counts, again.facts) == (fresh.counts, fresh.facts)


def test_removed_names_need_no_search(root: Path) -> None:
    """A shorter list in another order is answered from the earlier scan alone."""
    scan(root)
    write_names(root, ["Joe B. Kern", "Ann Lee"])
    fresh = scan(root, out="fresh")
    for path in sorted((root / "captions").iterdir()):
        rewritten(path, without_data)
    again = scan(root)
    assert contents(root / "out/scan") == contents(root / "fresh/scan")
    assert (again.counts, again.facts) == (fresh.counts, fresh.facts)


def test_several_earlier_scans_are_put_together(root: Path) -> None:
    """Names that were searched for in two scans need no third one."""
    scan(root)
    write_names(root, THREE)
    scan(root)
    write_names(root, [FIVE[1], THREE[0], FIVE[0], THREE[1]])
    scan(root, out="fresh")
    for path in sorted((root / "captions").iterdir()):
        rewritten(path, without_data)
    scan(root)
    assert contents(root / "out/scan") == contents(root / "fresh/scan")
    assert len(list((root / "out" / KEPT).iterdir())) == 2


def test_a_changed_alias_is_a_new_search_for_its_name_alone(root: Path) -> None:
    """The name is found by its new alias; the captions of the others are not looked at again."""
    scan(root)
    assert occurrences(root)["Ida Moss"]["count_strict"] == 3
    write_names(root, FIVE, {"Ida Moss": "A Lighthouse; Eva Holm"})
    scan(root, out="fresh")
    for path in sorted((root / "captions").iterdir()):
        rewritten(path, lambda content: content.replace(b"Ann Lee", b"Nobody!"))
    scan(root)
    assert contents(root / "out/scan") == contents(root / "fresh/scan")
    assert occurrences(root)["Ida Moss"]["count_strict"] == 9
    write_names(root, FIVE, {"Ida Moss": "Eva Holm"})
    scan(root)
    assert occurrences(root)["Ida Moss"]["count_strict"] == 6


def test_a_run_that_was_not_sealed_is_used_too(root: Path) -> None:
    """A run that ended in its last phase has done its searches, and the next one with more names takes them over."""
    for name in ("bad1", "bad2"):
        cut_short(write_parquet(root / f"captions/{name}.parquet", CAPTIONS))
    scan_fails(root, InvalidInputError, tolerate_failed_inputs=1)
    assert not (root / "out/scan/manifest.json").exists()
    write_names(root, FIVE + THREE)
    scan(root, out="fresh", tolerate_failed_inputs=2)
    for number in range(3):
        rewritten(root / f"captions/{number}.parquet", lambda content: content.replace(b"Ann Lee", b"Nobody!"))
    seal = scan(root, tolerate_failed_inputs=2)
    assert contents(root / "out/scan") == contents(root / "fresh/scan")
    assert len(seal.facts["failed_inputs"]) == 2


def test_a_changed_file_is_scanned_again(root: Path) -> None:
    """A file that was written anew is not answered from what an earlier scan found in it."""
    scan(root)
    write_parquet(root / "captions/1.parquet", ["Ida Moss, Ida Moss", *CAPTIONS])
    scan(root)
    scan(root, out="fresh")
    assert contents(root / "out/scan") == contents(root / "fresh/scan")
    assert ("1.parquet", 0, "Ida Moss") in matches(root, "source", "row", "name")


def test_an_earlier_scan_that_lost_a_file_is_used_as_far_as_it_goes(root: Path) -> None:
    """A split whose part is gone from the kept output is searched again, the others are not."""
    scan(root)
    (root / "out/scan/matches/part-00001.parquet").unlink()
    write_names(root, FIVE[1:])
    scan(root, out="fresh")
    for number in (0, 2):
        rewritten(root / f"captions/{number}.parquet", without_data)
    scan(root)
    assert contents(root / "out/scan") == contents(root / "fresh/scan")


def test_another_caption_column_is_another_search(root: Path) -> None:
    """What was found in one column says nothing of another."""
    scan(root)
    scan(root, caption_column="url")
    assert matches(root, "row") == []


def test_a_file_in_another_folder_leaves_the_others_as_they_are(root: Path) -> None:
    """A glob over folders names its files from where it begins, so that a new folder has only its own scanned."""
    write_parquet(root / "sets/a/0.parquet", CAPTIONS)
    inputs = {"captions": str(root / "sets/*/*.parquet")}
    scan(root, inputs=inputs)
    assert {source for (source,) in matches(root, "source")} == {"a/0.parquet"}
    write_parquet(root / "sets/b/0.parquet", CAPTIONS)
    scan(root, out="fresh", inputs=inputs)
    rewritten(root / "sets/a/0.parquet", lambda content: content.replace(b"Ann Lee", b"Nobody!"))
    scan(root, inputs=inputs)
    assert contents(root / "out/scan") == contents(root / "fresh/scan")
