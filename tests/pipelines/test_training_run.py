"""What is kept of a training run's attempts, and of the folder that they work in."""

import tempfile
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from rich.console import Console

from cluster.checkpoints import save_checkpoint
from idia_core.errors import InvalidInputError, TrainingError
from jobs.plan import State, plan_study
from jobs.run import run_study
from pipelines.train_config import TrainResources, check_work_root, runs, work_root
from pipelines.training_run import Attempt, Training, leave_to_slurm, train
from pipelines.training_sets import TrainingSets
from tests.training_studies import training_study, verified_shards

EPOCHS = 6


def training(root: Path, out: str = "out", **fields: object) -> Training:
    """The study's run on the larger set."""
    study = training_study(root, out, recipe={"epochs": EPOCHS}, **fields)
    context = plan_study(study)["train"].context()
    sets = TrainingSets(context)
    run = runs(context.config, sets.sizes())[0]
    return Training(run, work_root(context), run.digest(sets.digest(run.set)))


def leave(made: Training, epoch: int) -> Path:
    """A checkpoint of the run."""
    path = made.folder / f"checkpoints/epoch_{epoch}.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"epoch": epoch, "name": made.run.model, "state_dict": {"module.w": torch.ones(2)}}
    save_checkpoint(content, path, made.digest, made.run.architecture)
    return path


def note(made: Training, *epochs: tuple[int, int]) -> None:
    """Attempts that an earlier run noted, each with its first and last epoch."""
    for number, (first, last) in enumerate(epochs):
        attempt = Attempt(attempt=number, first_epoch=first, last_epoch=last, processes=1, nodes=1, flags=[])
        file = made.folder / f"attempts/{number:04d}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(attempt.model_dump_json())


def ended(made: Training) -> list[list[int]]:
    """The epochs whose checkpoints were gone on from, of each attempt, once the last epoch is there."""
    leave(made, EPOCHS)
    attempts = train(made, "", TrainResources(), lambda *_: None)
    assert [attempt.attempt for attempt in attempts] == list(range(len(attempts)))
    return [list(range(attempt.first_epoch, attempt.last_epoch + 1)) for attempt in attempts]


def test_an_attempt_whose_controller_was_killed_has_its_epochs(tmp_path: Path) -> None:
    """They are not noted before the next attempt begins, or the run is found to be done."""
    made = training(verified_shards(tmp_path))
    note(made, (1, 3), (4, 3))
    assert ended(made) == [[1, 2, 3], [4, 5, 6]]


def test_epochs_that_are_trained_again_are_told_of_the_attempt_that_did(tmp_path: Path) -> None:
    """Two attempts' checkpoints are no good any more: each epoch is told once, with the processes that trained it."""
    made = training(verified_shards(tmp_path))
    note(made, (1, 3), (4, 5), (6, 5))
    leave(made, 2)
    leave(made, 5).write_bytes(b"cut")
    leave_to_slurm(made, [], TrainResources())
    assert ended(made) == [[1, 2], [], [], [3, 4, 5, 6]]


def test_what_one_run_of_slurm_and_another_did_is_told_in_turn(tmp_path: Path) -> None:
    """A job goes on from what was trained here before, and its script is noted once."""
    made = training(verified_shards(tmp_path))
    note(made, (1, 0))
    leave(made, 4)
    for _ in range(2):
        leave_to_slurm(made, [], TrainResources())
    assert ended(made) == [[1, 2, 3, 4], [5, 6]]


def test_pairs_that_a_killed_run_skipped_are_noticed(tmp_path: Path) -> None:
    """Its last checkpoint is there, but it did not see all pairs."""
    made = training(verified_shards(tmp_path))
    note(made, (1, 6))
    (made.folder / "torchrun-0-0.log").write_text("WARNING Handling webdataset error (OSError()). Ignoring.\n")
    with pytest.raises(TrainingError, match="1 training pairs or shards were unreadable and skipped"):
        ended(made)


def test_the_folder_of_the_runs_is_the_studys_own(tmp_path: Path) -> None:
    """Another place for another output folder and for other settings, also in a folder that studies share."""
    verified_shards(tmp_path)
    shared = {"shared_folder": str(tmp_path / "shared")}
    assert training(tmp_path).root == tmp_path / "out/train/_work"
    more = {"images_per_member": 1, "recipe": {"extra_flags": ["--grad-clip-norm", "1"]}}
    roots = [
        training(tmp_path, resources=shared).root,
        training(tmp_path, "other", resources=shared).root,
        training(tmp_path, resources=shared, overrides=[more]).root,
    ]
    assert len(set(roots)) == 3
    assert {root.parent for root in roots} == {tmp_path / "shared"}
    assert training(tmp_path, resources=shared | {"max_restarts": 9}).root == roots[0]


def test_several_machines_need_a_folder_that_they_share(tmp_path: Path) -> None:
    """An object store is none; a local folder is taken to be one, as the stage's own must be."""
    verified_shards(tmp_path)
    for out, resources, fine in (
        ("out", {}, True),
        ("memory://out", {}, False),
        ("memory://out", {"shared_folder": str(tmp_path)}, True),
    ):
        context = plan_study(training_study(tmp_path, out, resources=resources))["train"].context()
        check_work_root(context, 1)
        with nullcontext() if fine else pytest.raises(InvalidInputError, match="on 3 machines needs a shared folder"):
            check_work_root(context, 3)


@pytest.mark.usefixtures("local_ray")
def test_what_is_worked_on_outside_the_stages_folder_goes_with_the_seal(tmp_path: Path) -> None:
    """The folder that studies share is empty then."""
    verified_shards(tmp_path)
    study = training_study(tmp_path, resources={"shared_folder": str(tmp_path / "shared")})
    context = plan_study(study)["train"].context()
    sets = TrainingSets(context)
    for run in runs(context.config, sets.sizes()):
        made = Training(run, work_root(context), run.digest(sets.digest(run.set)))
        leave_to_slurm(made, [], TrainResources())
        leave(made, run.recipe.epochs)
        (made.folder / "out.log").touch()
    assert len(list((tmp_path / "shared").iterdir())) == 1
    run_study(study, Console(quiet=True))
    assert plan_study(study)["train"].state is State.DONE
    assert not list((tmp_path / "shared").iterdir())


def test_beside_a_url_the_systems_temporary_folder_is_worked_in(tmp_path: Path) -> None:
    """There is no other that a single machine surely has."""
    verified_shards(tmp_path)
    assert training(tmp_path, "memory://out").root.parent == Path(tempfile.gettempdir())
