"""Waits beside a run, and clears away its Ray when the run is killed.

Most of Ray's processes end with their driver; its agents can linger for a minute or more. Run as
`python -m jobs.reaper FOLDER`, with a pipe from the driver as standard input: a word on it means that all is well, its
end without one that the driver was killed.
"""

import os
import shutil
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

PASSES, PAUSE_SECONDS = 10, 0.3
RAY_PROCESSES = ("ray", "gcs_server", "python")
"""How their names begin; a worker is called after its interpreter until it has started."""


def processes_of(folder: Path) -> list[psutil.Process]:
    """The processes of the Ray whose session lies in `folder`: they name it, or have a log open there."""
    found = []
    for process in psutil.process_iter(["name"]):
        if process.pid != os.getpid() and str(process.info["name"]).startswith(RAY_PROCESSES):
            with suppress(psutil.Error):  # it ended meanwhile, or is another user's
                words = process.cmdline() + [file.path for file in process.open_files()]
                if any(str(folder) in word for word in words):
                    found.append(process)
    return found


def clear(folder: Path) -> None:
    """Kill the processes of the Ray in `folder`, also those that start meanwhile, and delete the folder."""
    for _ in range(PASSES):
        for process in processes_of(folder):
            with suppress(psutil.Error):
                process.kill()
        time.sleep(PAUSE_SECONDS)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    if not sys.stdin.read():
        clear(Path(sys.argv[1]))
