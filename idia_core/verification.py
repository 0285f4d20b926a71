"""Training shards read again: every file against its hash, every tar's pairs, and the plan against what it promises."""

import hashlib
import mmap
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import IO, NamedTuple

import polars as pl
import pyarrow as pa
from upath import UPath

from idia_core.sample_pictures import decode_reduced
from idia_core.sample_status import SampleStatus
from idia_core.shards import BASE
from idia_core.storage import is_local
from idia_core.tars import Place, TarSample, list_tar

FAULTS = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),  # below the folder, or a URL; 'plan' and 'ledger' are the tables
        pa.field("key", pa.string()),  # of a pair; null where the fault is the file's or the plan's
        pa.field("fault", pa.string(), nullable=False),  # a `Fault`, or a pair's `SampleStatus`
        pa.field("detail", pa.string()),
    ]
)
VERIFIED = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("samples", pa.int64(), nullable=False),
        pa.field("decoded", pa.bool_(), nullable=False),  # its pictures were decoded now
        pa.field("faults", pa.int64(), nullable=False),
    ]
)


class Fault(StrEnum):
    """What can be wrong with a file or a plan; what is wrong with a pair in a tar is its `SampleStatus`."""

    # A file.
    MISSING = "missing"
    UNREADABLE = "unreadable"
    UNPLANNED_FILE = "unplanned_file"
    WRONG_SIZE = "wrong_size"
    WRONG_HASH = "wrong_hash"
    DAMAGED = "damaged"  # the tar as a whole
    # A tar's pairs against the plan.
    LACKING_SAMPLE = "lacking_sample"
    UNPLANNED_SAMPLE = "unplanned_sample"
    WRONG_ORDER = "wrong_order"
    # The plan and the ledger.
    WRONG_COUNT = "wrong_count"
    WRONG_NUMBER_OF_PAIRS = "wrong_number_of_pairs"  # of a member
    REPEATED_KEY = "repeated_key"
    NOT_NESTED = "not_nested"


class Found(NamedTuple):
    """A fault: a row of `FAULTS`."""

    path: str
    key: str | None
    fault: Fault | SampleStatus
    detail: str | None

    def told(self) -> str:
        """The fault in words: `tars/K025/00003.tar, pair 'a17': no_caption`."""
        pair = "" if self.key is None else f", pair '{self.key}'"
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.path}{pair}: {self.fault}{detail}"


class Verified(NamedTuple):
    """A tar that was read: a row of `VERIFIED`."""

    path: str
    bytes: int
    sha256: str
    samples: int
    decoded: bool
    faults: int


class Expected(NamedTuple):
    """What a file should be; `keys` are a tar's in order, None where no plan says them."""

    bytes: int
    sha256: str
    keys: Sequence[str] | None


def verify_file(
    file: UPath, path: str, expected: Expected | None, *, decode: bool
) -> tuple[Verified | None, list[Found]]:
    """What is wrong with a file that is called `path`; with what was read of it if it is a tar.

    The file is read once. Its pictures are decoded where `decode` asks for it, and where its hash does not vouch for
    them: it differs from the expected one, or there is none.
    """
    try:
        with _content(file) as (content, sha256):
            if path.endswith(".tar"):
                return verify_shard(path, content, sha256, expected, decode=decode)
            return None, [] if expected is None else list(_differences(path, len(content), sha256, expected))
    except (FileNotFoundError, NotADirectoryError):
        return None, [Found(path, None, Fault.MISSING, None)]
    except OSError as error:
        return None, [Found(path, None, Fault.UNREADABLE, error.strerror or str(error))]


