"""Checkpoints of the tiny architecture with random weights, for tests that need a model and not what it knows."""

from collections.abc import Sequence
from pathlib import Path

from idia_core.drawn_model import random_weights


def write_model(path: Path, seed: int = 0, centred_on: Sequence[bytes] = ()) -> Path:
    """A checkpoint of `idia-rn-tiny`; another seed, other weights."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(random_weights(seed, centred_on))
    return path
