"""Whether the head of the Ray cluster is there: Ray itself waits for minutes, and then ends the process."""

import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

import ray

from idia_core.errors import ClusterError

SECONDS = 10.0
"""For how long the head may be out of reach; Ray's own patience ends after a minute, and the process with it."""
SECONDS_AT_MOST = 20.0
"""After which a process that waits for an answer of Ray's, and so cannot raise an error, ends all the same."""
CONNECT_SECONDS, LOOK_SECONDS = 5.0, 1.0


def connect(address: str) -> None:
    """Reach the head at `HOST:PORT` and hang up; `OSError` where nobody answers."""
    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()


class Head:
    """The head that this driver is connected to."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._address = ray.get_runtime_context().gcs_address
        self._answered = time.monotonic()

    def answers(self) -> bool:
        """Whether it can be reached now; `ClusterError` when it could not be for long."""
        try:
            connect(self._address)
        except OSError as error:
            if time.monotonic() - self._answered >= self._seconds:
                what = f"the head of the Ray cluster is gone: {error.strerror or error}"
                fix = "Run again when there is a cluster: what is done stays."
                raise ClusterError(what, self._address, fix) from None
            return False
        self._answered = time.monotonic()
        return True


@contextmanager
def watched() -> Iterator[None]:
    """End this process with a line that says why when its head is gone, and it hangs in a call of Ray's meanwhile."""
    over, head = Event(), Head(SECONDS_AT_MOST)
    Thread(target=_watch, args=(head, over), daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _watch(head: Head, over: Event) -> None:
    while not over.wait(LOOK_SECONDS):
        try:
            head.answers()
        except ClusterError as error:
            sys.stderr.write(f"\n{type(error).__name__}: {error}\n")
            sys.stderr.flush()
            os._exit(error.exit_code)  # the kernel lets go of the folder, and Ray ends what it did for this process
