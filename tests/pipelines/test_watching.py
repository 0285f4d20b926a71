"""What is told of splits, to the log and to Prometheus."""

import io
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from ray import cloudpickle
from rich.console import Console
from upath import UPath

from idia_core.config import Resources, StageConfig
from idia_core.errors import InvalidInputError, WorkerLostError
from pipelines.dataflow import run_phase
from pipelines.progress import Progress
from pipelines.stage import Phase, Split, SplitWriter, StageContext
from tests.servers import ROOT, free_port

cloudpickle.register_pickle_by_value(sys.modules[__name__])


def plan(_context: StageContext) -> Iterable[Split]:
    """Three splits."""
    return [{"number": number} for number in range(3)]


class Counts:
    """Counts two rows a split; dies once, always, or complains, as the name of the stage's folder says."""

    def __init__(self, context: StageContext) -> None:
        self._folder = Path(context.folder.path)

    def __call__(self, split: Split, out: SplitWriter) -> None:
        if split["number"] == 1:
            marker = self._folder.parent / "died"
            if self._folder.name == "dies" or (self._folder.name == "once" and not marker.exists()):
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if self._folder.name == "fails":
                raise InvalidInputError("one is no good", "https://ann:s3cret@h/1", "Leave it out.")
        out.count(rows_in=2, rows_kept=1, dead_link=1)


def run(stage: Path, retries: int = 3) -> None:
    """Run the phase in that folder."""
    context = StageContext(stage.name, StageConfig(), {}, UPath(stage))
    resources = Resources(workers=1, retries=retries)
    run_phase(Phase("links", plan, Counts), context, resources, Progress(Console(file=io.StringIO())))


def told(out: Path, stage: str) -> list[dict[str, Any]]:
    """The lines of a stage's log."""
    return [json.loads(line) for line in (out / f"logs/{stage}.jsonl").read_text().splitlines()]


@pytest.mark.usefixtures("local_ray")
def test_every_split_is_told_of_with_where_it_ran_and_how_long(tmp_path: Path) -> None:
    """Started and ended, between the beginning and the end of the phase."""
    run(tmp_path / "scan")
    found = told(tmp_path, "scan")
    events = [(line["event"], line.get("split")) for line in found]
    splits = [f"links-{number:06d}" for number in range(3)]
    assert events[0] == ("phase started", None)
    assert events[-1] == ("phase ended", None)
    assert sorted(events[1:-1]) == sorted((event, split) for split in splits for event in ("started", "ended"))
    assert {(line["stage"], line["phase"], line["level"]) for line in found} == {("scan", "links", "info")}
    ended = [line for line in found if line["event"] == "ended"]
    assert all(line["rows"] == 2 and 0 <= line["seconds"] < 60 and line["pid"] != os.getpid() for line in ended)
    assert all(len(line["node"]) == 56 and line["host"] for line in ended)


@pytest.mark.usefixtures("local_ray")
def test_a_split_that_fails_is_told_of_without_secrets(tmp_path: Path) -> None:
    """Its error, and that the phase ended before all was done."""
    with pytest.raises(InvalidInputError):
        run(tmp_path / "fails")
    found = told(tmp_path, "fails")
    (failed,) = [line for line in found if line["event"] == "failed"]
    assert (failed["split"], failed["level"], failed["error"]) == ("links-000001", "error", "InvalidInputError")
    assert failed["why"] == "one is no good (https://***@h/1). Leave it out."
    assert (found[-1]["event"], found[-1]["level"], found[-1]["left"]) == ("phase ended", "error", 2)


@pytest.mark.usefixtures("local_ray")
def test_lost_workers_are_told_of(tmp_path: Path) -> None:
    """One that was lost and whose split another did, and one that was lost for good."""
    run(tmp_path / "once")
    (again,) = [line for line in told(tmp_path, "once") if line["event"] == "retried"]
    assert (again["split"], again["attempts"], again["why"]) == ("links-000001", 1, "worker lost")
    with pytest.raises(WorkerLostError):
        run(tmp_path / "dies", retries=0)
    (lost,) = [line for line in told(tmp_path, "dies") if line["event"] == "lost"]
    assert (lost["split"], lost["error"]) == ("links-000001", "WorkerLostError")


SCRAPED = """
import sys, time
from pathlib import Path
import ray
from tests.pipelines.test_watching import run
ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False, _metrics_export_port=int(sys.argv[1]))
run(Path(sys.argv[2]) / "scan")
try:
    run(Path(sys.argv[2]) / "fails")
except Exception as error:
    print(type(error).__name__, flush=True)
time.sleep(300)
"""


@pytest.mark.slow
def test_prometheus_can_read_how_far_a_stage_is(tmp_path: Path) -> None:
    """Ray's own endpoint has the splits by outcome, the rows by reason, and the seconds a split."""
    port = free_port()
    command = [sys.executable, "-c", SCRAPED, str(port), str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as driver:
        try:
            assert driver.stdout
            assert driver.stdout.readline() == "InvalidInputError\n"
            wanted = {
                'ray_idia_splits_total{outcome="done",phase="links",stage="scan"}': 3,
                'ray_idia_splits_total{outcome="failed",phase="links",stage="fails"}': 1,
                'ray_idia_rows_total{phase="links",reason="rows_in",stage="scan"}': 6,
                'ray_idia_rows_total{phase="links",reason="dead_link",stage="scan"}': 3,
                'ray_idia_split_seconds_count{phase="links",stage="scan"}': 3,
                'ray_idia_splits_left{phase="links",stage="scan"}': 0,
                'ray_idia_splits_left{phase="links",stage="fails"}': 2,
            }
            found: dict[str, float] = {}
            end = time.monotonic() + 120
            while time.monotonic() < end and found != wanted:
                time.sleep(1)
                found = {name: value for name, value in scraped(port).items() if name in wanted}
            assert found == wanted
        finally:
            driver.kill()


def scraped(port: int) -> dict[str, float]:
    """Our figures at an endpoint, without Ray's own labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    found = dict[str, float]()
    for line in lines:
        if line.startswith("ray_idia_"):
            series, _, value = line.rpartition(" ")
            name, _, labels = series.rstrip("}").partition("{")
            ours = sorted(
                part for part in labels.split(",") if part.split("=")[0] in ("stage", "phase", "outcome", "reason")
            )
            found[f"{name}{{{','.join(ours)}}}"] = float(value)
    return found
