"""Checkpoints are whole or not there, and only one that fits its sidecar is resumed from."""

import hashlib
import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from cluster.checkpoints import SIDE, CheckpointRecord, newest_valid, prune, save_checkpoint
from cluster.torchrun import PROJECT_ROOT
from idia_core.errors import StorageError, TrainingError

RUN, ARCHITECTURE = "a1b2", "ViT-B-32"


def content(epoch: int, weights: int = 100) -> dict[str, Any]:
    """What open_clip gives to torch.save after an epoch, in small."""
    state = {
        "module.visual.proj": torch.full((weights,), float(epoch)),
        "module.bn.num_batches_tracked": torch.tensor(7),
    }
    return {"epoch": epoch, "name": "K075", "state_dict": state, "optimizer": {"state": {}, "param_groups": []}}


def saved(folder: Path, *epochs: int, architecture: str = ARCHITECTURE) -> list[Path]:
    """Checkpoints of those epochs."""
    paths = [folder / f"epoch_{epoch}.pt" for epoch in epochs]
    for epoch, path in zip(epochs, paths, strict=True):
        save_checkpoint(content(epoch), path, RUN, architecture)
    return paths


def names(folder: Path) -> list[str]:
    """All files of a folder."""
    return sorted(path.name for path in folder.iterdir())


def test_a_checkpoint_is_torchs_and_its_sidecar_says_what_it_is(tmp_path: Path) -> None:
    """torch.load gives back what was saved; the sidecar holds the size and the SHA-256 of the very bytes."""
    (path,) = saved(tmp_path / "checkpoints", 3)
    loaded, written = torch.load(path, weights_only=True), path.read_bytes()
    assert loaded["epoch"] == 3
    assert loaded["state_dict"]["module.visual.proj"].tolist() == [3.0] * 100
    record = CheckpointRecord.model_validate_json(path.with_name(path.name + SIDE).read_text(encoding="utf-8"))
    digest = hashlib.sha256(written).hexdigest()
    assert record == CheckpointRecord(run=RUN, architecture=ARCHITECTURE, epoch=3, bytes=len(written), sha256=digest)
    assert names(path.parent) == ["epoch_3.pt", "epoch_3.pt.json"]


@pytest.fixture
def small_disk() -> Iterator[None]:
    """No file may grow beyond 100 kB, until the test ends."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("small_disk")
@pytest.mark.parametrize("weights", [100_000, 24_800])  # full in the middle of a tensor, and at the archive's end
def test_a_full_disk_is_said_and_leaves_nothing_behind(tmp_path: Path, weights: int) -> None:
    """The error is the disk's, not torch's about its archive, and the checkpoint of that name before stays valid."""
    (path,) = saved(tmp_path, 2)
    with pytest.raises(StorageError, match=r"^it cannot be written: File too large"):
        save_checkpoint(content(2, weights), path, RUN, ARCHITECTURE)
    assert names(tmp_path) == ["epoch_2.pt", "epoch_2.pt.json"]
    found, passed_over = newest_valid(tmp_path, RUN, ARCHITECTURE)
    assert found is not None
    assert (found.path, passed_over) == (path, [])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path, bad: float) -> None:
    """One such number among all weights is a reason; integers are none."""
    diverged = content(4)
    diverged["state_dict"]["module.visual.proj"][57] = bad
    with pytest.raises(TrainingError, match=r"^the weights are not finite after epoch 4 \(.*epoch_4\.pt\)"):
        save_checkpoint(diverged, tmp_path / "epoch_4.pt", RUN, ARCHITECTURE)
    assert names(tmp_path) == []


def _killed_while_saving(folder: Path) -> None:
    """Save epoch 2 and die when the bytes are written and not yet on the disk."""
    os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
    saved(folder, 2)


def test_a_killed_save_leaves_nothing_under_the_name(tmp_path: Path) -> None:
    """What a killed process had written bears another name, and goes when the next checkpoint is pruned."""
    (older,) = saved(tmp_path, 1)
    saver = multiprocessing.get_context("fork").Process(target=_killed_while_saving, args=(tmp_path,))
    saver.start()
    saver.join()
    assert saver.exitcode == -signal.SIGKILL
    left = [name for name in names(tmp_path) if name.endswith(".tmp")]
    assert len(left) == 1
    assert not (tmp_path / "epoch_2.pt").exists()
    found, passed_over = newest_valid(tmp_path, RUN, ARCHITECTURE)
    assert (found and found.path, passed_over) == (older, [])
    prune(tmp_path, newest=1)
    assert names(tmp_path) == ["epoch_1.pt", "epoch_1.pt.json"]


def test_the_newest_whole_checkpoint_is_found_and_those_after_it_are_accounted_for(tmp_path: Path) -> None:
    """Truncated, changed, without or with a foreign or broken sidecar: each is passed over with its reason."""
    paths = dict(zip((2, 9, 10, 11, 12, 13, 14), saved(tmp_path, 2, 9, 10, 11, 12, 13, 14), strict=True))
    size = paths[14].stat().st_size
    os.truncate(paths[14], 1234)
    paths[13].write_bytes(paths[13].read_bytes().replace(b"module.visual", b"module.VISUAL"))
    (tmp_path / "epoch_12.pt.json").unlink()
    (tmp_path / "epoch_11.pt.json").write_bytes((tmp_path / "epoch_9.pt.json").read_bytes())
    (tmp_path / "epoch_10.pt.json").write_text('{"run": "a1b2", "archi', encoding="utf-8")
    (tmp_path / "epoch_latest.pt").write_bytes(b"open_clip's --save-most-recent")
    found, passed_over = newest_valid(tmp_path, RUN, ARCHITECTURE)
    assert found is not None
    assert (found.path, found.record.epoch) == (paths[9], 9)
    assert passed_over == [
        f"epoch_14.pt: 1,234 of {size:,} bytes",
        "epoch_13.pt: its SHA-256 is not its sidecar's",
        "epoch_12.pt: it has no sidecar",
        "epoch_11.pt: its sidecar is of epoch 9",
        "epoch_10.pt: its sidecar cannot be read",
    ]


def test_no_checkpoint_is_no_error(tmp_path: Path) -> None:
    """A run that was killed in its first epoch, or never started, has none."""
    assert newest_valid(tmp_path / "none", RUN, ARCHITECTURE) == (None, [])
    (tmp_path / "epoch_1.pt").touch()
    assert newest_valid(tmp_path, RUN, ARCHITECTURE) == (None, ["epoch_1.pt: it has no sidecar"])


@pytest.mark.parametrize(
    ("run", "architecture", "said"),
    [
        (RUN, "RN50", "of ViT-B-32, run a1b2, not of RN50, run a1b2"),
        ("c3d4", ARCHITECTURE, "of ViT-B-32, run a1b2, not of ViT-B-32, run c3d4"),
    ],
)
def test_a_whole_checkpoint_of_another_model_ends_the_search(
    tmp_path: Path, run: str, architecture: str, said: str
) -> None:
    """It is neither resumed from nor passed over, which would overwrite it; a truncated one is nobody's."""
    saved(tmp_path, 1, 2)
    with pytest.raises(TrainingError) as caught:
        newest_valid(tmp_path, run, architecture)
    assert str(caught.value).startswith(f"the checkpoint is {said} ({tmp_path / 'epoch_2.pt'})")
    assert "Move its folder away" in str(caught.value)
    for epoch in (1, 2):
        os.truncate(tmp_path / f"epoch_{epoch}.pt", 10)
    assert newest_valid(tmp_path, run, architecture)[0] is None


