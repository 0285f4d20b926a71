"""What each stage would take on all of LAION-5B, by the rates of `idia plan`: the table of docs/scaling.md.

    python benchmarks/laion5b.py [--rates mine.yaml]

Nothing is measured here. A stage takes as long as the slowest of three: its work on the cores that there are, its bytes
through the machines' network, and its splits at what handing one out may cost (the bar of benchmarks/scale.py).
"""

import argparse
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from idia_core.config import parse_yaml, validate
from idia_core.rates import RatesFile

SHIPPED = Path(__file__).parent.parent / "jobs/numbers/rates.yaml"
PAIRS = 5.85e9
CAPTION_BYTES, PICTURE_BYTES, WEB_BYTES = 130, 27_000, 200_000
"""A pair's metadata (54 GB for LAION-400M's), its picture at 256 pixels, and as the web has it (assumed)."""
QUESTIONS = 530 * 30
"""Pictures of the paper's people."""
NODES = (1, 16, 128)
CORES, NODE_BYTES_PER_SECOND = 16, 0.6e9
"""Of a node; 5 Gbit/s, which such machines of the clouds keep up."""
SPLIT_SECONDS = 0.005
CORE_HOUR = 0.05
"""US dollars, as such machines cost on demand; spot ones about a third."""


class Stage(NamedTuple):
    """One stage's work: how many units of which rate, bytes through the network, and splits."""

    name: str
    rate: str
    units: float
    moved: float
    splits: float


STAGES = (
    Stage("scan all captions", "scan", PAIRS, PAIRS * CAPTION_BYTES, PAIRS / 1e6),
    Stage("download every picture", "download", PAIRS, PAIRS * (WEB_BYTES + PICTURE_BYTES), PAIRS / 1e4),
    Stage("embed every picture (ViT-B-32)", "clip_pictures.ViT-B-32", PAIRS, PAIRS * PICTURE_BYTES, PAIRS / 1e4),
    Stage("index 512 dimensions, exact", "index.flat", PAIRS, PAIRS * 4096, PAIRS / 2**20),
    Stage("search it for 15,900 pictures", "search.flat", PAIRS * QUESTIONS, PAIRS * 2048, PAIRS / 2**20),
    Stage("faces on every picture (Haar)", "faces.haar", PAIRS, PAIRS * PICTURE_BYTES, PAIRS / 1e4),
    Stage("look at every picture for `shards`", "shards_look", PAIRS, PAIRS * PICTURE_BYTES, PAIRS / 1e4),
    Stage("write the tars", "shards_write", PAIRS * PICTURE_BYTES, 2 * PAIRS * PICTURE_BYTES, PAIRS / 1e4),
    Stage("verify the tars", "verify", PAIRS * PICTURE_BYTES, PAIRS * PICTURE_BYTES, PAIRS / 1e4),
)


def said(hours: float) -> str:
    """A time in the unit that suits it."""
    for least, seconds, unit in ((48, 86400, "days"), (1, 3600, "h"), (1 / 60, 60, "min")):
        if hours >= least:
            return f"{hours * 3600 / seconds:,.1f} {unit}"
    return f"{hours * 3600:,.0f} s"


def times(stage: Stage, core_hours: float) -> Iterator[str]:
    """How long the stage takes on so many nodes, and what it waits for."""
    for nodes in NODES:
        waits = {
            "cores": core_hours / (CORES * nodes),
            "network": stage.moved / (NODE_BYTES_PER_SECOND * nodes) / 3600,
            "splits": stage.splits * SPLIT_SECONDS / 3600,
        }
        longest = max(waits, key=lambda what: waits[what])
        yield f"{said(waits[longest])} ({longest})"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", type=Path, default=SHIPPED, help="as for `idia plan`")
    file = parser.parse_args().rates
    rates = validate(RatesFile, parse_yaml(file.read_text(encoding="utf-8"), str(file)), str(file)).rates
    print(
        "| stage | a core does a second | core-hours | USD |", " | ".join(f"{n} node{'s'[: n - 1]}" for n in NODES), "|"
    )
    print("|---" * (4 + len(NODES)) + "|")
    total = 0.0
    for stage in STAGES:
        per_second = rates[stage.rate].cpu or math.nan
        core_hours = stage.units / per_second / 3600
        total += core_hours
        figures = f"{per_second:,.3g} {rates[stage.rate].unit} | {core_hours:,.0f} | {core_hours * CORE_HOUR:,.0f}"
        print(f"| {stage.name} | {figures} | {' | '.join(times(stage, core_hours))} |")
    print(f"\nAll of it: {total:,.0f} core-hours, {total * CORE_HOUR:,.0f} USD.")


if __name__ == "__main__":
    main()
