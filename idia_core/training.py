"""A CLIP training run: its recipe, open_clip's flags for it, its progress, and the weights it ends with.

The run itself is open_clip_train's; cluster/torchrun.py starts it. The models of the paper's Section 5 are trained so.
"""

import io
import math
import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from idia_core.errors import TrainingError

if TYPE_CHECKING:
    import torch

MODEL_CONFIG = Path(__file__).with_name("idia-rn-tiny.json")
"""The demo's own architecture, as open_clip's JSON: a CLIP small enough to train in half a minute on two cores."""

# open_clip prefixes each weight so when it trained on several ranks.
PARALLEL_PREFIX = "module."
LINES_PER_EPOCH, MOST_STEPS_A_LINE = 6, 100
"""How often open_clip logs its progress: so many lines an epoch at least, and one in so many steps, as by itself."""


class TrainingRecipe(BaseModel):
    """Everything that decides the weights of a model, besides its shards: same recipe, same machine, same bytes.

    The defaults are the paper's (Section 5.1), on eight GPUs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture: str = "ViT-B-32"
    """A model name of open_clip's, or `idia-rn-tiny`."""
    epochs: int = Field(default=50, ge=1)
    """How often each training pair is shown."""
    processes: int = Field(default=8, ge=1)
    """Ranks of the run; one GPU each on `device: cuda`."""
    threads_per_process: int = Field(default=1, ge=1)
    """Threads of a rank on CPU; another number adds in another order and gives other last bits."""
    loaders_per_process: int | None = Field(default=None, ge=0)
    """Processes that read for each rank; 4 with a GPU when not given, and on CPU none: a rank reads by itself."""
    batch_size_per_process: int = Field(default=128, ge=1)
    """Pairs of a rank's step; the contrastive loss sees `processes` times as many."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """AdamW's highest learning rate, reached after the warm-up and left along a cosine."""
    warmup_steps: int = Field(default=10_000, ge=0)
    """Optimiser steps over which the learning rate rises from zero; as many as in open_clip's README
    for this batch size, learning rate and weight decay."""
    weight_decay: float = Field(default=0.1, ge=0)
    """AdamW's weight decay."""
    adam_beta2: float | None = Field(default=None, ge=0, lt=1)
    """AdamW's decay of the squared gradients; open_clip's own when not given: 0.98 for a ViT, 0.999 for others."""
    precision: Literal["amp", "amp_bf16", "amp_bfloat16", "bf16", "fp16", "pure_bf16", "pure_fp16", "fp32"] = "amp"
    """open_clip's --precision."""
    device: Literal["cpu", "cuda"] = "cuda"
    """What the ranks compute on."""
    seed: int = Field(default=0, ge=0)
    """Of the initial weights, the order of the shards, the order of the pairs and the crops."""
    extra_flags: tuple[str, ...] = ()
    """More flags of open_clip_train, word by word; one that contradicts the fields above is an error."""

    @property
    def global_batch_size(self) -> int:
        """Pairs of one optimiser step over all ranks."""
        return self.processes * self.batch_size_per_process

    @property
    def loader_processes(self) -> int:
        """Processes that read for each rank (--workers)."""
        if self.loaders_per_process is not None:
            return self.loaders_per_process
        return 0 if self.device == "cpu" else 4


