"""How fast names are found in captions, beside the bare read, polars, pandas, and itself with more names and files.

    python benchmarks/scan.py [--quick] [--rows 10000000] [--only read polars pandas names files]

Captions are generated (about 70 bytes each; 0.4 % hold a searched name or nearly one) in Parquet files of a million
rows. The alternatives run in turn with ours, medians are taken, each figure is a line with its bar, and the exit code
is 1 when one falls short. Times are those of the stage's own phase `match` (read, match and write `matches`), by Ray.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import ray
from rich.console import Console
from upath import UPath

from idia_core.caption_files import open_caption_file, read_captions, read_urls
from idia_core.captions import MATCHES, NameMatcher
from idia_core.config import Resources
from idia_core.names import FIRST_NAMES, LAST_NAMES, invent_names
from idia_core.synthetic import plant_captions
from pipelines.dataflow import run_phase
from pipelines.progress import Progress
from pipelines.scan import STAGE, ScanConfig
from pipelines.stage import ResolvedInput, StageContext

FILE_ROWS, DIFFERENT, NAMES, HITS_A_NAME, TURNS = 1_000_000, 5, 500, 2, 5
ONSETS, VOWELS = [*"bdfghjklmnprstvwz", "br", "st", "tr", "ch", "sh", "kl"], [*"aeiou", "ai", "ei", "an", "er", "on"]
ENDINGS = ("", "son", "field", "man", "ski", "ton", "well", "berg", "ley", "worth", "wood", "er")


def show(what: str, value: float, bar: float, unit: str = "") -> bool:
    """Print a figure and whether its bar holds."""
    held = value <= bar
    print(f"{what:<66} {value:8.2f}{unit}  (bar: <= {bar:g})  {'held' if held else 'FELL SHORT'}", flush=True)
    return held


def names_of(count: int) -> list[str]:
    """The names that are planted, and as many others as it takes."""
    found = invent_names(min(count, NAMES), seed=1)
    firsts, lasts = sorted({*FIRST_NAMES["F"], *FIRST_NAMES["M"]}), [n + e for n in LAST_NAMES for e in ENDINGS]
    order = np.random.default_rng(0).permutation(len(firsts) * len(lasts))[: 2 * count]
    others = (f"{firsts[i // len(lasts)]} {lasts[i % len(lasts)]}" for i in order.tolist())
    return list({name.lower(): name for name in [*found, *others]}.values())[:count]


def with_strangers(count: int) -> list[str]:
    """The names that are planted, and others made of syllables, of which 1 % have a first name of two letters."""
    rng, found = np.random.default_rng(0), {name.lower(): name for name in names_of(NAMES)}
    syllables = [f"{onset}{vowel}" for onset in ONSETS for vowel in VOWELS]
    while len(found) < count:
        lengths = (rng.choice([1, 2, 3], count, p=[0.03, 0.57, 0.4]), rng.integers(2, 4, count))
        drawn = (rng.choice(syllables, size=(count, 6)), *lengths)
        for parts, first, last in zip(*(column.tolist() for column in drawn), strict=True):
            name = f"{''.join(parts[:first]).title()} {''.join(parts[3 : 3 + last]).title()}"
            found.setdefault(name.lower(), name)
    return list(found.values())[:count]


def write_captions(folder: Path, rows: int) -> list[Path]:
    """The caption files; after the first 5 million rows their content repeats."""
    files: list[Path] = []
    for number in range(rows // FILE_ROWS):
        file = folder / f"{number:05d}.parquet"
        if number < DIFFERENT:
            table, _ = plant_captions(invent_names(NAMES, seed=1), FILE_ROWS, number, [HITS_A_NAME] * NAMES)
            pq.write_table(table, file, compression="snappy")
        else:
            os.link(files[number % DIFFERENT], file)
        files.append(file)
    return files


def context_of(files: Sequence[Path], names: Sequence[str], folder: Path, *, urls: bool) -> StageContext:
    """What the phase `match` gets, in a fresh folder, with the names already listed."""
    out = UPath(tempfile.mkdtemp(dir=folder))
    (out / "names").mkdir()
    column = pa.array([[]] * len(names), pa.list_(pa.string()))
    pq.write_table(pa.table({"name": list(names), "aliases": column}), str(out / "names" / "part-00000.parquet"))
    captions = ResolvedInput("captions", UPath(folder), tuple(UPath(file) for file in files), "")
    return StageContext("scan", ScanConfig(urls=urls), {"captions": captions}, out)


def scan(files: Sequence[Path], names: Sequence[str], workers: int, *, urls: bool = False) -> int:
    """Run the phase `match`; returns the number of matches."""
    context = context_of(files, names, files[0].parent, urls=urls)
    receipts = run_phase(STAGE.phases[1], context, Resources(workers=workers), Progress(Console(quiet=True)))
    return sum(file.rows or 0 for receipt in receipts for file in receipt.files)


def read(files: Sequence[Path], threads: int, columns: Sequence[str] = ("TEXT",)) -> None:
    """Read the columns of all files, and let them go."""
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda file: pq.read_table(file, columns=list(columns), use_threads=False).num_rows, files))


def polars_one_liner(files: Sequence[Path], names: Sequence[str]) -> None:
    """What one would type instead."""
    pl.scan_parquet(list(files)).filter(pl.col("TEXT").str.contains_any(list(names))).collect()


def in_turn(
    *jobs: Callable[[], object], turns: int = TURNS, before: Callable[[], object] = lambda: None
) -> list[float]:
    """The median seconds of each job; one uncounted round first, then all in turn, each after `before`."""
    seconds: list[list[float]] = [[] for _ in jobs]
    for turn in range(turns + 1):
        for job, taken in zip(jobs, seconds, strict=True):
            before()
            began = time.perf_counter()
            job()
            if turn:
                taken.append(time.perf_counter() - began)
    return [statistics.median(taken) for taken in seconds]


def against_read(files: Sequence[Path]) -> Iterator[bool]:
    """Ours against the bare read, on one core and on two."""
    names = names_of(NAMES)
    for cores in (1, 2):
        ours, bare = in_turn(partial(scan, files, names, cores), partial(read, files, cores))
        print(f"  {len(files) * FILE_ROWS:,} captions, {cores} cores: ours {ours:.2f} s, bare read {bare:.2f} s")
        yield show(f"scan/read ratio, {cores} cores", ours / bare, 2.2)
    both = partial(read, files, 2, ("TEXT", "URL"))
    ours, bare = in_turn(partial(scan, files, names, 2, urls=True), both)
    yield show("scan/read ratio, URLs too on either side, 2 cores", ours / bare, 2.2)


def against_polars(files: Sequence[Path]) -> Iterator[bool]:
    """Ours, with the start of its Ray, against polars; Ray is stopped before each turn."""
    names = names_of(NAMES)

    def with_ray() -> None:
        start_ray()
        scan(files, names, 2, urls=True)

    ours, other = in_turn(with_ray, partial(polars_one_liner, files, names), turns=3, before=ray.shutdown)
    start_ray()
    print(f"  {len(files) * FILE_ROWS:,} captions: ours with Ray's start {ours:.2f} s, polars {other:.2f} s")
    yield show("scan/polars ratio, 2 cores, Ray's start included", ours / other, 1.1)


def against_pandas(files: Sequence[Path], rows: int) -> Iterator[bool]:
    """Ours against the paper's loop over names, on one core, with the same counts."""
    names = names_of(NAMES)
    texts = pq.read_table(files[0], columns=["TEXT"])["TEXT"].to_pandas()[:rows]
    began = time.perf_counter()
    counts = [int(texts.str.contains(name, na=False).sum()) for name in names]
    pandas_row = (time.perf_counter() - began) / rows
    (ours,) = in_turn(partial(scan, files, names, 1))
    found = _counts(files[:1], names, rows)
    if counts != found:
        sys.exit(f"the counts differ: {sum(counts)} by pandas, {sum(found)} by ours")
    speed = pandas_row / (ours / (len(files) * FILE_ROWS))
    print(f"  the same {sum(counts)} occurrences of {len(names)} names in {rows:,} captions")
    yield show("our time of pandas' time, in thousandths", 1000 / speed, 5)
    print(f"  {speed:,.0f} times faster a core")


