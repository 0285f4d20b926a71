"""A Ray of our own for as long as a run lasts, or a connection to a cluster."""

import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any

import ray

from idia_core.errors import ClusterError, UsageError
from pipelines.ray_head import connect, watched

OUT_OF_MEMORY_RETRIES = "10"
"""Of a split whose machine is out of memory; Ray's own number is infinite, and one that never fits would never end."""
OBJECT_STORE_BYTES = 256 << 20
"""Of a local Ray: splits and receipts pass through it, tables do not."""
HOST_AND_PORT = re.compile(r"[^/]+:[0-9]+")
QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}


@contextmanager
def ray_when_needed(address: str | None) -> Iterator[Callable[[float], None]]:
    """Hand out a function that starts Ray, or connects to it, at its first call; shut it down at the end.

    It is given the GPUs that a worker wants: `UsageError` where there are fewer here, as the worker would wait for
    ever; a cluster may still grow. `ClusterError` where there is no cluster at the address.

    A Ray that is there already is used and left alone. One of our own keeps its logs in a folder of the system's
    temporary one, which goes when all went well, or when the run is killed.
    """
    with ExitStack() as ending:

        def start(gpus: float) -> None:
            if not ray.is_initialized():
                os.environ.setdefault("RAY_task_oom_retries", OUT_OF_MEMORY_RETRIES)
                if address:
                    _join(address)
                    ending.enter_context(watched())
                else:
                    ending.enter_context(_folder_with_reaper())
                ending.callback(ray.shutdown)
                _end_at_once_when_asked()
            if not address:
                _check_gpus(gpus)

        yield start


def _join(address: str) -> None:
    """Connect to a cluster; `ClusterError` where there is none, which Ray itself would look for for minutes."""
    fix = "Start it, or correct --address: HOST:PORT of the head, `auto` on one of its machines."
    try:
        if HOST_AND_PORT.fullmatch(address):
            connect(address)
        ray.init(address=address, **QUIET)
    except (OSError, ValueError, RuntimeError) as error:  # ConnectionError is an OSError
        words = str(error).splitlines() or [type(error).__name__]
        raise ClusterError(f"no Ray cluster can be reached: {words[0]}", address, fix) from None


def _end_at_once_when_asked() -> None:
    """Take Ray's handler of SIGTERM away: it writes down where the process was, and may wait for a lock for ever.

    What is done stays, and workers end with their driver, however it ends.
    """
    if current_thread() is main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _check_gpus(wanted: float) -> None:
    have: float = ray.cluster_resources().get("GPU", 0)  # type: ignore[no-untyped-call]
    if wanted > have:
        what = f"every worker wants {wanted:g} GPUs, and this machine has {have:g}"
        raise UsageError(what, "resources.gpus", "Use --device cpu, or --address of a cluster with GPUs.")


@contextmanager
def _folder_with_reaper() -> Iterator[None]:
    """Start a local Ray in a new folder, watched by a process that clears up should this one be killed."""
    folder = Path(tempfile.mkdtemp(prefix="idia-ray-"))
    command = [sys.executable, "-m", "jobs.reaper", str(folder)]
    root = Path(__file__).parent.parent
    with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, start_new_session=True) as reaper:
        try:
            _start_local_ray(folder)
            yield
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            reaper.communicate(b"all is well")


def _start_local_ray(folder: Path) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    own = str(folder)  # and "local", as without an address Ray joins any that runs on this machine
    ray.init("local", include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, _temp_dir=own, **QUIET)
