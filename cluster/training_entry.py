"""One rank of a training run: open_clip's own training, made repeatable, able to run on CPU and to be resumed.

Run by torchrun (cluster/torchrun.py). These things of open_clip's are changed, from outside; the rest is its `main`.
1. Samples are shuffled from the seed and the epoch; open_clip's shuffle seeds itself from the clock. Random numbers
   start anew with every epoch, so that a run resumed at an epoch draws the crops of one that was never interrupted.
2. On CPU, DistributedDataParallel is not given `device_ids`, which it refuses there.
3. The architecture is read from a JSON file; open_clip knows only those it ships.
4. transformers and timm are not imported when the architecture needs neither: a quarter of the start-up.
5. A checkpoint is whole or not there (cluster/checkpoints.py), and only one that is whole is resumed from.
6. Rank 0 tells every second that it is alive.
"""

import argparse
import functools
import json
import logging
import os
import random
import sys
import time
import types
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from cluster.checkpoints import newest_valid, prune, save_checkpoint
from cluster.torchrun import die_with_parent
from idia_core.errors import IdiaError, TrainingError

# Packages that open_clip does without when they are missing, and the field of an architecture that needs them.
OPTIONAL_PACKAGES = {"transformers": "hf_model_name", "timm": "timm_model_name"}
LOGGER = logging.getLogger("idia.training")  # open_clip has all loggers write to its out.log
HEARTBEAT = "heartbeat.json"
HEARTBEAT_SECONDS = 1.0