def test_a_checkpoint_is_not_read_into_memory(tmp_path: Path) -> None:
    """One of 64 MB is checked with less than 4 MB held."""
    path, size = tmp_path / "epoch_1.pt", 64 << 20
    with path.open("wb") as file:
        file.truncate(size)
    digest = hashlib.sha256(bytes(size)).hexdigest()
    fields = {"run": RUN, "architecture": ARCHITECTURE, "epoch": 1, "bytes": size, "sha256": digest}
    path.with_name(path.name + SIDE).write_text(json.dumps(fields), encoding="utf-8")
    tracemalloc.start()
    found, _ = newest_valid(tmp_path, RUN, ARCHITECTURE)
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == (path, CheckpointRecord(**fields))
    assert held < 4 << 20


def test_pruning_keeps_the_last_two_that_have_sidecars(tmp_path: Path) -> None:
    """Two below or at the newest stay, whatever a run left above it before it was resumed; nothing else is touched."""
    saved(tmp_path, 1, 2, 3, 4, 5, 11)
    (tmp_path / "epoch_4.pt.json").unlink()
    (tmp_path / "epoch_1.pt").unlink()  # as open_clip's --delete-previous-checkpoint does
    (tmp_path / "epoch_notes.txt").touch()
    prune(tmp_path, newest=5)
    assert names(tmp_path) == ["epoch_3.pt", "epoch_3.pt.json", "epoch_5.pt", "epoch_5.pt.json", "epoch_notes.txt"]
    prune(tmp_path, newest=5, keep=1)
    assert names(tmp_path) == ["epoch_5.pt", "epoch_5.pt.json", "epoch_notes.txt"]


def test_a_shell_script_is_told_the_path_and_a_person_the_reasons(tmp_path: Path) -> None:
    """Standard output is the path alone; an error is one line and ends with 1."""
    first, second = saved(tmp_path, 1, 2)
    os.truncate(second, 10)

    def asked(architecture: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "cluster.checkpoints", tmp_path, "--run", RUN, "--architecture", architecture]
        return subprocess.run(argv, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)

    told = asked(ARCHITECTURE)
    assert (told.returncode, told.stdout) == (0, f"{first}\n")
    assert told.stderr.startswith("passed over epoch_2.pt: 10 of ")
    refused = asked("RN50")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("TrainingError: the checkpoint is of ViT-B-32")
    assert refused.stderr.count("\n") == 1
