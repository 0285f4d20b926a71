"""How well eighteen runs keep a cluster busy when the longest starts first, beside the order that they are listed in.

    python benchmarks/packing.py [--quick]

A simulation of Ray's queue of placement groups (cluster/packing.py) with the durations that the paper's three
architectures and six sets have at the rates below. `utilisation` is the part of the GPUs' time that is used until the
last run starts: after that there is nothing left to start. Each figure of ours is a line with its bar, and the exit
code is 1 when one falls short. It takes seconds, so that `--quick` does the same.
"""

import argparse
import random
import statistics
import sys
from collections.abc import Iterator, Sequence

from cluster.packing import Schedule, schedule
from pipelines.train_config import Run, TrainConfig, length_of, runs

KS = (75, 50, 25, 10, 5, 1)
BASE_PAIRS, MEMBERS = 2_800_000, 100
RATES = {"ViT-B-32": 1100.0, "RN50": 600.0, "RN50x4": 230.0}
"""Pairs a second of a GPU, assumed; what matters here is how they differ."""
CLUSTERS = (8, 16, 64, 128)
NODE = 8
BAR = 95
JITTER = 0.15
"""Runs take up to so much more or less than foretold, in the cases that are drawn."""
DRAWS = 200
SPREAD = {
    "overrides": [{"architecture": "RN50x4", "recipe": {"processes": 16, "batch_size_per_process": 64}}],
    "resources": {"pairs_per_second": RATES, "nodes": {"RN50x4": 2}, "placement": "SPREAD"},
}


def show(what: str, value: float, bar: float) -> bool:
    """Print a percentage and whether it is at least the bar."""
    held = value >= bar
    print(f"{what:<66} {value:8.2f}%  (bar: >= {bar:g})  {'held' if held else 'FELL SHORT'}", flush=True)
    return held


def eighteen(**settings: object) -> tuple[list[Run], list[Run], TrainConfig]:
    """The runs as they start, the runs as they are listed, and the settings that made them."""
    config = TrainConfig.model_validate({"resources": {"pairs_per_second": RATES}, **settings})
    sets = [(f"K{k:03d}", k, BASE_PAIRS + k * MEMBERS) for k in KS]
    started = sorted(runs(config, sets), key=lambda run: -length_of(run, config))
    listed = sorted(started, key=lambda run: (config.architectures.index(run.architecture), -run.images_per_member))
    return started, listed, config


def plan(found: Sequence[Run], config: TrainConfig, gpus: int, drawn: random.Random | None = None) -> Schedule:
    """The schedule of the runs on so many GPUs; with `drawn` each takes another time than foretold."""
    hours = [run.hours(RATES[run.architecture]) for run in found]
    if drawn:
        hours = [hour * drawn.uniform(1 - JITTER, 1 + JITTER) for hour in hours]
    nodes = [config.resources.nodes_of(run.architecture) for run in found]
    wanted = [(run.recipe.processes // count,) * count for run, count in zip(found, nodes, strict=True)]
    return schedule(hours, wanted, [NODE] * (gpus // NODE))


def compare(what: str, clusters: Sequence[int], **settings: object) -> Iterator[bool]:
    """Both orders on each cluster, with the durations as foretold and with others."""
    started, listed, config = eighteen(**settings)
    for gpus in clusters:
        ours, naive = plan(started, config, gpus), plan(listed, config, gpus)
        least = ours_least = 100.0
        lengths = list[float]()
        for seed in range(DRAWS):
            one = plan(started, config, gpus, random.Random(seed))
            other = plan(listed, config, gpus, random.Random(seed))
            ours_least = min(ours_least, 100 * one.utilisation_until_last_start)
            least = min(least, 100 * other.utilisation_until_last_start)
            lengths.append(other.length / one.length)
        print(f"  {what}, {gpus} GPUs: {ours.length:,.1f} hours; as listed {naive.length:,.1f} hours,")
        print(f"  {100 * naive.utilisation_until_last_start:.2f}% used, at least {least:.2f}% in {DRAWS} draws;")
        print(f"  in the draws it takes {statistics.median(lengths):.2f} times as long as ours in the median")
        yield show(f"{what}, {gpus} GPUs, utilisation", 100 * ours.utilisation_until_last_start, BAR)
        yield show(f"{what}, {gpus} GPUs, least of {DRAWS} with other durations", ours_least, BAR)


def main() -> None:
    """Simulate all clusters."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="does the same")
    parser.parse_args()
    held = [*compare("18 runs of 8 GPUs", CLUSTERS), *compare("RN50x4 on 16 GPUs", CLUSTERS[1:], **SPREAD)]
    sys.exit(0 if all(held) else 1)


if __name__ == "__main__":
    main()