def parse_entry_flags(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The entry's own flags, and all others as they came, for open_clip."""
    parser = argparse.ArgumentParser(prog="cluster.training_entry", allow_abbrev=False)
    parser.add_argument("--model-config", type=Path, required=True, help="the architecture, as open_clip's JSON")
    parser.add_argument("--threads", type=int, required=True, help="threads of this rank")
    parser.add_argument("--run", required=True, help="the digest of what is trained, for the checkpoints")
    parser.add_argument("--work", type=Path, required=True, help="the run's folder, that the heartbeat is in")
    return parser.parse_known_args(argv)


def leave_out_unused_packages(model_config: Path) -> None:
    """Makes `import transformers` and `import timm` fail, as if not installed, where the architecture needs neither."""
    architecture = json.loads(model_config.read_text(encoding="utf-8"))
    fields = architecture["vision_cfg"].keys() | architecture["text_cfg"].keys()
    for package, field in OPTIONAL_PACKAGES.items():
        if field not in fields:
            sys.modules[package] = None  # type: ignore[assignment]  # the documented way to forbid an import


def make_repeatable(threads: int, device: str) -> None:
    """Has torch use the given threads and, where it knows them, operations that give the same bits each time.

    On CPU it knows one for everything that a CLIP model does; of those on a GPU that have none it only warns.
    """
    import torch  # noqa: PLC0415 - imported once the packages above are left out

    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(mode=True, warn_only=device != "cpu")


def check_device(device: str) -> None:
    """Raises TrainingError where no GPU is visible; open_clip would train on CPU instead, for months."""
    import torch  # noqa: PLC0415

    if device.startswith("cuda") and not torch.cuda.is_available():
        seen = os.environ.get("CUDA_VISIBLE_DEVICES")
        what = f"torch sees no GPU (CUDA_VISIBLE_DEVICES is {seen!r})"
        raise TrainingError(what, f"--device {device}", "Check nvidia-smi and the build of torch, or train on cpu.")


def seed_from(*numbers: int) -> None:
    """Start the random numbers of torch, numpy and Python from all of the numbers together."""
    import torch  # noqa: PLC0415

    seed = int(np.random.SeedSequence(numbers).generate_state(1)[0])
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the generator that augmentations draw from
    random.seed(seed)


def rank() -> int:
    """Which rank of the run this process, or the one that it reads for, is."""
    return int(os.environ.get("RANK", "0"))


def shuffle_from_seed(seed: int) -> None:
    """Has open_clip's loader shuffle the pairs of a shard slice from `seed` plus the epoch, as it does the shards.

    idia_core/exposure.py computes what a loader shows from that. A run resumed at an epoch shows the same as one that
    was never interrupted. Every rank and worker has shards of its own, so they may share a seed; for the crops, each
    worker starts its random numbers with the epoch too.
    """
    import open_clip_train.data  # noqa: PLC0415
    import webdataset  # noqa: PLC0415
    from torch.utils.data import get_worker_info  # noqa: PLC0415

    class NewestEpoch(open_clip_train.data.SharedEpoch):  # type: ignore[misc]  # open_clip has no types
        """The epoch that the main process tells the workers; open_clip makes one a loader, before the shuffle."""

        newest: ClassVar[Any] = None

        def __init__(self, epoch: int = 0) -> None:
            super().__init__(epoch)
            NewestEpoch.newest = self

    class SeededShuffle(open_clip_train.data.detshuffle2):  # type: ignore[misc]
        """open_clip's shuffle of shards, for pairs; a worker passes it where an epoch begins."""

        seeded_for = -1

        def run(self, src: Any) -> Any:
            """The pairs in their order; a second pass in the same epoch goes on with its random numbers."""
            epoch, worker = self.epoch.get_value(), get_worker_info()
            if worker is not None and epoch != self.seeded_for:
                seed_from(seed, epoch, rank(), 1 + worker.id)
                self.seeded_for = epoch
            return super().run(src)

    def shuffle(bufsize: int, initial: int) -> Any:
        """In place of webdataset's, which open_clip calls by this name and which takes its seed from the clock."""
        return SeededShuffle(bufsize, initial, seed, NewestEpoch.newest)

    open_clip_train.data.SharedEpoch = NewestEpoch
    webdataset.shuffle = shuffle


def data_parallel_without_device_ids() -> None:
    """Has DistributedDataParallel ignore `device_ids`, which open_clip gives it on CPU too."""
    import torch  # noqa: PLC0415

    class CpuDataParallel(torch.nn.parallel.DistributedDataParallel):
        """DistributedDataParallel over gloo."""

        def __init__(self, module: torch.nn.Module, device_ids: list[torch.device], **options: Any) -> None:
            del device_ids
            # The gradients are views of what gloo sends: one copy of the word embedding less in every step. To look for
            # unused weights keeps the buckets of the first step for all: sent in another order, the gradients of three
            # and more ranks add up to other last bits, and a resumed run would not be the uninterrupted one.
            options |= {"gradient_as_bucket_view": True, "find_unused_parameters": True}
            super().__init__(module, **options)

    torch.nn.parallel.DistributedDataParallel = CpuDataParallel  # type: ignore[assignment, misc]


def fuse_adamw() -> None:
    """Has AdamW take its step in one pass over the weights: nine times faster on CPU, and 40 ms of a demo step."""
    import torch  # noqa: PLC0415

    torch.optim.AdamW = functools.partial(torch.optim.AdamW, fused=True)  # type: ignore[misc, assignment]


def save_whole_checkpoints(run: str, architecture: str) -> None:
    """Has open_clip save a checkpoint whole or not at all, with a sidecar, and remove those before the last two.

    Only open_clip_train.main sees another torch.save; torch's own stays. It is called in rank 0 alone.
    """
    import open_clip_train.main  # noqa: PLC0415
    import torch  # noqa: PLC0415

    class TorchAsMainSeesIt(types.ModuleType):
        """torch, but for what is set on it."""

        def __getattr__(self, name: str) -> Any:
            return getattr(torch, name)

    def save(content: Any, path: str) -> None:
        """In place of torch.save."""
        checkpoint = Path(path)
        save_checkpoint(content, checkpoint, run, architecture)
        prune(checkpoint.parent, newest=content["epoch"])

    seen: Any = TorchAsMainSeesIt("torch")
    seen.save = save
    open_clip_train.main.torch = seen


def choose_checkpoint(wanted: str | None, run: str, architecture: str) -> None:
    """Has open_clip's `--resume latest` go on from `wanted`, or from the start where that is None.

    It is the one way on which open_clip goes on in a folder that it has been in, and appends to its log. Where `wanted`
    is "latest" too, it is the newest checkpoint that is whole instead of the one with the highest number.
    """
    import open_clip_train.main  # noqa: PLC0415

    def chosen(folder: str, remote: bool) -> str | None:  # noqa: ARG001 - open_clip names it
        """In place of get_latest_checkpoint; called in rank 0 alone, which tells the others."""
        if wanted != "latest":
            return wanted
        found, passed_over = newest_valid(Path(folder), run, architecture)
        for reason in passed_over:
            LOGGER.warning("passed over %s", reason)
        return str(found.path) if found else None

    open_clip_train.main.get_latest_checkpoint = chosen


class Heartbeat:
    """Tells in a file how many optimiser steps are done and when that was, at most once a second."""

    def __init__(self, work: Path) -> None:
        self._path, self._next, self.steps = work / HEARTBEAT, 0.0, 0

    def beat(self, *_: Any) -> None:
        """One more step is done; torch calls it with the optimiser and what `step` was given."""
        self.steps += 1
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + HEARTBEAT_SECONDS
        temporary = self._path.with_suffix(".tmp")
        try:
            temporary.write_text(json.dumps({"step": self.steps, "time": time.time()}), encoding="utf-8")
            temporary.replace(self._path)
        except OSError as error:
            # Whether a full disk ends the run is for the next checkpoint to say; a silence is for the watcher to judge.
            LOGGER.warning("no heartbeat: %s", error)


class Epochs:
    """open_clip's `train_one_epoch`, from the same random numbers however the run came to that epoch."""

    def __init__(self, settings: argparse.Namespace, heartbeat: Heartbeat) -> None:
        import open_clip_train.main  # noqa: PLC0415
        from torch.optim.optimizer import register_optimizer_step_post_hook  # noqa: PLC0415

        self._settings, self._heartbeat, self._writer = settings, heartbeat, None
        self._train_one_epoch = open_clip_train.main.train_one_epoch
        open_clip_train.main.train_one_epoch = self
        if rank() == 0:
            # Not the scheduler's call, which --skip-scheduler leaves out.
            register_optimizer_step_post_hook(heartbeat.beat)

    def __call__(self, model: Any, data: Any, loss: Any, epoch: int, *others: Any, tb_writer: Any) -> None:
        """One epoch."""
        steps = data["train"].dataloader.num_batches // self._settings.accum_freq
        self._heartbeat.steps, self._writer = steps * epoch, tb_writer
        seed_from(self._settings.seed, epoch, rank())
        self._train_one_epoch(model, data, loss, epoch, *others, tb_writer=tb_writer)

    def flush(self) -> None:
        """Wait for what TensorBoard has not written yet: its thread ends with the process, at once."""
        if self._writer is not None:
            self._writer.flush()


def train(options: argparse.Namespace, flags: list[str]) -> None:
    """Trains with open_clip; raises TrainingError where open_clip only prints an error and returns."""
    leave_out_unused_packages(options.model_config)
    from open_clip_train.params import parse_args  # noqa: PLC0415

    settings = parse_args(flags)
    make_repeatable(options.threads, settings.device)
    check_device(settings.device)
    import open_clip  # noqa: PLC0415
    from open_clip_train.main import main as open_clip_main  # noqa: PLC0415

    if settings.save_most_recent:
        what = "open_clip would resume from epoch_latest.pt, which has no sidecar to be checked by"
        raise TrainingError(what, "--save-most-recent", "Leave it out: each epoch is saved, and the last two are kept.")
    open_clip.add_model_config(options.model_config)
    shuffle_from_seed(settings.seed)
    if settings.device == "cpu":
        data_parallel_without_device_ids()
        fuse_adamw()
    save_whole_checkpoints(options.run, settings.model)
    choose_checkpoint(settings.resume, options.run, settings.model)
    epochs = Epochs(settings, Heartbeat(options.work))
    if open_clip_main([*flags, "--resume", "latest"]) == -1:
        raise TrainingError("open_clip refused to train", "its reason is printed above")
    epochs.flush()


def main() -> None:
    """One rank, from start to end."""
    die_with_parent()
    options, flags = parse_entry_flags(sys.argv[1:])
    status = 0
    try:
        train(options, flags)
    except IdiaError as error:
        LOGGER.error("%s: %s", type(error).__name__, error)  # noqa: TRY400 - one line, also in open_clip's out.log
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # skips a second of tearing torch down; everything is written and the ranks have met at a barrier


if __name__ == "__main__":
    main()
