"""Small folders as the stage `shards` leaves them: tars, plan, ledger and seal, made whole or with one fault."""

import hashlib
import io
import tarfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from PIL import Image
from upath import UPath

from idia_core.manifest import FileEntry, Manifest, Provenance, Receipt, write_manifest
from idia_core.shards import LEDGER, PLAN, set_name, shard_path

Files = list[tuple[str, bytes]]
"""Names and contents of a tar, in order."""
Change = Callable[[str, Files], Files]
SHARD_SIZE = 4
PEOPLE = {"Ann Ash": ("ann-0", "ann-1"), "Bob Birch": ("bob-0", "bob-1")}
BACKGROUND = tuple(f"bg-{i}" for i in range(6))


def picture(key: str) -> bytes:
    """A small JPEG that differs from key to key."""
    colours = np.random.default_rng(list(key.encode())).integers(0, 255, (4, 4, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(colours).resize((24, 24)).save(out, "JPEG")
    return out.getvalue()


def pair(key: str) -> Files:
    """The two files of a pair."""
    return [(f"{key}.jpg", picture(key)), (f"{key}.txt", f"a photo of {key}".encode())]


def tar_of(files: Iterable[tuple[str, bytes]]) -> bytes:
    """Those files as a tar."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def planned(k: int, pairs: Sequence[tuple[str, str | None]], name: str | None = None) -> list[dict[str, Any]]:
    """The rows of the plan of one set whose pairs (key, identity) are in that order, four to a tar."""
    where = {"set": name or set_name(k), "images_per_member": k, "source": "members/00000.tar", "suffix": "jpg"}
    return [
        {**where, "shard": i // SHARD_SIZE, "position": i % SHARD_SIZE, "key": key, "identity": identity}
        for i, (key, identity) in enumerate(pairs)
    ]


def two_sets() -> list[dict[str, Any]]:
    """The plan of the sets K001 and K002 of two members and six background pairs."""
    base: list[tuple[str, str | None]] = [(key, None) for key in BACKGROUND]
    members = [[(keys[i], person) for person, keys in PEOPLE.items()] for i in range(2)]
    return [*planned(1, [*base, *members[0]]), *planned(2, [*members[1], *base, *members[0]])]


def write_shards(
    root: Path,
    plan: Sequence[dict[str, Any]] | None = None,
    change: Change = lambda _, files: files,
    ledger: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] = lambda rows: rows,
) -> Path:
    """Write the folder of a sealed stage; `change` is done to the files of each tar, `ledger` to the ledger's rows.

    So each fault comes alone: hashes, ledger and seal are those of what was written.
    """
    rows = two_sets() if plan is None else list(plan)
    places = dict.fromkeys((row["set"], row["images_per_member"], row["shard"]) for row in rows)
    entries = []
    for name, k, shard in places:
        mine = [row for row in rows if (row["set"], row["shard"]) == (name, shard)]
        path = f"tars/{shard_path(name, shard)}"
        content = tar_of(change(path, [file for row in mine for file in pair(row["key"])]))
        write(root / path, content)
        members = sum(row["identity"] is not None for row in mine)
        digest = hashlib.sha256(content).hexdigest()
        counts = {"samples": len(mine), "member_samples": members, "bytes": len(content), "sha256": digest}
        entries.append({"set": name, "images_per_member": k, "shard": shard, "path": path, **counts})
    for name in dict.fromkeys(row["set"] for row in rows):
        write(root / f"train_data/{name}.txt", f"tars/{name}/00000.tar".encode())
    write_table(root / "plan/part-00000.parquet", rows, PLAN)
    write_table(root / "ledger/part-00000.parquet", ledger(entries), LEDGER)
    seal(root)
    return root


def write(path: Path, content: bytes) -> Path:
    """Write a file and the folders that it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def write_table(path: Path, rows: Sequence[dict[str, Any]], schema: Any) -> None:
    """Write rows as Parquet; fields that they lack are null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {field.name: [row.get(field.name) for row in rows] for field in schema}
    pq.write_table(pl.DataFrame(columns, strict=False).to_arrow().cast(schema), path)


def seal(root: Path) -> None:
    """Write the manifest of what is in the folder now."""
    found = sorted(path for path in root.rglob("*") if path.is_file() and path.name != "manifest.json")
    files = tuple(
        FileEntry(
            path=str(path.relative_to(root)),
            bytes=path.stat().st_size,
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in found
    )
    made = Provenance(argv=(), commit=None, dirty=None, python="", versions={}, started="", seconds=0)
    manifest = Manifest(
        stage="shards",
        version=2,
        fingerprint="f",
        config={},
        resources={},
        inputs={},
        counts={},
        receipts=(Receipt(split="tars-000000", key="k", files=files),),
        provenance=made,
    )
    write_manifest(UPath(root), manifest)
