"""One rank of a classifier's training, from its last whole checkpoint to the last epoch, and what starts the ranks.

`run_ranks` has torchrun (cluster/torchrun.py) run it, with a folder that holds `job.json`. Rank 0 leaves
`checkpoints/`, tells after every epoch in `losses.json` what the losses were, and writes `weights.pt` at the end.
"""

import argparse
import io
import json
import logging
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from upath import UPath

from cluster.checkpoints import newest_valid, prune, save_checkpoint
from cluster.torchrun import (
    LOOPBACK,
    Rendezvous,
    die_with_parent,
    torchrun_argv,
    training_environment,
    why_it_ended,
)
from cluster.training_entry import check_device, make_repeatable
from idia_core.errors import IdiaError, TrainingError
from idia_core.recogniser_training import Trainer, TrainingJob
from idia_core.storage import write_text, write_whole

LOGGER = logging.getLogger("idia.recogniser")
JOB, LOSSES, WEIGHTS, CHECKPOINTS = "job.json", "losses.json", "weights.pt", "checkpoints"
"""Files of the training's folder."""
LOG = "torchrun.log"
LAST_BYTES = 1 << 16
"""Of the log: torchrun's summary and what a rank raised are within them."""
POLL_SECONDS = 0.5
THREADS = 1
"""Of a rank: more would add up in another order, to other bits."""
JOIN_TIME = timedelta(minutes=30)
"""For how long a rank waits for the others, which may be reading pictures from a slow disk."""


def run_ranks(work: Path, job: TrainingJob, run: str, tell: Callable[[Sequence[float]], None]) -> None:
    """Train `job` in the folder `work` by a torchrun on this machine, which ends with this process; `weights.pt` is it.

    `run` is the digest of all that the weights depend on: checkpoints of another one are refused. `tell` hears the
    losses of the epochs done. Raises `TrainingError` with what a rank said. Call it from a main thread: the kernel ends
    torchrun with the thread that started it.
    """
    write_text(UPath(work / JOB), job.model_dump_json())
    meeting = Rendezvous(LOOPBACK, 0, uuid.uuid4().hex)
    ranks = ["--work", str(work), "--run", run]
    argv = torchrun_argv(job.recipe.processes, meeting, ranks, module="cluster.recogniser_entry")
    environment = training_environment(os.environ, THREADS, job.device, os.getpid())
    log = work / LOG
    with (
        log.open("wb") as sink,
        subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink) as torchrun,
    ):
        try:
            while torchrun.poll() is None:
                time.sleep(POLL_SECONDS)
                if losses := losses_in(work):
                    tell(losses)
        finally:
            torchrun.kill()
    if torchrun.returncode:
        why = why_it_ended(log.read_bytes()[-LAST_BYTES:].decode(errors="replace")).removeprefix("TrainingError: ")
        raise TrainingError(why, f"log in {log}", "Run again: it goes on from its last checkpoint.")


def losses_in(work: Path) -> list[float]:
    """The mean loss of every epoch that is done."""
    try:
        losses: list[float] = json.loads((work / LOSSES).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    return losses


def train(work: Path, run: str) -> None:
    """Train what `job.json` says; `run` is the digest of all that the weights depend on."""
    job = TrainingJob.model_validate_json((work / JOB).read_bytes())
    rank, local_rank = int(os.environ.get("RANK", "0")), int(os.environ.get("LOCAL_RANK", "0"))
    make_repeatable(THREADS, job.device)
    check_device(job.device)
    _meet(job.device, local_rank)
    trainer = Trainer(job, rank, local_rank)
    _go_on(trainer, work / CHECKPOINTS, run, job.recipe.backbone)
    _barrier()  # nobody saves or prunes while others still read
    while len(trainer.losses) < job.recipe.epochs:
        trainer.train_epoch()
        if rank == 0:
            _save(trainer, work, run, job.recipe.backbone)
    if rank == 0:
        write_weights(work / WEIGHTS, trainer.network.state_dict())
    _barrier()


def _meet(device: str, local_rank: int) -> None:
    import torch  # noqa: PLC0415 - heavy

    if device == "cuda":
        torch.cuda.set_device(local_rank)
    torch.distributed.init_process_group("nccl" if device == "cuda" else "gloo", timeout=JOIN_TIME)


def _barrier() -> None:
    import torch  # noqa: PLC0415 - heavy

    torch.distributed.barrier()


def _go_on(trainer: Trainer, checkpoints: Path, run: str, backbone: str) -> None:
    """Take up the newest checkpoint that is whole, if there is one."""
    import torch  # noqa: PLC0415 - heavy

    found, passed_over = newest_valid(checkpoints, run, backbone)
    for reason in passed_over:
        LOGGER.warning("passed over %s", reason)
    if found:
        trainer.go_on_from(torch.load(found.path, map_location="cpu", weights_only=True))


def _save(trainer: Trainer, work: Path, run: str, backbone: str) -> None:
    """Keep an epoch: the checkpoint whole or not at all, and after it the losses for whoever watches."""
    state = trainer.state()
    folder = work / CHECKPOINTS
    save_checkpoint(state, folder / f"epoch_{state['epoch']}.pt", run, backbone)
    prune(folder, newest=state["epoch"])
    write_text(UPath(work / LOSSES), json.dumps(trainer.losses))


def write_weights(path: Path, weights: dict[str, Any]) -> None:
    """Write the weights alone, in the same bytes for the same numbers wherever they were trained."""
    import torch  # noqa: PLC0415 - heavy

    buffer = io.BytesIO()  # whose name, unlike a file's, does not get into the archive
    torch.save({name: weight.detach().cpu().clone() for name, weight in weights.items()}, buffer)
    with write_whole(UPath(path)) as file:
        file.write(buffer.getvalue())


def main() -> None:
    """One rank, from start to end."""
    die_with_parent()
    parser = argparse.ArgumentParser(prog="cluster.recogniser_entry", allow_abbrev=False)
    parser.add_argument("--work", type=Path, required=True, help="the training's folder")
    parser.add_argument("--run", required=True, help="the digest of what is trained, for the checkpoints")
    options = parser.parse_args()
    logging.basicConfig(format="%(asctime)s | %(levelname)s | %(message)s")
    status = 0
    try:
        train(options.work, options.run)
    except IdiaError as error:
        LOGGER.error("%s: %s", type(error).__name__, error)  # noqa: TRY400 - one line, which the launcher repeats
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # skips a second of tearing torch down; everything is written and the ranks have met


if __name__ == "__main__":
    main()
