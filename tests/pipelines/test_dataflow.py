"""The dataflow: every split once, whatever is killed."""

import io
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ray import cloudpickle
from rich.console import Console
from upath import UPath

from idia_core.config import Resources, StageConfig
from idia_core.errors import InvalidInputError, StorageError, WorkerLostError
from idia_core.manifest import Receipt
from pipelines import dataflow
from pipelines.dataflow import RECEIPTS, run_phase
from pipelines.progress import Progress
from pipelines.stage import Phase, Split, SplitWriter, StageContext, Worker

cloudpickle.register_pickle_by_value(sys.modules[__name__])
pytestmark = pytest.mark.usefixtures("local_ray")

SPLITS = 6


def six_splits(_context: StageContext) -> Iterable[Split]:
    """The plan of the phases here."""
    return [{"number": number} for number in range(SPLITS)]


class Squarer:
    """Writes the square of its split's number and notes in a file that it ran, and in which process."""

    def __init__(self, context: StageContext) -> None:
        self.folder = Path(context.folder.path)
        self.log = self.folder.parent / "log"
        self.built = time.monotonic()

    def __call__(self, split: Split, out: SplitWriter) -> None:
        with self.log.open("a") as log:
            log.write(f"{split['number']} {os.getpid()} {self.built} {time.monotonic()}\n")
        out.table("squares", pa.table({"square": [split["number"] ** 2]}))
        out.count(rows_in=1, rows_kept=1)


class DiesOnce(Squarer):
    """Kills its process the first time that it meets split 3."""

    def __call__(self, split: Split, out: SplitWriter) -> None:
        marker = self.folder.parent / "died"
        if split["number"] == 3 and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        super().__call__(split, out)


class DiesAlways(Squarer):
    """Kills its process each time that it meets split 3."""

    def __call__(self, split: Split, out: SplitWriter) -> None:
        if split["number"] == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        super().__call__(split, out)


class Complains(Squarer):
    """Finds split 3 wrong."""

    def __call__(self, split: Split, out: SplitWriter) -> None:
        if split["number"] == 3:
            raise InvalidInputError("three is no good", "split 3", "Leave it out.")
        super().__call__(split, out)


class FindsNoRoom(Squarer):
    """Writes for itself, as Arrow does, where the disk is full."""

    def __call__(self, split: Split, out: SplitWriter) -> None:
        """Try."""
        with pa.OSFile("/dev/full", "wb") as file:
            file.write(b"rows")


class Slow(Squarer):
    """Takes longer than it takes until the cluster's CPUs are counted anew."""

    def __call__(self, split: Split, out: SplitWriter) -> None:
        time.sleep(1.5)
        super().__call__(split, out)


class Waits(Squarer):
    """Says a word late, and goes on until the others have said theirs; splits 2, 3 and 4 are found wrong at once."""

    def __call__(self, split: Split, out: SplitWriter) -> None:
        number = split["number"]
        if number in (2, 3, 4):
            raise InvalidInputError(f"{number} is no good", f"split {number}", "Leave it out.")
        time.sleep(0.1 * (SPLITS - number))  # the first is the slowest to come to its word
        with (self.folder.parent / "words").open("a") as words:
            words.write(f"{number}\n")
        deadline = time.monotonic() + 60
        while len((self.folder.parent / "words").read_text().split()) < SPLITS - 3:
            out.report(0.5, f"split {number} is at work")
            assert time.monotonic() < deadline, "the others never came"
            time.sleep(0.1)
        super().__call__(split, out)


Runner = Callable[..., list[Receipt]]


@pytest.fixture
def run(tmp_path: Path) -> Runner:
    """Run a phase of six splits in `tmp_path`/stage."""

    def run_it(
        worker: type[Worker] = Squarer,
        workers: int | None = None,
        retries: int = 3,
        said: io.StringIO | None = None,
        *,
        controls: bool = False,
    ) -> list[Receipt]:
        context = StageContext("test", StageConfig(), {}, UPath(tmp_path / "stage"))
        resources, phase = Resources(workers=workers, retries=retries), Phase("squares", six_splits, worker, controls)
        return run_phase(phase, context, resources, Progress(Console(file=said or io.StringIO(), width=200)))

    return run_it


def written(receipts: list[Receipt]) -> list[str]:
    """The receipts as they are kept."""
    return [receipt.model_dump_json() for receipt in receipts]


def ran(tmp_path: Path) -> list[int]:
    """The numbers of the splits that ran to their end, in that order."""
    return [int(line.split()[0]) for line in (tmp_path / "log").read_text().splitlines()]


def squares(tmp_path: Path) -> list[int]:
    """What all parts hold, in the order of their names."""
    return [
        value
        for part in sorted((tmp_path / "stage/squares").iterdir())
        for value in pq.read_table(part)["square"].to_pylist()
    ]


def test_every_split_runs_once_and_its_receipt_names_what_it_wrote(run: Runner, tmp_path: Path) -> None:
    """Receipts come in the plan's order with files, sizes, hashes and counts."""
    receipts = run()
    assert [receipt.split for receipt in receipts] == [f"squares-{i:06d}" for i in range(SPLITS)]
    assert squares(tmp_path) == [0, 1, 4, 9, 16, 25]
    assert sorted(ran(tmp_path)) == list(range(SPLITS))
    entry = receipts[2].files[0]
    part = tmp_path / "stage" / entry.path
    assert (entry.path, entry.bytes, entry.rows) == ("squares/part-00002.parquet", part.stat().st_size, 1)
    assert receipts[2].counts == {"rows_in": 1, "rows_kept": 1}


