"""`idia verify`: every fault of a folder of shards is printed, and nothing in it is touched."""

import io
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from idia_core.errors import MissingInputError, SealError, UsageError
from idia_core.verification import FAULTS
from jobs.verify import verify_folder
from tests.shard_folders import pair, picture, tar_of, write, write_shards

pytestmark = pytest.mark.usefixtures("local_ray")

Verify = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def verify() -> Verify:
    """Verify a folder: how many faults there are, and the lines that are printed."""

    def run(folder: Path | str, *, decode: bool = False, out: str | None = None) -> tuple[int, list[str]]:
        printed = io.StringIO()
        console = Console(file=printed, width=400, force_terminal=False)
        count = verify_folder(str(folder), console, decode=decode, workers=2, out=out)
        return count, [" ".join(line.split()) for line in printed.getvalue().splitlines()]

    return run


def test_shards_without_a_fault_are_summed_up_in_a_line(verify: Verify, tmp_path: Path) -> None:
    """Nothing in the folder has changed afterwards, and nothing is there that was not."""
    root = write_shards(tmp_path / "shards")
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    count, (line,) = verify(root)
    assert count == 0
    assert line.startswith("5 tars, 18 pairs, 0.1 MB in ")
    assert line.endswith(" s: no fault")
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_every_fault_is_printed_with_its_file_and_pair(verify: Verify, tmp_path: Path) -> None:
    """Those of files first; the last line counts them by kind."""
    root = write_shards(tmp_path / "shards", change=lambda path, files: files[:-1] if "K002/00002" in path else files)
    (root / "tars/K001/00001.tar").unlink()
    write(root / "tars/more.tar", b"")
    count, lines = verify(root)
    assert count == 3
    assert lines[0] == "file pair fault detail"
    assert lines[1:4] == [
        "tars/K001/00001.tar missing",
        "tars/more.tar unplanned_file",
        "tars/K002/00002.tar bob-0 no_caption",
    ]
    assert lines[4].startswith("4 tars, 14 pairs, ")
    assert "3 faults (" in lines[4]
    assert all(kind in lines[4] for kind in ("1 missing", "1 unplanned_file", "1 no_caption"))


def test_many_faults_are_cut_and_all_written_on_request(verify: Verify, tmp_path: Path) -> None:
    """The first fifty are printed; where the rest is, or how to get it, is said."""
    root = tmp_path / "tars"
    write(root / "0.tar", tar_of((f"k{i:02d}.jpg", picture("k")) for i in range(60)))
    count, lines = verify(root)
    assert (count, len([line for line in lines if "no_caption" in line])) == (60, 51)  # with that of the totals
    assert "and 10 more; --out FILE.parquet writes them all" in lines
    out = tmp_path / "faults.parquet"
    assert f"and 10 more; all are in {out}" in verify(root, out=str(out))[1]
    table = pq.read_table(out)
    assert table.schema == FAULTS
    assert table["key"].to_pylist() == [f"k{i:02d}" for i in range(60)]


def test_mere_tars_are_checked_as_far_as_that_goes(verify: Verify, tmp_path: Path) -> None:
    """A folder, a file or a pattern: pictures are decoded, and it is said that hashes and counts were not checked."""
    root = tmp_path / "tars"
    write(root / "0.tar", tar_of(pair("a")))
    bad = write(root / "deep/1.tar", tar_of([("b.jpg", picture("b")[:200]), ("b.txt", b"b")]))
    note = "There is no ledger: hashes, and counts against a plan, could not be checked."
    for where, path, tars in ((root, "deep/1.tar", 2), (bad, str(bad), 1), (root / "**/1.tar", str(bad), 1)):
        count, lines = verify(where)
        assert count == 1
        assert lines[1:3] == [f"{path} b truncated", note]
        assert lines[3].startswith(f"{tars} tars, {tars} pairs, " if tars > 1 else "1 tar, 1 pair, ")
        assert lines[3].endswith("1 fault (1 truncated)")
    assert verify(root / "0.tar")[0] == 0


def test_pictures_are_decoded_on_request(verify: Verify, tmp_path: Path) -> None:
    """A picture that was packed broken, under its right hash."""

    def broken(_: str, files: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
        return [(name, b"no picture" if name == "bob-1.jpg" else content) for name, content in files]

    root = write_shards(tmp_path / "shards", change=broken)
    assert verify(root)[0] == 0
    count, lines = verify(root, decode=True)
    assert (count, lines[1]) == (1, "tars/K002/00000.tar bob-1 broken")


def test_names_cannot_steer_the_terminal(verify: Verify, tmp_path: Path) -> None:
    """Markup and control characters in a key come out as text."""
    write(tmp_path / "tars/0.tar", tar_of([("[red]a\x1b[2J.jpg", picture("a"))]))
    text = "\n".join(verify(tmp_path / "tars")[1])
    assert "[red]a‹U+001B›[2J" in text
    assert "\x1b" not in text


def test_what_cannot_be_verified_is_a_typed_error(verify: Verify, tmp_path: Path) -> None:
    """No folder, one without a tar, a seal that is none, and faults that would be written among the shards."""
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "none", tmp_path / "empty"):
        with pytest.raises(MissingInputError, match="no file matches"):
            verify(folder)
    root = write_shards(tmp_path / "shards")
    with pytest.raises(UsageError, match="among the shards"):
        verify(root, out=str(root / "faults.parquet"))
    write(root / "manifest.json", b"{}")
    with pytest.raises(SealError, match="the manifest cannot be read"):
        verify(root)
