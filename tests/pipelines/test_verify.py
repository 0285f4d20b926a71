"""`verify`: a set of shards with a fault fails, with its file named, until it is mended."""

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from upath import UPath

from idia_core.config import Resources
from idia_core.errors import InvalidInputError
from idia_core.manifest import Receipt, total_counts
from idia_core.shards import BASE
from idia_core.verification import FAULTS, VERIFIED, in_order
from pipelines import verify
from pipelines.dataflow import run_phase
from pipelines.progress import Progress
from pipelines.stage import Phase, ResolvedInput, StageContext
from pipelines.verify import CHECK, STAGE, VerifyConfig
from tests.shard_folders import BACKGROUND, Files, pair, planned, seal, tar_of, two_sets, write, write_shards

pytestmark = pytest.mark.usefixtures("local_ray")

FIRST, SECOND, THIRD = "tars/K001/00000.tar", "tars/K001/00001.tar", "tars/K002/00000.tar"


def run(root: Path, *phases: Phase, **settings: Any) -> list[Receipt]:
    """Run phases of the stage, or all, on the shards in `root`/shards, into `root`/verify."""
    shards = UPath(root / "shards")
    inputs = {
        name: ResolvedInput(f"shards.{name}", shards / name, (shards / name / "part-00000.parquet",), "digest")
        for name in ("ledger", "plan")
    }
    context = StageContext("verify", VerifyConfig(**settings), inputs, UPath(root / "verify"))
    progress = Progress(Console(quiet=True))
    return [receipt for phase in phases or STAGE.phases for receipt in run_phase(phase, context, Resources(), progress)]


def table(root: Path, name: str) -> pa.Table:
    """A table that the stage wrote."""
    return pa.concat_tables([pq.read_table(part) for part in sorted((root / "verify" / name).iterdir())])


def faults(root: Path) -> list[tuple[str, str | None, str]]:
    """The paths, keys and faults that the first phase finds."""
    run(root, CHECK)
    return [(found.path, found.key, found.fault) for found in in_order(table(root, "faults"))]


def flip(path: Path, part: bytes = b"photo") -> None:
    """Flip a bit of a file, at the last place of a part: in a caption, or where it is said."""
    content = bytearray(path.read_bytes())
    content[content.rindex(part)] ^= 1
    path.write_bytes(content)


def test_shards_without_a_fault_pass(tmp_path: Path) -> None:
    """Each tar is listed with its size, hash and pairs; no picture is decoded, as the hashes vouch for them."""
    root = write_shards(tmp_path / "shards")
    receipts = run(tmp_path)
    tars = table(tmp_path, "shards")
    assert tars.schema == VERIFIED
    ledger = pq.read_table(root / "ledger/part-00000.parquet").select(["path", "bytes", "sha256", "samples"])
    assert tars.select(ledger.column_names).equals(ledger.cast(tars.select(ledger.column_names).schema))
    assert tars["samples"].to_pylist() == [4, 4, 4, 4, 2]
    assert {*tars["decoded"].to_pylist()} == {False}
    assert {*tars["faults"].to_pylist()} == {0}
    assert (table(tmp_path, "faults").schema, table(tmp_path, "faults").num_rows) == (FAULTS, 0)
    assert total_counts(receipts) == {"rows_in": 18, "tars": 5, "bytes": sum(ledger["bytes"].to_pylist())}


def test_all_pictures_are_decoded_on_request(tmp_path: Path) -> None:
    """A picture that never was one, under its right hash, is found then and not before."""

    def broken(path: str, files: Files) -> Files:
        return [(n, b"no picture" if (path, n) == (THIRD, "bg-0.jpg") else content) for n, content in files]

    write_shards(tmp_path / "shards", change=broken)
    run(tmp_path)
    shutil.rmtree(tmp_path / "verify")
    with pytest.raises(InvalidInputError, match=r"1 fault: tars/K002/00000.tar, pair 'bg-0': broken"):
        run(tmp_path, decode=True)


def changed(path: str, change: Callable[[Files], Files]) -> Callable[[Path], object]:
    """Write shards in which one tar was written otherwise than planned."""
    return lambda root: write_shards(root, change=lambda name, files: change(files) if name == path else files)