def _counts(files: Sequence[Path], names: Sequence[str], rows: int) -> list[int]:
    context = context_of(files, names, files[0].parent, urls=False)
    run_phase(STAGE.phases[1], context, Resources(), Progress(Console(quiet=True)))
    matches = context.table("matches").to_pandas()
    counts: pd.Series = matches[matches["paper"] & (matches["row"] < rows)]["name"].value_counts()
    return [int(counts.get(name, 0)) for name in names]


def more_names(files: Sequence[Path]) -> Iterator[bool]:
    """A million names against a thousand, on one core in this process, when the matchers are built."""
    names = {"1,000": names_of(1_000), "1,000,000": with_strangers(1_000_000), "their like": names_of(1_000_000)}
    matchers = {}
    for what, some in names.items():
        began = time.perf_counter()
        matchers[what] = NameMatcher(some)
        print(f"  the matcher of {len(some):,} names takes {time.perf_counter() - began:.1f} s to build")
    found = [search(files, matcher).num_rows for matcher in matchers.values()]
    first, second, third = (partial(search, files, matcher) for matcher in matchers.values())
    (few, many), (again, alike) = in_turn(first, second), in_turn(first, third)
    print(f"  {len(files) * FILE_ROWS:,} captions: 1,000 names {few:.2f} s ({found[0]:,} matches)")
    print(f"  1,000,000 names {many:.2f} s ({found[1]:,} matches)")
    print(
        f"  1,000,000 names like those in the captions {alike:.2f} s ({found[2]:,} matches), ratio {alike / again:.2f}"
    )
    yield show("1,000,000 names / 1,000 names: read, match and write", many / few, 1.3)


