"""A study that only trains, on small verified shards, for tests of how a training is started and sealed."""

from pathlib import Path
from typing import Any

import polars as pl

from idia_core.config import Study
from tests.shard_folders import write_shards

SETS = {"K001": (8, 2), "K002": (10, 3)}
"""Pairs and tars of the two sets; a tar has four pairs at most."""


def verified_shards(root: Path) -> Path:
    """Two sealed training sets, and what `verify` found of them: no fault."""
    write_shards(root / "shards")
    ledger = pl.read_parquet(root / "shards/ledger/*.parquet")
    (root / "verified").mkdir()
    ledger.select("path", "sha256", faults=pl.lit(0)).write_parquet(root / "verified/part-00000.parquet")
    return root


def training_study(root: Path, out: str = "out", **fields: Any) -> Study:
    """One epoch of the tiny architecture on each set, by one process, written to `root`/`out` or to a URL."""
    inputs = {"plan": f"{root}/shards/plan", "ledger": f"{root}/shards/ledger", "verified": f"{root}/verified"}
    recipe = {"epochs": 1, "processes": 1, "batch_size_per_process": 2, "device": "cpu", "precision": "fp32"}
    recipe |= {"warmup_steps": 2} | fields.pop("recipe", {})
    train = {"inputs": inputs, "architectures": ["idia-rn-tiny"], "exactly_once": False, "recipe": recipe, **fields}
    return Study(name="test", out=out if "://" in out else str(root / out), stages={"train": train})
