"""Small inputs of `shards` for tests: a base in each of its kinds, members and non-members; how it is run and read."""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from rich.console import Console

from idia_core.config import Study
from idia_core.errors import IdiaError
from idia_core.identities import IDENTITIES, PAIRS, PICTURES
from idia_core.manifest import Manifest
from idia_core.storage import TEMPORARY_SUFFIX
from jobs.run import run_study
from tests.shard_folders import Files, tar_of, write

QUIET = Console(quiet=True)
MEMBERS, NON_MEMBERS = ("Ann Ash", "Zoë Ball"), ("Bob Birch", "Ida Moss")
SHARDS, EACH, PAIRS_EACH = 3, 6, 4
"""Tars of the base, pairs of each tar, pairs of each member."""
KEYS = [f"{shard:05d}{number:04d}" for shard in range(SHARDS) for number in range(EACH)]
"""Of the base, as img2dataset numbers them."""
Row = dict[str, Any]


def picture(name: str, kind: str = "JPEG", size: int = 32, quality: int = 85) -> bytes:
    """A textured picture that differs from name to name, and of one name hardly with size and quality."""
    noise = np.random.default_rng(list(name.encode())).integers(0, 255, (12, 12, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).resize((size, size)).save(out, kind, quality=quality)
    return out.getvalue()


def base_pair(key: str, caption: str | None = None) -> Files:
    """The three files of a pair as img2dataset names them."""
    text = f"Füße am Strand, № {key}" if caption is None else caption
    about = json.dumps({"key": key, "caption": text}).encode()
    return [(f"{key}.jpg", picture(key)), (f"{key}.txt", text.encode()), (f"{key}.json", about)]


def base_files(shard: int) -> Files:
    """The files of a tar of the base."""
    return [file for key in KEYS[shard * EACH : (shard + 1) * EACH] for file in base_pair(key)]


def replaced(files: Files, changes: Mapping[str, bytes | None]) -> Files:
    """Those files with other contents, or without those that have None."""
    changed = [(name, changes.get(name, content)) for name, content in files]
    assert {*changes} <= {name for name, _ in files}
    return [(name, content) for name, content in changed if content is not None]


def write_base(root: Path) -> None:
    """`root`/base: tars, with the list and the statistics that img2dataset writes beside each."""
    for shard in range(SHARDS):
        keys, stem = KEYS[shard * EACH : (shard + 1) * EACH], root / f"base/{shard:05d}"
        write(stem.with_suffix(".tar"), tar_of(base_files(shard)))
        outcomes = {"key": [*keys, f"{shard:05d}9999"], "status": ["success"] * EACH + ["failed_to_download"]}
        pq.write_table(pa.table(outcomes), stem.with_suffix(".parquet"))
        write(stem.with_name(f"{stem.name}_stats.json"), json.dumps({"count": EACH + 1, "successes": EACH}).encode())


def write_people(root: Path) -> None:
    """`root`/people: who is tested in which role, their attack pictures, and the members' pairs."""
    people = [{"identity": name, "name": name} for name in (*MEMBERS, *NON_MEMBERS)]
    shown = [
        {"identity": name, "picture": f"{i}.jpg", "status": "ok", "image": picture(f"attack {name} {i}")}
        for name in (*MEMBERS, *NON_MEMBERS)
        for i in range(2)
    ]
    roles = [(name, "member") for name in MEMBERS] + [(name, "non_member") for name in NON_MEMBERS]
    selection = pa.table({"identity": [name for name, _ in roles], "role": [role for _, role in roles]})
    folder = root / "people"
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(people, IDENTITIES), folder / "identities.parquet")
    pq.write_table(pa.Table.from_pylist(shown, PICTURES), folder / "pictures.parquet")
    pq.write_table(selection, folder / "selection.parquet")
    write_pairs(root, members_pairs())


