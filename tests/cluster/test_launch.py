"""Runs on a Ray cluster of two nodes: what they compute, how they end, and that nothing of them stays."""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import ray
from ray.cluster_utils import Cluster

from cluster.launch import Attempt, Command, Ended, PlacementError, place, start, waiting_words
from cluster.placement import Shape
from tests.local_ray import stopped
from tests.processes import still_running

TWO_NODES = Shape(2, 2, cpus=1, gpus=0, strategy="SPREAD")
ONE_NODE = Shape(1, 2, cpus=1, gpus=0)
MODULE = "tests.cluster.launch_ranks"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head without CPUs and two nodes with two; its files are in a folder of its own, as is its address."""
    folder = tempfile.mkdtemp(prefix="idia-ray-")
    settings = {"include_dashboard": False, "object_store_memory": 80 << 20}
    # A killed node counts as dead after a second or two; one that is only slow has as long as ever.
    health = {"health_check_period_ms": 500, "health_check_failure_threshold": 3}
    with stopped(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", folder)
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "_system_config": health, **settings})
        for _ in range(2):
            made.add_node(num_cpus=2, **settings)
        ray.init(address=made.address, log_to_driver=False)
        yield made
        ray.shutdown()
        made.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


def command(work: Path, *flags: str, attempt: int = 0) -> Command:
    """What starts the tiny ranks."""
    return Command(Path("model.json"), str(work), flags, work, "cpu", 1, attempt, module=MODULE)


def processes_of(work: Path) -> list[psutil.Process]:
    """The torchruns and ranks that work in a folder."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            words = process.cmdline()
            if MODULE in words and str(work) in words:
                found.append(process)
    return found


def wait_until(happened: Callable[[], bool], seconds: float = 60) -> None:
    """Fail when it has not happened by then."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def end_of(attempt: Attempt, seconds: float = 60) -> Ended:
    """How the attempt ends."""
    wait_until(lambda: attempt.poll() is not None, seconds)
    ended = attempt.poll()
    assert ended is not None
    return ended


def said(work: Path, node: int, attempt: int = 0) -> str:
    """The log of a node's torchrun."""
    log = work / f"torchrun-{attempt}-{node}.log"
    return log.read_text(encoding="utf-8") if log.exists() else ""


def silent(words: str) -> None:
    """Told what is waited for, says nothing."""


@pytest.mark.parametrize(
    ("shape", "nodes", "words"),
    [
        (Shape(1, 8, 6, 1), [{"CPU": 64.0, "GPU": 4.0}], "8 GPUs on 1 node; the cluster has 4 on 1 node"),
        (Shape(1, 8, 6, 1), [{"CPU": 64.0, "GPU": 4.0}] * 2, "8 GPUs on 1 node; the cluster has 8 on 2 nodes"),
        (Shape(1, 1, 6, 1), [{"CPU": 64.0}], "1 GPU on 1 node; the cluster has none"),
        (TWO_NODES, [{"CPU": 4.0}, {}], "4 CPUs on 2 nodes; the cluster has 4 on 1 node, which are in use"),
        (Shape(1, 2, 6, 1), [{"CPU": 4.0, "GPU": 2.0}], "12 CPUs on 1 node; the cluster has 4 on 1 node"),
    ],
)
def test_a_waiting_run_says_what_it_lacks(shape: Shape, nodes: list[dict[str, float]], words: str) -> None:
    """What is wanted and what there is are told in one line, of what is short if anything is."""
    assert waiting_words(shape, nodes) == f"waits for {words}"


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_ranks_on_two_nodes_compute_together(tmp_path: Path) -> None:
    """Four ranks add 1 + 2 + 3 + 4, and the attempt ends well."""
    with place("sum", TWO_NODES, silent, 5) as placed, start(placed, command(tmp_path)) as attempt:
        assert end_of(attempt) == Ended(ok=True, reason="")
    assert [said(tmp_path, node).count("sum 10") for node in (0, 1)] == [2, 2]


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_killed_rank_ends_the_attempt_on_all_nodes(tmp_path: Path) -> None:
    """SIGKILL to the last rank is told as the reason within ten seconds, and the other nodes' processes are gone."""
    with place("rank", TWO_NODES, silent, 5) as placed, start(placed, command(tmp_path, "--hang")) as attempt:
        wait_until(lambda: "all hang" in said(tmp_path, 0))
        processes = processes_of(tmp_path)
        assert len(processes) == 6
        next(one for one in processes if one.environ().get("RANK") == "3").kill()
        ended = end_of(attempt, seconds=10)
        assert ended == Ended(ok=False, reason="torchrun of node 1 ended with 1: rank 3 was killed by SIGKILL")
        assert not still_running(processes, seconds=2)


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_leaving_an_attempt_ends_its_processes(tmp_path: Path) -> None:
    """They are gone within two seconds, and the room they had is free again."""
    with place("left", ONE_NODE, silent, 5) as placed:
        with start(placed, command(tmp_path, "--hang")):
            wait_until(lambda: len(processes_of(tmp_path)) == 3)
            processes = processes_of(tmp_path)
        assert not still_running(processes, seconds=2)
    with place("right", TWO_NODES, silent, 5):
        pass


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_killed_controller_leaves_no_process_and_no_room_taken(tmp_path: Path) -> None:
    """Its torchrun ends with it, and the next controller of the run takes over the placement group's name."""

    @ray.remote(num_cpus=0, max_retries=0)
    def control() -> None:
        (tmp_path / "controller").write_text(str(os.getpid()), encoding="utf-8")
        with place("run", ONE_NODE, print, 5) as placed, start(placed, command(tmp_path, "--hang")) as attempt:
            while attempt.poll() is None:
                time.sleep(0.1)

    controlled = control.remote()
    wait_until(lambda: len(processes_of(tmp_path)) == 3)
    processes = processes_of(tmp_path)
    psutil.Process(int((tmp_path / "controller").read_text(encoding="utf-8"))).kill()
    with pytest.raises(ray.exceptions.WorkerCrashedError):
        ray.get(controlled)
    assert not still_running(processes, seconds=5)
    with place("run", TWO_NODES, silent, 5):
        pass


@pytest.mark.slow
def test_a_lost_node_ends_the_attempt_and_is_not_waited_for_for_ever(cluster: Cluster, tmp_path: Path) -> None:
    """The loss is told within ten seconds, no process stays, and the run gets what is left if it takes that."""
    with place("node", TWO_NODES, silent, 5) as placed, start(placed, command(tmp_path, "--hang")) as attempt:
        wait_until(lambda: "all hang" in said(tmp_path, 0))
        processes = processes_of(tmp_path)
        cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
        ended = end_of(attempt, seconds=10)
        assert not ended.ok
        assert "was lost" in ended.reason
        assert not still_running(processes, seconds=2)
    heard: list[str] = []
    lack = "waits for 4 CPUs on 2 nodes; the cluster has 2 on 1 node"
    with pytest.raises(PlacementError, match=f"{lack}, for 1 sec"), place("node", TWO_NODES, heard.append, 1):
        pass
    assert heard[-1] == lack
    with place("node", TWO_NODES, heard.append, 1, smaller=True) as placed:
        assert placed.shape == Shape(1, 2, cpus=1, gpus=0, strategy="SPREAD")
