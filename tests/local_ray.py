"""The Ray of the tests that run stages in their own process."""

from collections.abc import Iterator
from contextlib import contextmanager

import ray


def start() -> None:
    """Start it."""
    ray.init("local", num_cpus=2, include_dashboard=False, object_store_memory=128 << 20, log_to_driver=False)


@contextmanager
def stopped() -> Iterator[None]:
    """Without it for as long as the block lasts, which may start one of its own."""
    was = ray.is_initialized()
    ray.shutdown()
    yield
    ray.shutdown()
    if was:
        start()
