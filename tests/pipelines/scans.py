"""Small scans for tests: their captions and names, how they are run, and what they wrote."""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from idia_core.captions import MATCHES
from idia_core.config import Study
from idia_core.errors import IdiaError
from idia_core.manifest import Manifest
from idia_core.occurrences import OCCURRENCES
from jobs.run import run_study

QUIET = Console(quiet=True)
FIRST_PAGE = 4  # behind the magic bytes of a Parquet file
FIVE = ("Ann Lee", "Bob Ray", "Zoë Ball", "Joe B. Kern", "Ida Moss")
THREE = ("Eva Holm", "Tim O'Dell", "Ann-Mai Berg")
CAPTIONS = [
    "Ann Lee by the sea",
    "Bob Ray and Ann Lee",
    "Eva Holm sings",
    None,
    "Zoe Ball at home",
    "a lighthouse",
    "Joe B. Kern, Bob Ray",
    "Kern, Joe B. with Tim O'Dell",
    "BOB RAY LIVE",
    "Ann Mai Berg in Oslo",
    "ann lee, ida moss",
]


def write_parquet(path: Path, captions: Sequence[str | None] | pa.Array, **options: Any) -> Path:
    """A file of captions with URLs, its pages plain, so that a text in it can be replaced by one as long."""
    path.parent.mkdir(parents=True, exist_ok=True)
    urls = [f"http://{path.name}.example/{row}" for row in range(len(captions))]
    texts = captions if isinstance(captions, pa.Array) else pa.array(captions, pa.string())
    options = {"compression": "none", "use_dictionary": False} | options
    pq.write_table(pa.table({"url": urls, "caption": texts}), path, **options)
    return path


def write_names(root: Path, names: Iterable[str], aliases: Mapping[str, str] | None = None) -> None:
    """The list of names that `scan` takes."""
    rows = [f'"{name}","{(aliases or {}).get(name, "")}"' for name in names]
    (root / "names.csv").write_text("\n".join(["name,aliases", *rows, ""]), encoding="utf-8")


def study(root: Path, out: str = "out", **fields: Any) -> Study:
    """A scan of `root`/captions for `root`/names.csv that writes to `root`/`out`."""
    inputs = {"captions": str(root / "captions"), "identities": str(root / "names.csv"), **fields.pop("inputs", {})}
    return Study(name="test", out=str(root / out), stages={"scan": {"inputs": inputs, **fields}})


def scan(root: Path, out: str = "out", **fields: Any) -> Manifest:
    """Run that study; returns the seal."""
    return run_study(study(root, out, **fields), QUIET)["scan"].seal()


def scan_fails(root: Path, error: type[IdiaError], **fields: Any) -> str:
    """Run that study, which must end with an error of exactly that type; returns its one line."""
    with pytest.raises(IdiaError) as caught:
        scan(root, **fields)
    assert type(caught.value) is error
    assert caught.value.fix
    assert "\n" not in str(caught.value)
    return str(caught.value)


def contents(folder: Path) -> dict[str, str]:
    """The hash of every file but the seal, which holds times."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)}


def matches(root: Path, *columns: str, out: str = "out") -> list[tuple[Any, ...]]:
    """Those columns of all matches, by split, row and name."""
    parts = sorted((root / out / "scan/matches").iterdir())
    table = pa.concat_tables([pq.read_table(part) for part in parts])
    assert table.schema.equals(MATCHES)
    return pl.DataFrame(table).select(columns).rows()


def occurrences(root: Path) -> dict[str, dict[str, Any]]:
    """What is said of each name."""
    table = pq.read_table(root / "out/scan/occurrences")
    assert table.schema.equals(OCCURRENCES)
    return {row.pop("name"): row for row in table.to_pylist()}


def rewritten(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Change a file behind the back of everybody who looks only at its name, size and time."""
    before, info = path.read_bytes(), path.stat()
    after = change(before)
    assert len(after) == len(before)
    assert after != before
    path.write_bytes(after)
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def without_data(content: bytes) -> bytes:
    """A Parquet file of which only the footer is left, enough to plan with: whoever reads a caption fails."""
    footer = int.from_bytes(content[-8:-4], "little") + 8
    return content[:FIRST_PAGE] + b"\xff" * (len(content) - footer - FIRST_PAGE) + content[-footer:]


def cut_short(path: Path) -> None:
    """Leave the first half of a file, as a broken download does."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