def verify_shard(
    path: str, content: memoryview, sha256: str, expected: Expected | None, *, decode: bool
) -> tuple[Verified, list[Found]]:
    """What is wrong with a tar: its bytes, structure and pairs and, where its hash does not match, its pictures."""
    listing = list_tar(content)
    found = [] if expected is None else list(_differences(path, len(content), sha256, expected))
    decode = decode or expected is None or bool(found)
    if listing.damage is not None:
        found.append(Found(path, None, Fault.DAMAGED, listing.damage))
    for sample in listing.samples:
        status, detail = sample.status, sample.detail
        if status is SampleStatus.OK and sample.picture and sample.caption:  # an OK pair has both
            status = _looked_at(content, sample.picture, sample.caption, decode=decode)
        if status is not SampleStatus.OK:
            found.append(Found(path, sample.key, status, detail))
    if expected is not None and expected.keys is not None:
        found += _against_plan(path, listing.samples, expected.keys)
    return Verified(path, len(content), sha256, len(listing.samples), decode, len(found)), found


@contextmanager
def _content(file: UPath) -> Iterator[tuple[memoryview, str]]:
    """A file's bytes and their SHA-256; from elsewhere it is fetched first.

    It is hashed with plain reads, so that a disk that fails is an error and not the end of the process, then mapped.
    """
    with ExitStack() as opened:
        if is_local(file):
            local: IO[bytes] = opened.enter_context(Path(file.path).open("rb"))
        else:
            local = opened.enter_context(tempfile.TemporaryFile())
            shutil.copyfileobj(opened.enter_context(file.open("rb")), local, 1 << 20)
            local.seek(0)
        sha256 = hashlib.file_digest(local, "sha256").hexdigest()  # type: ignore[arg-type]
        if os.fstat(local.fileno()).st_size == 0:  # of which there is no map
            yield memoryview(b""), sha256
            return
        # Not closed here: where a reader was interrupted it still holds views, and that would hide what interrupted it.
        yield memoryview(mmap.mmap(local.fileno(), 0, access=mmap.ACCESS_READ)), sha256


def _differences(path: str, size: int, sha256: str, expected: Expected) -> Iterator[Found]:
    """Another size, or else another hash."""
    if size != expected.bytes:
        yield Found(path, None, Fault.WRONG_SIZE, f"{size:,} bytes, {expected.bytes:,} were written")
    elif sha256 != expected.sha256:
        yield Found(path, None, Fault.WRONG_HASH, f"SHA-256 {sha256[:12]}…, {expected.sha256[:12]}… was written")


def _looked_at(content: memoryview, picture: Place, caption: Place, *, decode: bool) -> SampleStatus:
    """The status of a complete pair by its contents."""
    try:
        str(content[caption.at : caption.at + caption.bytes], "utf-8")
    except UnicodeDecodeError:
        return SampleStatus.NOT_UTF8
    if not decode:
        return SampleStatus.OK
    return decode_reduced(content[picture.at : picture.at + picture.bytes]).status


def _against_plan(path: str, samples: Sequence[TarSample], planned: Sequence[str]) -> Iterator[Found]:
    """Pairs that are lacking or should not be there, or else their first that is not in its place."""
    keys = [sample.key for sample in samples]
    if keys == list(planned):
        return
    held, wanted = set(keys), set(planned)
    for key in planned:
        if key not in held:
            yield Found(path, key, Fault.LACKING_SAMPLE, None)
    for sample in samples:
        if sample.key not in wanted and sample.status is SampleStatus.OK:  # other statuses are told already
            yield Found(path, sample.key, Fault.UNPLANNED_SAMPLE, None)
    if held == wanted:
        in_order = zip(dict.fromkeys(keys), planned, strict=False)
        for place, (key, other) in enumerate(in_order):
            if key != other:
                yield Found(path, key, Fault.WRONG_ORDER, f"pair {place} is '{other}' in the plan")
                return


