"""Flags of open_clip_train that a recipe passes through: all but those that say otherwise than the recipe does."""

import contextlib
import io
from pathlib import Path
from typing import Any

from idia_core.errors import ConfigError
from idia_core.training import TrainingRecipe, open_clip_flags

FIELD = "recipe.extra_flags"

# What decides a value of open_clip's that we set: a flag of `extra_flags` may not set it to another one.
OUR_FIELDS = {
    "model": "train.architectures",
    "train_data": "train.inputs",
    "train_num_samples": "train.equal_steps",
    "dataset_type": "train.inputs",
    "epochs": "recipe.epochs",
    "batch_size": "recipe.batch_size_per_process",
    "lr": "recipe.learning_rate",
    "beta2": "recipe.adam_beta2",
    "wd": "recipe.weight_decay",
    "warmup": "recipe.warmup_steps",
    "precision": "recipe.precision",
    "device": "recipe.device",
    "seed": "train.seed",
    "workers": "recipe.loaders_per_process",
    "accum_freq": "recipe.batch_size_per_process",
    "save_frequency": "train.resources.checkpoint_epochs",
    "report_to": "train.resources.wandb",
}
_OTHER_MODEL = "the checkpoint would not be of the architecture that it is said to be of"
_OTHER_PICTURES = "the checkpoint does not say how pictures must be prepared for it"
# What would break a run or what is recorded of it, and why.
REFUSED = {
    "logs": "the run's files must lie where its controller looks for them",
    "name": "the run's files must lie where its controller looks for them",
    "log_local": "the run's files must lie where its controller looks for them",
    "resume": "a run goes on from its newest valid checkpoint by itself",
    "save_most_recent": "only checkpoints that are hashed as they are written can be gone on from",
    "delete_previous_checkpoint": "the run deletes old checkpoints itself, once newer ones are whole",
    "remote_sync": "it runs a copy beside the training that nobody watches",
    "copy_codebase": "it refuses to copy a second time, when the run goes on",
    "dataset_resampled": "how often each pair is shown could not be told",
    "train_data_upsampling_factors": "how often each pair is shown could not be told",
    "skip_scheduler": "the run would have no heartbeat; --lr-scheduler const with a warm-up of 0 does the same",
    "trace": "open_clip cannot train a traced model",
    "distill_model": "open_clip cannot distil where gradients are accumulated, as after the loss of a node",
    "distill_pretrained": "open_clip cannot distil where gradients are accumulated, as after the loss of a node",
    "horovod": "torchrun starts the ranks",
    "dist_url": "torchrun tells the ranks where they meet",
    "no_set_device_rank": "all ranks of a node would compute on its first GPU",
    "force_image_size": _OTHER_MODEL,
    "force_context_length": _OTHER_MODEL,
    "force_quick_gelu": _OTHER_MODEL,
    "force_custom_text": _OTHER_MODEL,
    "siglip": _OTHER_MODEL,
    "use_bnb_linear": _OTHER_MODEL,
    "image_mean": _OTHER_PICTURES,
    "image_std": _OTHER_PICTURES,
}


def check_extra_flags(recipe: TrainingRecipe) -> None:
    """Raises `ConfigError` for an extra flag that is not known, contradicts what we set, or would break the run.

    Flags are compared as open_clip's own parser reads them, `--flag=value` too; each must be written in full.
    """
    ours = open_clip_flags(recipe.model_copy(update={"extra_flags": ()}), "DATA", 1, "NAME", Path("LOGS"))
    without, given = vars(_parsed(ours)), vars(_parsed([*ours, *recipe.extra_flags]))
    for name in (name for name, value in given.items() if value != without[name]):
        flag = f"{_flag(name)} {given[name]}"
        if name in REFUSED:
            raise ConfigError(f"'{flag}' cannot be passed: {REFUSED[name]}", FIELD, "Remove it.")
        if name in OUR_FIELDS and not (name == "beta2" and recipe.adam_beta2 is None):
            what = f"'{flag}' contradicts what the run is started with, {without[name]}"
            raise ConfigError(what, FIELD, f"Set {OUR_FIELDS[name]} instead.")
    for word in recipe.extra_flags:
        written = word.partition("=")[0]
        if written.startswith("--") and written not in map(_flag, given):  # the entry might take it for one of its own
            raise ConfigError(f"'{written}' is only the beginning of a flag", FIELD, "Write it in full.")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _parsed(flags: list[str]) -> Any:
    """The flags as open_clip reads them; `ConfigError` with argparse's own words where it does not."""
    from open_clip_train.params import parse_args  # noqa: PLC0415 - importing idia_core stays light

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            return parse_args(flags)
    except SystemExit as error:
        words = said.getvalue().rpartition(" error: ")[2].strip() if error.code else "--help trains nothing"
        fix = "See python -m open_clip_train.main --help."
        raise ConfigError(f"open_clip_train refuses its flags: {words}", FIELD, fix) from None
    except ValueError as error:  # --aug-cfg splits its words at "="
        what = f"open_clip_train refuses its flags: {error}"
        raise ConfigError(what, FIELD, "Write --aug-cfg KEY=VALUE.") from None
