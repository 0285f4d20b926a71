"""What befalls a phase on a cluster of several nodes: it goes on, or ends soon with a line that says why."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.chaos.nodes import STARVED, Nodes, nodes, raylet
from tests.kills import IDIA, ROOT
from tests.processes import still_running
from tests.servers import free_port

SPLITS = 6
LONG = 600.0
"""Seconds that nobody waits for."""
SOON = 120.0
"""Seconds within which something happens on a machine that is busy."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    """A head and two nodes."""
    with nodes() as running:
        yield running


class Driver:
    """A phase whose last split sleeps, as a process."""

    def __init__(self, cluster: Nodes, out: Path, seconds: float, retries: int = 3) -> None:
        words = [
            "--splits",
            SPLITS,
            "--seconds",
            0.2,
            "--last",
            seconds,
            "--retries",
            retries,
            "--straggler-seconds",
            2,
        ]
        command = [sys.executable, "-m", "tests.sleeping", cluster.address, str(out), *map(str, words)]
        environment = os.environ | {"RAY_task_oom_retries": "2"}
        self.out = out
        self.process = subprocess.Popen(
            command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment
        )

    def begun(self, number: int) -> list[list[str]]:
        """Who has begun a split: process and node of each."""
        file = self.out / f"{number}.begun"
        return [line.split() for line in file.read_text().splitlines()] if file.exists() else []

    def wait_for(self, number: int) -> psutil.Process:
        """Wait until the split has begun and all before it are done; the process that does it."""
        deadline = time.monotonic() + SOON
        while not self.begun(number) or len(list(self.out.glob("_receipts/*.json"))) < number:
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return psutil.Process(int(self.begun(number)[0][0]))

    def said(self) -> str:
        """What it has said when it has ended, which it does soon."""
        return self.process.communicate(timeout=SOON)[1]


def node_of(cluster: Nodes, driver: Driver) -> object:
    """The node that does the last split."""
    _, name = driver.begun(SPLITS - 1)[0]
    return next(node for node in cluster.workers() if node.node_id == name)


def is_done(driver: Driver) -> bool:
    """Every split has its file and its receipt."""
    return len(list(driver.out.glob("_receipts/*.json"))) == len(list(driver.out.glob("table/*"))) == SPLITS


@pytest.mark.slow
def test_a_split_that_hangs_is_done_on_another_node(cluster: Nodes, tmp_path: Path) -> None:
    """Its worker lives, and stands still: another node does the split, and the worker ends when it goes on."""
    driver = Driver(cluster, tmp_path / "out", seconds=LONG)
    worker = driver.wait_for(SPLITS - 1)
    worker.suspend()
    said = driver.said()
    with suppress(psutil.NoSuchProcess):  # its node may have ended it
        worker.resume()
    assert driver.process.returncode == 0, said
    assert is_done(driver)
    begun = driver.begun(SPLITS - 1)
    assert len(begun) == 2
    assert begun[0][1] != begun[1][1]
    assert not still_running([worker], 20)


@pytest.mark.slow
def test_a_node_that_is_cut_off_or_taken_back_loses_nothing(cluster: Nodes, tmp_path: Path) -> None:
    """One does not answer any more, though its worker lives; of the next it is said beforehand that it will go."""
    cut = Driver(cluster, tmp_path / "cut", seconds=LONG)
    cut.wait_for(SPLITS - 1)
    node = node_of(cluster, cut)
    raylet(node).suspend()
    assert cut.said() is not None
    assert cut.process.returncode == 0
    assert is_done(cut)
    raylet(node).resume()
    cluster.kill(node)
    cluster.add()
    preempted = Driver(cluster, tmp_path / "preempted", seconds=LONG, retries=1)
    preempted.wait_for(SPLITS - 1)
    node = node_of(cluster, preempted)
    assert cluster.drain(node, 2)
    time.sleep(2)
    cluster.kill(node)
    said = preempted.said()
    assert preempted.process.returncode == 0, said
    assert is_done(preempted)
    cluster.add()


@pytest.mark.slow
def test_a_split_for_which_no_machine_has_the_memory_ends_the_run(cluster: Nodes, tmp_path: Path) -> None:
    """Ray alone would start it again for ever; the error says what to do."""
    for node in cluster.workers():
        cluster.kill(node)
    cluster.add(STARVED)
    driver = Driver(cluster, tmp_path / "out", seconds=0.2)
    said = driver.said()
    for node in cluster.workers():
        cluster.kill(node)
    cluster.add()
    cluster.add()
    assert driver.process.returncode == 1
    assert "WorkerLostError: its machine ran out of memory each time" in said
    assert "split sleep-00000" in said
    assert "cpus: N" in said


@pytest.mark.slow
def test_without_its_head_a_run_ends_soon_and_says_so(cluster: Nodes, tmp_path: Path) -> None:
    """What is done stays, and the next run on a new cluster does the rest."""
    driver = Driver(cluster, tmp_path / "out", seconds=LONG)
    driver.wait_for(SPLITS - 1)
    cluster.restart()
    said = driver.said()
    assert driver.process.returncode == 1
    assert "ClusterError: the head of the Ray cluster is gone" in said
    again = Driver(cluster, tmp_path / "out", seconds=0.2)
    said = again.said()
    assert again.process.returncode == 0, said
    assert is_done(again)
    assert [len(again.begun(number)) for number in range(SPLITS)] == [1] * (SPLITS - 1) + [2]


def test_where_no_cluster_is_the_run_ends_at_once(tmp_path: Path) -> None:
    """Ray alone would try for minutes."""
    address = f"127.0.0.1:{free_port()}"
    words = ["run", "demo.yaml", "--set", f"out={tmp_path}/out", "--address", address]
    done = subprocess.run([*IDIA, *words], cwd=ROOT, capture_output=True, text=True, check=False, timeout=SOON)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("ClusterError: no Ray cluster can be reached")
    assert address in done.stderr