def verify_sets(plan: pl.LazyFrame, ledger: pl.DataFrame, achieved: Mapping[str, int]) -> list[Found]:
    """What is wrong with a plan as a whole, and with a ledger of it.

    `plan` (set, images_per_member, shard, key, identity) is read one set at a time. Each member has K pairs in the set
    of K, or as many as `achieved` says that there are; no key is twice in a set, nor in the base that all share; the
    sets are nested; and the ledger has each shard once, with the pairs that are planned.
    """
    pairs = plan.filter(pl.col("identity").is_not_null()).select("set", "images_per_member", "key", "identity")
    members = pairs.collect()
    sizes = dict(
        [*members.select("set", "images_per_member").rows(), *ledger.select("set", "images_per_member").rows()]
    )
    found = list(_members(members, sizes, achieved))
    for name in sorted({BASE, *sizes}):
        rows = plan.filter(pl.col("set").is_in([name, BASE])).select("set", "shard", "key", "identity").collect()
        found += _repeated_keys(name, rows)
        found += _counts(name, rows.filter(pl.col("set") == name), ledger.filter(pl.col("set") == name))
    return found


def _members(members: pl.DataFrame, sizes: Mapping[str, int], achieved: Mapping[str, int]) -> Iterator[Found]:
    """Members who have another number of pairs than K, and pairs of a smaller set that are not in the next larger."""
    everybody = sorted({*members["identity"], *achieved})
    keys: list[tuple[str, set[str]]] = []
    for name, k in sorted(sizes.items(), key=lambda item: item[1]):
        if name == BASE:
            continue
        mine = members.filter(pl.col("set") == name)
        counts = dict(mine.group_by("identity").len().rows())
        keys.append((name, set(mine["key"])))
        for identity in everybody:
            has, wanted = counts.get(identity, 0), min(k, achieved.get(identity, k))
            if has != wanted:
                detail = f"{name}: '{identity}' has {has} pairs, not {wanted}"
                yield Found("plan", None, Fault.WRONG_NUMBER_OF_PAIRS, detail)
    for (name, smaller), (other, larger) in pairwise(keys):
        for key in sorted(smaller - larger):
            yield Found("plan", key, Fault.NOT_NESTED, f"it is in {name} but not in {other}")


def _repeated_keys(name: str, rows: pl.DataFrame) -> Iterator[Found]:
    """Keys that a set has twice, in its own tars or in its own and the base's."""
    twice = rows.filter(pl.col("key").is_duplicated()).sort("key", "set", "shard")
    for (key,), places in twice.partition_by("key", as_dict=True, maintain_order=True).items():
        if name in places["set"]:
            told = ", ".join(f"shard {shard} of {where}" for where, shard in places.select("set", "shard").rows())
            yield Found("plan", str(key), Fault.REPEATED_KEY, f"{name}: {told}")


def _counts(name: str, planned: pl.DataFrame, ledger: pl.DataFrame) -> Iterator[Found]:
    """Shards of which plan and ledger do not say the same; a shard that one of them lacks has no pairs there."""
    wanted = planned.group_by("shard").agg(samples=pl.len(), members=pl.col("identity").count())
    listed = ledger.group_by("shard").agg(
        pl.col("path").first(), listed=pl.col("samples").sum(), members_listed=pl.col("member_samples").sum()
    )
    both = wanted.join(listed, on="shard", how="full", coalesce=True).sort("shard").fill_null(0)
    for shard, samples, members, path, listed_samples, listed_members in both.rows():
        if (samples, members) != (listed_samples, listed_members):
            detail = (
                f"shard {shard} of {name} has {listed_samples} pairs, {listed_members} of members, by the ledger; "
                f"{samples} and {members} by the plan"
            )
            yield Found(path or "ledger", None, Fault.WRONG_COUNT, detail)


def table_of(rows: Sequence[Found] | Sequence[Verified], schema: pa.Schema) -> pa.Table:
    """Rows as a table of `FAULTS` or `VERIFIED`."""
    return pa.Table.from_pylist([row._asdict() for row in rows], schema)


def in_order(faults: pa.Table) -> list[Found]:
    """The rows of `FAULTS` by path, those of whole files before those of pairs: a cut tar lacks thousands of pairs."""
    ordered = pl.DataFrame(faults).sort(pl.col("key").is_not_null(), "path", maintain_order=True)
    return [Found(*row) for row in ordered.iter_rows()]
