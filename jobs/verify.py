"""What `idia verify` does: read shards again on this machine, and print every fault."""

import tempfile
import time
from collections import Counter
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table
from rich.text import Text
from upath import UPath

from idia_core.config import Resources
from idia_core.errors import UsageError
from idia_core.evidence import visible
from idia_core.manifest import Receipt, read_manifest, total_counts
from idia_core.storage import as_path, write_whole
from idia_core.verification import Found, in_order
from jobs.findings import say
from jobs.local_ray import ray_when_needed
from pipelines.dataflow import run_phase
from pipelines.progress import Progress
from pipelines.stage import ResolvedInput, StageContext
from pipelines.verify import CHECK, VerifyConfig

SHOWN = 50


def verify_folder(
    folder: str, console: Console, *, decode: bool = False, workers: int | None = None, out: str | None = None
) -> int:
    """Print what is wrong with the shards in a folder, and return how many faults there are; nothing there is changed.

    `folder` is what the stage `shards` wrote, or any folder, file or pattern of tars, at any fsspec URL; of those only
    structure, pairs and pictures can be checked. All faults are written to the Parquet file `out`.
    Raises `MissingInputError` where there is no tar and `UsageError` for an `out` inside the folder.
    """
    root = as_path(folder)
    if out and as_path(out).is_relative_to(root):
        raise UsageError("the faults would be written among the shards", "--out", "Give another place.")
    inputs = {table: _table(root, table) for table in ("ledger", "plan")}
    with tempfile.TemporaryDirectory(prefix="idia-verify-") as place, ray_when_needed(None) as start_ray:
        start_ray(0)
        began = time.monotonic()
        context = StageContext("verify", VerifyConfig(decode=decode), inputs, UPath(place))
        receipts = run_phase(CHECK, context, Resources(workers=workers), Progress(Console(stderr=True)))
        seconds = time.monotonic() - began
        table = context.table("faults")
    if out:
        _write(table, as_path(out))
    faults = in_order(table)
    _print_faults(faults, console, out)
    if not inputs["ledger"].files:
        say(console, "There is no ledger: hashes, and counts against a plan, could not be checked.")
    say(console, _totals(receipts, faults, seconds))
    return len(faults)


def _table(root: UPath, name: str) -> ResolvedInput:
    """A table of the folder: the files that its manifest names, or those that are there where it has none."""
    if root.is_dir() and (manifest := read_manifest(root)):
        files = [root / entry.path for entry in manifest.files(name)]
    else:
        files = sorted((root / name).glob("*.parquet"), key=str)
    return ResolvedInput(str(root), root / name, tuple(files), digest="")


def _write(table: pa.Table, path: UPath) -> None:
    with write_whole(path) as file:
        pq.write_table(table, file, compression="zstd")


def _print_faults(faults: Sequence[Found], console: Console, out: str | None) -> None:
    if not faults:
        return
    table = Table(box=None, pad_edge=False)
    for column in ("file", "pair", "fault", "detail"):
        table.add_column(column, overflow="fold", no_wrap=column == "fault")
    for found in faults[:SHOWN]:
        table.add_row(*(Text(str(visible(str(cell or "")))) for cell in found))
    console.print(table)
    if len(faults) > SHOWN:
        where = f"all are in {out}" if out else "--out FILE.parquet writes them all"
        say(console, f"and {len(faults) - SHOWN:,} more; {where}")


def _totals(receipts: Sequence[Receipt], faults: Sequence[Found], seconds: float) -> str:
    """`12 tars, 768 pairs, 14.2 MB in 1.3 s: 2 faults (1 wrong_hash, 1 no_caption)`."""
    counts = total_counts(receipts)
    read = f"{_some(counts['tars'], 'tar')}, {_some(counts['rows_in'], 'pair')}, {counts['bytes'] / 1e6:,.1f} MB"
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in Counter(found.fault for found in faults).most_common())
    return f"{read} in {seconds:.1f} s: " + (f"{_some(len(faults), 'fault')} ({kinds})" if faults else "no fault")


def _some(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
