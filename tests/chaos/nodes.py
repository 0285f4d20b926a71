"""A Ray cluster of several nodes on this machine, to do to them what happens to machines."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
from ray._private.ray_constants import PROCESS_TYPE_RAYLET
from ray._raylet import GcsClient
from ray.cluster_utils import Cluster

from jobs.reaper import processes_of
from tests.processes import still_running

WORKERS = 2
"""Nodes of one CPU each; the head computes nothing."""
SYSTEM = {"health_check_period_ms": 500, "health_check_timeout_ms": 2000, "health_check_failure_threshold": 2}
"""A node that does not answer for some five seconds is dead."""
AT_WORK = ("ray::_run_split", "ray::_run_torchrun")
ENVIRONMENT = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
STARVED = {"RAY_memory_usage_threshold": "0.01", "RAY_memory_monitor_refresh_ms": "100"}
"""Of a node that ends its workers for want of memory, whatever they use."""
SECONDS_TO_END = 120
"""Ray's agents look for their raylet now and then, and end without it."""
OOM_WORDS = "OOM kill reason"
DRAIN_PREEMPTION = 2
"""Ray's DRAIN_NODE_REASON_PREEMPTION."""


class Nodes:
    """The cluster that there is now; after `restart` it is another one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._cluster = self._start()

    def _start(self) -> Cluster:
        head = {"num_cpus": 0, "include_dashboard": False, "_system_config": SYSTEM}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        for _ in range(WORKERS):
            cluster.add_node(num_cpus=1)
        return cluster

    @property
    def address(self) -> str:
        """Where drivers connect to."""
        return str(self._cluster.address)

    def workers(self) -> list[Any]:
        """The nodes that compute, the oldest first."""
        return sorted(self._cluster.worker_nodes, key=lambda node: node.unique_id)

    def add(self, environment: dict[str, str] | None = None) -> Any:
        """A node more."""
        before = dict(os.environ)
        os.environ.update(environment or {})
        try:
            return self._cluster.add_node(num_cpus=1)
        finally:
            for name in environment or {}:
                os.environ.pop(name)
            os.environ.update(before)

    def kill(self, node: Any) -> None:
        """SIGKILL for all of a node's own processes."""
        self._cluster.remove_node(node, allow_graceful=False)

    def drain(self, node: Any, seconds: float) -> bool:
        """Tell the cluster that the node will be taken away in so many seconds."""
        client = GcsClient(address=self.address)
        deadline = int((time.time() + seconds) * 1000)
        accepted, _ = client.drain_node(node.node_id, DRAIN_PREEMPTION, "a test takes it back", deadline)
        return bool(accepted)

    def restart(self) -> None:
        """SIGKILL for the head, and then for the nodes that are of no use without it; then there is another cluster."""
        self._cluster.remove_node(self._cluster.head_node, allow_graceful=False)
        time.sleep(1)
        self._end_workers()
        self._cluster = self._start()

    def _end_workers(self) -> None:
        for node in self._cluster.worker_nodes:
            node.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)

    def at_work(self) -> list[tuple[Any, psutil.Process]]:
        """The processes that do something for a study, with the node of each; trainings' ranks among them."""
        found = []
        for node in [self._cluster.head_node, *self.workers()]:
            with suppress(psutil.Error):
                for process in raylet(node).children(recursive=True):
                    with suppress(psutil.Error):
                        words = process.cmdline()
                        if words[:1] and (words[0] in AT_WORK or "cluster.training_entry" in words[:5]):
                            found.append((node, process))
        return found

    def killed_for_memory(self) -> int:
        """How often a node has ended a worker for want of memory."""
        logs = self.folder.rglob("raylet*")
        return sum(log.read_text(errors="replace").count(OOM_WORDS) for log in logs if log.is_file())

    def close(self) -> list[psutil.Process]:
        """Take it down; the processes of it that have not ended some seconds later."""
        self._cluster.remove_node(self._cluster.head_node, allow_graceful=False)
        self._end_workers()
        return still_running(processes_of(self.folder), SECONDS_TO_END)


def raylet(node: Any) -> psutil.Process:
    """The process that is the node."""
    return psutil.Process(node.all_processes[PROCESS_TYPE_RAYLET][0].process.pid)


@contextmanager
def nodes() -> Iterator[Nodes]:
    """A cluster for as long as the block lasts."""
    folder = Path(tempfile.mkdtemp(prefix="ic-"))  # a short one: sockets lie in it
    before = dict(os.environ)
    os.environ.update(ENVIRONMENT | {"RAY_TMPDIR": str(folder)})
    try:
        cluster = Nodes(folder)
        yield cluster
        left = cluster.close()
        assert not left, f"still there without their cluster: {left}"
    finally:
        os.environ.clear()
        os.environ.update(before)
        shutil.rmtree(folder, ignore_errors=True)
