"""A training run as a Slurm job: a script for sbatch, and what it starts on every node.

The script goes on from the newest valid checkpoint, after the loss of a rank by itself and after that of a node when
Slurm queues the job again. It always takes as many processes as the recipe asks for. `idia run` then finds the last
checkpoint and seals it.

    python -m cluster.slurm --nodes 2 ... FIRST_HOST LAST_HOST -- ENTRY_FLAGS    what srun starts, once a node
"""

import argparse
import math
import os
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.torchrun import LOOPBACK, PROJECT_ROOT, Rendezvous, torchrun_argv, training_environment
from idia_core.errors import TrainingError, UsageError

JOB = "slurm-job"
"""File in a run's folder with the number of the job that trains it."""


@dataclass(frozen=True)
class SlurmRun:
    """A run and what it asks Slurm for."""

    name: str
    architecture: str
    run: str
    """Digest of what is trained."""
    work: Path
    """Its folder, on a file system that all nodes share."""
    entry: tuple[str, ...]
    """What `cluster.torchrun.entry_argv` gives for it, without --resume."""
    nodes: int
    processes_per_node: int
    cpus: float
    """Of a process."""
    threads: int
    device: str
    """cpu or cuda."""
    max_restarts: int
    wandb: bool = False
    time: str | None = None
    """The job's limit, as Slurm writes it: `2-00:00:00`."""
    options: tuple[str, ...] = ()
    """More options of sbatch, such as `--partition=gpu`."""


PORT = "port=$((20000 + SLURM_JOB_ID % 20000))"
"""A line of a script: jobs that share a node take different ports."""
_BODY = """
# Two nodes of a run find each other by name; each tells the others the address by which it reaches them.
hosts=($(scontrol show hostnames "$SLURM_JOB_NODELIST"))
{port}
mkdir -p {work}
echo "$SLURM_JOB_ID" > {job}  # so that `idia run` does not train it too
export PYTHONPATH={root}${{PYTHONPATH:+:$PYTHONPATH}}
for attempt in $(seq 0 {restarts}); do
    newest=$({checkpoints}) || exit 1
    resume=()
    if [ -n "$newest" ]; then resume=(--resume "$newest"); fi
    id="$SLURM_JOB_ID-${{SLURM_RESTART_COUNT:-0}}-$attempt"
    {srun} \\
        {node} --port "$port" --id "$id" "${{hosts[0]}}" "${{hosts[-1]}}" \\
        -- {entry} "${{resume[@]}}" \\
        && exit 0
    echo "attempt $attempt ended with $?" >&2
done
exit 1
"""


def sbatch_script(run: SlurmRun, python: str = sys.executable) -> str:
    """The script that trains a run, for sbatch; `python` is the one that the nodes start."""
    cpus = math.ceil(run.cpus * run.processes_per_node)
    options = [
        f"--job-name={run.name}",
        f"--nodes={run.nodes}",
        "--ntasks-per-node=1",
        f"--cpus-per-task={cpus}",
        *([f"--gpus-per-node={run.processes_per_node}"] if run.device == "cuda" else []),
        *([f"--time={run.time}"] if run.time else []),
        f"--output={shlex.quote(str(run.work / 'slurm-%j.log'))}",
        "--open-mode=append",
        "--requeue",
        *run.options,
    ]
    counts = ["--nodes", run.nodes, "--processes", run.processes_per_node, "--threads", run.threads]
    node = [python, "-m", "cluster.slurm", *map(str, counts), "--device", run.device]
    folder = str(run.work / "checkpoints")
    newest = [python, "-m", "cluster.checkpoints", folder, "--run", run.run, "--architecture", run.architecture]
    body = _BODY.format(
        port=PORT,
        work=shlex.quote(str(run.work)),
        job=shlex.quote(str(run.work / JOB)),
        root=shlex.quote(str(PROJECT_ROOT)),
        restarts=run.max_restarts,
        checkpoints=shlex.join(newest),
        srun=f"srun --ntasks-per-node=1 --cpus-per-task={cpus} --kill-on-bad-exit=1",  # it takes no CPUs from the job
        node=shlex.join([*node, *(["--wandb"] if run.wandb else [])]),
        entry=shlex.join(run.entry),
    )
    return script_of(options, body)


def script_of(options: Sequence[str], body: str) -> str:
    """A script for sbatch, with its options where sbatch reads them."""
    return "\n".join(["#!/bin/bash", *(f"#SBATCH {option}" for option in options), body])


def submit(script: str, work: Path) -> str:
    """Give the script to Slurm and return the job's id; it is kept in the run's folder, beside Slurm's log.

    Raises `UsageError` where there is no Slurm and `TrainingError` with what it says where it refuses the job.
    """
    if shutil.which("sbatch") is None:
        fix = "Run it on a login node of the cluster, or print the scripts and submit them there."
        raise UsageError("there is no sbatch on this machine", "--launcher slurm", fix)
    work.mkdir(parents=True, exist_ok=True)
    file = work / "run.sbatch"
    file.write_text(script, encoding="utf-8")
    done = subprocess.run(["sbatch", "--parsable", str(file)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise TrainingError(f"sbatch refused the job: {done.stderr.strip()}", str(file), "Change its options.")
    return done.stdout.strip().partition(";")[0]  # the name of the cluster may follow


def node_command(words: Sequence[str], environment: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """The torchrun of one node and its environment, from this module's arguments and what Slurm tells the node."""
    split = list(words).index("--")
    parser = argparse.ArgumentParser(prog="cluster.slurm", allow_abbrev=False)
    for count in ("nodes", "processes", "threads", "port"):
        parser.add_argument(f"--{count}", type=int, required=True)
    for text in ("device", "id"):
        parser.add_argument(f"--{text}", required=True)
    parser.add_argument("--wandb", action="store_true")
    parser.add_argument("first_host")
    parser.add_argument("last_host")
    told = parser.parse_args(words[:split])
    rendezvous, address = Rendezvous(LOOPBACK, 0, told.id), LOOPBACK
    if told.nodes > 1:
        node = int(environment["SLURM_NODEID"])
        rendezvous = Rendezvous(told.first_host, told.port, told.id, told.nodes, node)
        address = address_towards(told.last_host if node == 0 else told.first_host)
    argv = torchrun_argv(told.processes, rendezvous, words[split + 1 :], address=address)
    ours = training_environment(environment, told.threads, told.device, os.getpid(), address=address, wandb=told.wandb)
    return argv, ours


def address_towards(host: str) -> str:
    """This node's address on the network on which it reaches `host`; its own name may stand for the loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unsent:
        unsent.connect((host, 9))  # nothing is sent
        address: str = unsent.getsockname()[0]
    return address


def main() -> None:
    """Run a node's torchrun to its end."""
    argv, environment = node_command(sys.argv[1:], os.environ)
    sys.exit(subprocess.run(argv, env=environment, check=False).returncode)


if __name__ == "__main__":
    main()