def after(change: Callable[[Path], object]) -> Callable[[Path], object]:
    """Write shards, and do something to them afterwards."""
    return lambda root: change(write_shards(root))


def one_pair_less(root: Path) -> None:
    """Write sets in which one member has K - 1 pairs."""
    write_shards(root, [row for row in two_sets() if (row["set"], row["key"]) != ("K002", "ann-1")])


CASES: dict[str, tuple[Callable[[Path], object], list[tuple[str, str | None, str]]]] = {
    "a flipped bit": (after(lambda root: flip(root / SECOND)), [(SECOND, None, "wrong_hash")]),
    "a tar that is gone": (after(lambda root: (root / SECOND).unlink()), [(SECOND, None, "missing")]),
    "a longer tar": (
        after(lambda root: write(root / SECOND, (root / SECOND).read_bytes() + bytes(512))),
        [(SECOND, None, "wrong_size")],
    ),
    "a tar cut in half": (
        after(lambda root: write(root / FIRST, (root / FIRST).read_bytes()[: 4 * 512 * 3])),
        [
            (FIRST, None, "wrong_size"),
            (FIRST, None, "damaged"),
            (FIRST, "bg-2", "cut"),
            (FIRST, "bg-3", "lacking_sample"),
        ],
    ),
    "two pairs swapped": (
        changed(FIRST, lambda files: [*files[2:4], *files[:2], *files[4:]]),
        [(FIRST, "bg-1", "wrong_order")],
    ),
    "a key given twice": (changed(THIRD, lambda files: [*files, *files[:2]]), [(THIRD, "ann-1", "duplicate_key")]),
    "a picture without a caption": (changed(THIRD, lambda files: files[:-1]), [(THIRD, "bg-1", "no_caption")]),
    "another pair": (
        changed(THIRD, lambda files: [*files[:-2], *pair("x")]),
        [(THIRD, "bg-1", "lacking_sample"), (THIRD, "x", "unplanned_sample")],
    ),
    "a tar too many": (
        after(lambda root: write(root / "tars/K001/00002.tar", tar_of(pair("x")))),
        [("tars/K001/00002.tar", None, "unplanned_file")],
    ),
    "a part of a table too many": (
        after(lambda root: write(root / "plan/part-00001.parquet", b"")),
        [("plan/part-00001.parquet", None, "unplanned_file")],
    ),
    "a member with a pair too few": (one_pair_less, [("plan", None, "wrong_number_of_pairs")]),
    "a ledger that miscounts": (
        lambda root: write_shards(root, ledger=lambda rows: [rows[0] | {"samples": 5}, *rows[1:]]),
        [(FIRST, None, "wrong_count")],
    ),
    "a ledger of other bytes than the seal": (
        lambda root: write_shards(root, ledger=lambda rows: [rows[0] | {"sha256": "0" * 64}, *rows[1:]]),
        [(FIRST, None, "wrong_hash")],
    ),
    "a table that was changed": (
        after(lambda root: flip(root / "train_data/K001.txt", b"tar")),
        [("train_data/K001.txt", None, "wrong_hash")],
    ),
    "a plan that is gone": (
        after(lambda root: (root / "plan/part-00000.parquet").unlink()),
        [("plan", None, "unreadable"), ("plan/part-00000.parquet", None, "missing")],
    ),
    "a plan that is damaged": (
        after(lambda root: flip(root / "plan/part-00000.parquet", b"PAR1")),
        [("plan", None, "unreadable"), ("plan/part-00000.parquet", None, "wrong_hash")],
    ),
    "a ledger that is gone": (
        after(lambda root: (root / "ledger/part-00000.parquet").unlink()),
        [("ledger/part-00000.parquet", None, "missing"), ("plan", None, "unreadable")],
    ),
    "a ledger that is gone, and a flipped bit": (
        after(lambda root: ((root / "ledger/part-00000.parquet").unlink(), flip(root / SECOND))),
        [("ledger/part-00000.parquet", None, "missing"), ("plan", None, "unreadable"), (SECOND, None, "wrong_hash")],
    ),
    "no seal": (after(lambda root: (root / "manifest.json").unlink()), [("manifest.json", None, "missing")]),
}


