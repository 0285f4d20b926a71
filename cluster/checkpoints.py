"""Checkpoints of a training run that are whole or not there, and the newest of them that can be trusted.

open_clip writes `epoch_3.pt` in place, so that a killed run leaves a part of one, and resumes at the highest number
without a look. Here a checkpoint gets its name once it is on the disk, and then a sidecar, `epoch_3.pt.json`, that says
what it is and its SHA-256. Only a checkpoint that fits its sidecar is resumed from.

`python -m cluster.checkpoints FOLDER --run DIGEST --architecture NAME` prints the path of that one, for shell scripts.
"""

import argparse
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from upath import UPath

from idia_core.errors import TrainingError
from idia_core.storage import HashedFile, remove_temporaries, sha256_of, write_whole

SIDE = ".json"
"""What the name of a sidecar adds to its checkpoint's."""
CHECKPOINT = re.compile(r"epoch_(\d+)\.pt")
NOT_FINITE = "the weights are not finite"
"""What the error says that no restart mends."""


class CheckpointRecord(BaseModel):
    """What a sidecar says of its checkpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str
    """The digest of what the run trains: its data, settings and code."""
    architecture: str
    """open_clip's name of the model."""
    epoch: int = Field(ge=1)
    """Epochs that are done."""
    bytes: int = Field(ge=0)
    """Size of the checkpoint."""
    sha256: str
    """Of the checkpoint's bytes, in hexadecimal."""


class Found(NamedTuple):
    """A checkpoint that fits its sidecar."""

    path: Path
    record: CheckpointRecord


def save_checkpoint(content: Any, path: Path, run: str, architecture: str) -> None:
    """Write what open_clip gives to torch.save, whole or not at all, and then its sidecar.

    Raises `TrainingError` for weights that are not finite and `StorageError` where there is no room; nothing is left
    behind then, and what bore that name before stays as it was.
    """
    _check_finite(content["state_dict"], content["epoch"], path)
    with _durable(path) as file:
        hashed = HashedFile(file)
        _torch_save(content, hashed)
    record = CheckpointRecord(
        run=run, architecture=architecture, epoch=content["epoch"], bytes=hashed.bytes, sha256=hashed.sha256
    )
    with _durable(_sidecar(path)) as file:
        file.write(record.model_dump_json(indent=2).encode())


def newest_valid(folder: Path, run: str, architecture: str) -> tuple[Found | None, list[str]]:
    """The checkpoint of the most epochs that fits its sidecar, and why those of more epochs were passed over.

    Raises `TrainingError` where that checkpoint is of another run or architecture: to resume there would give a model
    that is of neither, and to start anew would overwrite it.
    """
    passed_over: list[str] = []
    for path in _newest_first(folder):
        record = _valid_record(path)
        if isinstance(record, str):
            passed_over.append(f"{path.name}: {record}")
            continue
        if (record.architecture, record.run) != (architecture, run):
            what = f"the checkpoint is of {record.architecture}, run {record.run}, not of {architecture}, run {run}"
            raise TrainingError(what, str(path), "Move its folder away, or train elsewhere.")
        return Found(path, record), passed_over
    return None, passed_over


def prune(folder: Path, newest: int, keep: int = 2) -> None:
    """Remove what a run no longer needs once epoch `newest` is saved; `keep` checkpoints with sidecars stay.

    They are counted from `newest` downwards. A higher one was passed over when the run was resumed below it.
    """
    saved = [path for path in _newest_first(folder) if _epoch(path) <= newest and _sidecar(path).exists()]
    kept = {name for path in saved[:keep] for name in (path.name, _sidecar(path).name)}
    for path in folder.glob("epoch_*"):
        if CHECKPOINT.fullmatch(path.name.removesuffix(SIDE)) and path.name not in kept:
            path.unlink(missing_ok=True)
    remove_temporaries(UPath(folder))


def _check_finite(state: dict[str, Any], epoch: int, path: Path) -> None:
    """One answer for all tensors, so that a GPU is waited for once."""
    import torch  # noqa: PLC0415 - who only looks for a checkpoint needs no torch

    if not torch.stack([torch.isfinite(weight).all() for weight in state.values()]).all():
        raise TrainingError(f"{NOT_FINITE} after epoch {epoch}", str(path), "Lower the learning rate.")


@contextmanager
def _durable(path: Path) -> Iterator[IO[bytes]]:
    """A file that gets its name once its bytes are on the disk, not only in the system's memory."""
    with write_whole(UPath(path)) as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _torch_save(content: Any, file: HashedFile) -> None:
    """torch.save, which writes front to back; what the disk said comes out of it as it was."""
    import torch  # noqa: PLC0415

    try:
        torch.save(content, cast("IO[bytes]", file))
    except RuntimeError as error:
        # On its way out torch finds its archive incomplete and says so: "unexpected pos 802176 vs 802128".
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def _valid_record(path: Path) -> CheckpointRecord | str:
    """What the sidecar says, or why the checkpoint cannot be trusted."""
    try:
        record = CheckpointRecord.model_validate_json(_sidecar(path).read_bytes())
    except FileNotFoundError:
        return "it has no sidecar"
    except ValidationError:
        return "its sidecar cannot be read"
    if record.epoch != _epoch(path):
        return f"its sidecar is of epoch {record.epoch}"
    if (size := path.stat().st_size) != record.bytes:
        return f"{size:,} of {record.bytes:,} bytes"
    if sha256_of(UPath(path)) != record.sha256:
        return "its SHA-256 is not its sidecar's"
    return record


def _newest_first(folder: Path) -> list[Path]:
    """The files that bear a checkpoint's name, those of more epochs first."""
    return sorted((path for path in folder.glob("epoch_*.pt") if CHECKPOINT.fullmatch(path.name)), key=_epoch)[::-1]


def _epoch(path: Path) -> int:
    return int(path.stem.removeprefix("epoch_"))


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + SIDE)


def main() -> None:
    """Print the checkpoint to resume from, if there is one; reasons and errors go to standard error."""
    parser = argparse.ArgumentParser(prog="cluster.checkpoints", allow_abbrev=False, description=main.__doc__)
    parser.add_argument("folder", type=Path, help="where the checkpoints of the run are")
    parser.add_argument("--run", required=True, help="the digest of what the run trains")
    parser.add_argument("--architecture", required=True, help="open_clip's name of the model")
    options = parser.parse_args()
    try:
        found, passed_over = newest_valid(options.folder, options.run, options.architecture)
    except TrainingError as error:
        raise SystemExit(f"TrainingError: {error}") from None
    for reason in passed_over:
        sys.stderr.write(f"passed over {reason}\n")
    if found:
        sys.stdout.write(f"{found.path}\n")


if __name__ == "__main__":
    main()
