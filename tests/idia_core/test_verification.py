"""Verification: each fault of a file, a tar or a plan is named, and nothing else."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from upath import UPath

from idia_core.sample_status import SampleStatus
from idia_core.shards import BASE
from idia_core.verification import FAULTS as FAULTS_SCHEMA
from idia_core.verification import Expected, Fault, Found, in_order, table_of, verify_file, verify_sets
from tests.shard_folders import BACKGROUND, PEOPLE, Files, pair, picture, planned, tar_of, two_sets, write

KEYS = ("a", "b", "c")
WHOLE = [file for key in KEYS for file in pair(key)]


def verified(
    folder: Path, content: bytes, expected: Expected | None = None, *, decode: bool = False
) -> list[tuple[str | None, str]]:
    """The keys and faults of a tar of that content, which must be the file's alone."""
    path = write(folder / "00000.tar", content)
    tar, faults = verify_file(UPath(path), "00000.tar", expected, decode=decode)
    assert tar is not None
    assert (tar.path, tar.bytes, tar.sha256) == ("00000.tar", len(content), hashlib.sha256(content).hexdigest())
    assert tar.faults == len(faults)
    assert {fault.path for fault in faults} <= {"00000.tar"}
    return [(fault.key, fault.fault) for fault in faults]


def expected(content: bytes, keys: tuple[str, ...] | None = KEYS) -> Expected:
    """What a file of that content is expected to be."""
    return Expected(len(content), hashlib.sha256(content).hexdigest(), keys)


def test_a_tar_as_it_was_written_has_no_fault(tmp_path: Path) -> None:
    """Its size, hash and number of pairs are told, and its pictures are decoded only where that is asked for."""
    content = tar_of(WHOLE)
    path = write(tmp_path / "00000.tar", content)
    for decode in (False, True):
        tar, faults = verify_file(UPath(path), "x/00000.tar", expected(content), decode=decode)
        assert tar == ("x/00000.tar", len(content), hashlib.sha256(content).hexdigest(), 3, decode, 0)
        assert faults == []


def flipped(content: bytes, of: bytes) -> bytes:
    """The content with a bit flipped in the middle of a part of it."""
    at = content.index(of) + len(of) // 2
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def test_a_flipped_bit_is_a_wrong_hash(tmp_path: Path) -> None:
    """Wherever it is: in a picture, a caption or the zeros behind it."""
    content = tar_of(WHOLE)
    for part in (picture("b")[-40:], b"a photo of b", bytes(600)):
        assert verified(tmp_path, flipped(content, part), expected(content)) == [(None, Fault.WRONG_HASH)]


def test_pictures_of_a_tar_with_another_hash_are_decoded(tmp_path: Path) -> None:
    """What no longer decodes is named beside the hash; with the right one it was decoded when it was listed."""
    content = tar_of(WHOLE)
    broken = content.replace(picture("b"), b"no picture".ljust(len(picture("b"))))
    assert verified(tmp_path, broken, expected(content)) == [(None, "wrong_hash"), ("b", "broken")]
    assert verified(tmp_path, broken, expected(broken)) == []
    assert verified(tmp_path, broken, expected(broken), decode=True) == [("b", SampleStatus.BROKEN)]
    assert verified(tmp_path, broken) == [("b", SampleStatus.BROKEN)]


def test_a_tar_cut_short_is_of_wrong_size_and_damaged(tmp_path: Path) -> None:
    """The pairs that were lost are lacking, each by its key."""
    content = tar_of(WHOLE)
    cut = content[: content.index(b"b.jpg")]
    found = verified(tmp_path, cut, expected(content))
    assert found == [(None, "wrong_size"), (None, "damaged"), ("b", "lacking_sample"), ("c", "lacking_sample")]


