"""The recipe, the flags, the progress and the final weights of a training run, and real runs through torchrun."""

import io
import math
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image
from pydantic import ValidationError

from cluster.torchrun import Rendezvous, entry_argv, torchrun_argv, training_environment
from idia_core.errors import TrainingError
from idia_core.training import (
    MODEL_CONFIG,
    Progress,
    TrainingRecipe,
    check_nothing_skipped,
    checkpoint_path,
    final_weights,
    open_clip_flags,
    read_progress,
)
from tests.processes import still_running

SMALL = TrainingRecipe(
    architecture="idia-rn-tiny",
    epochs=2,
    processes=2,
    batch_size_per_process=16,
    learning_rate=1.5e-3,
    warmup_steps=2,
    weight_decay=1.0,
    adam_beta2=0.98,
    precision="fp32",
    device="cpu",
)
LINE = (
    "2026-11-23,22:28:31 | INFO | "
    "Train Epoch: {epoch} [ {done}/1152 (56%)] Data (t): 0.099 Batch (t): 0.821, "
    "173.697/s, 86.8484/s/gpu LR: 0.000812 Logit Scale: 14.222 Loss: {loss} (3.9108)\n"
)


def test_an_unknown_field_is_refused() -> None:
    """A misspelt setting is an error, never ignored."""
    with pytest.raises(ValidationError, match="epoch_count"):
        TrainingRecipe(epoch_count=3)


def test_the_defaults_are_the_papers() -> None:
    """Eight GPUs of 128 pairs, 50 epochs, AdamW at 1e-3 and 0.1; beta2 is open_clip's own."""
    for architecture, beta2 in (("ViT-B-32", 0.98), ("RN50", 0.999), ("RN50x4", 0.999)):
        args = _parsed(TrainingRecipe(architecture=architecture), samples=2_900_000)
        assert (args.model, args.beta2, args.epochs, args.batch_size, args.lr) == (architecture, beta2, 50, 128, 1e-3)
        assert (args.wd, args.warmup, args.precision, args.device) == (0.1, 10_000, "amp", "cuda")
        assert (args.workers, args.local_loss, args.gather_with_grad, args.log_every_n_steps) == (4, True, True, 100)
    assert TrainingRecipe().architecture == "ViT-B-32"
    assert TrainingRecipe().global_batch_size == 1024


def _parsed(recipe: TrainingRecipe, samples: int = 1152, **how: Any) -> Any:
    """The flags as open_clip's own parser reads them."""
    from open_clip_train.params import parse_args  # noqa: PLC0415 - slow to import

    return parse_args(open_clip_flags(recipe, "shards/{0..3}.tar", samples, "k25", Path("logs"), **how))


def test_the_flags_say_what_the_recipe_says() -> None:
    """Each field reaches open_clip's own parser with its value."""
    flags = ("--grad-clip-norm", "1")
    changed = {"epochs": 7, "learning_rate": 0.002, "adam_beta2": 0.95, "seed": 11, "extra_flags": flags}
    args = _parsed(SMALL.model_copy(update=changed))
    assert (args.model, args.train_data, args.name, args.logs) == ("idia-rn-tiny", "shards/{0..3}.tar", "k25", "logs")
    assert (args.epochs, args.lr, args.beta2, args.seed, args.grad_clip_norm) == (7, 0.002, 0.95, 11, 1.0)
    assert (args.train_num_samples, args.batch_size, args.device, args.workers) == (1152, 16, "cpu", 0)
    assert (args.accum_freq, args.resume, args.save_frequency, args.report_to) == (1, None, 1, "tensorboard")
    assert args.log_every_n_steps == 1152 // 32 // 6
    assert _parsed(SMALL.model_copy(update={"loaders_per_process": 3})).workers == 3


def test_how_a_run_is_kept_and_resumed_reaches_open_clip() -> None:
    """Fewer processes accumulate, checkpoints come as often as asked, and W&B is told beside TensorBoard."""
    args = _parsed(SMALL, accumulate=2, checkpoint_epochs=5, resume=Path("a b/epoch_5.pt"), wandb=True)
    assert (args.accum_freq, args.save_frequency, args.resume) == (2, 5, "a b/epoch_5.pt")
    assert args.report_to == "tensorboard,wandb"


