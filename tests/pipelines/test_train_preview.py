"""What --dry-run says of `train`: hours, and the commands that would be started."""

import shlex
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from cluster.training_entry import parse_entry_flags
from idia_core.shards import LEDGER
from pipelines.stage import ResolvedInput, StageContext
from pipelines.train_config import TrainConfig
from pipelines.train_preview import preview


def _input(folder: Path, name: str, table: pa.Table) -> ResolvedInput:
    file = folder / name / "part-00000.parquet"
    file.parent.mkdir(parents=True)
    pq.write_table(table, file)
    return ResolvedInput(name, UPath(file.parent), (UPath(file),), "digest")


def _context(tmp_path: Path, **fields: Any) -> StageContext:
    """Two sets of two tars of 4,096 pairs and of one; the tars themselves are not read."""
    rows = [
        {"set": name, "images_per_member": k, "shard": shard, "path": f"shards/{name}/{shard:05d}.tar"}
        | {"samples": 4096, "member_samples": 9, "bytes": 1, "sha256": f"{name}{shard}"}
        for name, k, tars in (("K005", 5, 2), ("K001", 1, 1))
        for shard in range(tars)
    ]
    ledger = pa.Table.from_pylist(rows, LEDGER)
    verified = ledger.select(["path", "sha256"]).append_column("faults", pa.array([0, 0, 0]))
    plan = pa.table({"set": ["K005"]})
    inputs = {
        name: _input(tmp_path / "the shards", name, table)
        for name, table in (("ledger", ledger), ("verified", verified), ("plan", plan))
    }
    return StageContext("train", TrainConfig.model_validate(fields), inputs, UPath(tmp_path / "train"))


RATES = {"ViT-B-32": 1000, "RN50x4": 250}
FIELDS = {
    "architectures": list(RATES),
    "overrides": [{"architecture": "RN50x4", "recipe": {"processes": 16, "batch_size_per_process": 64}}],
    "resources": {"pairs_per_second": RATES, "nodes": {"RN50x4": 2}, "placement": "SPREAD"},
}


def test_every_run_has_its_steps_and_hours(tmp_path: Path) -> None:
    """From the pairs, the epochs and the rate of a GPU, in the order in which they start."""
    rows = preview(_context(tmp_path, **FIELDS)).rows
    assert [row["model"] for row in rows] == ["RN50x4_K005", "ViT-B-32_K005", "RN50x4_K001", "ViT-B-32_K001"]
    assert {key: rows[0][key] for key in ("pairs", "epochs", "steps", "processes", "nodes")} == {
        "pairs": 8192,
        "epochs": 50,
        "steps": 400,
        "processes": 16,
        "nodes": 2,
    }
    hours = 8192 * 50 / 250 / 3600
    assert (rows[0]["gpu_hours"], rows[0]["hours"]) == (round(hours, 2), round(hours / 16, 2))
    assert (rows[1]["steps"], rows[1]["nodes"], rows[1]["gpu_hours"]) == (400, 1, round(hours / 4, 2))


def test_the_time_of_all_runs_is_told_for_clusters_that_hold_them(tmp_path: Path) -> None:
    """A run over two nodes of eight GPUs needs 16; with `workers` the cluster is what so many runs take."""
    notes = preview(_context(tmp_path / "a", **FIELDS)).notes
    hours = [8192 * 50 / 250 / 3600, 8192 * 50 / 1000 / 3600]
    total = 1.5 * sum(hours)
    assert notes[0] == f"4 runs: {total:,.1f} GPU-hours."
    assert notes[1].startswith(f"On 2 x 8 GPUs: {total / 16:,.1f} hours, ")
    assert notes[2].startswith("On 8 x 8 GPUs: 0.0 hours, 100% busy until the last run starts.")
    resources = FIELDS["resources"] | {"workers": 3}
    notes = preview(_context(tmp_path / "b", **FIELDS | {"resources": resources})).notes
    assert [note[:15] for note in notes if note.startswith("On ")] == ["On 6 x 8 GPUs: "]


def test_without_a_rate_the_way_to_give_one_is_told(tmp_path: Path) -> None:
    """One rate that is missing leaves all times unknown, but not the steps."""
    resources = {"pairs_per_second": {"RN50": 3}}
    found = preview(_context(tmp_path, architectures=["RN50", "RN50x4"], resources=resources))
    assert [row["gpu_hours"] is None for row in found.rows] == [False, True, False, True]
    assert "train.resources.pairs_per_second" in found.notes[0]
    assert not [note for note in found.notes if "hours, " in note]


@pytest.mark.parametrize("folder", ["plain", "with [a] space"])
def test_the_commands_are_those_that_are_started(tmp_path: Path, folder: str) -> None:
    """One a node, quoted for a shell; the entry and open_clip read from it what the run is."""
    from open_clip_train.params import parse_args  # noqa: PLC0415 - slow to import

    root = tmp_path / folder
    commands = [
        note.partition(": ") for note in preview(_context(root, **FIELDS)).notes if " -m cluster.torchrun" in note
    ]
    assert [name for name, _, _ in commands] == [
        "RN50x4_K005, node 0",
        "RN50x4_K005, node 1",
        "ViT-B-32_K005",
        "RN50x4_K001, node 0",
        "RN50x4_K001, node 1",
        "ViT-B-32_K001",
    ]
    words = shlex.split(commands[1][2])
    torchrun, entry = words[: words.index("--")], words[words.index("--") + 2 :]
    assert torchrun[torchrun.index("--nnodes") + 1] == "2"
    assert torchrun[torchrun.index("--nproc-per-node") + 1] == "8"
    assert torchrun[torchrun.index("--rdzv-endpoint") + 1] == "NODE_0:29400"
    assert torchrun[torchrun.index("--local-addr") + 1] == "NODE_1"
    own, flags = parse_entry_flags(entry)
    assert own.model_config.name == "RN50x4.json"
    args = parse_args(flags)
    assert args.train_data == f"{root}/the shards/shards/K005/{{00000..00001}}.tar"
    assert (args.model, args.train_num_samples, args.batch_size) == ("RN50x4", 8192, 64)
    assert (args.logs, args.name) == (f"{root}/train/_work", "RN50x4_K005")
    alone = shlex.split(commands[2][2])
    assert alone[alone.index("--rdzv-endpoint") + 1] == "127.0.0.1:0"


def test_on_cpu_processes_are_counted(tmp_path: Path) -> None:
    """No GPU is spoken of."""
    recipe = {"device": "cpu", "processes": 2, "batch_size_per_process": 32}
    resources = {"pairs_per_second": 100, "workers": 1}
    found = preview(_context(tmp_path, architectures=["idia-rn-tiny"], recipe=recipe, resources=resources))
    assert found.rows[0]["process_hours"] == round(8192 * 50 / 100 / 3600, 2)
    assert not [note for note in found.notes if "GPU" in note]