@pytest.mark.parametrize("content", [b"", b"no tar", bytes(10_240)], ids=["nothing", "no tar", "zeros"])
def test_what_holds_no_pair_lacks_all(tmp_path: Path, content: bytes) -> None:
    """An empty file, one that is no tar and an empty tar."""
    found = verified(tmp_path, content, expected(content))
    assert [(key, fault) for key, fault in found if key] == [(key, "lacking_sample") for key in KEYS]
    assert [fault for key, fault in found if not key] in ([], ["damaged"])


CHANGES: dict[str, tuple[Files, list[tuple[str | None, str]]]] = {
    "a picture without a caption": ([*WHOLE[:3], *WHOLE[4:]], [("b", "no_caption")]),
    "a caption without a picture": ([*WHOLE[:2], *WHOLE[3:]], [("b", "no_picture")]),
    "a key given twice": ([*WHOLE, *pair("b")], [("b", "duplicate_key")]),
    "two pairs swapped": ([*WHOLE[:2], *WHOLE[4:], *WHOLE[2:4]], [("c", "wrong_order")]),
    "a pair too few": (WHOLE[:4], [("c", "lacking_sample")]),
    "a pair too many": ([*WHOLE, *pair("d")], [("d", "unplanned_sample")]),
    "a pair for another": ([*WHOLE[:4], *pair("d")], [("c", "lacking_sample"), ("d", "unplanned_sample")]),
    "an empty picture": ([*WHOLE[:2], ("b.jpg", b""), *WHOLE[3:]], [("b", "empty")]),
    "an empty caption": ([*WHOLE[:3], ("b.txt", b" \n"), *WHOLE[4:]], [("b", "empty_caption")]),
    "a caption in Latin-1": ([*WHOLE[:3], ("b.txt", "Zoë".encode("latin-1")), *WHOLE[4:]], [("b", "not_utf8")]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_tar_that_was_written_wrongly_is_told_by_its_pairs(tmp_path: Path, change: str) -> None:
    """The hash is that of what was written, so that nothing but the pairs can tell."""
    files, faults = CHANGES[change]
    content = tar_of(files)
    assert verified(tmp_path, content, expected(content)) == faults


def test_without_a_plan_pairs_are_checked_but_not_which(tmp_path: Path) -> None:
    """A folder of mere tars: any whole pair is good, half a one is not."""
    assert verified(tmp_path, tar_of([*pair("z"), *pair("a")])) == []
    assert verified(tmp_path, tar_of([*pair("z"), ("a.txt", b"a")])) == [("a", "no_picture")]


def test_a_wrong_order_says_what_is_planned_there(tmp_path: Path) -> None:
    """The first place that differs, with both keys."""
    content = tar_of([*pair("a"), *pair("c"), *pair("b")])
    path = write(tmp_path / "x.tar", content)
    _, (fault,) = verify_file(UPath(path), "x.tar", expected(content), decode=False)
    assert fault.told() == "x.tar, pair 'c': wrong_order (pair 1 is 'b' in the plan)"


def test_a_file_that_is_gone_or_cannot_be_read(tmp_path: Path) -> None:
    """Neither is an error of the run: each is a fault of that file."""
    (tmp_path / "folder.tar").mkdir()
    write(tmp_path / "file", b"")
    assert verify_file(UPath(tmp_path / "x.tar"), "x.tar", None, decode=False) == (
        None,
        [Found("x.tar", None, Fault.MISSING, None)],
    )
    assert verify_file(UPath(tmp_path / "file/x.tar"), "x.tar", None, decode=False)[1][0].fault is Fault.MISSING
    tar, faults = verify_file(UPath(tmp_path / "folder.tar"), "folder.tar", None, decode=False)
    assert (tar, faults) == (None, [Found("folder.tar", None, Fault.UNREADABLE, "Is a directory")])


def test_other_files_are_only_hashed(tmp_path: Path) -> None:
    """A table is no tar, and none is told of it."""
    path = UPath(write(tmp_path / "part.parquet", b"a table"))
    assert verify_file(path, "p", expected(b"a table", None), decode=False) == (None, [])
    assert verify_file(path, "p", expected(b"A table", None), decode=True)[1][0].fault is Fault.WRONG_HASH
    assert verify_file(path, "p", expected(b"table", None), decode=True)[1][0].fault is Fault.WRONG_SIZE


def test_a_tar_elsewhere_is_fetched(tmp_path: Path) -> None:
    """The same faults are found in any file system that fsspec knows."""
    content = tar_of(WHOLE)
    there = UPath("memory://shards/00000.tar")
    there.write_bytes(content)
    assert verify_file(there, str(there), expected(content), decode=True) == (
        verify_file(UPath(write(tmp_path / "x", content)), str(there), expected(content), decode=True)
    )
    there.write_bytes(flipped(content, picture("c")[-30:]))
    faults = verify_file(there, "x.tar", expected(content), decode=False)[1]
    assert [fault.fault for fault in faults] == [Fault.WRONG_HASH]
    there.unlink()
    assert verify_file(there, "x.tar", None, decode=False)[1] == [Found("x.tar", None, Fault.MISSING, None)]


def ledger_of(plan: list[dict[str, Any]]) -> pl.DataFrame:
    """The ledger of a plan whose shards were written as planned."""
    frame = pl.DataFrame(plan, infer_schema_length=None).group_by("set", "shard", maintain_order=True)
    return frame.agg(
        pl.col("images_per_member").first(), samples=pl.len(), member_samples=pl.col("identity").count()
    ).with_columns(path=pl.format("tars/{}/{}.tar", "set", "shard"))


def of_plan(
    plan: list[dict[str, Any]], ledger: pl.DataFrame | None = None, achieved: dict[str, int] | None = None
) -> list[tuple[str, str | None, str, str | None]]:
    """The faults of a plan and its ledger."""
    frame = pl.LazyFrame(plan, infer_schema_length=None)
    return [tuple(found) for found in verify_sets(frame, ledger_of(plan) if ledger is None else ledger, achieved or {})]


def without(plan: list[dict[str, Any]], name: str, key: str) -> list[dict[str, Any]]:
    """A plan without one pair of a set."""
    return [row for row in plan if (row["set"], row["key"]) != (name, key)]


def test_a_plan_that_keeps_its_promises_has_no_fault() -> None:
    """Two nested sets of two members; an overlay, whose base all sets share; no set at all."""
    members = [row | {"shard": 0} for row in two_sets() if row["identity"]]
    overlay = [*planned(0, [(key, None) for key in BACKGROUND], BASE), *members]
    assert of_plan(two_sets()) == []
    assert of_plan(overlay) == []


def test_a_member_with_other_than_k_pairs_is_named() -> None:
    """One too few, none at all, one too many; each with the set and both numbers."""
    few = without(two_sets(), "K002", "ann-1")
    assert of_plan(few) == [("plan", None, "wrong_number_of_pairs", "K002: 'Ann Ash' has 1 pairs, not 2")]
    nobody = [row for row in two_sets() if row["set"] != "K001" or not row["identity"]]
    assert [detail for *_, detail in of_plan(nobody)] == [f"K001: '{name}' has 0 pairs, not 1" for name in PEOPLE]
    none = without(two_sets(), "K001", "bob-0")
    assert of_plan(none) == [("plan", None, "wrong_number_of_pairs", "K001: 'Bob Birch' has 0 pairs, not 1")]
    more = [*two_sets(), *planned(2, [("ann-2", "Ann Ash")])]
    assert of_plan(more) == [("plan", None, "wrong_number_of_pairs", "K002: 'Ann Ash' has 3 pairs, not 2")]


def test_members_with_fewer_pairs_have_those_that_there_are() -> None:
    """Who is known to have one pair has it in both sets, and no more or less; who has none is in none."""
    one = without(two_sets(), "K002", "ann-1")
    assert of_plan(one, achieved={"Ann Ash": 1, "Cy Cedar": 0}) == []
    assert of_plan(two_sets(), achieved={"Ann Ash": 1}) == [
        ("plan", None, "wrong_number_of_pairs", "K002: 'Ann Ash' has 2 pairs, not 1")
    ]


def test_sets_that_are_not_nested_are_named() -> None:
    """The one pair of K = 1 must be among the two of K = 2."""
    other = [row | {"key": "bob-9"} if (row["set"], row["key"]) == ("K001", "bob-0") else row for row in two_sets()]
    assert of_plan(other) == [("plan", "bob-9", "not_nested", "it is in K001 but not in K002")]


def test_a_key_that_a_set_has_twice_is_named() -> None:
    """Within a set, and in a set and the base that all share; the same key in two sets is what nested sets have."""
    twice = [*two_sets(), {**planned(1, [("bg-0", None)])[0], "shard": 1, "position": 4}]
    assert of_plan(twice) == [("plan", "bg-0", "repeated_key", "K001: shard 0 of K001, shard 1 of K001")]
    shared = [*planned(0, [("bg-0", None), ("ann-0", None), ("bg-0", None)], BASE), *planned(1, [("ann-0", "Ann Ash")])]
    assert of_plan(shared) == [
        ("plan", "ann-0", "repeated_key", "K001: shard 0 of K001, shard 0 of base"),
        ("plan", "bg-0", "repeated_key", "base: shard 0 of base, shard 0 of base"),
    ]


LEDGERS: dict[str, tuple[Callable[[pl.DataFrame], pl.DataFrame], str, str]] = {
    "a pair too few": (
        lambda ledger: ledger.with_columns(samples=pl.col("samples") - (pl.col("path") == "tars/K002/1.tar")),
        "tars/K002/1.tar",
        "shard 1 of K002 has 3 pairs, 0 of members, by the ledger; 4 and 0 by the plan",
    ),
    "a member's pair too many": (
        lambda ledger: ledger.with_columns(
            member_samples=pl.col("member_samples") + (pl.col("path") == "tars/K001/0.tar")
        ),
        "tars/K001/0.tar",
        "shard 0 of K001 has 4 pairs, 1 of members, by the ledger; 4 and 0 by the plan",
    ),
    "a shard too few": (
        lambda ledger: ledger[1:],
        "ledger",
        "shard 0 of K001 has 0 pairs, 0 of members, by the ledger; 4 and 0 by the plan",
    ),
    "a shard twice": (
        lambda ledger: pl.concat([ledger, ledger[:1]]),
        "tars/K001/0.tar",
        "shard 0 of K001 has 8 pairs, 0 of members, by the ledger; 4 and 0 by the plan",
    ),
    "a shard too many": (
        lambda ledger: pl.concat([ledger, ledger[:1].with_columns(shard=pl.lit(9, pl.Int64))]),
        "tars/K001/0.tar",
        "shard 9 of K001 has 4 pairs, 0 of members, by the ledger; 0 and 0 by the plan",
    ),
}


@pytest.mark.parametrize("change", LEDGERS)
def test_a_ledger_of_other_pairs_than_planned_is_named(change: str) -> None:
    """Counts and shards of the two must be the same."""
    changed, path, detail = LEDGERS[change]
    assert of_plan(two_sets(), changed(ledger_of(two_sets()))) == [(path, None, "wrong_count", detail)]


def test_faults_of_files_come_before_those_of_pairs() -> None:
    """A cut tar with its thousands of lacking pairs does not hide another that is missing."""
    pairs = [Found("a.tar", key, Fault.LACKING_SAMPLE, None) for key in ("z", "y")]
    files = [Found("a.tar", None, Fault.DAMAGED, "cut short"), Found("b.tar", None, Fault.MISSING, None)]
    assert in_order(table_of([*pairs, *reversed(files)], FAULTS_SCHEMA)) == [*files, *pairs]


def test_a_pair_has_one_name_for_a_fault() -> None:
    """No fault of a file is called as a pair's status, but for what is missing."""
    assert {*Fault} & {*SampleStatus} == {"missing"}
