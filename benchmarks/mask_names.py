"""What it does to the attack when the names in all captions are masked, on the built-in world.

    python benchmarks/mask_names.py [--quick] [--seeds 0 1 2] [--plot mask_names.png]

The demo runs twice for each seed, in one folder: with the captions as they are, and with every tested person's name
replaced by "person". World, scan and selection are those of the first run; training sets, models and the attack are
made anew. The people of all seeds are counted together. Prints a line a figure with its bar, and exits 1 when one
falls short. `--quick` walks a tiny world, so its rates mean nothing and are not held against the bars.
"""

import argparse
import dataclasses
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import polars as pl
from demo import QUICK, seconds, show

from idia_core.figures import ALL, Counts, ModelCounts, rates_by_training_pictures, to_png

WAYS = {"captions as they are": (), "names masked": ("shards.mask_names.hypernym=person",)}
AS_THEY_ARE, MASKED = WAYS
STAGES = ("world", "scan", "select", "shards", "verify", "train", "attack", "evaluate")
Found = dict[tuple[str, int], Counts]
"""By way and K."""


def attack(folder: str, seed: int, settings: Sequence[str]) -> dict[int, Counts]:
    """Who is called a member on all attack pictures, by K."""
    whole_study = [f"out={folder}", f"seed={seed}", *settings]
    seconds(["run", "demo.yaml", *STAGES, *(word for one in whole_study for word in ("--set", one))])
    metrics = pl.read_parquet(f"{folder}/evaluate/metrics/*.parquet").filter(pl.col("group") == ALL)
    whole = metrics.filter(pl.col("images") == pl.col("images").max(), pl.col("draw") == 0)
    rows = whole.select("model", *(field.name for field in dataclasses.fields(Counts))).rows()
    return {int(model.removeprefix("K")): Counts(*counts) for model, *counts in rows}


def measure(seeds: Sequence[int], quick: bool) -> Found:
    """The counts over the people of all seeds."""
    found: Found = {}
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            for way, settings in WAYS.items():
                for k, counts in attack(folder, seed, [*QUICK * quick, *settings]).items():
                    told = ", ".join(f"{cell} {count}" for cell, count in dataclasses.asdict(counts).items())
                    print(f"  seed {seed}, {way}, K = {k}: {told}", flush=True)
                    known = dataclasses.astuple(found.get((way, k), Counts(0, 0, 0, 0)))
                    found[way, k] = Counts(*map(sum, zip(known, dataclasses.astuple(counts), strict=True)))
    return found


def report(found: Found, quick: bool) -> list[bool]:
    """Print the rates of both ways beside each other, and whether the bars hold at the largest K."""
    sizes = sorted({k for _, k in found}, reverse=True)
    for k in sizes:
        plain, masked = (found[way, k] for way in WAYS)
        print(f"K = {k:2}  true-positive rate:  {plain.tpr:.3f} {AS_THEY_ARE}, {masked.tpr:.3f} {MASKED}")
        print(f"K = {k:2}  false-positive rate: {plain.fpr:.3f} {AS_THEY_ARE}, {masked.fpr:.3f} {MASKED}")
    plain, masked = (found[way, sizes[0]] for way in WAYS)
    if quick:
        return []
    return [
        show(f"{AS_THEY_ARE}: true-positive rate", plain.tpr, ">= 0.95", plain.tpr >= 0.95),
        show(f"{MASKED}: true-positive rate", masked.tpr, "<= 0.10", masked.tpr <= 0.10),
        show(f"{MASKED}: false-positive rate", masked.fpr, "<= 0.10", masked.fpr <= 0.10),
    ]


def main() -> None:
    """Measure both ways, print the rates and draw them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tiny world; within two minutes")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--plot", type=Path, help="where to draw the rates, as PNG")
    options = parser.parse_args()
    found = measure(options.seeds, options.quick)
    held = report(found, options.quick)
    if options.plot:
        models = [ModelCounts(f"K = {k}, {way}", way, k, counts) for (way, k), counts in found.items()]
        options.plot.write_bytes(to_png(rates_by_training_pictures(models)))
    sys.exit(0 if all(held) else 1)


if __name__ == "__main__":
    main()