def members_pairs() -> list[Row]:
    """The pairs of each member: key, identity, caption and image."""
    pairs = [(name, f"{name.split()[0].lower()}-{i}") for name in MEMBERS for i in range(PAIRS_EACH)]
    return [
        {"key": key, "identity": name, "caption": f"{name} on photo {key}", "image": picture(key)}
        for name, key in pairs
    ]


def write_pairs(root: Path, rows: Sequence[Row]) -> None:
    """The members' pairs; a caption may be null."""
    schema = PAIRS.set(2, pa.field("caption", pa.string()))
    pq.write_table(pa.Table.from_pylist(list(rows), schema), root / "people/pairs.parquet")


def study(root: Path, out: str = "out", **fields: Any) -> Study:
    """Training sets of `root`/base and `root`/people that are written to `root`/`out`."""
    inputs = {name: str(root / f"people/{name}.parquet") for name in ("pairs", "selection", "identities", "pictures")}
    inputs |= {"background": str(root / "base/*"), **fields.pop("inputs", {})}
    settings = {"images_per_member": [3, 1], "inputs": inputs, **fields}
    if settings.get("mode") != "overlay":
        settings = {"shard_size": 5, **settings}
    return Study(name="test", out=str(root / out), stages={"shards": settings})


def shards(root: Path, out: str = "out", **fields: Any) -> Manifest:
    """Run that study; returns the seal."""
    return run_study(study(root, out, **fields), QUIET)["shards"].seal()


def shards_fail(root: Path, error: type[IdiaError], **fields: Any) -> str:
    """Run that study, which must end with an error of exactly that type; returns its one line.

    With one worker, as a second would be killed in the middle of its split.
    """
    with pytest.raises(IdiaError) as caught:
        shards(root, resources={"workers": 1}, **fields)
    assert type(caught.value) is error
    assert caught.value.where
    assert caught.value.fix
    assert "\n" not in str(caught.value)
    assert_nothing_half_written(root / fields.get("out", "out"))
    return str(caught.value)


def assert_nothing_half_written(out: Path) -> None:
    """No seal, no temporary file, and under its final name no tar that a tar's reader does not read to its end."""
    assert not (out / "shards/manifest.json").exists()
    assert not list(out.rglob(f".*{TEMPORARY_SUFFIX}"))
    for path in out.rglob("*.tar"):
        pairs_of(path)
    for path in out.rglob("*.parquet"):
        pq.read_table(path)


def contents(folder: Path) -> dict[str, str]:
    """The hash of every file but the seal, which holds times."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)}


def table(root: Path, name: str, out: str = "out") -> pl.DataFrame:
    """A table that the stage wrote."""
    return pl.concat([pl.read_parquet(part) for part in sorted((root / out / "shards" / name).glob("*.parquet"))])


def faults(root: Path, out: str = "out") -> dict[str, str]:
    """The status of every pair that is not ok, by its key."""
    listed = table(root, "listing", out).filter(pl.col("status") != "ok")
    assert listed["key"].is_unique().all()
    return dict(listed.select("key", "status").iter_rows())


def pairs_of(path: Path) -> dict[str, tuple[bytes, str]]:
    """Picture and caption of every pair of a tar by its key, in order, as Python's own reader finds them."""
    found: dict[str, dict[str, bytes]] = {}
    with tarfile.open(path) as tar:
        for entry in tar:
            key, _, suffix = entry.name.rpartition(".")
            content = tar.extractfile(entry)
            assert content is not None
            found.setdefault(key, {})[suffix if suffix in ("txt", "json") else "picture"] = content.read()
    assert path.stat().st_size % tarfile.RECORDSIZE == 0
    return {key: (files["picture"], files["txt"].decode()) for key, files in found.items()}


def set_pairs(root: Path, name: str, out: str = "out") -> dict[str, tuple[bytes, str]]:
    """All pairs of a set's own tars."""
    tars = [pairs_of(path) for path in sorted((root / out / "shards/tars" / name).glob("*.tar"))]
    both = {key: pair for tar in tars for key, pair in tar.items()}
    assert len(both) == sum(map(len, tars))
    return both