def open_clip_flags(  # noqa: PLR0913 - what a run is, and how it is kept
    recipe: TrainingRecipe,
    train_data: str,
    samples: int,
    name: str,
    logs: Path,
    *,
    accumulate: int = 1,
    checkpoint_epochs: int = 1,
    resume: Path | None = None,
    wandb: bool = False,
) -> list[str]:
    """The flags of `open_clip_train.main` for one model; its files go to `logs`/`name`.

    `train_data` names the shards as open_clip does, `shards/{00000..00007}.tar`; `samples` is how many pairs an epoch
    has. A run on fewer processes than the recipe's makes up for them when each step takes `accumulate` batches of each.
    A checkpoint is saved every `checkpoint_epochs`, and after the last.
    """
    valued = {
        "model": recipe.architecture,
        "train-data": train_data,
        "train-num-samples": samples,
        "dataset-type": "webdataset",
        "epochs": recipe.epochs,
        "batch-size": recipe.batch_size_per_process,
        "accum-freq": accumulate if accumulate > 1 else None,
        "lr": recipe.learning_rate,
        "beta2": recipe.adam_beta2,
        "wd": recipe.weight_decay,
        "warmup": recipe.warmup_steps,
        "precision": recipe.precision,
        "device": recipe.device,
        "seed": recipe.seed,
        "workers": recipe.loader_processes,
        "logs": logs,
        "name": name,
        "resume": resume,
        "report-to": "tensorboard,wandb" if wandb else "tensorboard",
        "log-every-n-steps": min(MOST_STEPS_A_LINE, max(1, samples // recipe.global_batch_size // LINES_PER_EPOCH)),
        "save-frequency": checkpoint_epochs,
    }
    words = [word for flag, value in valued.items() if value is not None for word in (f"--{flag}", str(value))]
    return [*words, "--local-loss", "--gather-with-grad", *recipe.extra_flags]


@dataclass(frozen=True)
class Progress:
    """Where a running training is: in epoch `epoch` (from 1) of `epochs`, with `samples_done` pairs of it shown."""

    epoch: int
    epochs: int
    samples_done: int
    samples_per_epoch: int
    loss: float
    samples_per_second: float
    data_seconds: float
    """Of a step, waiting for its pairs."""
    batch_seconds: float
    """Of a step, all in all."""

    @property
    def finite(self) -> bool:
        """Whether the loss is a number."""
        return math.isfinite(self.loss)

    @property
    def data_wait(self) -> float:
        """The part of a step's time that is spent waiting for its pairs, 0 to 1."""
        return min(1.0, self.data_seconds / self.batch_seconds) if self.batch_seconds else 0.0

    @property
    def seconds_left(self) -> float:
        """How long the rest of the run takes at the present rate."""
        rest = (1 - self.fraction) * self.epochs * self.samples_per_epoch
        return rest / self.samples_per_second if self.samples_per_second else math.inf

    @property
    def fraction(self) -> float:
        """The part of the whole run that is done, 0 to 1."""
        return (self.epoch - 1 + self.samples_done / self.samples_per_epoch) / self.epochs


_PROGRESS_START = "Train Epoch: "
_PROGRESS_LINE = re.compile(
    r"Train Epoch: (?P<epoch>\d+) \[\s*(?P<done>\d+)/(?P<total>\d+) .*?Data \(t\): (?P<data>[\d.]+) "
    r"Batch \(t\): (?P<batch>[\d.]+), (?P<rate>[\d.e+]+)/s,.* Loss: (?P<loss>\S+) \("
)
_SKIPPED_LINE = "Handling webdataset error"


def read_progress(log_text: str, epochs: int) -> Progress | None:
    """The newest progress in open_clip's `out.log`, or None before the first step."""
    line, end = None, len(log_text)
    while line is None and (end := log_text.rfind(_PROGRESS_START, 0, end)) >= 0:
        line = _PROGRESS_LINE.match(log_text, end)  # None where the line is not written to its end yet
    if line is None:
        return None
    return Progress(
        epoch=int(line["epoch"]) + 1,
        epochs=epochs,
        samples_done=int(line["done"]),
        samples_per_epoch=int(line["total"]),
        loss=float(line["loss"]),
        samples_per_second=float(line["rate"]),
        data_seconds=float(line["data"]),
        batch_seconds=float(line["batch"]),
    )


def check_nothing_skipped(output: str, name: str) -> None:
    """Raises TrainingError if any rank skipped a pair or a shard, which open_clip only warns of.

    `output` is what all ranks wrote to standard error.
    """
    skipped = [line for line in output.splitlines() if _SKIPPED_LINE in line]
    if skipped:
        raise TrainingError(
            f"{len(skipped)} training pairs or shards were unreadable and skipped, the first: {skipped[0].strip()}",
            f"model {name}",
            "Rebuild the shards.",
        )


def checkpoint_path(logs: Path, name: str, recipe: TrainingRecipe) -> Path:
    """Where open_clip leaves the last epoch of a run."""
    return logs / name / "checkpoints" / f"epoch_{recipe.epochs}.pt"


def final_weights(checkpoint: Path, recipe: TrainingRecipe) -> bytes:
    """The content of a `.pt` with the weights alone, for `open_clip.create_model_and_transforms(pretrained=...)`.

    Equal weights give equal bytes. Raises TrainingError if the checkpoint is missing, broken, of another epoch than the
    recipe's last, or holds a weight that is not finite.
    """
    import torch  # noqa: PLC0415 - importing idia_core stays light

    state = _read_checkpoint(checkpoint, recipe.epochs)
    weights = {name.removeprefix(PARALLEL_PREFIX): weight for name, weight in state.items()}
    for name, weight in weights.items():
        if not torch.isfinite(weight).all():
            raise TrainingError(
                f"the weight {name} is not finite after training", str(checkpoint), "Lower the learning rate."
            )
    # A file path would put the file's name into the bytes; views would put their whole storage.
    content = io.BytesIO()
    torch.save({name: weights[name].detach().cpu().contiguous().clone() for name in sorted(weights)}, content)
    return content.getvalue()


def _read_checkpoint(checkpoint: Path, epochs: int) -> Mapping[str, "torch.Tensor"]:
    """The `state_dict` of open_clip's checkpoint, once its epoch is checked."""
    import torch  # noqa: PLC0415

    again = "Train again."
    try:
        content: dict[str, Any] = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise TrainingError("the training wrote no checkpoint of its last epoch", str(checkpoint), again) from error
    except (RuntimeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise TrainingError("the checkpoint cannot be read", str(checkpoint), again) from error
    if content.get("epoch") != epochs or not content.get("state_dict"):
        raise TrainingError(f"the checkpoint is not of epoch {epochs}", str(checkpoint), again)
    state: Mapping[str, torch.Tensor] = content["state_dict"]
    return state
