"""A training run on the nodes of a Ray cluster: a placement group, and a torchrun in every bundle of it."""

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.placement_group import PlacementGroup, get_placement_group, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from cluster.placement import Shape, fits, largest_fitting
from cluster.torchrun import (
    ENTRY_MODULE,
    JOIN_SECONDS,
    LOOPBACK,
    Rendezvous,
    entry_argv,
    torchrun_argv,
    training_environment,
    why_it_ended,
)
from idia_core.errors import TrainingError
from idia_core.storage import keep_private

POLL_SECONDS = 1.0
LAST_BYTES = 1 << 16
"""Of a torchrun's log: its summary and what a rank raised are within them."""
FOLLOW_SECONDS = 3.0
"""For how long a failed node's fellows may still tell why they ended too: the first to end need not be the cause."""
CONSEQUENCES = ("Connection closed by peer", "RendezvousConnectionError", "ncclRemoteError")
"""What a node says that ended because another did."""
STOP_SECONDS = 30.0
"""For how long a killed task is waited for; one on a node that cannot be reached may never answer."""


class PlacementError(TrainingError):
    """The cluster has not the nodes that a run asks for."""


@dataclass(frozen=True)
class Placed:
    """A shape that the cluster holds free for a run."""

    shape: Shape
    group: PlacementGroup


@dataclass(frozen=True)
class Command:
    """What the ranks of an attempt are told; `work` is on a file system that all nodes share."""

    model_config: Path
    run: str
    """Digest of what is trained."""
    open_clip_flags: tuple[str, ...]
    work: Path
    device: str
    """cpu or cuda."""
    threads: int
    """Of a rank."""
    attempt: int
    wandb: bool = False
    module: str = ENTRY_MODULE


class Ended(NamedTuple):
    """How an attempt ended; `reason` is empty when it went well."""

    ok: bool
    reason: str


def alive_nodes() -> list[dict[str, float]]:
    """What each node of the cluster that is alive has in all, in use or not."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


@contextmanager
def place(
    name: str, shape: Shape, waiting: Callable[[str], None], stop_waiting: float, *, smaller: bool = False
) -> Iterator[Placed]:
    """Wait until the cluster holds `shape` free for the run `name`, and give it back at the end.

    Nodes that are busy are waited for as long as it takes. When for `stop_waiting` seconds the nodes that are alive
    could not hold the shape even if they were free, the largest that they can hold is taken in its place with
    `smaller`; without it, or where none fits, `PlacementError`. `waiting` is told once a second what is missing.
    """
    with suppress(ValueError):  # there is none, as it should be
        remove_placement_group(get_placement_group(name))  # of a controller that was killed
    group = _group(name, shape)
    try:
        last_enough = time.monotonic()
        while not group.wait(POLL_SECONDS):
            # Ray counts a node that was killed as alive for some seconds more, so what fits is asked again and again.
            nodes = alive_nodes()
            waiting(waiting_words(shape, nodes))
            if fits(shape, nodes):
                last_enough = time.monotonic()
            elif time.monotonic() - last_enough >= stop_waiting:
                shape = _less(name, shape, nodes, stop_waiting, smaller)
                remove_placement_group(group)
                group = _group(name, shape)
        yield Placed(shape, group)
    finally:
        remove_placement_group(group)


def _group(name: str, shape: Shape) -> PlacementGroup:
    group: PlacementGroup = placement_group(shape.bundles(), strategy=shape.strategy, name=name)
    return group


def _less(name: str, shape: Shape, nodes: list[dict[str, float]], waited: float, smaller: bool) -> Shape:
    less = largest_fitting(shape, nodes) if smaller else None
    if less is None:
        fix = "Add nodes, or ask for fewer processes."
        raise PlacementError(f"it {waiting_words(shape, nodes)}, for {waited:g} seconds now", f"run {name}", fix)
    return less


def waiting_words(shape: Shape, nodes: list[dict[str, float]]) -> str:
    """What a run waits for, and what there is: "waits for 8 GPUs on 1 node; the cluster has 4 on 1 node"."""
    enough = fits(shape, nodes)
    only_cpus_lack = not enough and fits(replace(shape, cpus=0), nodes) if shape.gpus else True
    kind = "CPU" if only_cpus_lack else "GPU"
    having = [node[kind] for node in nodes if node.get(kind, 0) > 0]
    wanted = sum(bundle[kind] for bundle in shape.bundles())
    use = ", which are in use" if enough else ""
    there = f"{sum(having):g} on {_count(len(having), 'node')}" if having else "none"
    return f"waits for {_count(wanted, kind)} on {_count(shape.nodes, 'node')}; the cluster has {there}{use}"


def _count(number: float, what: str) -> str:
    return f"{number:g} {what}" if number == 1 else f"{number:g} {what}s"


class Attempt:
    """The torchruns of a run, one a node; leaving it as a context ends them all."""

    def __init__(self, tasks: list[Any]) -> None:
        self._tasks = tasks
        self._ended: Ended | None = None

    def poll(self) -> Ended | None:
        """How the attempt ended, or None while it lasts; as soon as one node fails the others are ended too."""
        if self._ended is None:
            done, pending = ray.wait(self._tasks, num_returns=len(self._tasks), timeout=0, fetch_local=False)
            failed = any(self._failure(task) for task in done)
            if failed and pending:
                done, _ = ray.wait(self._tasks, num_returns=len(self._tasks), timeout=FOLLOW_SECONDS)
            if failed or not pending:
                reasons = [self._failure(task) for task in self._tasks if task in done]
                self.stop()
                self._ended = Ended(not failed, "; ".join(_causes([reason for reason in reasons if reason])))
        return self._ended

    def stop(self) -> None:
        """End the torchruns that still run, and wait for that."""
        _, pending = ray.wait(self._tasks, num_returns=len(self._tasks), timeout=0, fetch_local=False)
        for task in pending:
            ray.cancel(task, force=True)  # ends the process of the task, and torchrun ends with that
        if pending:
            ray.wait(pending, num_returns=len(pending), timeout=STOP_SECONDS, fetch_local=False)

    def _failure(self, task: Any) -> str:
        """Why the torchrun of a task that is done failed; empty when it did not."""
        node = self._tasks.index(task)
        try:
            code, reason = ray.get(task)
        except RayTaskError as error:
            if isinstance(error, OSError):  # the log could not be written, say
                return f"node {node}: {error.cause}"
            raise
        except RayError as error:
            return f"node {node} was lost: {type(error).__name__}"
        return f"torchrun of node {node} ended with {code}: {reason}" if code else ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


def _causes(reasons: list[str]) -> list[str]:
    """The reasons less those that only follow from another's, unless there are no others."""
    return [reason for reason in reasons if not any(words in reason for words in CONSEQUENCES)] or reasons


