"""A Ray of our own for as long as a run lasts, or a connection to a cluster."""

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import ray
from upath import UPath

from idia_core.manifest import digest_of

OBJECT_STORE_BYTES = 256 << 20
"""Of a local Ray: splits and receipts pass through it, tables do not."""
GIVE_UP_SECONDS = 15
"""How long the processes of a local Ray look for its head before they end; Ray's own default is a minute."""
QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
RAY_PROCESSES = ("ray", "gcs_server")


@contextmanager
def ray_when_needed(address: str | None, out: UPath) -> Iterator[Callable[[], None]]:
    """Hand out a function that starts Ray, or connects to it, at its first call; shut it down at the end.

    A Ray that is there already is used and left alone. One of our own keeps its logs in a folder named after `out`,
    which goes when all went well.
    """
    logs = Path(tempfile.gettempdir()) / f"idia-ray-{digest_of(str(out))[:12]}"
    with ExitStack() as ending:

        def start() -> None:
            if ray.is_initialized():
                return
            if address:
                ray.init(address=address, **QUIET)
            else:
                _end_orphans(logs)  # of a run that was killed: `out` is ours now
                shutil.rmtree(logs, ignore_errors=True)
                _start_local_ray(logs)
            ending.callback(ray.shutdown)

        yield start
    shutil.rmtree(logs, ignore_errors=True)


def _start_local_ray(logs: Path) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray.init(
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        _temp_dir=str(logs),
        _system_config={"gcs_rpc_server_reconnect_timeout_s": GIVE_UP_SECONDS},
        **QUIET,
    )


def _end_orphans(logs: Path) -> None:
    """Kill the processes of a Ray whose driver was killed; its agents would linger until they give up on it."""
    for process in psutil.process_iter(["name"]):
        if str(process.info["name"]).startswith(RAY_PROCESSES):
            with suppress(psutil.Error):  # it ended meanwhile, or is another user's
                words = process.cmdline() + [file.path for file in process.open_files()]
                if any(str(logs) in word for word in words):
                    process.kill()
