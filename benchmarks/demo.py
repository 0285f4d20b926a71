"""How long the demo takes, how long it takes again, and how right it is.

    python benchmarks/demo.py [--quick] [--seeds 0 1 2 3 4]

Prints a line a figure with its bar, and exits 1 when one falls short. `--quick` walks a tiny world, so its rates mean
nothing and are not held against the bars.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import polars as pl

ROOT = Path(__file__).parent.parent
IDIA = [sys.executable, "-c", "from jobs.cli import main; main()"]
QUICK = [
    *("world.people=8", "world.caption_rows=6000", "world.background_pairs=90", "select.members=3"),
    *("select.non_members=3", "train.recipe.epochs=1", "attack.candidates=50"),
]


def seconds(words: list[str]) -> float:
    """How long a command takes, from outside."""
    began = time.monotonic()
    subprocess.run([*IDIA, *words], cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.monotonic() - began


def show(what: str, value: float, bar: str, held: bool) -> bool:
    """Print one figure and whether its bar holds."""
    print(f"{what:<40} {value:8.3f}  (bar: {bar})  {'held' if held else 'FELL SHORT'}")
    return held


def measure(seed: int, quick: bool) -> list[bool]:
    """Run the demo of one seed twice in a fresh folder."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["demo", "--out", folder, "--seed", str(seed)]
        words += [word for setting in QUICK * quick for word in ("--set", setting)]
        first, second = seconds(words), seconds(words)
        table = pl.read_parquet(f"{folder}/evaluate/rates/*.parquet").filter(pl.col("group") == "all")
    held = [
        show(f"seed {seed}: first run, seconds", first, "<= 300", first <= 300),
        show(f"seed {seed}: second run, seconds", second, "<= 20", second <= 20),
    ]
    most = table.filter(pl.col("images") == pl.col("images").max())
    rates = {row["model"]: row for row in most.rows(named=True)}
    tpr, fpr, tpr_of_one = rates["K025"]["tpr_mean"], rates["K025"]["fpr_mean"], rates["K001"]["tpr_mean"]
    if not quick:
        held += [
            show(f"seed {seed}: true-positive rate, K = 25", tpr, ">= 0.95", tpr >= 0.95),
            show(f"seed {seed}: false-positive rate, K = 25", fpr, "<= 0.05", fpr <= 0.05),
            show(f"seed {seed}: true-positive rate, K = 1", tpr_of_one, "<= 0.65", tpr_of_one <= 0.65),
        ]
    return held


def main() -> None:
    """Measure every seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tiny world; within a minute")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    options = parser.parse_args()
    held = [one for seed in options.seeds for one in measure(seed, options.quick)]
    sys.exit(0 if all(held) else 1)


if __name__ == "__main__":
    main()