@pytest.mark.parametrize("case", CASES)
def test_each_fault_is_named_and_nothing_else(tmp_path: Path, case: str) -> None:
    """Which file, which pair, and what is wrong with it."""
    make, found = CASES[case]
    make(tmp_path / "shards")
    assert faults(tmp_path) == found


def test_files_beside_the_tables_are_nobodys_business(tmp_path: Path) -> None:
    """Someone's notes in the folder are no fault: nothing reads them."""
    root = write_shards(tmp_path / "shards")
    write(root / "notes.txt", b"to do")
    assert faults(tmp_path) == []


def test_members_who_have_fewer_pairs_are_no_fault_where_that_was_agreed(tmp_path: Path) -> None:
    """The table `shortfall` says how many pairs they have."""
    one_pair_less(tmp_path / "shards")
    short = pa.table({"identity": ["Ann Ash"], "pairs": [1], "wanted": [2], "missing": [1]})
    (tmp_path / "shards/shortfall").mkdir()
    pq.write_table(short, tmp_path / "shards/shortfall/part-00000.parquet")
    seal(tmp_path / "shards")
    assert faults(tmp_path) == []


def test_the_stage_fails_until_the_faults_are_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its error names the first three faults; afterwards only what was at fault or was written again is read again."""
    monkeypatch.setattr(verify, "SPLIT_BYTES", 1)
    root = write_shards(tmp_path / "shards")
    fourth = "tars/K002/00001.tar"
    whole = {path: (root / path).read_bytes() for path in (FIRST, SECOND, THIRD, fourth)}
    for path in (FIRST, SECOND):
        flip(root / path)
    (root / THIRD).unlink()
    write(root / "tars/x.tar", b"")
    told = (
        f"4 faults: {FIRST}: wrong_hash .*; {SECOND}: wrong_hash .*; {THIRD}: missing "
        rf"\({root}\). `idia verify {root}` names all"
    )
    for _ in range(2):
        with pytest.raises(InvalidInputError, match=told):
            run(tmp_path)
    parts = {part: part.stat().st_mtime_ns for part in (tmp_path / "verify/shards").iterdir()}
    for path, content in whole.items():
        write(root / path, content)
    (root / "tars/x.tar").unlink()
    flip(root / fourth)
    with pytest.raises(InvalidInputError, match=f"1 fault: {fourth}: wrong_hash"):
        run(tmp_path)
    again = [part.stem for part, written in sorted(parts.items()) if part.stat().st_mtime_ns != written]
    assert again == [f"part-{part:05d}" for part in (4, 5, 6, 7)]  # the four tars
    write(root / fourth, whole[fourth])
    run(tmp_path)
    assert table(tmp_path, "faults").num_rows == 0
    assert table(tmp_path, "shards").num_rows == 5


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The URL under which `tmp_path`/there is served."""
    (tmp_path / "there").mkdir()

    class Handler(SimpleHTTPRequestHandler):
        """Serves files and says nothing."""

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Print no line."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path / "there")))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_base_tars_that_stay_where_they_are_are_read_there(tmp_path: Path, served: str) -> None:
    """An overlay's ledger has their URLs; one that is gone is missing."""
    overlay = [*planned(0, [(key, None) for key in BACKGROUND], BASE), *planned(1, [("ann-0", "Ann Ash")])]

    def elsewhere(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [row | {"path": f"{served}/0000{row['shard']}.tar"} if row["set"] == BASE else row for row in rows]

    root = write_shards(tmp_path / "shards", overlay, ledger=elsewhere)
    for tar in (root / "tars/base").iterdir():
        shutil.move(tar, tmp_path / "there" / tar.name)
    seal(root)
    assert faults(tmp_path) == []
    assert table(tmp_path, "shards")["path"].to_pylist() == [FIRST, f"{served}/00000.tar", f"{served}/00001.tar"]
    shutil.rmtree(tmp_path / "verify")
    (tmp_path / "there/00001.tar").unlink()
    assert faults(tmp_path) == [(f"{served}/00001.tar", None, "missing")]
