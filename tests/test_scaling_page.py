"""The page on scaling says what the rates of the moment say."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_table_is_the_one_that_the_script_prints() -> None:
    """Of every stage, with the total below."""
    command = [sys.executable, "benchmarks/laion5b.py"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "core-hours" in printed.splitlines()[-1]
    assert printed in (ROOT / "docs/scaling.md").read_text(encoding="utf-8")
