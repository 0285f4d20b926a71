"""How fast training shards are packed, planned and verified, beside a file copy, webdataset, `tar -t` and `sha256sum`.

    python benchmarks/shards.py [--quick] [--only rewrite overlay verify base]

`rewrite` times the stage's own worker of the phase `tars` in two processes: each pair is read from its place in the
base's tars, shuffled, written and hashed. Ray is not in it, as it lowers its workers' priority, which tells when a
machine has other work. Beside it are `cp` of the base's tars (one process, as it is; two at once are shown too) and
webdataset's loop from WebDataset to ShardWriter, in two processes, half of the tars each and not shuffled. The sources
are in the page cache for all; the copies need not have reached the disk, except where "on the disk" is said. The bars
are of time on the clock and want two idle cores; CPU time, which other work disturbs less, is shown beside.
`overlay` and its like are planned in fresh processes, whose peak memory is the kernel's. `verify` and `base` run on one
core. The alternatives run in turn with ours, medians are taken, each figure is a line with its bar, and the exit code
is 1 when one falls short. It needs 4 GB of disk.
"""

import argparse
import io
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from upath import UPath

from idia_core.identities import IDENTITIES, PICTURES
from idia_core.shards import LISTING, PLAN, Shape, plan_rewrite, usable_base
from idia_core.tars import RECORD, TarWriter
from pipelines.intake import SOURCES
from pipelines.shards import STAGE
from pipelines.shards_config import ShardsConfig
from pipelines.stage import ResolvedInput, Split, SplitWriter, StageContext
from pipelines.verify import CHECK, VerifyConfig

PHASES = {phase.name: phase for phase in STAGE.phases}
WORKERS, MEMBERS, PAIRS, SETS = 2, 100, 75, (75, 50, 25, 10, 5, 1)
SPAWN = multiprocessing.get_context("spawn")
PACKED = ShardsConfig(images_per_member=(1,))
CAPTION = b"the caption of a picture, about as long as those of Conceptual Captions are"
Job = Callable[[Path], object]
"""Something that writes into a folder of its own."""


def show(what: str, value: float, bar: float | None = None, unit: str = "", *, at_least: bool = False) -> bool:
    """Print a figure and, where it has a bar, whether that holds."""
    held = bar is None or (value >= bar if at_least else value <= bar)
    told = "" if bar is None else f"  (bar: {'>=' if at_least else '<='} {bar:g})  {'held' if held else 'FELL SHORT'}"
    print(f"{what:<66} {value:8.2f}{unit}{told}", flush=True)
    return held


class Taken(NamedTuple):
    """Medians of what a job took; `cpu` is of the processes that it started or that stand by for it."""

    seconds: float
    cpu: float


def in_turn(folder: Path, *jobs: Job, turns: int, size: int = 0) -> list[Taken]:
    """What each job takes; one uncounted round first, then all in turn, each in a folder that is fresh.

    Before each the disk has settled, and a file of `size` bytes was written and deleted: on a virtual machine the first
    writer to memory that was free for a while pays for it, and that shall be neither side.
    """
    taken: list[list[Taken]] = [[] for _ in jobs]
    for turn in range(turns + 1):
        for job, mine in zip(jobs, taken, strict=True):
            out = Path(tempfile.mkdtemp(dir=folder))
            os.sync()
            fill(folder / "filled", size)
            began, spent = time.perf_counter(), cpu_of_others()
            job(out)
            if turn:
                mine.append(Taken(time.perf_counter() - began, cpu_of_others() - spent))
            shutil.rmtree(out)
    return [Taken(*map(statistics.median, zip(*mine, strict=True))) for mine in taken]


def fill(file: Path, size: int) -> None:
    """Write so many bytes and delete them."""
    with file.open("wb") as filled:
        for _ in range(size >> 20):
            filled.write(bytes(1 << 20))
    file.unlink()


def cpu_of_others() -> float:
    """CPU seconds of this process's children, living and ended."""
    ended = psutil.Process().cpu_times()
    living = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
    return ended.children_user + ended.children_system + sum(times.user + times.system for times in living)


