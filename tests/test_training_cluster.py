"""Training through the stage, on clusters that lose processes and nodes: what comes of it, and what is left behind."""

import io
import json
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import open_clip
import pandas as pd
import psutil
import pytest
from ray.cluster_utils import Cluster
from rich.console import Console
from upath import UPath

from idia_core.config import load_study
from idia_core.errors import IdiaError, MissingInputError, SealError, TrainingError
from idia_core.training import MODEL_CONFIG
from jobs.run import run_study
from tests.kills import IDIA, ROOT, contents, running
from tests.processes import still_running

pytestmark = pytest.mark.slow

EPOCHS = 6
SETTINGS = {
    "world.people": 8,
    "world.caption_rows": 6000,
    "world.background_pairs": 250,
    "world.training_pictures": 5,
    "world.attack_pictures": 3,
    "select.members": 3,
    "select.non_members": 3,
    "select.min_pictures": 3,
    "select.min_pairs": 5,
    "shards.images_per_member": [5],
    "shards.shard_size": 16,
    "shards.exact_for": {"batch_size": 16, "ranks": 4},
    "train.recipe.epochs": EPOCHS,
    "train.recipe.batch_size_per_process": 16,
    "train.resources.checkpoint_epochs": 1,
    "train.resources.wait_seconds": 1,
}
WEIGHTS = ("train/checkpoints", "train/models", "train/exposures")


def words(out: Path, *stages: str, **more: object) -> list[str]:
    """What follows `idia`."""
    settings = {"out": str(out), **SETTINGS, **{f"train.{key.replace('__', '.')}": more[key] for key in more}}
    return ["run", "demo.yaml", *stages, *(w for k, v in settings.items() for w in ("--set", f"{k}={json.dumps(v)}"))]


def train_here(out: Path, **more: object) -> None:
    """The stage in this process."""
    settings = words(out, **more)[3::2]
    run_study(load_study(UPath(ROOT / "jobs/studies/demo.yaml"), settings), Console(file=io.StringIO()), ["train"])


