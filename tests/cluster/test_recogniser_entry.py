"""The training of a classifier: repeatable, on several ranks, resumed after a kill, and ended by what is not finite."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pytest
import torch

from cluster.recogniser_entry import CHECKPOINTS, LOG, WEIGHTS, losses_in, run_ranks
from idia_core.classifier import build_network
from idia_core.drawing import draw_face, encode_jpeg, invent_people
from idia_core.errors import TrainingError
from idia_core.recogniser_training import LABELLED, ClassifierRecipe, TrainingJob, write_pictures
from tests.processes import still_running

PEOPLE, EACH, EPOCHS = 3, 6, 6
DRIVER = """
import sys
from pathlib import Path
from cluster.recogniser_entry import run_ranks
from idia_core.recogniser_training import TrainingJob
job = TrainingJob.model_validate_json(Path(sys.argv[2]).read_bytes())
run_ranks(Path(sys.argv[1]), job, "run", lambda losses: None)
"""
"""What a stage's worker does, in a process that a test can kill."""
SECONDS_TO_WAIT = 120


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A few small pictures of drawn people."""
    path = tmp_path_factory.mktemp("pictures") / "pictures.arrow"
    people = invent_people(PEOPLE, 1, "FMF")
    rows = [
        {"label": label, "image": encode_jpeg(draw_face(person, [1, label, number])[:96:2, :96:2])}
        for label, person in enumerate(people)
        for number in range(EACH)
    ]
    write_pictures(path, [pa.Table.from_pylist(rows, LABELLED)])
    return str(path)


def job(pictures: str, seed: int = 0, **recipe: object) -> TrainingJob:
    """A training of seconds."""
    told = {"backbone": "small", "side": 32, "epochs": EPOCHS, "batch_size": 6, **recipe}
    return TrainingJob(recipe=ClassifierRecipe.model_validate(told), people=PEOPLE, pictures=pictures, seed=seed)


def trained(work: Path, wanted: TrainingJob) -> bytes:
    """The weights after a training that nothing disturbed, or of one that goes on."""
    work.mkdir(exist_ok=True)
    heard: list[int] = []
    run_ranks(work, wanted, "run", lambda losses: heard.append(len(losses)))
    assert heard == sorted(heard)
    return (work / WEIGHTS).read_bytes()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, pictures: str) -> Path:
    """The folder of such a training, of one rank."""
    work = tmp_path_factory.mktemp("undisturbed")
    trained(work, job(pictures))
    return work


def test_it_learns(undisturbed: Path) -> None:
    """The loss falls; the weights are a state dict of the network; the last two checkpoints are left."""
    losses = losses_in(undisturbed)
    assert len(losses) == EPOCHS
    assert losses[-1] < losses[0]
    build_network("small", PEOPLE).load_state_dict(torch.load(undisturbed / WEIGHTS, weights_only=True))
    kept = sorted(path.name for path in (undisturbed / CHECKPOINTS).glob("*.pt"))
    assert kept == [f"epoch_{EPOCHS - 1}.pt", f"epoch_{EPOCHS}.pt"]


def killed_amid(work: Path, wanted: TrainingJob) -> int:
    """Kill with SIGKILL the process that started the training, once it has trained two epochs; how many it had then."""
    work.mkdir()
    told = work.parent / "told.json"
    told.write_text(wanted.model_dump_json())
    with subprocess.Popen([sys.executable, "-c", DRIVER, str(work), str(told)]) as driver:
        deadline = time.monotonic() + SECONDS_TO_WAIT
        while len(losses_in(work)) < 2:
            assert driver.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
        children = psutil.Process(driver.pid).children(recursive=True)
        driver.kill()
        driver.wait()
    assert len(children) == 1 + wanted.recipe.processes
    assert not still_running(children, 20)
    assert not (work / WEIGHTS).exists()
    return len(losses_in(work))


def test_a_killed_training_goes_on_to_the_same_bytes(tmp_path: Path, undisturbed: Path, pictures: str) -> None:
    """Its ranks end with it; the next start trains the epochs that were left, and uses no checkpoint that was cut."""
    work = tmp_path / "work"
    done = killed_amid(work, job(pictures))
    assert 2 <= done < EPOCHS
    (work / CHECKPOINTS / f"epoch_{EPOCHS}.pt").write_bytes(b"cut")
    assert trained(work, job(pictures)) == (undisturbed / WEIGHTS).read_bytes()
    assert losses_in(work) == losses_in(undisturbed)
    assert "passed over epoch_6.pt: it has no sidecar" in (work / LOG).read_text()


@pytest.mark.slow
def test_another_seed_gives_other_weights(tmp_path: Path, undisturbed: Path, pictures: str) -> None:
    """And the same one the same bytes: the killed training is compared with them."""
    assert trained(tmp_path / "work", job(pictures, seed=1, epochs=1)) != (undisturbed / WEIGHTS).read_bytes()


@pytest.mark.slow
def test_two_ranks_share_the_batches(tmp_path: Path, pictures: str) -> None:
    """They learn, and give the same bytes each time, also when killed and started again."""
    wanted = job(pictures, processes=2)
    weights = trained(tmp_path / "whole", wanted)
    assert losses_in(tmp_path / "whole")[-1] < losses_in(tmp_path / "whole")[0]
    killed_amid(tmp_path / "killed", wanted)
    assert trained(tmp_path / "killed", wanted) == weights


def test_a_loss_that_is_not_finite_ends_the_training(tmp_path: Path, pictures: str) -> None:
    """With an error of ours that says what to change, and without a checkpoint of such weights."""
    with pytest.raises(TrainingError, match=r"not finite|loss is (nan|inf)") as raised:
        trained(tmp_path, job(pictures, learning_rate=1e30))
    assert "Lower" in str(raised.value)
    states = [torch.load(path, weights_only=True) for path in (tmp_path / CHECKPOINTS).glob("*.pt")]
    assert all(np.isfinite(weight.numpy()).all() for state in states for weight in state["state_dict"].values())


@pytest.mark.slow
def test_checkpoints_of_another_training_are_refused(undisturbed: Path, pictures: str) -> None:
    """To go on from them would give weights of neither."""
    with pytest.raises(TrainingError, match="the checkpoint is of small, run run, not of small, run other"):
        run_ranks(undisturbed, job(pictures), "other", print)
