"""The command line and the environment of a training run, and what happens to its processes when the launcher dies."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest
from torch.distributed.run import config_from_args, parse_args

from cluster.torchrun import (
    LOOPBACK,
    PARENT_PID_VARIABLE,
    PROJECT_ROOT,
    Rendezvous,
    entry_argv,
    torchrun_argv,
    training_environment,
    why_it_ended,
)
from cluster.training_entry import parse_entry_flags
from tests.processes import still_running


def test_open_clip_flags_reach_open_clip_untouched() -> None:
    """Torchrun's flags come before `--`, the entry's and open_clip's after it; the entry takes its own out again."""
    entry = entry_argv(Path("a model.json"), 3, "a1b2", Path("work"), ["--logs", "out", "--epochs", "1"])
    argv = torchrun_argv(2, Rendezvous(LOOPBACK, 0, "run-0"), entry)
    end = argv.index("--")
    assert argv[:3] == [sys.executable, "-m", "cluster.torchrun"]
    assert "--logs" not in argv[:end]
    assert argv[end + 1] == "cluster.training_entry"
    options, flags = parse_entry_flags(argv[end + 2 :])
    assert (options.model_config, options.threads) == (Path("a model.json"), 3)
    assert (options.run, options.work) == ("a1b2", Path("work"))
    assert flags == ["--logs", "out", "--epochs", "1"]


@pytest.mark.parametrize(("node", "is_host"), [(0, "1"), (1, "0")])
def test_torchrun_understands_where_the_nodes_meet(node: int, is_host: str) -> None:
    """Its own parser reads nodes, processes, endpoint and host from the argv; only node 0 keeps the store."""
    rendezvous = Rendezvous("10.0.0.7", 29511, "run-3", nodes=2, node=node)
    argv = torchrun_argv(4, rendezvous, ["--epochs", "1"], address="10.0.0.8")
    config, command, words = config_from_args(parse_args(argv[3:]))
    assert (config.min_nodes, config.max_nodes, config.nproc_per_node, config.max_restarts) == (2, 2, 4, 0)
    assert (config.rdzv_backend, config.rdzv_endpoint, config.run_id) == ("c10d", "10.0.0.7:29511", "run-3")
    assert config.rdzv_configs["is_host"] == is_host
    assert config.local_addr == "10.0.0.8"
    assert command == sys.executable
    assert words[-4:] == ["-m", "cluster.training_entry", "--epochs", "1"]


def test_open_clips_model_flag_is_not_an_abbreviation_of_ours() -> None:
    """`--model`, which begins like our `--model-config`, stays open_clip's."""
    options, flags = parse_entry_flags([*entry_argv(Path("x.json"), 1, "a1b2", Path("work"), ["--model", "ViT-B-32"])])
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


def test_ranks_speak_through_the_interface_of_their_nodes_address() -> None:
    """The loopback's where a run has one node; an address that no interface has names none."""
    environment = training_environment({}, 1, "cuda", 7)
    assert LOOPBACK in [one.address for one in psutil.net_if_addrs()[environment["NCCL_SOCKET_IFNAME"]]]
    assert environment["GLOO_SOCKET_IFNAME"] == environment["NCCL_SOCKET_IFNAME"]
    elsewhere = training_environment({}, 1, "cuda", 7, address="203.0.113.9")
    assert not elsewhere.keys() & {"NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME"}


def test_the_users_network_settings_stay() -> None:
    """What is set for NCCL and gloo already is not overwritten, and the rest is added."""
    inherited = {"NCCL_SOCKET_IFNAME": "ib0", "NCCL_DEBUG": "INFO"}
    environment = training_environment(inherited, 1, "cuda", 7)
    assert (environment["NCCL_SOCKET_IFNAME"], environment["NCCL_DEBUG"]) == ("ib0", "INFO")
    assert environment["TORCH_NCCL_ASYNC_ERROR_HANDLING"] == "1"


def test_weights_and_biases_is_told_of_a_run_only_when_asked() -> None:
    """Its variables reach the ranks with `wandb`, and not without."""
    inherited = {"WANDB_MODE": "offline"}
    assert "WANDB_MODE" not in training_environment(inherited, 1, "cpu", 7)
    assert training_environment(inherited, 1, "cpu", 7, wandb=True)["WANDB_MODE"] == "offline"


SUMMARY = """
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
Root Cause (first observed failure):
[0]:
  time      : 2026-01-01_00:00:00
  host      : localhost
  rank      : {rank} (local_rank: 1)
  exitcode  : {code}
  error_file: <N/A>
"""


def test_a_killed_rank_is_named_with_its_signal() -> None:
    """What the ranks that lost it raised is not the reason."""
    said = "[rank0]: RuntimeError: Connection closed by peer" + SUMMARY.format(rank=3, code="-9 (pid: 7)  (SIGKILL)")
    assert why_it_ended(said) == "rank 3 was killed by SIGKILL"


def test_a_failed_rank_tells_its_last_error() -> None:
    """Of several errors it is the last of the rank that torchrun saw fail first."""
    said = "[rank1]: KeyError: 'fname'\n[rank1]:   File x\n[rank1]: OSError: [Errno 28] No space left on device\n"
    said += "[rank0]: RuntimeError: Connection closed by peer\n" + SUMMARY.format(rank=1, code="1 (pid: 7)")
    assert why_it_ended(said) == "rank 1: OSError: [Errno 28] No space left on device"


def test_without_an_error_the_last_lines_are_told() -> None:
    """Empty lines are left out."""
    assert why_it_ended("one\ntwo\n\nthree\nfour\n") == "two | three | four"


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


def test_an_error_of_ours_is_the_reason_and_not_what_other_ranks_met() -> None:
    """A full disk ends rank 0 with one line; the others lose their connection to it."""
    said = (
        "2026-11-25,16:22:46 | ERROR | StorageError: it cannot be written: No space left on device (a.pt). Make room.\n"
        "[rank1]: RuntimeError: Connection closed by peer\n"
    )
    full = "StorageError: it cannot be written: No space left on device (a.pt). Make room."
    assert why_it_ended(said) == full