def test_a_second_run_repeats_nothing(run: Runner, tmp_path: Path) -> None:
    """Splits with a receipt and their files are not done again."""
    first = run()
    assert written(run()) == written(first)
    assert len(ran(tmp_path)) == SPLITS


def test_a_split_whose_file_was_cut_short_is_done_again(run: Runner, tmp_path: Path) -> None:
    """A receipt does not count when a file of it is not as large as it says."""
    first = run()
    (tmp_path / "stage/squares/part-00004.parquet").write_bytes(b"cut")
    assert written(run()) == written(first)
    assert ran(tmp_path)[SPLITS:] == [4]
    assert squares(tmp_path) == [0, 1, 4, 9, 16, 25]


def test_a_split_whose_receipt_is_gone_is_done_again(run: Runner, tmp_path: Path) -> None:
    """The receipt is written last, so without one the split is not done."""
    run()
    (tmp_path / "stage" / RECEIPTS / "squares-000001.json").unlink()
    run()
    assert ran(tmp_path)[SPLITS:] == [1]


def test_a_killed_worker_loses_nothing(run: Runner, tmp_path: Path) -> None:
    """A split whose process was killed is started again, and the result is the same."""
    receipts = run(DiesOnce)
    assert squares(tmp_path) == [0, 1, 4, 9, 16, 25]
    assert len(receipts) == SPLITS


def test_a_split_that_always_kills_its_worker_is_named(run: Runner) -> None:
    """After its retries the error says which split of which stage it was."""
    with pytest.raises(WorkerLostError, match=r"stage test, split squares-000003, \{'number': 3\}"):
        run(DiesAlways, retries=1)


def test_an_error_of_a_split_comes_out_as_it_was_raised(run: Runner) -> None:
    """Typed errors cross the processes with their three parts."""
    with pytest.raises(InvalidInputError) as caught:
        run(Complains)
    assert (caught.value.what, caught.value.where) == ("three is no good", "split 3")
    assert str(caught.value) == "three is no good (split 3). Leave it out."


def test_a_disk_that_is_full_is_told_whoever_wrote_to_it(run: Runner) -> None:
    """Also of files that a split keeps for itself while it works."""
    with pytest.raises(StorageError, match=r"No space left on device.*Make room"):
        run(FindsNoRoom)


def test_one_worker_means_one_split_at_a_time_and_one_model_loaded(run: Runner, tmp_path: Path) -> None:
    """With `workers: 1` all splits run one after the other, and a process builds its worker once."""
    run(workers=1)
    assert ran(tmp_path) == list(range(SPLITS))
    lines = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert len({(pid, built) for _, pid, built, _ in lines}) == len({pid for _, pid, _, _ in lines})


def test_a_cluster_that_shrinks_is_given_less(run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More splits are pending than may be, once the CPUs are counted anew: none is started until some have ended."""
    limits = iter((SPLITS - 1, *[1] * 100))
    monkeypatch.setattr(dataflow, "_limit", lambda *_: next(limits))
    run(Slow)
    assert next(limits) == 1
    assert squares(tmp_path) == [0, 1, 4, 9, 16, 25]


def test_splits_that_control_start_in_order_and_one_that_fails_ends_no_other(run: Runner, tmp_path: Path) -> None:
    """All are at work at once, more than there are CPUs, each begun after the one before no longer waits.

    Errors are said as they come; the first of them is raised when all the others are done, and those have receipts.
    """
    said = io.StringIO()
    with pytest.raises(InvalidInputError, match="2 is no good"):
        run(Waits, said=said, controls=True)
    assert (tmp_path / "words").read_text().split() == ["0", "1", "5"]
    assert sorted(ran(tmp_path)) == [0, 1, 5]
    lines = [line for line in said.getvalue().splitlines() if "Error" in line]
    assert lines == [f"InvalidInputError: {n} is no good (split {n}). Leave it out." for n in (2, 3, 4)]
    receipts = (tmp_path / "stage" / RECEIPTS).glob("squares-*.json")
    assert sorted(path.stem for path in receipts) == [f"squares-{n:06d}" for n in (0, 1, 5)]


def test_as_many_splits_control_at_once_as_there_are_workers(run: Runner, tmp_path: Path) -> None:
    """With `workers: 1` one after the other; one whose process is always killed ends none of the others."""
    with pytest.raises(WorkerLostError, match="split squares-000003"):
        run(DiesAlways, workers=1, retries=0, controls=True)
    assert ran(tmp_path) == [0, 1, 2, 4, 5]


def test_the_most_urgent_splits_start_first_and_keep_their_names(tmp_path: Path) -> None:
    """The larger its number, the sooner a split starts; its part is named after its place in the plan."""
    context = StageContext("test", StageConfig(), {}, UPath(tmp_path / "stage"))
    phase = Phase("squares", six_splits, Squarer, controls=True, urgency=lambda _, split: float(split["number"]))
    receipts = run_phase(phase, context, Resources(workers=1), Progress(Console(file=io.StringIO())))
    assert ran(tmp_path) == [5, 4, 3, 2, 1, 0]
    assert [receipt.split for receipt in receipts] == [f"squares-{i:06d}" for i in range(SPLITS)]
    assert squares(tmp_path) == [0, 1, 4, 9, 16, 25]
