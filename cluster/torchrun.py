"""How torchrun is started: its command line, its environment, and a torchrun that dies with its launcher.

The launcher (a Ray task, a test) starts `torchrun_argv(...)` under `training_environment(...)`. That runs this module,
which is torchrun with one thing added: when the launcher is killed, torchrun is killed, and so are its ranks.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ENTRY_MODULE = "cluster.training_entry"
PARENT_PID_VARIABLE = "IDIA_PARENT_PID"
PROJECT_ROOT = Path(__file__).resolve().parents[1]
PR_SET_PDEATHSIG = 1  # <sys/prctl.h>

# What another launcher leaves behind and open_clip or torch would take for this run's own (PITFALLS: SLURM_NTASKS).
FOREIGN_PREFIXES = ("SLURM_", "PMI_", "PMIX_", "OMPI_", "TORCHELASTIC_", "PET_", "WANDB_", "WDS_")
FOREIGN_NAMES = frozenset(
    {"RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "ROLE_NAME", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE"}
    | {"ROLE_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "MPI_LOCALRANKID", "NODE_RANK", "WORKER", "NUM_WORKERS"}
)


def torchrun_argv(processes: int, threads: int, model_config: Path, open_clip_flags: Sequence[str]) -> list[str]:
    """The full command line that trains with `processes` ranks of `threads` threads each on this machine.

    `model_config` is the JSON of the architecture; `open_clip_flags` go to `open_clip_train.main` as they are.
    """
    launcher = [sys.executable, "-m", "cluster.torchrun", "--standalone", "--local-addr", "127.0.0.1"]
    ranks = ["--nproc-per-node", str(processes), "--max-restarts", "0", "--module"]
    # Without "--" torchrun reads open_clip's flags as its own: "--logs" is "ambiguous" to it.
    entry = ["--", ENTRY_MODULE, "--model-config", str(model_config), "--threads", str(threads)]
    return [*launcher, *ranks, *entry, *open_clip_flags]


def training_environment(inherited: Mapping[str, str], threads: int, device: str, launcher_pid: int) -> dict[str, str]:
    """The inherited environment, less what other launchers left in it, plus what makes a training run repeatable.

    `device` is "cpu" (no GPU is visible then) or "cuda" (those that are visible stay so). `launcher_pid` is the process
    that starts torchrun; torchrun ends when it does.
    """
    kept = {
        name: value
        for name, value in inherited.items()
        if name not in FOREIGN_NAMES and not name.startswith(FOREIGN_PREFIXES)
    }
    path = [str(PROJECT_ROOT), *filter(None, [inherited.get("PYTHONPATH")])]
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
        kept |= {"CUDA_VISIBLE_DEVICES": "", "GLOO_SOCKET_IFNAME": "lo"}
    return kept


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