def test_progress_is_read_from_the_newest_line() -> None:
    """Epochs are counted from 1, and the fraction is of the whole run."""
    log = "epochs: 3\n" + LINE.format(epoch=0, done=1152, loss="4.5") + LINE.format(epoch=1, done=576, loss="3.25")
    progress = read_progress(log, epochs=4)
    assert progress == Progress(2, 4, 576, 1152, 3.25, 173.697, 0.099, 0.821)
    assert (progress.fraction, progress.finite) == (0.375, True)
    assert progress.data_wait == pytest.approx(0.099 / 0.821)
    assert progress.seconds_left == pytest.approx(2.5 * 1152 / 173.697)


def test_a_line_that_is_being_written_is_passed_over() -> None:
    """The one before it counts."""
    whole, begun = LINE.format(epoch=1, done=576, loss="3.25"), LINE.format(epoch=1, done=624, loss="3.25")
    for length in range(len(begun) - len("3.25 (3.9108)")):
        assert read_progress(whole + begun[:length], epochs=4).samples_done == 576
    assert read_progress(whole + begun, epochs=4).samples_done == 624


def test_a_run_that_takes_no_time_waits_for_nothing() -> None:
    """open_clip writes three decimals, and a step may take less."""
    progress = Progress(1, 1, 1, 2, 1.0, 0.0, 0.0, 0.0)
    assert (progress.data_wait, progress.seconds_left) == (0.0, math.inf)


def test_a_diverged_run_has_progress_too() -> None:
    """A loss that is not a number is read as one."""
    for loss in ("nan", "inf", "-inf"):
        assert not read_progress(LINE.format(epoch=0, done=576, loss=loss), epochs=1).finite


def test_no_step_is_no_progress() -> None:
    """Before the first step there is nothing to show."""
    assert read_progress("2026-11-23,22:28:27 | INFO | Start epoch 0\n", epochs=2) is None


def test_a_skipped_shard_is_an_error() -> None:
    """open_clip only warns of it."""
    check_nothing_skipped("INFO | Start epoch 0\n", "k5")
    with pytest.raises(TrainingError, match=r"1 training pairs or shards.*model k5"):
        check_nothing_skipped("WARNING | Handling webdataset error (ReadError('x')). Ignoring.\n", "k5")


def _checkpoint(path: Path, epoch: int, value: float, prefix: str = "module.") -> Path:
    """A file as open_clip_train leaves it, with one small weight and a view of a larger one."""
    import torch  # noqa: PLC0415

    state = {f"{prefix}b": torch.full((3,), value), f"{prefix}a": torch.arange(100.0)[:4]}
    torch.save({"epoch": epoch, "name": str(path), "state_dict": state, "optimizer": {"step": path.stem}}, path)
    return path


def test_equal_weights_give_equal_bytes(tmp_path: Path) -> None:
    """Neither the file's name nor the prefix nor the optimiser's state is in the result."""
    import torch  # noqa: PLC0415

    recipe = TrainingRecipe(epochs=2)
    one = final_weights(_checkpoint(tmp_path / "one.pt", 2, 0.5), recipe)
    assert one == final_weights(_checkpoint(tmp_path / "other.pt", 2, 0.5, prefix=""), recipe)
    assert one != final_weights(_checkpoint(tmp_path / "third.pt", 2, 0.6), recipe)
    weights = torch.load(io.BytesIO(one), weights_only=True)
    assert list(weights) == ["a", "b"]
    assert weights["a"].tolist() == [0, 1, 2, 3]


