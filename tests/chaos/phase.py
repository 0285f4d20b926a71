"""A phase of splits that sleep, run on a cluster: `python -m tests.chaos.phase ADDRESS FOLDER SECONDS RETRIES`."""

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

SPLITS = 6
STRAGGLER_SECONDS = 2


def splits(_context: StageContext) -> Iterable[Split]:
    """The plan."""
    return [{"number": number} for number in range(SPLITS)]


class Sleeper:
    """Notes who begins a split, and where; the last one sleeps as long as it is told, unless it was begun before."""

    def __init__(self, context: StageContext) -> None:
        self._folder = Path(context.folder.path)

    def __call__(self, split: Split, out: SplitWriter) -> None:
        number = split["number"]
        begun = self._folder / f"{number}.begun"
        again = begun.exists()
        with begun.open("a") as file:
            file.write(f"{os.getpid()} {ray.get_runtime_context().get_node_id()}\n")
        time.sleep(0.2 if again or number < SPLITS - 1 else float((self._folder / "seconds").read_text()))
        out.write(f"table/{number}", b"done")
        out.count(rows_in=1)


if __name__ == "__main__":
    address, place, seconds, retries = sys.argv[1:]
    Path(place).mkdir(exist_ok=True)
    (Path(place) / "seconds").write_text(seconds)
    context = StageContext("test", StageConfig(), {}, UPath(place))
    resources = Resources(retries=int(retries), straggler_seconds=STRAGGLER_SECONDS)
    try:
        with ray_when_needed(address) as start:
            start(0)
            run_phase(Phase("sleep", splits, Sleeper), context, resources, Progress())
    except IdiaError as error:
        sys.exit(f"{type(error).__name__}: {error}")
