"""Whether the processes that a test started have ended."""

from collections.abc import Iterable
from contextlib import suppress

import psutil


def still_running(processes: Iterable[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Those that have not ended after so many seconds.

    A process that ended stays as a zombie until its parent asks for it, which the first process of a container, the
    parent of all orphans, may never do.
    """
    _, left = psutil.wait_procs(processes, timeout=seconds)
    running = []
    for process in left:
        with suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                running.append(process)
    return running
