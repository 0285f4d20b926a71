"""Fixtures that several test files share."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray

from tests.local_ray import start

ROOT = Path(__file__).parent.parent
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["IDIA_CACHE"] = tempfile.mkdtemp(prefix="idia-cache-")  # not the user's own
atexit.register(shutil.rmtree, os.environ["IDIA_CACHE"], ignore_errors=True)


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """One Ray for all tests of a session that run stages in this process."""
    start()
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def tiny_demo() -> Callable[[Path], list[str]]:
    """The words after `idia` that run the demo on a world small enough for a test, written to a folder."""
    settings = {
        "world.people": 8,
        "world.caption_rows": 6000,
        "world.background_pairs": 90,
        "world.training_pictures": 5,
        "world.attack_pictures": 3,
        "select.members": 3,
        "select.non_members": 3,
        "select.min_pictures": 3,
        "select.min_pairs": 5,
        "shards.images_per_member": [5, 1],
        "shards.shard_size": 16,
        "shards.exact_for.batch_size": 16,
        "train.recipe.epochs": 2,
        "train.recipe.batch_size_per_process": 16,
        "attack.candidates": 50,
        "evaluate.pictures": 3,
    }

    def words(out: Path) -> list[str]:
        return ["demo", "--out", str(out), *(w for k, v in settings.items() for w in ("--set", f"{k}={v}"))]

    return words