def start(placed: Placed, command: Command) -> Attempt:
    """Start a torchrun in every bundle."""
    shape = placed.shape
    host, port = LOOPBACK, 0
    if shape.nodes > 1:
        asked = _in_bundle(placed, 0, _address_and_port, {}).remote()
        try:
            host, port = ray.get(asked, timeout=JOIN_SECONDS)
        except RayError:  # the node went since it was placed: an attempt that has failed
            ray.cancel(asked, force=True)
            return Attempt([asked])
    tasks = []
    for node, bundle in enumerate(shape.bundles()):
        rendezvous = Rendezvous(host, port, f"{command.run}-{command.attempt}", shape.nodes, node)
        task = _in_bundle(placed, node, _run_torchrun, bundle)
        tasks.append(task.remote(command, shape.processes_per_node, rendezvous))
    return Attempt(tasks)


def _in_bundle(placed: Placed, number: int, function: Callable[..., Any], resources: dict[str, float]) -> Any:
    """The function as a Ray task that runs in a bundle, takes these resources of it, and is never retried."""
    bundle = PlacementGroupSchedulingStrategy(placed.group, placement_group_bundle_index=number)
    return ray.remote(
        num_cpus=resources.get("CPU", 0),
        num_gpus=resources.get("GPU", 0),
        max_retries=0,
        scheduling_strategy=bundle,
    )(function)


def _own_address() -> str:
    """Of the node that a task runs on, as Ray knows it; two nodes of a test cluster have one."""
    address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    return address


def _address_and_port() -> tuple[str, int]:
    address = _own_address()
    with socket.create_server((address, 0)) as free:
        return address, free.getsockname()[1]


def _run_torchrun(command: Command, processes: int, rendezvous: Rendezvous) -> tuple[int, str]:
    """Run a node's torchrun to its end; its exit code, and why it ended unless that is 0.

    It is started in the main thread of the task's process: the kernel ends it with the thread that started it.
    """
    keep_private()
    address = LOOPBACK if rendezvous.nodes == 1 else _own_address()
    entry = entry_argv(command.model_config, command.threads, command.run, command.work, command.open_clip_flags)
    argv = torchrun_argv(processes, rendezvous, entry, address=address, module=command.module)
    environment = training_environment(
        os.environ, command.threads, command.device, os.getpid(), address=address, wandb=command.wandb
    )
    log = command.work / f"torchrun-{command.attempt}-{rendezvous.node}.log"
    with log.open("wb") as sink:
        done = subprocess.run(argv, env=environment, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, check=False)
    return done.returncode, why_it_ended(_last_of(log)) if done.returncode else ""


def _last_of(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - LAST_BYTES))
        return file.read().decode("utf-8", errors="replace")
