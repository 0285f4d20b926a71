"""One rank of a training run: open_clip's own training, made repeatable and able to run on CPU.

Run by torchrun (cluster/torchrun.py). Four things of open_clip's are changed, from outside; the rest is its `main`.
1. Samples are shuffled from the seed and the epoch; open_clip's shuffle seeds itself from the clock.
2. On CPU, DistributedDataParallel is not given `device_ids`, which it refuses there.
3. The architecture is read from a JSON file; open_clip knows only those it ships.
4. transformers and timm are not imported when the architecture needs neither: a quarter of the start-up.
"""

import argparse
import functools
import json
import os
import sys
from pathlib import Path
from typing import Any, ClassVar

from cluster.torchrun import die_with_parent

# Packages that open_clip does without when they are missing, and the field of an architecture that needs them.
OPTIONAL_PACKAGES = {"transformers": "hf_model_name", "timm": "timm_model_name"}


def parse_entry_flags(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The entry's own two flags, and all others as they came, for open_clip."""
    parser = argparse.ArgumentParser(prog="cluster.training_entry", allow_abbrev=False)
    parser.add_argument("--model-config", type=Path, required=True, help="the architecture, as open_clip's JSON")
    parser.add_argument("--threads", type=int, required=True, help="threads of this rank")
    return parser.parse_known_args(argv)


def leave_out_unused_packages(model_config: Path) -> None:
    """Makes `import transformers` and `import timm` fail, as if not installed, where the architecture needs neither."""
    architecture = json.loads(model_config.read_text(encoding="utf-8"))
    fields = architecture["vision_cfg"].keys() | architecture["text_cfg"].keys()
    for package, field in OPTIONAL_PACKAGES.items():
        if field not in fields:
            sys.modules[package] = None  # type: ignore[assignment]  # the documented way to forbid an import


def make_repeatable(threads: int) -> None:
    """Has torch use the given threads and only operations that give the same bits each time."""
    import torch  # noqa: PLC0415 - imported once the packages above are left out

    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(mode=True)


def shuffle_from_seed(seed: int) -> None:
    """Has open_clip's loader shuffle the pairs of a shard slice from `seed` plus the epoch, as it does the shards.

    idia_core/exposure.py computes what a loader shows from that. A run resumed at an epoch shows the same as one that
    was never interrupted. Every rank and worker has shards of its own, so they may share a seed.
    """
    import open_clip_train.data  # noqa: PLC0415
    import webdataset  # noqa: PLC0415

    class NewestEpoch(open_clip_train.data.SharedEpoch):  # type: ignore[misc]  # open_clip has no types
        """The epoch that the main process tells the workers; open_clip makes one a loader, before the shuffle."""

        newest: ClassVar[Any] = None

        def __init__(self, epoch: int = 0) -> None:
            super().__init__(epoch)
            NewestEpoch.newest = self

    def shuffle(bufsize: int, initial: int) -> Any:
        """In place of webdataset's, which open_clip calls by this name and which takes its seed from the clock."""
        return open_clip_train.data.detshuffle2(bufsize, initial, seed, NewestEpoch.newest)

    open_clip_train.data.SharedEpoch = NewestEpoch
    webdataset.shuffle = shuffle


def data_parallel_without_device_ids() -> None:
    """Has DistributedDataParallel ignore `device_ids`, which open_clip gives it on CPU too."""
    import torch  # noqa: PLC0415

    class CpuDataParallel(torch.nn.parallel.DistributedDataParallel):
        """DistributedDataParallel over gloo."""

        def __init__(self, module: torch.nn.Module, device_ids: list[torch.device], **options: Any) -> None:
            del device_ids
            # The gradients are views of what gloo sends: one copy of the word embedding less in every step.
            super().__init__(module, gradient_as_bucket_view=True, **options)

    torch.nn.parallel.DistributedDataParallel = CpuDataParallel  # type: ignore[assignment, misc]


def fuse_adamw() -> None:
    """Has AdamW take its step in one pass over the weights: nine times faster on CPU, and 40 ms of a demo step."""
    import torch  # noqa: PLC0415

    torch.optim.AdamW = functools.partial(torch.optim.AdamW, fused=True)  # type: ignore[misc, assignment]


def train(model_config: Path, threads: int, flags: list[str]) -> None:
    """Trains with open_clip; raises SystemExit where open_clip only prints an error and returns."""
    leave_out_unused_packages(model_config)
    make_repeatable(threads)
    import open_clip  # noqa: PLC0415
    from open_clip_train.main import main as open_clip_main  # noqa: PLC0415
    from open_clip_train.params import parse_args  # noqa: PLC0415

    settings = parse_args(flags)
    open_clip.add_model_config(model_config)
    shuffle_from_seed(settings.seed)
    if settings.device == "cpu":
        data_parallel_without_device_ids()
        fuse_adamw()
    if open_clip_main(flags) == -1:
        raise SystemExit("open_clip refused to train; its reason is printed above")


def main() -> None:
    """One rank, from start to end."""
    die_with_parent()
    options, flags = parse_entry_flags(sys.argv[1:])
    train(options.model_config, options.threads, flags)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # skips a second of tearing torch down; everything is written and the ranks have met at a barrier


if __name__ == "__main__":
    main()