def noise(count: int, low: int, high: int) -> Iterator[bytes]:
    """What could be JPEGs by their first bytes, of so many bytes each."""
    rng = np.random.default_rng(0)
    pool = rng.bytes(1 << 20)
    for size in rng.integers(low, high, count).tolist():
        at = int(rng.integers(0, len(pool) - size))
        yield b"\xff\xd8\xff" + pool[at : at + size]


def jpegs(count: int, side: int, quality: int) -> Iterator[bytes]:
    """Real JPEGs; every 64th is the same."""
    rng, made = np.random.default_rng(1), list[bytes]()
    for _ in range(min(count, 64)):
        grain = Image.fromarray(rng.integers(0, 255, (side // 4, side // 4, 3), np.uint8)).resize((side, side))
        made.append(_encoded(grain, quality))
    return (made[i % len(made)] for i in range(count))


def _encoded(picture: Image.Image, quality: int = 85) -> bytes:
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality)
    return out.getvalue()


def write_tars(folder: Path, pictures: Sequence[bytes] | Iterator[bytes], each: int) -> pa.Table:
    """Tars of so many pairs each; their `LISTING`."""
    folder.mkdir(parents=True)
    rows = list[dict[str, Any]]()
    waiting = enumerate(pictures)
    for tar in range(10**6):
        some = list(islice(waiting, each))
        if not some:
            break
        path = folder / f"{tar:05d}.tar"
        with path.open("wb") as file, TarWriter(file) as writer:
            for number, picture in some:
                placed = writer.add(f"{number:09d}", "jpg", picture, CAPTION)
                rows.append(_row(str(path), f"{number:09d}", placed))
    return pa.Table.from_pylist(rows, LISTING)


def _row(source: str, key: str, placed: Sequence[Any]) -> dict[str, Any]:
    picture, caption = placed
    places = {"picture_at": picture.at, "picture_bytes": picture.bytes}
    places |= {"caption_at": caption.at, "caption_bytes": caption.bytes}
    return {"source": source, "key": key, "suffix": "jpg", **places, "status": "ok"}


def people(folder: Path) -> dict[str, ResolvedInput]:
    """The inputs that say who is tested: 100 members and 100 others, of each five pictures of 256 pixels."""
    rng, who = np.random.default_rng(2), [f"person {i:03d}" for i in range(2 * MEMBERS)]
    roles = ["member", "non_member"] * MEMBERS
    shown = [_encoded(Image.fromarray(rng.integers(0, 255, (256, 256, 3), np.uint8))) for _ in range(5)]
    pictures = [
        {"identity": name, "picture": f"{i}", "status": "ok", "image": shown[i]} for name in who for i in range(5)
    ]
    tables = {
        "identities": pa.Table.from_pylist([{"identity": name, "name": f"{name} Ash"} for name in who], IDENTITIES),
        "selection": pa.table({"identity": who, "role": roles}),
        "pictures": pa.Table.from_pylist(pictures, PICTURES),
    }
    return {name: given(name, write_table(folder / f"{name}.parquet", table)) for name, table in tables.items()}


def write_table(file: Path, table: pa.Table) -> Path:
    """Write it, with the folders above it; returns the file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file)
    return file


def given(name: str, *files: Path) -> ResolvedInput:
    """Files as an input of a stage."""
    return ResolvedInput(name, UPath(files[0].parent), tuple(UPath(file) for file in files), "")


def do(phase: str, context: StageContext) -> None:
    """A phase in this process, one split after another."""
    worker = PHASES[phase].worker(context)
    for part, split in enumerate(PHASES[phase].plan(context)):
        worker(split, SplitWriter(context.folder, phase, part, lambda *_: None))


def shuffled(out: Path, listing: pa.Table, each: int) -> Path:
    """The plan of a set of base pairs alone, written."""
    base = usable_base(pl.DataFrame(listing))
    plan = plan_rewrite(base, base.clear().with_columns(rank=0), 1, Shape(each, None), 0)
    return write_table(out / "plan/part-00000.parquet", plan)


def pack_split(out: Path, part: int, split: Split) -> None:
    """A split of the phase `tars`, as a worker of the stage does it."""
    context = StageContext("shards", PACKED, {}, UPath(out))
    PHASES["tars"].worker(context)(split, SplitWriter(UPath(out), "tars", part, lambda *_: None))


def pack(pool: Pool, planned: Path, sources: Path, out: Path) -> None:
    """The phase `tars` of one set, by the pool's processes."""
    for file in (planned, sources):
        (out / file.parent.name).mkdir()
        os.link(file, out / file.parent.name / file.name)
    splits = PHASES["tars"].plan(StageContext("shards", PACKED, {}, UPath(out)))
    pool.starmap(pack_split, [(out, part, split) for part, split in enumerate(splits)], chunksize=1)


def copy(tars: Sequence[Path], processes: int, out: Path) -> None:
    """Copy the tars by `cp`."""
    parts = [tars[i::processes] for i in range(processes)]
    running = [subprocess.Popen(["cp", "--", *map(str, part), str(out)]) for part in parts]
    if any([process.wait() for process in running]):  # noqa: C419 - each is waited for
        sys.exit("cp failed")


def shard_writer(tars: Sequence[Path], each: int, out: Path) -> None:
    """The loop of webdataset: samples from tars into tars."""
    import webdataset as wds  # noqa: PLC0415 - slow to import, and for this alone

    samples = wds.WebDataset([str(tar) for tar in tars], shardshuffle=False)
    with wds.ShardWriter(f"{out}/%05d.tar", maxcount=each, verbose=0) as writer:
        for sample in samples:
            writer.write(sample)


def by_webdataset(pool: Pool, tars: Sequence[Path], each: int, out: Path) -> None:
    """The same by two processes, half of the tars each."""
    halves = [out / f"{i}" for i in range(WORKERS)]
    for half in halves:
        half.mkdir()
    pool.starmap(shard_writer, [(tars[i::WORKERS], each, half) for i, half in enumerate(halves)], chunksize=1)


def flushed(job: Job, out: Path) -> None:
    """The job, and its files on the disk."""
    job(out)
    for file in out.rglob("*.tar"):
        with file.open("rb") as written:
            os.fsync(written.fileno())


def rewrite(folder: Path, each: int, turns: int) -> Iterator[bool]:
    """32 tars of pictures of 30 to 100 KB, as JPEGs of 512 pixels are, packed into 32 others; rates are of bytes."""
    listing = write_tars(folder / "source", noise(32 * each, 30_000, 100_000), each)
    tars = sorted((folder / "source").iterdir())
    size = sum(tar.stat().st_size for tar in tars)
    planned = shuffled(folder, listing, each)
    sources = write_table(folder / "sources/base-00000.parquet", SOURCES.empty_table())
    cp, two = partial(copy, tars, 1), partial(copy, tars, 2)
    with SPAWN.Pool(WORKERS) as pool:
        ours, loop = partial(pack, pool, planned, sources), partial(by_webdataset, pool, tars, each)
        turn_about = partial(in_turn, folder, turns=turns, size=size)
        mine_first, theirs, twice = turn_about(ours, loop, two)  # these take longest: the memory is warm afterwards
        mine, once = turn_about(ours, cp)
        mine_flushed, once_flushed = turn_about(partial(flushed, ours), partial(flushed, cp))
    print(f"  {len(listing):,} pairs, {size / 1e9:.2f} GB")
    names = ("ours", "cp", "ours, on the disk", "cp, on the disk", "ours at first", "webdataset", "two cp at once")
    for name, one in zip(names, (mine, once, mine_flushed, once_flushed, mine_first, theirs, twice), strict=True):
        print(f"  {name}: {size / 1e6 / one.seconds:,.0f} MB/s; {one.cpu / size * 1e9:.2f} CPU seconds a GB")
    yield show("rewrite, two workers: rate / that of cp", once.seconds / mine.seconds, 0.5, at_least=True)
    on_disk = once_flushed.seconds / mine_flushed.seconds
    yield show("rewrite, two workers: rate / that of cp, on the disk", on_disk, 0.5, at_least=True)
    show("rewrite, two workers: rate / that of two cp at once", twice.seconds / mine_first.seconds)
    show("rewrite, a core: rate / that of cp, by CPU time", once.cpu / mine.cpu)
    yield show(
        "rewrite: rate / webdataset's, two processes each", theirs.seconds / mine_first.seconds, 3, at_least=True
    )
    show("rewrite: rate / webdataset's, by CPU time", theirs.cpu / mine_first.cpu)


def planned_in(context: StageContext) -> tuple[float, float]:
    """The seconds of the phase `plan`, and this process's peak memory in MB."""
    began = time.perf_counter()
    do("plan", context)
    seconds = time.perf_counter() - began
    status = Path("/proc/self/status").read_text()
    return seconds, int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6


def fresh(context: StageContext) -> tuple[float, float]:
    """The same in a process of its own."""
    with SPAWN.Pool(1) as pool:
        return pool.apply(planned_in, (context,))


def write_listing(out: Path, pairs: int) -> None:
    """The listing of a base of so many pairs, 1,000 to a tar, as if its tars were there."""
    at = np.arange(1000) * 42_000
    sizes = {"picture_at": at + 512, "picture_bytes": at * 0 + 40_000, "caption_at": at + 41_472}
    for tar in range(pairs // 1000):
        source = f"s3://a-bucket/cc3m/training/{tar:05d}.tar"
        columns = {"source": [source] * 1000, "key": [f"{tar:05d}{i:04d}" for i in range(1000)]}
        columns |= {"suffix": ["jpg"] * 1000, **sizes, "caption_bytes": at * 0 + 75, "status": ["ok"] * 1000}
        arrays = [pa.array(columns[f.name], f.type) if f.name in columns else pa.nulls(1000, f.type) for f in LISTING]
        write_table(out / f"listing/base-{tar:05d}.parquet", pa.table(arrays, schema=LISTING))
        about = {"source": source, "part": "base", "given": "", "samples": 1000, "bytes": 43_000_000, "sha256": ""}
        write_table(out / f"sources/base-{tar:05d}.parquet", pa.Table.from_pylist([about], SOURCES))


def overlay(folder: Path, pairs: int) -> Iterator[bool]:
    """A base that is listed but not there, and 100 members' pairs in a tar that is."""
    out = folder / "overlay"
    write_listing(out, pairs)
    held = write_tars(folder / "members", noise(MEMBERS * PAIRS, 20_000, 60_000), MEMBERS * PAIRS).to_pylist()
    for i, row in enumerate(held):
        row |= {"key": f"m{row['key']}", "identity": f"person {2 * (i // PAIRS):03d}", "caption_source": "retrieved"}
    write_table(out / "listing/members-00000.parquet", pa.Table.from_pylist(held, LISTING))
    inputs = people(folder / "people")
    context = StageContext("shards", ShardsConfig(mode="overlay", images_per_member=SETS, seed=0), inputs, UPath(out))
    seconds, memory = fresh(context)
    yield show(f"overlay of {pairs:,}: plan of the base and {len(SETS)} sets, seconds", seconds, 60)
    yield show(f"overlay of {pairs:,}: peak memory of planning, MB", memory, 2000)
    do("tars", context)
    written = sum(file.stat().st_size for file in (out / "tars").rglob("*.tar"))
    members = tar_bytes(context.table("plan"))
    print(f"  {written / 1e6:,.0f} MB written for {sum(SETS) * MEMBERS:,} pairs of members")
    yield show("overlay: bytes written besides the members' tars", float(written - members), 0)
    shutil.rmtree(out / "tars")
    rewritten = StageContext("shards", ShardsConfig(images_per_member=(25,), seed=0), inputs, UPath(out))
    shutil.rmtree(out / "plan")
    seconds, memory = fresh(rewritten)
    show(f"rewrite of {pairs:,}: plan of one set, seconds", seconds)
    show(f"rewrite of {pairs:,}: peak memory of planning, MB", memory)


def tar_bytes(plan: pa.Table) -> int:
    """What the tars of the members' pairs in a plan must weigh: headers, contents, ends."""
    blocks = sum(((pl.col(column) + 511) // 512 + 1) * 512 for column in ("picture_bytes", "caption_bytes"))
    members = pl.DataFrame(plan.select(PLAN.names)).filter(pl.col("identity").is_not_null())
    tars = members.group_by("set", "shard").agg(size=blocks.sum() + 1024)
    return int(tars.select(((pl.col("size") + RECORD - 1) // RECORD * RECORD).sum()).item())


def verify(folder: Path, each: int, turns: int) -> Iterator[bool]:
    """A training set of 20 KB pictures, read again on one core."""
    listing = write_tars(folder / "pictures", jpegs(16 * each, 256, 60), each)
    out = folder / "verified"
    shuffled(out, listing, each)
    write_table(out / "sources/base-00000.parquet", SOURCES.empty_table())
    do("tars", StageContext("shards", PACKED, {}, UPath(out)))
    inputs = {"ledger": given("ledger", *(out / "ledger").iterdir()), "plan": given("plan", *(out / "plan").iterdir())}
    tars = sorted((out / "tars").rglob("*.tar"))
    size = sum(tar.stat().st_size for tar in tars) / 1e6
    files = pq.read_table(out / "ledger").to_pylist()
    readers = [CHECK.worker(StageContext("verify", VerifyConfig(decode=d), inputs, UPath(out))) for d in (False, True)]

    def ours(reader: Any, into: Path) -> None:
        writer = SplitWriter(UPath(into), "check", 0, lambda *_: None)
        reader({"files": files}, writer)
        if writer.facts:
            sys.exit(f"faults were found: {writer.facts}")

    plain, again = (partial(ours, reader) for reader in readers)
    taken = in_turn(folder, plain, partial(tar_and_hash, tars), again, turns=turns)
    mine, theirs, decoded = (one.seconds for one in taken)
    kilobytes = size * 1e3 / len(listing)
    print(f"  {size:,.0f} MB in pictures of {kilobytes:.0f} KB: ours {size / mine:,.0f} MB/s")
    print(f"  tar -t and sha256sum {size / theirs:,.0f} MB/s")
    print(f"  ours with --decode {size / decoded:,.0f} MB/s, {len(listing) / decoded:,.0f} pictures/s")
    yield show("verify, one core: rate / that of tar -t and sha256sum", theirs / mine, 0.6, at_least=True)


def tar_and_hash(tars: Sequence[Path], _: Path) -> None:
    """List the tars, then hash them."""
    for tar in tars:
        subprocess.run(["tar", "-tf", tar], stdout=subprocess.DEVNULL, check=True)
    subprocess.run(["sha256sum", "--", *tars], stdout=subprocess.DEVNULL, check=True)


def base(folder: Path, pairs: int, turns: int) -> Iterator[bool]:
    """What looking at a picture costs, on one core."""
    write_tars(folder / "base", jpegs(pairs, 512, 85), pairs)
    tar = folder / "base/00000.tar"
    inputs = {**people(folder / "people"), "background": given("background", tar)}

    def look(out: Path) -> None:
        do("base", StageContext("shards", ShardsConfig(seed=0), inputs, UPath(out)))

    began = time.process_time()
    seconds = in_turn(folder, look, turns=turns)[0].seconds
    spent = (time.process_time() - began) / (turns + 1)
    size = tar.stat().st_size / pairs / 1e3
    show(f"base, one core: pictures of 512 pixels ({size:.0f} KB) a second", pairs / seconds)
    show("base: pictures a second of CPU time", pairs / spent)
    yield True


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer pairs and turns; bars are for all")
    jobs: dict[str, Callable[..., Iterator[bool]]] = {
        "rewrite": partial(rewrite, each=200, turns=2),
        "overlay": partial(overlay, pairs=200_000),
        "verify": partial(verify, each=200, turns=2),
        "base": partial(base, pairs=300, turns=1),
    }
    parser.add_argument("--only", nargs="*", choices=[*jobs], default=[*jobs])
    options = parser.parse_args()
    if not options.quick:
        jobs["rewrite"], jobs["overlay"] = partial(rewrite, each=800, turns=5), partial(overlay, pairs=2_800_000)
        jobs["verify"], jobs["base"] = partial(verify, each=1000, turns=5), partial(base, pairs=2000, turns=3)
    held = list[bool]()
    for name in options.only:
        with tempfile.TemporaryDirectory() as folder:
            if name in ("verify", "base"):
                os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
            held += jobs[name](Path(folder))
    sys.exit(not all(held))


if __name__ == "__main__":
    main()
