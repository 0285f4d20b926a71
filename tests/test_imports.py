"""Importing the science must not cost what running it costs."""

import subprocess
import sys

HEAVY = ("ray", "torch", "torchvision", "open_clip", "open_clip_train", "webdataset", "facenet_pytorch")

PROGRAM = f"""
import importlib, pkgutil, sys
import idia_core
names = [module.name for module in pkgutil.walk_packages(idia_core.__path__, "idia_core.")]
for name in names:
    importlib.import_module(name)
print(len(names), *sorted(set(sys.modules) & set({HEAVY!r})))
"""


def test_idia_core_loads_neither_ray_nor_torch() -> None:
    """Every module of `idia_core`, imported in a fresh process, leaves the heavy libraries unloaded."""
    answer = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    count, *loaded = answer.stdout.split()
    assert int(count) > 20
    assert loaded == []
