"""A phase of splits that sleep, run on a cluster: `python -m tests.sleeping ADDRESS FOLDER --splits 6`."""

import argparse
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import ray
from upath import UPath

from idia_core.config import Resources, StageConfig
from idia_core.errors import IdiaError
from jobs.local_ray import ray_when_needed
from pipelines.dataflow import run_phase
from pipelines.progress import Progress
from pipelines.stage import Phase, Split, SplitWriter, StageContext


class Sleeps(StageConfig):
    """How many splits there are, and how long they sleep."""

    splits: int
    seconds: float
    last: float
    """How long the last one does when it is begun for the first time."""


def splits(context: StageContext) -> Iterable[Split]:
    """The plan."""
    return [{"number": number} for number in range(context.config.splits)]


class Sleeper:
    """Notes who begins a split, and where, and from when to when it slept."""

    def __init__(self, context: StageContext) -> None:
        self._folder, self._config = Path(context.folder.path), context.config

    def __call__(self, split: Split, out: SplitWriter) -> None:
        number, began = split["number"], time.time()
        begun = self._folder / f"{number}.begun"
        long = number == self._config.splits - 1 and not begun.exists()
        with begun.open("a") as file:
            file.write(f"{os.getpid()} {ray.get_runtime_context().get_node_id()}\n")
        time.sleep(self._config.last if long else self._config.seconds)
        (self._folder / f"{number}.times").write_text(f"{began} {time.time()}")
        out.write(f"table/{number}", b"done")
        out.count(rows_in=1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--splits", type=int)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--last", type=float)
    parser.add_argument("--retries", type=int, default=3)
    parser.add_argument("--straggler-seconds", type=float, default=60)
    given = parser.parse_args()
    given.folder.mkdir(exist_ok=True)
    config = Sleeps(splits=given.splits, seconds=given.seconds, last=given.last or given.seconds)
    context = StageContext("test", config, {}, UPath(given.folder))
    resources = Resources(retries=given.retries, straggler_seconds=given.straggler_seconds)
    try:
        with ray_when_needed(given.address) as start:
            start(0)
            run_phase(Phase("sleep", splits, Sleeper), context, resources, Progress())
    except IdiaError as error:
        sys.exit(f"{type(error).__name__}: {error}")
