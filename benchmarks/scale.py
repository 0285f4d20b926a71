"""How well work spreads over nodes, and what handing out a split costs.

    python benchmarks/scale.py [--quick]

First 100,000 splits that do nothing but write a file of four bytes, on as many workers as there are cores: what is left
is the cost of handing out a split, writing its receipt and noting it, of all processes together. The driver's memory,
the object store, and finding everything done after an interruption are looked at too. Then splits that only sleep, so
that a few cores can stand for many, on clusters of 1, 2 and 4 logical nodes with 16 worker processes each: `efficiency`
is the time that they sleep over the time that the workers have, once their processes have started. Splits take about
3 s, some more and some less, as real ones: were all alike, all workers would ask for the next one at the same moment,
and these few cores would have to answer for all nodes at once. A phase lasts some minutes; the less it does, the more
its end weighs, where workers that find no split any more wait for the last ones. Each figure is a line with its bar,
and the exit code is 1 when one falls short. `--quick` takes fewer splits and workers.
"""

import argparse
import io
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Self

import psutil
import ray
from ray import cloudpickle
from ray.cluster_utils import Cluster
from rich.console import Console
from upath import UPath

from idia_core.config import Resources, StageConfig
from idia_core.manifest import Manifest, Provenance, Receipt, read_manifest, write_manifest
from pipelines.dataflow import run_phase
from pipelines.progress import Progress
from pipelines.stage import Phase, Split, SplitWriter, StageContext

cloudpickle.register_pickle_by_value(sys.modules[__name__])
NODES = (1, 2, 4)
WORKERS_A_NODE = 16
SECONDS, ROUNDS = 3, 50
SPREAD = 0.3
"""By which share a split may take more or less than the mean."""
EFFICIENCY_BAR, OVERHEAD_BAR_MS, MEMORY_BAR_MIB = 95, 5, 1024
OBJECT_STORE_BYTES = 128 << 20
STORE_BAR_MIB = 100
LOOK_SECONDS = 0.5


class Sleeps(StageConfig):
    """How many splits there are, and how long they take in the mean."""

    splits: int
    seconds: float

    def lasts(self, number: int) -> float:
        """How long one of them takes."""
        return self.seconds * Random(number).uniform(1 - SPREAD, 1 + SPREAD)


class Sleeper:
    """Sleeps, and writes a small file as every split does."""

    def __init__(self, context: StageContext) -> None:
        self._work = context.config

    def __call__(self, split: Split, out: SplitWriter) -> None:
        """Do it."""
        time.sleep(self._work.lasts(out.part))
        out.write(f"table/{out.part // 1000:03d}/{out.part:06d}", b"done")
        out.count(rows_in=1, rows_kept=1)


def splits(context: StageContext) -> Iterable[Split]:
    """The plan."""
    return [{"number": number, "path": f"part-{number:05d}.parquet"} for number in range(context.config.splits)]


def show(what: str, value: float, unit: str, bar: float, *, at_least: bool = False) -> bool:
    """Print a figure and whether it keeps to its bar."""
    held = value >= bar if at_least else value <= bar
    sign = ">=" if at_least else "<="
    print(f"{what:<56} {value:10.2f} {unit:<3} (bar: {sign} {bar:g})  {'held' if held else 'FELL SHORT'}", flush=True)
    return held


@contextmanager
def cluster(nodes: int, cpus: int) -> Iterator[Path]:
    """So many logical nodes, and a folder that goes with them."""
    folder = Path(tempfile.mkdtemp(prefix="idia-"))  # a short one: sockets lie in it
    os.environ["RAY_TMPDIR"] = str(folder)
    node = {"num_cpus": cpus, "object_store_memory": OBJECT_STORE_BYTES}
    started = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
    try:
        for _ in range(nodes - 1):
            started.add_node(**node)
        ray.init(address=started.address, log_to_driver=False, logging_level="ERROR")
        yield folder / "out"
    finally:
        ray.shutdown()
        started.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def run(folder: Path, name: str, config: Sleeps, files: int = 0) -> tuple[float, list[Receipt], StageContext]:
    """Do all splits of a phase of a stage with so many files; the seconds that it took, and what came of it."""
    context = StageContext(name, config, {}, UPath(folder / name), kept=tuple(UPath(f"/in/{n}") for n in range(files)))
    began = time.monotonic()
    receipts = run_phase(Phase(name, splits, Sleeper), context, Resources(), Progress(Console(file=io.StringIO())))
    return time.monotonic() - began, receipts, context


