"""How torchrun is started: its command line, its environment, and a torchrun that dies with its launcher.

The launcher (a Ray task, a test) starts `torchrun_argv(...)` under `training_environment(...)`. That runs this module,
which is torchrun with one thing added: when the launcher is killed, torchrun is killed, and so are its ranks.
"""

import ctypes
import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

ENTRY_MODULE = "cluster.training_entry"
PARENT_PID_VARIABLE = "IDIA_PARENT_PID"
PROJECT_ROOT = Path(__file__).resolve().parents[1]
PR_SET_PDEATHSIG = 1  # <sys/prctl.h>
LOOPBACK = "127.0.0.1"
JOIN_SECONDS = 300
"""For how long a node waits for the others: they start together, but may read Python from a slow file system."""

# What another launcher leaves behind and open_clip or torch would take for this run's own (PITFALLS: SLURM_NTASKS).
FOREIGN_PREFIXES = ("SLURM_", "PMI_", "PMIX_", "OMPI_", "TORCHELASTIC_", "PET_", "WDS_")
FOREIGN_NAMES = frozenset(
    {"RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "ROLE_NAME", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE"}
    | {"ROLE_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "MPI_LOCALRANKID", "NODE_RANK", "WORKER", "NUM_WORKERS"}
)

ROOT_CAUSE = re.compile(
    r"Root Cause.*?rank\s*: (?P<rank>\d+).*?exitcode\s*: (?P<code>-?\d+) \(pid: \d+\)(?: +\((?P<signal>\w+)\))?",
    re.DOTALL,
)
RAISED = re.compile(
    r"^(?:\[rank(?P<rank>\d+)\]: ?)?(?P<error>[A-Za-z_][\w.]*(?:Error|Exception|Interrupt)\b.*)", re.MULTILINE
)
TOLD = re.compile(r"\| ERROR \| (?P<error>\w+Error: .*)")
"""What the entry says of an error of ours; the other ranks only notice that a rank is gone."""
SUMMARY = "ChildFailedError"
"""The error that torchrun itself raises when a rank fails; it names the rank but not what the rank met."""


@dataclass(frozen=True)
class Rendezvous:
    """Where the nodes of a run meet; one is made for every node."""

    host: str
    """The address of node 0, which keeps the store that all meet at."""
    port: int
    """The store's; 0 has node 0 choose one, for a run on a single node."""
    id: str
    """The same on all nodes, and another for every attempt: one that was left behind cannot join."""
    nodes: int = 1
    node: int = 0
    """The number of this node."""


def entry_argv(model_config: Path, threads: int, run: str, work: Path, open_clip_flags: Sequence[str]) -> list[str]:
    """What follows the entry's name: its own flags, then open_clip's as they are.

    `model_config` is the JSON of the architecture, `threads` those of a rank, `run` the digest of what is trained and
    `work` the folder of the heartbeat.
    """
    own = ["--model-config", str(model_config), "--threads", str(threads), "--run", run, "--work", str(work)]
    return [*own, *open_clip_flags]


def torchrun_argv(
    processes_per_node: int,
    rendezvous: Rendezvous,
    entry: Sequence[str],
    *,
    address: str = LOOPBACK,
    module: str = ENTRY_MODULE,
) -> list[str]:
    """The full command line of one node of a run; `address` is the node's own, `entry` what its ranks are told."""
    ranks = ["--nnodes", str(rendezvous.nodes), "--nproc-per-node", str(processes_per_node), "--max-restarts", "0"]
    # Said rather than guessed from the host: two nodes of a test cluster have one address.
    store = f"is_host={int(rendezvous.node == 0)},join_timeout={JOIN_SECONDS},read_timeout={JOIN_SECONDS}"
    meeting = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"{rendezvous.host}:{rendezvous.port}"]
    meeting += ["--rdzv-id", rendezvous.id, "--rdzv-conf", store, "--local-addr", address]
    # Without "--" torchrun reads open_clip's flags as its own: "--logs" is "ambiguous" to it.
    return [sys.executable, "-m", "cluster.torchrun", *ranks, *meeting, "--module", "--", module, *entry]


def training_environment(  # noqa: PLR0913 - each is a fact that only the launcher knows
    inherited: Mapping[str, str],
    threads: int,
    device: str,
    launcher_pid: int,
    *,
    address: str = LOOPBACK,
    wandb: bool = False,
) -> dict[str, str]:
    """The inherited environment, less what other launchers left in it, plus what makes a training run repeatable.

    `device` is "cpu" (no GPU is visible then) or "cuda" (those that are visible stay so). `launcher_pid` is the process
    that starts torchrun; torchrun ends when it does. The ranks speak through the interface of this node that has
    `address`, the loopback where a run has one node. Settings of NCCL and gloo that are there already stay.
    """
    foreign = FOREIGN_PREFIXES if wandb else (*FOREIGN_PREFIXES, "WANDB_")
    kept = {
        name: value for name, value in inherited.items() if name not in FOREIGN_NAMES and not name.startswith(foreign)
    }
    path = [str(PROJECT_ROOT), *filter(None, [inherited.get("PYTHONPATH")])]
    network = {"TORCH_NCCL_ASYNC_ERROR_HANDLING": "1"}  # a rank that lost another ends rather than waiting for it
    if interface := interface_with(address):
        network |= {"GLOO_SOCKET_IFNAME": interface, "NCCL_SOCKET_IFNAME": interface}
    kept = {**network, **kept}
    kept |= {
        PARENT_PID_VARIABLE: str(launcher_pid),
        "PYTHONPATH": os.pathsep.join(path),
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "MKL_CBWR": "AUTO",  # the same bits from run to run on one machine; "COMPATIBLE" is six times slower
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    }
    if device == "cpu":
        kept["CUDA_VISIBLE_DEVICES"] = ""
    return kept


def interface_with(address: str) -> str | None:
    """The name of this machine's network interface that has `address`; None where there is none."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(one.address == address for one in addresses):
            return str(name)
    return None


def why_it_ended(said: str) -> str:
    """What went wrong on a node, in one line, from what its ranks and torchrun wrote."""
    if told := TOLD.search(said):
        return told["error"]
    raised = [found for found in RAISED.finditer(said) if SUMMARY not in found["error"]]
    cause = ROOT_CAUSE.search(said)
    if cause and int(cause["code"]) < 0:
        return f"rank {cause['rank']} was killed by {cause['signal'] or 'signal ' + cause['code'][1:]}"
    if cause and raised:
        its_own = [found for found in raised if found["rank"] == cause["rank"]]
        return f"rank {cause['rank']}: {(its_own or raised)[-1]['error']}"
    if raised:
        return raised[-1]["error"]
    return " | ".join([line.strip() for line in said.splitlines() if line.strip()][-3:])


def die_with_parent() -> None:
    """Has the kernel kill this process when its parent ends, and ends it at once if the parent is gone already.

    The parent is the process that IDIA_PARENT_PID names; without the variable the present parent is meant.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    expected = os.environ.get(PARENT_PID_VARIABLE)
    if expected is not None and os.getppid() != int(expected):
        os._exit(1)  # the parent died before the line above; nobody is left to read a message


def main() -> None:
    """Torchrun, which ends with its launcher and tells its ranks to end with it."""
    die_with_parent()
    os.environ[PARENT_PID_VARIABLE] = str(os.getpid())
    from torch.distributed.run import main as torchrun  # noqa: PLC0415 - the three lines above must come first

    torchrun(sys.argv[1:])


if __name__ == "__main__":
    main()
