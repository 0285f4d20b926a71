"""What befalls a run: each fault finds out whether it hit anything, for one that did not is none."""

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from tests.chaos.nodes import STARVED, Nodes, raylet
from tests.kills import SECONDS_TO_DIE

CUT_SECONDS = 8.0
"""For which a node does not answer; five are enough to be given up."""
HANG_SECONDS = 3.0
NOTICE_SECONDS = 3.0
FULL_SECONDS = 30.0
"""For which the disk stays full if nobody writes to it."""
POLL_SECONDS = 0.02


class Scene(NamedTuple):
    """A run amid a stage."""

    nodes: Nodes
    driver: subprocess.Popen[bytes]
    out: Path
    stage: str
    rng: random.Random

    def lasts(self) -> bool:
        """The run is still at that stage."""
        folder = self.out / self.stage
        return self.driver.poll() is None and not (folder / "manifest.json").exists()

    def worker(self) -> tuple[Any, psutil.Process] | None:
        """A process at work, and its node; None when the stage ended before there was one."""
        while self.lasts():
            if found := self.nodes.at_work():
                return self.rng.choice(found)
            time.sleep(POLL_SECONDS)
        return None


def kill_worker(scene: Scene) -> bool:
    """A worker, or a rank of a training, is killed."""
    if not (found := scene.worker()):
        return False
    with suppress(psutil.NoSuchProcess):
        found[1].kill()
        return True
    return False


def hang_worker(scene: Scene) -> bool:
    """A worker stands still for some seconds; another may have done its split when it goes on."""
    if not (found := scene.worker()):
        return False
    with suppress(psutil.NoSuchProcess):
        found[1].suspend()
        time.sleep(HANG_SECONDS)
        found[1].resume()
        return True
    return False


def kill_node(scene: Scene) -> bool:
    """A node with somebody at work on it is killed, and another one comes."""
    if not (node := _busy_node(scene)):
        return False
    scene.nodes.kill(node)
    scene.nodes.add()
    return True


def cut_node(scene: Scene) -> bool:
    """A node cannot be reached for so long that it is given up; its workers do not know it, and go on."""
    if not (node := _busy_node(scene)):
        return False
    process = raylet(node)
    process.suspend()
    time.sleep(CUT_SECONDS)
    process.resume()
    with suppress(psutil.TimeoutExpired):
        process.wait(SECONDS_TO_DIE)  # it finds that it was given up
    scene.nodes.kill(node)
    scene.nodes.add()
    return True


def preempt_node(scene: Scene) -> bool:
    """It is said that a node will be taken back, and some seconds later it is."""
    if not (node := _busy_node(scene)) or not scene.nodes.drain(node, NOTICE_SECONDS):
        return False
    scene.nodes.add()
    time.sleep(NOTICE_SECONDS)
    scene.nodes.kill(node)
    return True


def starve_node(scene: Scene) -> bool:
    """A node ends the workers that come to it for want of memory, until it is taken away."""
    before, node = scene.nodes.killed_for_memory(), scene.nodes.add(STARVED)
    while scene.lasts() and scene.nodes.killed_for_memory() == before:
        time.sleep(0.2)
    scene.nodes.kill(node)
    return scene.nodes.killed_for_memory() > before


def kill_driver(scene: Scene) -> bool:
    """The driver is killed."""
    return _end_driver(scene, signal.SIGKILL)


def end_driver(scene: Scene) -> bool:
    """The driver is asked to end."""
    return _end_driver(scene, signal.SIGTERM)


def kill_head(scene: Scene) -> bool:
    """The head is killed, and a new cluster is made; the driver ends by itself, and says why."""
    if not scene.lasts():
        return False
    scene.nodes.restart()
    scene.driver.wait(120)
    return scene.driver.returncode != 0


def fill_disk(scene: Scene) -> bool:
    """The disk is full until the run ends of it."""
    filler = scene.out.parent / "filler"
    if not os.path.ismount(filler.parent) or not scene.lasts():
        return False
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(1 << 16))
    deadline = time.monotonic() + FULL_SECONDS
    while scene.lasts() and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    ended = not (scene.out / scene.stage / "manifest.json").exists() and time.monotonic() < deadline
    if ended:
        scene.driver.wait(60)
    filler.unlink()
    return ended


def _busy_node(scene: Scene) -> Any | None:
    found = scene.worker()
    if not found:
        return None
    return found[0] if found[0] in scene.nodes.workers() else scene.rng.choice(scene.nodes.workers())


def _end_driver(scene: Scene, how: signal.Signals) -> bool:
    if not scene.lasts():
        return False
    scene.driver.send_signal(how)
    scene.driver.wait(60)
    return scene.driver.returncode != 0


Fault = Callable[[Scene], bool]
DECK: tuple[Fault, ...] = (
    *(kill_worker,) * 8,
    *(kill_node,) * 3,
    *(kill_driver,) * 3,
    *(end_driver,) * 2,
    *(cut_node,) * 2,
    *(hang_worker,) * 2,
    *(preempt_node,) * 2,
    kill_head,
    *((fill_disk,) * 2 if shutil.which("mount") and os.geteuid() == 0 else (kill_driver,) * 2),
    starve_node,
)
"""How often each comes, in every so many faults."""
