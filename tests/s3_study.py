"""A small study on an object store, and what it left there."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import s3fs

IDIA = [sys.executable, "-c", "from jobs.cli import main; main()"]
ROOT = Path(__file__).parent.parent
STAGES = ("world", "scan", "select", "shards", "verify")
SETTINGS = {
    "world.people": 2,
    "world.training_pictures": 1,
    "world.attack_pictures": 1,
    "world.background_pairs": 3,
    "world.caption_rows": 2000,
    "select.members": 1,
    "select.non_members": 1,
    "select.max_occurrences": "null",
    "select.min_pictures": 1,
    "select.min_pairs": 1,
    "shards.images_per_member": "[1]",
    "shards.shard_size": 2,
    "shards.exact_for.batch_size": 1,
}


def command(out: str, *stages: str, **changed: Any) -> list[str]:
    """What runs stages of the demo's study with tiny settings; `world__people=3` changes one."""
    settings = {"out": out} | SETTINGS | {name.replace("__", "."): value for name, value in changed.items()}
    words = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    return [*IDIA, "run", "demo.yaml", *stages, *words]


def run(out: str, environment: Mapping[str, str], *stages: str, **changed: Any) -> str:
    """Run them to their end; returns what the command said."""
    words = command(out, *stages, **changed)
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


def on_disk(folder: Path) -> dict[str, bytes]:
    """The sealed files of a run in a local folder."""
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if _is_output(name)}


def in_bucket(store: s3fs.S3FileSystem, folder: str) -> dict[str, bytes]:
    """Those of a run in a bucket."""
    store.invalidate_cache()
    names = {name.removeprefix(f"{folder}/"): name for name in store.find(folder)}
    return {short: store.cat_file(name) for short, name in names.items() if _is_output(short)}


def _is_output(name: str) -> bool:
    """Manifests and logs hold times."""
    return not name.endswith("manifest.json") and not name.startswith("logs/")
