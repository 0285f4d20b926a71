"""The command line and the environment of a training run, and what happens to its processes when the launcher dies."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil

from cluster.torchrun import PARENT_PID_VARIABLE, PROJECT_ROOT, torchrun_argv, training_environment
from cluster.training_entry import parse_entry_flags
from tests.processes import still_running


def test_open_clip_flags_reach_open_clip_untouched() -> None:
    """Torchrun's flags come before `--`, ours and open_clip's after it, and ours are taken out again by the entry."""
    argv = torchrun_argv(2, 3, Path("a model.json"), ["--logs", "out", "--epochs", "1"])
    end = argv.index("--")
    assert argv[:3] == [sys.executable, "-m", "cluster.torchrun"]
    assert argv[argv.index("--nproc-per-node") + 1] == "2"
    assert "--logs" not in argv[:end]
    assert argv[end + 1] == "cluster.training_entry"
    options, flags = parse_entry_flags(argv[end + 2 :])
    assert (options.model_config, options.threads) == (Path("a model.json"), 3)
    assert flags == ["--logs", "out", "--epochs", "1"]


def test_open_clips_model_flag_is_not_an_abbreviation_of_ours() -> None:
    """`--model`, which begins like our `--model-config`, stays open_clip's."""
    options, flags = parse_entry_flags(["--model-config", "x.json", "--threads", "1", "--model", "ViT-B-32"])
    assert options.model_config == Path("x.json")
    assert flags == ["--model", "ViT-B-32"]


def test_other_launchers_leave_no_trace_in_the_environment() -> None:
    """Slurm's, torchrun's and MPI's variables are dropped, unrelated ones kept, and no hub can be reached."""
    inherited = {"SLURM_NTASKS": "8", "WORLD_SIZE": "4", "RANK": "3", "MASTER_ADDR": "elsewhere", "HOME": "/home/ada"}
    inherited |= {"PMI_RANK": "1", "TORCHELASTIC_RUN_ID": "x", "OMP_NUM_THREADS": "64", "PYTHONPATH": "/theirs"}
    environment = training_environment(inherited, threads=1, device="cpu", launcher_pid=7)
    assert not environment.keys() & {
        "SLURM_NTASKS",
        "WORLD_SIZE",
        "RANK",
        "MASTER_ADDR",
        "PMI_RANK",
        "TORCHELASTIC_RUN_ID",
    }
    assert environment["HOME"] == "/home/ada"
    assert environment["OMP_NUM_THREADS"] == "1"
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert environment["CUDA_VISIBLE_DEVICES"] == ""
    assert environment["PYTHONPATH"] == f"{PROJECT_ROOT}{os.pathsep}/theirs"
    assert environment[PARENT_PID_VARIABLE] == "7"


def test_gpus_stay_visible_where_the_device_is_cuda() -> None:
    """The GPUs that the launcher was given are the ranks' too."""
    environment = training_environment({"CUDA_VISIBLE_DEVICES": "2,3"}, threads=4, device="cuda", launcher_pid=7)
    assert environment["CUDA_VISIBLE_DEVICES"] == "2,3"


LAUNCHER = textwrap.dedent("""
    import os, subprocess, sys
    os.environ["IDIA_PARENT_PID"] = str(os.getpid())
    child = subprocess.Popen([sys.executable, "-c", sys.argv[1]])
    print(child.pid, flush=True)
    child.wait()
""")
CHILD = "from cluster.torchrun import die_with_parent; die_with_parent(); import time; time.sleep(60)"


def test_a_process_that_dies_with_its_parent_does() -> None:
    """SIGKILL to the launcher ends its child within two seconds."""
    environment = {**os.environ, "PYTHONPATH": str(PROJECT_ROOT)}
    with subprocess.Popen([sys.executable, "-c", LAUNCHER, CHILD], stdout=subprocess.PIPE, env=environment) as launcher:
        assert launcher.stdout is not None
        child = psutil.Process(int(launcher.stdout.readline()))
        time.sleep(0.5)
        assert child.is_running()
        launcher.send_signal(signal.SIGKILL)
    assert not still_running([child], seconds=2)


def test_a_process_whose_parent_is_gone_already_ends_at_once() -> None:
    """A launcher that died before the child could ask the kernel leaves no child either."""
    environment = {**os.environ, "PYTHONPATH": str(PROJECT_ROOT), PARENT_PID_VARIABLE: "1"}
    done = subprocess.run([sys.executable, "-c", CHILD], env=environment, timeout=30, check=False)
    assert done.returncode == 1
