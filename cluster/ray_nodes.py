"""Waits until a Ray cluster that is being started has its nodes; what a script of Slurm calls.

python -m cluster.ray_nodes ADDRESS --nodes 4 --seconds 600    wait for four nodes
python -m cluster.ray_nodes --towards HOST                     print this node's address on the network of HOST
"""

import argparse
import logging
import socket
import sys
import time

import ray

from cluster.launch import alive_nodes
from cluster.slurm import address_towards
from idia_core.errors import WorkerLostError

POLL_SECONDS = 0.5


def wait_for_nodes(address: str, nodes: int, seconds: float) -> int:
    """Wait for so many nodes, and return how many there are after `seconds` at the latest.

    Raises `WorkerLostError` where not even the head answers by then.
    """
    ends = time.monotonic() + seconds
    fix = "Look for the reason above; another program may use its port."
    while not _listens(address):  # Ray itself would try for minutes
        if time.monotonic() >= ends:
            raise WorkerLostError(f"no Ray at {address} after {seconds:g} seconds", "head", fix)
        time.sleep(POLL_SECONDS)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
    except ConnectionError as error:
        raise WorkerLostError(f"what listens at {address} is no Ray", "head", fix) from error
    while (there := len(alive_nodes())) < nodes and time.monotonic() < ends:
        time.sleep(POLL_SECONDS)
    ray.shutdown()
    return there


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=POLL_SECONDS).close()
    except OSError:
        return False
    return True


def main() -> None:
    """Wait, and say how many nodes there are; with fewer than asked for a study runs as well, only longer."""
    parser = argparse.ArgumentParser(prog="cluster.ray_nodes", allow_abbrev=False, description=main.__doc__)
    parser.add_argument("address", nargs="?", help="of the head: 10.0.0.1:6379")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--towards", metavar="HOST", help="print this node's address on the network of HOST")
    told = parser.parse_args()
    if told.towards:
        sys.stdout.write(address_towards(told.towards) + "\n")
        return
    try:
        there = wait_for_nodes(told.address, told.nodes, told.seconds)
    except WorkerLostError as error:
        raise SystemExit(f"WorkerLostError: {error}") from None
    sys.stderr.write(f"Ray at {told.address} has {there} of {told.nodes} nodes\n")


if __name__ == "__main__":
    main()
