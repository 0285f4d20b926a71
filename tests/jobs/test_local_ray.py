"""A Ray of our own, and how it ends."""

import os
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


A_CALL = """
import ray
from jobs.local_ray import ray_when_needed

with ray_when_needed(None) as start:
    start(0)
    print(ray.get(ray.remote(lambda: "done here").remote()))
"""


def test_without_an_address_ray_is_our_own_whatever_another_program_runs() -> None:
    """Neither a variable nor Ray's note of the machine's last cluster leads a run to somebody else's."""
    elsewhere = os.environ | {"RAY_ADDRESS": "127.0.0.1:1"}
    ended = subprocess.run(
        [sys.executable, "-c", A_CALL],
        cwd=ROOT,
        env=elsewhere,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ended.stdout == "done here\n", ended.stderr