def test_an_unusable_checkpoint_is_an_error(tmp_path: Path) -> None:
    """Missing, cut short, of another epoch, or not finite."""
    recipe = TrainingRecipe(epochs=2)
    with pytest.raises(TrainingError, match="no checkpoint"):
        final_weights(tmp_path / "missing.pt", recipe)
    whole = _checkpoint(tmp_path / "whole.pt", 2, 0.5)
    for size in (0, 10, whole.stat().st_size // 2, whole.stat().st_size - 8):
        (tmp_path / "cut.pt").write_bytes(whole.read_bytes()[:size])
        with pytest.raises(TrainingError, match="cannot be read"):
            final_weights(tmp_path / "cut.pt", recipe)
    with pytest.raises(TrainingError, match="not of epoch 2"):
        final_weights(_checkpoint(tmp_path / "early.pt", 1, 0.5), recipe)
    with pytest.raises(TrainingError, match="weight b is not finite"):
        final_weights(_checkpoint(tmp_path / "nan.pt", 2, float("nan")), recipe)


@pytest.fixture
def shards(tmp_path: Path) -> tuple[str, int]:
    """Four tars of 16 noisy coloured squares each, named by their colour."""
    colours = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200), "grey": (120, 120, 120)}
    rng = np.random.default_rng(0)
    for shard in range(4):
        with tarfile.open(tmp_path / f"{shard}.tar", "w") as tar:
            for sample in range(16):
                name = list(colours)[sample % 4]
                pixels = np.clip(np.array(colours[name]) + rng.normal(0, 20, (64, 64, 3)), 0, 255).astype(np.uint8)
                picture = io.BytesIO()
                Image.fromarray(pixels).save(picture, "JPEG")
                for extension, content in (("jpg", picture.getvalue()), ("txt", f"a {name} square".encode())):
                    member = tarfile.TarInfo(f"{shard}-{sample:03d}.{extension}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    return f"{tmp_path}/{{0..3}}.tar", 64


Start = Callable[[Path, TrainingRecipe], subprocess.Popen[str]]
LAUNCHER = "import os, subprocess, sys; os.environ['IDIA_PARENT_PID'] = str(os.getpid()); subprocess.run(sys.argv[1:])"


@pytest.fixture
def start(shards: tuple[str, int]) -> Iterator[Start]:
    """Starts a launcher of its own process, which starts the real torchrun; the files go to the given folder."""
    started = list[subprocess.Popen[str]]()

    def start_launcher(logs: Path, recipe: TrainingRecipe) -> subprocess.Popen[str]:
        flags = open_clip_flags(recipe, *shards, "run", logs)
        entry = entry_argv(MODEL_CONFIG, recipe.threads_per_process, "d1ge57", logs / "run", flags)
        argv = torchrun_argv(recipe.processes, Rendezvous("127.0.0.1", 0, "run"), entry)
        environment = training_environment({**os.environ, "SLURM_NTASKS": "8"}, 1, "cpu", os.getpid())
        command = [sys.executable, "-c", LAUNCHER, *argv]
        started.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start_launcher
    for run in started:
        run.kill()
        run.communicate()


@pytest.mark.slow
def test_the_same_recipe_gives_the_same_bytes_and_a_model_that_loads(tmp_path: Path, start: Start) -> None:
    """Two runs of two gloo ranks agree to the byte, another seed does not, and plain open_clip loads the result."""
    contents = []
    for number, seed in enumerate((3, 3, 4)):
        recipe = SMALL.model_copy(update={"seed": seed})
        run = start(tmp_path / f"logs{number}", recipe)
        output = run.communicate(timeout=120)[1]
        check_nothing_skipped(output, "run")
        log = (tmp_path / f"logs{number}" / "run" / "out.log").read_text()
        assert read_progress(log, recipe.epochs).fraction == 1
        contents.append(final_weights(checkpoint_path(tmp_path / f"logs{number}", "run", recipe), recipe))
    assert contents[0] == contents[1]
    assert contents[0] != contents[2]

    import open_clip  # noqa: PLC0415

    weights = tmp_path / "idia-rn-tiny.pt"
    weights.write_bytes(contents[0])
    open_clip.add_model_config(MODEL_CONFIG)
    model = open_clip.create_model_and_transforms("idia-rn-tiny", pretrained=str(weights))[0]
    longest = "a photo of a person with the name Maximiliana Featherstonehaugh-Kowalczyk"
    tokens = open_clip.get_tokenizer("idia-rn-tiny")([longest])
    assert model.encode_text(tokens).shape == (1, 64)
    assert (tokens != 0).sum() < tokens.shape[1]


@pytest.mark.slow
def test_no_rank_outlives_a_killed_launcher(tmp_path: Path, start: Start) -> None:
    """SIGKILL to the launcher in the middle of training ends torchrun and both ranks within two seconds."""
    log = tmp_path / "logs" / "run" / "out.log"
    recipe = SMALL.model_copy(update={"epochs": 1000})
    run = start(tmp_path / "logs", recipe)
    deadline = time.monotonic() + 60
    while not (log.exists() and read_progress(log.read_text(), 1000)):
        assert time.monotonic() < deadline
        assert run.poll() is None
        time.sleep(0.2)
    started = psutil.Process(run.pid).children(recursive=True)
    assert sum("RANK" in process.environ() for process in started) == 2
    run.kill()
    run.wait()
    assert not still_running(started, seconds=2)


def test_importing_training_is_light() -> None:
    """It loads neither torch nor open_clip."""
    code = "import sys, idia_core.training; assert not {'torch', 'open_clip', 'ray'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
