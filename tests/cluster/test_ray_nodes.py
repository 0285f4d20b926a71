"""Waiting for a Ray that is being started, and what it says where none is; the tests of slurm_study.py have one."""

import subprocess
import sys

from cluster.slurm import address_towards


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cluster.ray_nodes", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_a_ray_that_is_not_there_is_given_up() -> None:
    """With where it was looked for, and for how long."""
    done = _run("127.0.0.1:1", "--seconds", "1")
    assert done.returncode == 1
    assert "WorkerLostError: no Ray at 127.0.0.1:1 after 1 seconds (head)" in done.stderr


def test_a_node_knows_its_address_on_anothers_network() -> None:
    """As training by Slurm finds it."""
    assert _run("--towards", "127.0.0.1").stdout == f"{address_towards('127.0.0.1')}\n" == "127.0.0.1\n"
