"""A cluster that grows while a phase runs does more at once."""

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from tests.kills import ROOT

pytestmark = pytest.mark.slow
CPUS, SPLITS = 4, 40


def test_a_phase_makes_use_of_a_node_that_comes_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One CPU at first, four more once some splits are done: then more run at once than were pending for the one."""
    folder = tempfile.mkdtemp(prefix="idia-")  # a short one: sockets lie in it
    monkeypatch.setenv("RAY_TMPDIR", folder)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    command = [sys.executable, "-m", "tests.sleeping", cluster.address, str(tmp_path)]
    command += ["--splits", str(SPLITS), "--seconds", "1"]
    with subprocess.Popen(command, cwd=ROOT) as driver:
        while len(list(tmp_path.glob("*.times"))) < 2:
            assert driver.poll() is None
            time.sleep(0.1)
        cluster.add_node(num_cpus=CPUS)
    cluster.shutdown()
    shutil.rmtree(folder, ignore_errors=True)
    assert driver.returncode == 0
    times = [tuple(map(float, path.read_text().split())) for path in tmp_path.glob("*.times")]
    assert len(times) == SPLITS
    assert max(sum(began <= start < ended for began, ended in times) for start, _ in times) >= CPUS