def search(files: Sequence[Path], matcher: NameMatcher) -> pa.Table:
    """Read, match and write the matches of all files, with their URLs, as the stage does."""
    tables = []
    for path in files:
        file = open_caption_file(UPath(path))
        groups = range(len(file.groups))
        found = matcher.scan_batches(read_captions(file, groups), source=path.name).matches
        urls = read_urls(file, groups, found["row"].to_numpy())
        tables.append(found.set_column(found.schema.get_field_index("url"), MATCHES.field("url"), urls))
    found = pa.concat_tables(tables)
    pq.write_table(found, files[0].parent / "found", compression="zstd")
    return found


def more_files(files: Sequence[Path]) -> Iterator[bool]:
    """From 1 to 100 files: time grows linearly, the driver's memory does not grow."""
    names, driver = names_of(NAMES), psutil.Process()
    small = files[0].parent / "small"
    small.mkdir()
    table = pq.read_table(files[0])[: FILE_ROWS // 4]
    for number in range(100):
        pq.write_table(table, small / f"{number:03d}.parquet", compression="snappy")
    hundred = sorted(small.iterdir())
    scan(hundred[:10], names, 2)
    before = driver.memory_info().rss
    tens, all_ = in_turn(partial(scan, hundred[:10], names, 2), partial(scan, hundred, names, 2), turns=3)
    grown = (driver.memory_info().rss - before) / 2**20
    print(f"  10 files {tens:.2f} s, 100 files {all_:.2f} s; the driver grew by {grown:.0f} MiB")
    yield show("time of 100 files / 10 times that of 10", all_ / tens / 10, 1.1)
    yield show("the driver's memory, from 10 to 100 files, MiB", grown, 20)


def start_ray() -> None:
    """A Ray of two cores whose workers find this checkout."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=256 << 20)


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a million captions; bars are for five and more")
    parser.add_argument("--rows", type=int, default=10_000_000)
    parts = ["read", "polars", "pandas", "names", "files"]
    parser.add_argument("--only", nargs="*", choices=parts, default=parts)
    options = parser.parse_args()
    rows = 1_000_000 if options.quick else options.rows
    with tempfile.TemporaryDirectory() as folder:
        files = write_captions(Path(folder), rows if options.quick else max(rows, 20_000_000))
        few = files[: rows // FILE_ROWS]
        length = np.mean([len(text or "") for text in pq.read_table(files[0])["TEXT"].to_pylist()])
        print(f"{rows:,} captions of {length:.0f} characters on average, {psutil.cpu_count()} cores", flush=True)
        start_ray()
        jobs: dict[str, Callable[[], Iterator[bool]]] = {
            "read": lambda: against_read(few),
            "polars": lambda: against_polars(files),
            "pandas": lambda: against_pandas(few, FILE_ROWS // (40 if options.quick else 4)),
            "names": lambda: more_names(few),
            "files": lambda: more_files(few),
        }
        held = [figure for part in options.only for figure in jobs[part]()]
        ray.shutdown()
    sys.exit(not all(held))


if __name__ == "__main__":
    main()
