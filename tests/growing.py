"""A phase of splits that only sleep, run on a cluster: `python -m tests.growing ADDRESS FOLDER`."""

import sys
import time
from collections.abc import Iterable
from pathlib import Path

import ray
from upath import UPath

from idia_core.config import Resources, StageConfig
from pipelines.dataflow import run_phase
from pipelines.progress import Progress
from pipelines.stage import Phase, Split, SplitWriter, StageContext

SPLITS, SECONDS = 40, 1.0


def splits(_context: StageContext) -> Iterable[Split]:
    """The plan."""
    return [{"number": number} for number in range(SPLITS)]


class Sleeper:
    """Notes when each split began and ended."""

    def __init__(self, context: StageContext) -> None:
        self._folder = Path(context.folder.path)

    def __call__(self, split: Split, out: SplitWriter) -> None:
        began = time.time()
        time.sleep(SECONDS)
        (self._folder / f"{split['number']}.times").write_text(f"{began} {time.time()}")
        out.count(rows_in=1)


if __name__ == "__main__":
    address, place = sys.argv[1:]
    ray.init(address=address, log_to_driver=False)
    run_phase(
        Phase("sleep", splits, Sleeper),
        StageContext("test", StageConfig(), {}, UPath(place)),
        Resources(),
        Progress(),
    )
