"""How long `idia plan` takes for the paper's two studies at full size, start of the program included.

    python benchmarks/plan.py [--quick]

With sizes that are declared, and with files that have as many rows and bytes: 32 Parquet files of 12.9 million rows
each, all alike, and 331 tars that hold nothing. Medians of five runs (`--quick`: two) on an idle machine; the exit code
is 1 when one takes 5 seconds or more.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.full_size import write_cc3m, write_laion, write_people

BAR = 5.0
CLUSTER = ("--cpus", "64", "--gpus", "8")
PROGRAM = "import sys; from jobs.cli import main; main()"


def seconds(study: str, arguments: list[str], runs: int) -> float:
    """The median of some runs."""
    times = []
    for _ in range(runs):
        began = time.perf_counter()
        command = [sys.executable, "-c", PROGRAM, "plan", study, *CLUSTER, *arguments]
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def with_files(folder: Path) -> dict[str, list[str]]:
    """The settings by which the studies find files of full size."""
    people = write_people(folder / "people")
    laion, cc3m = write_laion(folder / "laion"), write_cc3m(folder / "cc3m")
    own = {"identities": people["identities"], "pictures": people["pictures"]}
    sets = {"laion400m.yaml": {"scan.inputs.captions": str(laion), "scan.inputs.identities": own["identities"]}}
    sets["laion400m.yaml"] |= {f"select.inputs.{field}": path for field, path in own.items()}
    sets["cc3m.yaml"] = {f"{stage}.inputs.background": cc3m for stage in ("embed", "faces", "shards")}
    sets["cc3m.yaml"] |= {
        "recogniser.inputs.pictures": people["faces"],
        "recogniser.inputs.identities": own["identities"],
    }
    for stage in ("faces", "presence", "retrieve", "select", "pairs", "shards"):
        sets["cc3m.yaml"] |= {f"{stage}.inputs.{field}": path for field, path in own.items()}
    return {
        study: [word for key, value in given.items() for word in ("--set", f"{key}={value}")]
        for study, given in sets.items()
    }


def main() -> int:
    """Measure, and say whether the bars hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two runs of each")
    runs, held = 2 if parser.parse_args().quick else 5, True
    with tempfile.TemporaryDirectory() as folder:
        found = with_files(Path(folder))
        for study, settings in found.items():
            for what, given in (("sizes declared", []), ("files of full size", settings)):
                took = seconds(study, ["--sizes", "paper", "--set", f"out={folder}/out", *given], runs)
                held &= took < BAR
                told = "held" if took < BAR else "FELL SHORT"
                print(f"{f'idia plan {study}, {what}, seconds':<60} {took:6.2f}  (bar: < {BAR:g})  {told}", flush=True)
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
