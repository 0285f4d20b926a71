"""`shards` and what is wrong with its inputs or its disk: a typed error or a counted row, and nothing half-written."""

import io
import struct
import subprocess
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest

from idia_core.config import Study
from idia_core.errors import DuplicateNameError, InvalidInputError, StorageError
from jobs.run import run_study
from tests.pipelines.shard_inputs import (
    EACH,
    KEYS,
    PAIRS_EACH,
    QUIET,
    assert_nothing_half_written,
    base_files,
    base_pair,
    contents,
    faults,
    members_pairs,
    pairs_of,
    picture,
    replaced,
    set_pairs,
    shards,
    shards_fail,
    study,
    table,
    write_base,
    write_pairs,
    write_people,
)
from tests.shard_folders import Files, tar_of, write

pytestmark = pytest.mark.usefixtures("local_ray")

KEY = KEYS[1]
"""Of the pair that something is wrong with, in the base's first tar."""
MODES = pytest.mark.parametrize("mode", ["rewrite", "overlay"])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with a base of tars, and people; two levels down, so that what leads out of it lands in a test's own."""
    folder = tmp_path / "a/b"
    folder.mkdir(parents=True)
    write_base(folder)
    write_people(folder)
    return folder


def bomb() -> bytes:
    """A PNG of 20,000 x 20,000 pixels, up to where they begin: all that a reader needs to make room for them."""
    chunks = {b"IHDR": struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0), b"IDAT": zlib.compress(bytes(60_001))}
    parts = [
        struct.pack(">I4s", len(data), name) + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks.items()
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def with_link(files: Files, name: str) -> bytes:
    """A tar in which that file is a hard link to the one before it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path, content in files:
            entry = tarfile.TarInfo(path)
            if path == name:
                entry.type, entry.linkname = tarfile.LNKTYPE, "/etc/passwd"
            else:
                entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def renamed(files: Files, key: str) -> Files:
    """Those files, with another key for KEY."""
    return [(name.replace(KEY, key), content) for name, content in files]


def changed(**changes: bytes | None) -> Callable[[Files], bytes]:
    """A tar with other contents of KEY's files, named by their suffixes."""
    return lambda files: tar_of(replaced(files, {f"{KEY}.{suffix}": new for suffix, new in changes.items()}))


BROKEN: dict[str, tuple[Callable[[Files], bytes], dict[str, str]]] = {
    # name: the first tar of the base, and what becomes of its pairs, but for the one that its list then misses
    "leads out": (lambda files: tar_of(renamed(files, "../../x")), {"../../x": "unsafe_path"}),
    "absolute": (lambda files: tar_of(renamed(files, "/idia/x")), {"/idia/x": "unsafe_path"}),
    "hard link": (lambda files: with_link(files, f"{KEY}.jpg"), {KEY: "not_a_file"}),
    "duplicate key": (lambda files: tar_of([*files, *base_pair(KEY, "again")]), {KEY: "duplicate_key"}),
    "no picture": (changed(jpg=None), {KEY: "no_picture"}),
    "no caption": (changed(txt=None), {KEY: "no_caption"}),
    "empty caption": (changed(txt=b""), {KEY: "empty_caption"}),
    "blank caption": (changed(txt=b" \n"), {KEY: "empty_caption"}),
    "caption not UTF-8": (changed(txt=b"caf\xe9"), {KEY: "not_utf8"}),
    "zero bytes": (changed(jpg=b""), {KEY: "empty"}),
    "bomb": (changed(jpg=bomb()), {KEY: "too_large"}),
    "truncated": (changed(jpg=picture(KEY)[:600]), {KEY: "truncated"}),
    "no picture at all": (changed(jpg=b"<html>404</html>"), {KEY: "broken"}),
}
IN_OVERLAYS = ("leads out", "hard link", "duplicate key", "empty caption", "truncated")


@pytest.mark.parametrize(
    ("name", "mode"), [*((name, "rewrite") for name in BROKEN), *((name, "overlay") for name in IN_OVERLAYS)]
)
def test_a_broken_pair_is_counted_and_left_out(root: Path, name: str, mode: str) -> None:
    """It has its status in the listing and the seal, is in no tar of any set, and all others are."""
    make, expected = BROKEN[name]
    write(root / "base/00000.tar", make(base_files(0)))
    if KEY not in expected:
        expected = {**expected, KEY: "missing"}  # the list beside the tar says that it was downloaded
    seal = shards(root, mode=mode)
    assert faults(root) == expected
    statuses = [*expected.values()]
    assert {status: seal.counts[status] for status in statuses} == dict.fromkeys(statuses, 1)
    assert seal.counts["rows_in"] == seal.counts["rows_kept"] + len(expected)
    good = {*KEYS} - ({KEY} if name != "duplicate key" else set())
    ledger = table(root, "ledger").filter(pl.col("set").is_in(["base", "K003"]))
    tars = [pairs_of(root / "out/shards" / path) for path in ledger["path"]]
    own = {row["key"] for row in members_pairs()}
    assert sorted(key for tar in tars for key in tar if key not in own) == sorted(good)
    if name == "duplicate key":
        assert {tar[KEY][1] for tar in tars if KEY in tar} == {base_pair(KEY)[1][1].decode()}
    outside = [path for path in root.parents[1].rglob("*") if path.is_file() and not path.is_relative_to(root)]
    assert not outside
    assert not Path("/idia").exists()


def test_names_and_captions_of_every_script_come_through(root: Path) -> None:
    """A key and a caption that are not ASCII are in the sets letter by letter."""
    write(root / "base/00003.tar", tar_of(base_pair("日本/плёнка-é", "東京タワー 🗼 «été»")))
    shards(root)
    for name in ("K001", "K003"):
        assert set_pairs(root, name)["日本/плёнка-é"] == (picture("日本/плёнка-é"), "東京タワー 🗼 «été»")


def test_a_key_of_two_tars_is_an_error(root: Path) -> None:
    """A rewrite would write two pairs under one name: the error says which, and where they are."""
    write(root / "base/00003.tar", tar_of(base_pair(KEY, "another")))
    message = shards_fail(root, DuplicateNameError)
    assert (
        f"the key '{KEY}' is given to two pairs, in '{root}/base/00000.tar' and in '{root}/base/00003.tar'" in message
    )


@MODES
def test_a_tar_cut_in_half_is_an_error_or_a_counted_input(root: Path, mode: str) -> None:
    """The error names it and the option; with that the seal names it, and the pairs before the cut are used."""
    path = root / "base/00001.tar"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    message = shards_fail(root, InvalidInputError, mode=mode)
    assert message.startswith("cut short at byte")
    assert f"({path})" in message
    assert "--tolerate-failed-inputs 1" in message
    seal = shards(root, mode=mode, tolerate_failed_inputs=1)
    (failed,) = seal.facts["failed_inputs"]
    assert failed.startswith(f"{path}: cut short at byte")
    lost = faults(root)
    assert {*lost.values()} <= {"cut", "missing", "no_caption"}
    assert {*lost} < {*KEYS[EACH : 2 * EACH]}
    base = table(root, "listing").filter(pl.col("identity").is_null(), pl.col("status") == "ok")
    assert {*base["key"]} == {*KEYS} - {*lost}
    if mode == "rewrite":
        assert {*set_pairs(root, "K001")} >= {*base["key"]}


@pytest.mark.parametrize("content", [b"", b"no tar" * 200], ids=["zero bytes", "no tar"])
def test_what_is_no_tar_is_an_error(root: Path, content: bytes) -> None:
    """It is named."""
    path = write(root / "base/00001.tar", content)
    message = shards_fail(root, InvalidInputError)
    assert message.startswith("no tar: ")
    assert f"({path})" in message


# Members


def test_a_member_with_too_few_pairs_is_an_error_that_names_all(root: Path) -> None:
    """It says who has how many."""
    write_pairs(root, [row for row in members_pairs() if row["key"] not in ("zoë-0", "zoë-1", "ann-3")])
    message = shards_fail(root, InvalidInputError, images_per_member=[4, 1])
    assert "2 members have fewer than 4 pairs: 'Zoë Ball' 2, 'Ann Ash' 3 (" in message
    assert "fewer_pairs: achieved" in message


@MODES
def test_fewer_pairs_are_gone_on_with_where_that_is_wanted(root: Path, mode: str) -> None:
    """`shortfall` says who has how many, the sets hold those, the seal counts the members, and `verify` agrees."""
    write_pairs(root, [row for row in members_pairs() if row["key"] not in ("zoë-0", "zoë-1")])
    given = study(root, mode=mode, images_per_member=[4, 1], fewer_pairs="achieved")
    stages = {**given.stages, "verify": {"inputs": {name: f"shards.{name}" for name in ("ledger", "plan")}}}
    plans = run_study(Study(name="test", out=given.out, stages=stages), QUIET)
    assert plans["shards"].seal().counts["members_with_fewer_pairs"] == 1
    assert table(root, "shortfall").rows() == [("Zoë Ball", 2, 4, 2)]
    own = {row["key"]: row["identity"] for row in members_pairs()}
    held = sorted(own[key] for key in set_pairs(root, "K004") if key in own)
    assert held == ["Ann Ash"] * 4 + ["Zoë Ball"] * 2
    assert plans["verify"].seal().counts["tars"] == table(root, "ledger").height + 1, "and members/00000.tar"


def test_a_members_pair_that_cannot_be_used_is_counted(root: Path) -> None:
    """A broken picture and a caption without the name are not among the K pairs, nor is another person's pair."""
    rows = {row["key"]: row for row in members_pairs()}
    rows["ann-0"]["image"] = picture("ann-0")[:500]
    rows["zoë-1"]["caption"] = "a singer on stage"
    rows["zoë-0"]["caption"] = "ZOE BALL, accents or not"
    write_pairs(root, [*rows.values(), {**rows["ann-1"], "key": "bob-0", "identity": "Bob Birch"}])
    seal = shards(root)
    assert faults(root) == {"ann-0": "truncated", "zoë-1": "name_not_in_caption"}
    assert {name: seal.counts[name] for name in ("truncated", "name_not_in_caption", "not_a_members_pair")} == {
        "truncated": 1,
        "name_not_in_caption": 1,
        "not_a_members_pair": 1,
    }
    assert seal.counts["rows_in"] == len(KEYS) + len(rows) + 1
    assert not {"ann-0", "zoë-1", "bob-0"} & {*set_pairs(root, "K003")}


def test_an_absent_caption_is_written_from_a_template_and_recorded(root: Path) -> None:
    """Without templates the pair is counted as one without a caption."""
    rows = members_pairs()
    rows[0]["caption"] = None
    write_pairs(root, rows)
    seal = shards(root, out="without")
    assert faults(root, "without") == {"ann-0": "no_caption"}
    assert seal.counts["captions_from_templates"] == 0
    seal = shards(root, images_per_member=[PAIRS_EACH], caption_templates=["a photo of {name}"])
    assert seal.counts["captions_from_templates"] == 1
    assert set_pairs(root, "K004")["ann-0"] == (picture("ann-0"), "a photo of Ann Ash")
    sources = table(root, "listing").filter(pl.col("identity").is_not_null())
    assert dict(sources.select("key", "caption_source").iter_rows()) == {
        row["key"]: "template" if row["key"] == "ann-0" else "retrieved" for row in rows
    }


# The disk


@pytest.fixture
def small_disk(root: Path) -> Iterator[Path]:
    """A file system in memory, mounted where the stage writes; `resize` gives it room."""
    folder = root / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], check=False, capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)  # a worker may still hold a tar open


def resize(disk: Path, kibibytes: int) -> None:
    """Give a file system in memory that much room."""
    subprocess.run(["mount", "-o", f"remount,size={kibibytes}k", disk], check=True)


@MODES
def test_a_full_disk_is_an_error_and_a_run_with_room_goes_on(root: Path, small_disk: Path, mode: str) -> None:
    """However little room there is, the error says so, nothing is half-written, and with room come the same bytes."""
    shards(root, mode=mode)
    for kibibytes in (4, 80, 180):
        resize(small_disk, kibibytes)
        message = shards_fail(root, StorageError, out=small_disk.name, mode=mode)
        assert message.startswith("it cannot be written: No space left on device (")
        assert str(small_disk) in message
        assert_nothing_half_written(small_disk)
    resize(small_disk, 4096)
    shards(root, out=small_disk.name, mode=mode)
    assert contents(small_disk / "shards") == contents(root / "out/shards")