def efficiency(nodes: int, workers: int, rounds: int) -> float:
    """The share of the workers' time that is used, in percent."""
    work = Sleeps(splits=workers * rounds, seconds=SECONDS)
    slept = sum(map(work.lasts, range(work.splits)))
    with cluster(nodes, workers // nodes) as folder:
        start, *_ = run(folder, "start", Sleeps(splits=workers, seconds=5))
        run(folder, "warm", Sleeps(splits=workers, seconds=1))
        took, *_ = run(folder, "sleep", work)
    print(f"  {nodes} nodes, {workers} workers: {start - 5:.1f} s until all have started, not counted;", end=" ")
    print(f"{work.splits:,} splits of {slept / work.splits:.2f} s in {took:.1f} s")
    return 100 * slept / (workers * took)


class Watch:
    """The most memory that this process had, and the most that lay in the object store, in MiB."""

    def __init__(self) -> None:
        self.memory = self.store = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        process = psutil.Process()
        while not self._ended.wait(LOOK_SECONDS):
            self.memory = max(self.memory, process.memory_info().rss / 2**20)
            free = ray.available_resources().get("object_store_memory", OBJECT_STORE_BYTES)
            self.store = max(self.store, (OBJECT_STORE_BYTES - free) / 2**20)


def overhead(number: int) -> Iterator[bool]:
    """What so many splits cost that do nothing, when they are done and when they are found done."""
    cores = os.cpu_count() or 1
    with cluster(1, cores) as folder:
        run(folder, "warm", Sleeps(splits=cores, seconds=1))
        with Watch() as watch:
            nothing = Sleeps(splits=number, seconds=0)
            took, receipts, context = run(folder, "empty", nothing, number)
            lines = seal(context, receipts)
            del receipts  # whoever finds them done is another driver
            again, receipts, _ = run(folder, "empty", nothing, number)
        yield show(f"{number:,} splits, found done again", len(receipts), "", number, at_least=True)
        yield show(f"{number:,} splits, cost of each", 1000 * took / number, "ms", OVERHEAD_BAR_MS)
        yield show(f"{number:,} splits, the driver's memory", watch.memory, "MiB", MEMORY_BAR_MIB)
        yield show(f"{number:,} splits, the object store", watch.store, "MiB", STORE_BAR_MIB)
    print(f"  finding all of them done took {again:.1f} s ({1000 * again / number:.2f} ms each)")
    print(f"  the manifest has {lines}")


def seal(context: StageContext, receipts: list[Receipt]) -> str:
    """Write and read the manifest, as the end of a stage and `idia status` do."""
    made = Provenance(argv=(), commit=None, dirty=None, python="", versions={}, started="", seconds=0)
    manifest = Manifest(
        stage=context.stage, version=1, fingerprint="", config={}, resources={}, inputs={}, counts={},
        receipts=tuple(receipts), provenance=made,
    )  # fmt: skip
    began = time.monotonic()
    write_manifest(context.folder, manifest)
    written = time.monotonic()
    read_manifest(context.folder)
    size = (context.folder / "manifest.json").stat().st_size / 1e6
    return f"{size:.1f} MB, written in {written - began:.1f} s, read in {time.monotonic() - written:.1f} s"


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a minute: fewer splits, nodes and workers")
    quick = parser.parse_args().quick
    held = list(overhead(3_000 if quick else 100_000))
    for nodes in NODES[1:2] if quick else NODES:
        workers = nodes * (WORKERS_A_NODE // 4 if quick else WORKERS_A_NODE)
        found = efficiency(nodes, workers, 4 if quick else ROUNDS)
        held.append(show(f"{nodes} nodes, {workers} workers, efficiency", found, "%", EFFICIENCY_BAR, at_least=True))
    sys.exit(0 if all(held) else 1)


if __name__ == "__main__":
    main()
