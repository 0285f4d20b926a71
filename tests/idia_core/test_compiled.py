"""The cache of compiled functions, when several processes fill it at once."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TYPES = ("int8", "int16", "int32", "int64", "float32", "float64")
MODULE = """
import sys
import numpy as np
from idia_core.compiled import jit

@jit
def twice(number):
    return number + number

if __name__ == "__main__":
    sys.stdin.readline()
    print(twice(getattr(np, sys.argv[1])(3)))
"""


def test_processes_that_compile_for_other_types_at_once_all_save(tmp_path: Path) -> None:
    """The machine code for every type has a file of its own, and each process its result."""
    module = tmp_path / "twofold.py"
    module.write_text(MODULE)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [
        subprocess.Popen([sys.executable, str(module), kind], cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, **pipes)  # type: ignore[call-overload]
        for kind in TYPES
    ]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [float(process.communicate()[0]) for process in processes] == [6.0] * len(TYPES)
    assert len(list((tmp_path / "__pycache__").glob("twofold.twice-*.nbc"))) == len(TYPES)
