"""A Ray of our own, and how it ends."""

import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ASKED_TO_END = """
import os, signal
from jobs.local_ray import ray_when_needed

with ray_when_needed(None) as start:
    start(0)
    os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_driver_that_is_asked_to_end_does_so_at_once() -> None:
    """Without a word of Ray's, whose own handler of SIGTERM may wait for ever for a lock that the driver holds."""
    ended = subprocess.run(
        [sys.executable, "-c", ASKED_TO_END], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert ended.returncode == -signal.SIGTERM
    assert "SIGTERM" not in ended.stderr