def idia(*argv: str) -> subprocess.CompletedProcess[str]:
    """A command to its end."""
    return subprocess.run([*IDIA, *argv], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose shards are verified."""
    out = tmp_path_factory.mktemp("shards") / "out"
    done = idia(*words(out, "world", "scan", "select", "shards", "verify"))
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture
def study(shards: Path, tmp_path: Path) -> Path:
    """A copy of it, to train."""
    subprocess.run(["cp", "-r", str(shards), str(tmp_path / "out")], check=True)
    return tmp_path / "out"


@pytest.fixture(scope="module")
def undisturbed(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The hashes of what a run on this machine ends with when nothing happens to it."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    subprocess.run(["cp", "-r", str(shards), str(out)], check=True)
    done = idia(*words(out, "train"))
    assert done.returncode == 0, done.stderr
    return contents(out, WEIGHTS)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A head that computes nothing, and two nodes of two CPUs each."""
    folder = tempfile.mkdtemp(prefix="idia-")  # a short one: sockets lie in it; and a Ray of its own, not the machine's
    monkeypatch.setenv("RAY_TMPDIR", folder)
    soon = {"health_check_period_ms": 500, "health_check_failure_threshold": 3}
    head = {"num_cpus": 0, "include_dashboard": False, "_system_config": soon}
    nodes = Cluster(initialize_head=True, head_node_args=head)
    for _ in range(2):
        nodes.add_node(num_cpus=2)
    nodes.wait_for_nodes()
    yield nodes
    nodes.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


def ranks(out: Path) -> list[psutil.Process]:
    """All processes that work for the training of a study: its torchruns and their ranks."""
    work = str(out / "train/_work")
    return [process for process in psutil.process_iter(["cmdline"]) if work in " ".join(process.info["cmdline"] or [])]


def wait_for_epoch(out: Path, epoch: int, driver: subprocess.Popen[bytes]) -> None:
    """Wait until the checkpoint of an epoch, or of a later one, is there."""
    deadline = time.monotonic() + 180
    while not any(_epoch(side) >= epoch for side in (out / "train/_work/K005/checkpoints").glob("epoch_*.json")):
        assert driver.poll() is None, f"it ended before epoch {epoch}"
        assert time.monotonic() < deadline, f"epoch {epoch} is not there"
        time.sleep(0.02)


def _epoch(side: Path) -> int:
    return int(side.name.split("_")[1].split(".")[0])


def runs(out: Path) -> pd.DataFrame:
    """The attempts of the run."""
    return pd.read_parquet(out / "train/runs").sort_values("attempt").reset_index(drop=True)


def test_a_run_over_two_nodes_outlives_one_of_them(study: Path, cluster: Cluster, tmp_path: Path) -> None:
    """Two processes on each node; one node is killed amid an epoch, and the other one alone does the rest."""
    command = words(study, "train", recipe__processes=4, resources__nodes=2, resources__placement="SPREAD")
    log = tmp_path / "log"
    with running([*command, "--address", cluster.address], log) as driver:
        wait_for_epoch(study, 2, driver)
        cluster.remove_node(min(cluster.worker_nodes, key=str), allow_graceful=False)
        assert driver.wait() == 0, log.read_text()
    assert not still_running(ranks(study), 20)
    attempts = runs(study)
    assert attempts["processes"].tolist() == [4, 2]
    assert attempts["nodes"].tolist() == [2, 1]
    assert attempts["last_epoch"].tolist()[-1] == EPOCHS
    assert attempts["first_epoch"][1] == attempts["last_epoch"][0] + 1 >= 3
    assert attempts["reason"][0] != "done"
    assert attempts["reason"][1] == "done"
    shown = pd.read_parquet(study / "train/exposures")
    assert shown["seen"].eq(1).all()
    assert {tuple(epochs) for _, epochs in shown.groupby("key")["epoch"]} == {tuple(range(1, EPOCHS + 1))}
    assert json.loads((study / "train/manifest.json").read_text())["stage"] == "train"
    open_clip.add_model_config(MODEL_CONFIG)
    weights = str(study / "train/checkpoints/K005.pt")
    model, _, _ = open_clip.create_model_and_transforms("idia-rn-tiny", pretrained=weights)
    assert all(bool(weight.isfinite().all()) for weight in model.state_dict().values())


def test_what_befalls_a_run_does_not_show_in_its_weights(
    study: Path, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    """A rank is killed, then the driver is ended, and the newest checkpoint is cut short: the same bytes in the end.

    Before that the checkpoint passes for one of another architecture: the run ends with an error, and touches nothing.
    """
    log, folder = tmp_path / "log", study / "train/_work/K005/checkpoints"
    with running(words(study, "train"), log) as driver:
        wait_for_epoch(study, 1, driver)
        next(p for p in ranks(study) if "cluster.training_entry" in p.cmdline()[1:4]).kill()
        wait_for_epoch(study, 3, driver)
        children = psutil.Process(driver.pid).children(recursive=True)
        driver.send_signal(signal.SIGTERM)
        driver.wait()
    assert not still_running(children, 20)
    assert not ranks(study)
    newest = max(folder.glob("epoch_*.pt"), key=_epoch)
    side = newest.with_name(f"{newest.name}.json")
    own = side.read_text()
    side.write_text(own.replace("idia-rn-tiny", "RN50"))
    refused = idia(*words(study, "train"))
    assert refused.returncode == 1
    assert "TrainingError: the checkpoint is of RN50" in refused.stderr
    side.write_text(own)
    newest.write_bytes(newest.read_bytes()[:-1000])
    done = idia(*words(study, "train"))
    assert done.returncode == 0, done.stderr
    assert contents(study, WEIGHTS) == undisturbed
    attempts = runs(study)
    assert "was killed by SIGKILL" in attempts["reason"][0]
    assert newest.name in attempts["reason"][1]
    assert attempts["last_epoch"][1] == _epoch(newest) - 1
    assert not (study / "train/_work").exists()


def spoil_a_tar(study: Path) -> None:
    """One byte of a shard is another than when it was verified."""
    tar = next((study / "shards/tars").rglob("*.tar"))
    content = bytearray(tar.read_bytes())
    content[600] ^= 1
    tar.write_bytes(content)


def remove_a_seal(study: Path) -> None:
    """The shards have no seal."""
    (study / "shards/manifest.json").unlink()


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize(
    ("spoil", "error", "said"),
    [
        (spoil_a_tar, SealError, "the tar is not the one that was verified"),
        (remove_a_seal, MissingInputError, "stage 'shards' is not done"),
    ],
)
def test_shards_that_are_not_as_verified_are_not_trained_on(
    study: Path, spoil: Callable[[Path], None], error: type[IdiaError], said: str
) -> None:
    """A typed error says so, and no checkpoint comes of it."""
    spoil(study)
    with pytest.raises(error, match=said):
        train_here(study)
    assert not list(study.rglob("train/**/*.pt"))


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"recipe__learning_rate": 1e30, "recipe__warmup_steps": 0}, "the loss is nan|the weights are not finite"),
        ({"resources__stall_seconds": 0.5}, "no step was taken for"),
    ],
)
def test_a_run_that_cannot_go_well_ends_with_a_reason(study: Path, settings: dict[str, Any], said: str) -> None:
    """A loss that is not finite, and a heartbeat that stands still: no restart, no seal, no process."""
    with pytest.raises(TrainingError, match=said):
        train_here(study, **settings)
    assert not still_running(ranks(study), 20)
    assert len(list((study / "train/_work/K005/attempts").iterdir())) == 1
    assert not (study / "train/manifest.json").exists()
