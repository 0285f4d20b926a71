"""Training runs of the real entry, one after another, each in processes that torchrun's variables tell their rank.

Run as a module it imports open_clip once and forks the ranks, which spares each run the seconds of a torchrun's start.
"""

import json
import multiprocessing
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from cluster import training_entry
from cluster.torchrun import PROJECT_ROOT, training_environment
from idia_core.training import MODEL_CONFIG


@dataclass(frozen=True)
class Run:
    """One run of the entry: its ranks and flags, and what is to be copied first, to be resumed there."""

    ranks: int
    flags: list[str]
    copied: list[tuple[str, str]] = field(default_factory=list)


def entry_flags(work: Path, data: str, samples: int, **flags: object) -> list[str]:
    """The entry's flags and open_clip's for three epochs of the demo's architecture in `work`, others by keyword."""
    valued = {
        "model-config": MODEL_CONFIG,
        "threads": 1,
        "run": "a1b2",
        "work": work,
        "model": MODEL_CONFIG.stem,
        "train-data": data,
        "train-num-samples": samples,
        "dataset-type": "webdataset",
        "epochs": 3,
        "batch-size": 4,
        "lr": 1e-3,
        "warmup": 2,
        "precision": "fp32",
        "device": "cpu",
        "seed": 5,
        "workers": 0,
        "logs": work.parent,
        "name": work.name,
        "log-every-n-steps": 1,
        "save-frequency": 1,
    }
    valued |= {name.replace("_", "-"): value for name, value in flags.items()}
    return [*(word for name, value in valued.items() for word in (f"--{name}", str(value))), "--local-loss"]


def run_all(runs: Sequence[Run], folder: Path) -> tuple[list[list[int]], str]:
    """What the ranks of each run ended with, and what all of them wrote to standard error."""
    (folder / "runs.json").write_text(json.dumps([asdict(run) for run in runs]), encoding="utf-8")
    argv = [sys.executable, "-m", "tests.cluster.training_ranks", folder / "runs.json"]
    environment = training_environment(os.environ, threads=1, device="cpu", launcher_pid=os.getpid())
    done = subprocess.run(argv, cwd=PROJECT_ROOT, env=environment, capture_output=True, text=True, check=True)
    return json.loads((folder / "ended.json").read_text(encoding="utf-8")), done.stderr


def _rank(rank: int, run: Run, port: int) -> None:
    """One rank, from the entry's first line to its last."""
    told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": run.ranks, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in told.items()} | {"MASTER_ADDR": "127.0.0.1"}
    sys.argv = ["training_entry", *run.flags]
    training_entry.main()


def _ended(run: Run) -> list[int | None]:
    """Run it, and say how its ranks ended."""
    for source, target in run.copied:
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        Path(target).write_bytes(Path(source).read_bytes())
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    fork = multiprocessing.get_context("fork")
    ranks = [fork.Process(target=_rank, args=(rank, run, port)) for rank in range(run.ranks)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    return [rank.exitcode for rank in ranks]


def main() -> None:
    """All runs of a file."""
    training_entry.leave_out_unused_packages(MODEL_CONFIG)
    import open_clip_train.main  # noqa: F401, PLC0415 - so that no rank has to

    os.environ["IDIA_PARENT_PID"] = str(os.getpid())
    file = Path(sys.argv[1])
    runs = [Run(**fields) for fields in json.loads(file.read_text(encoding="utf-8"))]
    file.with_name("ended.json").write_text(json.dumps([_ended(run) for run in runs]), encoding="utf-8")


if __name__ == "__main__":
    main()
