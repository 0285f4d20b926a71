"""What the entry of a training run changes in open_clip: its shuffle, its random numbers, its checkpoints, its life."""

import json
import random
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip_train.data
import pytest
import torch
import webdataset
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from webdataset.filters import _shuffle

from cluster.checkpoints import newest_valid
from cluster.training_entry import HEARTBEAT, Heartbeat, parse_entry_flags, seed_from, shuffle_from_seed
from idia_core.exposure import Loader
from idia_core.train_data import train_data
from tests.cluster.loader_ranks import Case, open_loader, shown, write_numbered_tars
from tests.cluster.training_ranks import Run, entry_flags, run_all
from tests.shard_folders import pair, tar_of

SEED = 11
SIZES = (9, 12, 7, 8)


@pytest.fixture(scope="module")
def tars(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Four small tars of different sizes."""
    return write_numbered_tars(tmp_path_factory.mktemp("tars") / "t", SIZES)


@pytest.fixture
def seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry's shuffle, until the test ends."""
    monkeypatch.setattr(open_clip_train.data, "SharedEpoch", open_clip_train.data.SharedEpoch)
    monkeypatch.setattr(webdataset, "shuffle", webdataset.shuffle)
    monkeypatch.delenv("RANK", raising=False)
    shuffle_from_seed(SEED)


@pytest.mark.usefixtures("seeded")
def test_pairs_are_shuffled_by_seed_plus_epoch(tars: str) -> None:
    """An epoch is webdataset's shuffle of the shards and then of their pairs, both seeded by seed + epoch."""
    case = Case(tars, sum(SIZES), Loader(6, 1, 0, SEED), (0, 1, 2))
    firsts = [sum(SIZES[:shard]) for shard in range(len(SIZES))]
    expected = []
    for epoch in case.epochs:
        shards = list(_shuffle(iter(range(4)), 2000, 500, random.Random(SEED + epoch)))
        read = [firsts[shard] + position for shard in shards for position in range(SIZES[shard])]
        expected.append(list(_shuffle(iter(read), 5000, 1000, random.Random(SEED + epoch))))
    assert shown(open_loader(case), case) == expected
    assert expected[0] != expected[1] != expected[2]


@pytest.mark.usefixtures("seeded")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_run_is_shown_what_an_uninterrupted_one_is(tars: str, workers: int) -> None:
    """From epoch 2 on the order is the same, also where workers read and where an epoch takes a second pass."""
    loader, samples = Loader(4, 1, workers, SEED), 60
    uninterrupted, resumed = (Case(tars, samples, loader, epochs) for epochs in ((0, 1, 2, 3), (2, 3)))
    whole = shown(open_loader(uninterrupted), uninterrupted)
    assert shown(open_loader(resumed), resumed) == whole[2:]
    assert len(whole[2]) >= samples > sum(SIZES)
    assert whole[2] != whole[3]
    assert whole[0] != whole[2]


@pytest.mark.usefixtures("seeded")
def test_a_loader_made_later_does_not_set_the_epoch_of_an_earlier_one(tars: str) -> None:
    """As that of the validation data is, once that of the training data is there."""
    case = Case(tars, 36, Loader(6, 1, 0, SEED), (0, 1))
    alone = shown(open_loader(case), case)
    training = open_loader(case)
    open_loader(Case(tars, 36, Loader(6, 1, 0, SEED), (7,)))
    assert shown(training, case) == alone


def _drawn(_: Image.Image) -> float:
    """A random number, where open_clip has its random crop."""
    return float(torch.rand(()))


@pytest.mark.usefixtures("seeded")
def test_a_worker_of_a_resumed_run_draws_the_crops_of_an_uninterrupted_one(tars: str) -> None:
    """From epoch 2 on; workers, epochs and the two passes of an epoch draw other numbers than each other."""

    def draws(*epochs: int) -> list[list[float]]:
        data = open_loader(Case(tars, 60, Loader(6, 1, 2, SEED), epochs), _drawn)
        numbers = []
        for epoch in epochs:
            data.set_epoch(epoch)
            numbers.append([float(number) for pictures, _ in data.dataloader for number in pictures])
        return numbers

    whole = draws(0, 1, 2, 3)
    assert draws(2, 3) == whole[2:]
    assert [len(set(epoch)) for epoch in whole] == [60] * 4
    assert len({number for epoch in whole for number in epoch}) == 240


def test_random_numbers_start_from_every_number_that_they_are_given() -> None:
    """Epoch 1 of rank 0 is not epoch 0 of rank 1, as it is in a sum; torch, numpy and Python all start anew."""
    drawn = {}
    for numbers in ((5, 0, 1), (5, 1, 0), (6, 0, 0), (5, 0, 1)):
        seed_from(*numbers)
        now = (float(torch.rand(())), float(webdataset.filters.random.random()))
        assert drawn.setdefault(numbers, now) == now
    assert len(set(drawn.values())) == len({first for first, _ in drawn.values()}) == 3


def test_open_clips_flags_are_passed_on() -> None:
    """Ours are taken out, `--model` is not an abbreviation of ours, and each of ours must be there."""
    ours = ["--model-config", "x.json", "--threads", "2", "--run", "a1b2", "--work", "w"]
    options, flags = parse_entry_flags([*ours, "--model", "ViT-B-32", "--epochs", "1"])
    assert flags == ["--model", "ViT-B-32", "--epochs", "1"]
    assert vars(options) == {"model_config": Path("x.json"), "threads": 2, "run": "a1b2", "work": Path("w")}
    for first in range(0, len(ours), 2):
        with pytest.raises(SystemExit):
            parse_entry_flags(ours[:first] + ours[first + 2 :])


def test_a_heart_beats_once_a_second_and_survives_a_full_disk(tmp_path: Path, caplog: Any) -> None:
    """Steps in between are counted and not written; where nothing can be written the run goes on."""
    heartbeat = Heartbeat(tmp_path)
    heartbeat.steps = 40
    for _ in range(3):
        heartbeat.beat()
    assert json.loads((tmp_path / HEARTBEAT).read_text(encoding="utf-8"))["step"] == 41
    heartbeat._next = 0.0
    heartbeat.beat()
    assert json.loads((tmp_path / HEARTBEAT).read_text(encoding="utf-8"))["step"] == 44
    assert [path.name for path in tmp_path.iterdir()] == [HEARTBEAT]
    shutil.rmtree(tmp_path)
    heartbeat._next = 0.0
    heartbeat.beat()
    assert "no heartbeat" in caplog.text


@dataclass(frozen=True)
class Trained:
    """Folders of runs of 48 pairs, 4 a rank's step, and how their ranks ended."""

    folder: Path
    ended: dict[str, list[int]]
    errors: str

    def log(self, name: str) -> str:
        """What open_clip wrote to its out.log."""
        return (self.folder / name / "out.log").read_text(encoding="utf-8")

    def steps(self, name: str) -> list[tuple[int, int]]:
        """(epoch, pairs shown) of every step in the log."""
        return [(int(epoch), int(done)) for epoch, done in re.findall(r"Train Epoch: (\d+) \[ *(\d+)/", self.log(name))]

    def last(self, name: str) -> dict[str, Any]:
        """The checkpoint of the last epoch, found as one that can be trusted."""
        found, passed_over = newest_valid(self.folder / name / "checkpoints", "a1b2", "idia-rn-tiny")
        assert found is not None
        assert (found.record.epoch, passed_over) == (3, [])
        content: dict[str, Any] = torch.load(found.path, weights_only=True)
        return content


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """One run that is never interrupted, some that go on from its second epoch, and some that fail."""
    folder = tmp_path_factory.mktemp("runs")
    shards = [folder / f"{shard}.tar" for shard in range(3)]
    for shard in shards:
        shard.write_bytes(tar_of(file for i in range(16) for file in pair(f"{shard.stem}-{i}")))
    data = train_data([str(shard) for shard in shards])

    def copies(name: str, *files: str) -> list[tuple[str, str]]:
        return [(str(folder / "whole" / file), str(folder / name / file)) for file in files]

    def flags(name: str, **others: object) -> list[str]:
        return entry_flags(folder / name, data, 48, **others)

    second = ("checkpoints/epoch_2.pt", "checkpoints/epoch_2.pt.json", "out.log")
    runs = {
        "whole": Run(3, flags("whole", report_to="tensorboard")),
        "resumed": Run(3, flags("resumed", resume=folder / "resumed" / second[0]), copies("resumed", *second)),
        # With less ranks than asked for, and a newer checkpoint that does not fit its sidecar: it is one of epoch 2.
        "fewer": Run(
            1,
            flags("fewer", resume="latest", accum_freq=3),
            [
                *copies("fewer", *second, "checkpoints/epoch_3.pt.json"),
                (str(folder / "whole" / second[0]), str(folder / "fewer" / "checkpoints" / "epoch_3.pt")),
            ],
        ),
        "anew": Run(1, flags("anew", epochs=1), copies("anew", "out.log")),
        "diverged": Run(1, flags("diverged", lr="inf")),
        "gpu": Run(1, flags("gpu", device="cuda")),
        "latest": Run(1, [*flags("latest"), "--save-most-recent"]),
    }
    ended, errors = run_all(list(runs.values()), folder)
    return Trained(folder, dict(zip(runs, ended, strict=True)), errors)


@pytest.mark.slow
def test_a_run_leaves_its_last_checkpoints_its_log_its_curves_and_a_heartbeat(trained: Trained) -> None:
    """Three ranks, three epochs of four steps; TensorBoard has the last step though the process ends at once."""
    whole = trained.folder / "whole"
    assert trained.ended["whole"] == [0, 0, 0]
    checkpoints = [f"epoch_{epoch}.pt{side}" for epoch in (2, 3) for side in ("", ".json")]
    assert sorted(path.name for path in (whole / "checkpoints").iterdir()) == checkpoints
    assert trained.last("whole")["epoch"] == 3
    each = [(epoch, done) for epoch in range(3) for done in (12, 24, 36, 48)]
    assert trained.steps("whole") == each
    curves = EventAccumulator(str(whole / "tensorboard")).Reload()
    assert [scalar.step for scalar in curves.Scalars("train/loss")] == list(range(12))
    heartbeat = json.loads((whole / HEARTBEAT).read_text(encoding="utf-8"))
    assert 1 <= heartbeat["step"] <= 12
    assert whole.stat().st_mtime - 60 < heartbeat["time"] <= (whole / "checkpoints" / "epoch_3.pt").stat().st_mtime


@pytest.mark.slow
def test_a_resumed_run_has_the_weights_of_an_uninterrupted_one(trained: Trained) -> None:
    """Bit for bit, the optimiser's memory too; the log goes on where it was."""
    assert trained.ended["resumed"] == [0, 0, 0]
    whole, resumed = trained.last("whole"), trained.last("resumed")
    assert whole["state_dict"].keys() == resumed["state_dict"].keys()
    for name, weight in whole["state_dict"].items():
        assert torch.equal(weight, resumed["state_dict"][name]), name
    for number, state in whole["optimizer"]["state"].items():
        assert torch.equal(state["exp_avg_sq"], resumed["optimizer"]["state"][number]["exp_avg_sq"])
    steps = trained.steps("resumed")
    assert steps[:12] == trained.steps("whole")
    assert steps[12:] == [(2, 12), (2, 24), (2, 36), (2, 48)]
    assert trained.log("resumed").startswith(trained.log("whole"))


@pytest.mark.slow
def test_a_run_goes_on_with_the_ranks_there_are_from_what_is_whole(trained: Trained) -> None:
    """One rank takes the four steps of three by accumulating; what does not fit its sidecar is passed over."""
    assert trained.ended["fewer"] == [0]
    assert "WARNING | passed over epoch_3.pt: " in trained.log("fewer")
    assert trained.steps("fewer")[12:] == [(2, 12), (2, 24), (2, 36), (2, 48)]
    weights = trained.last("fewer")["state_dict"], trained.last("whole")["state_dict"]
    one, three = (state[prefix + "visual.conv1.weight"] for state, prefix in zip(weights, ("", "module."), strict=True))
    assert 0 < (one - three).abs().max() < 0.01


@pytest.mark.slow
def test_a_run_killed_before_its_first_checkpoint_starts_anew_in_its_folder(trained: Trained) -> None:
    """open_clip would refuse a folder that has a log; it is appended to."""
    assert trained.ended["anew"] == [0]
    assert trained.log("anew").startswith(trained.log("whole"))
    assert [epoch for epoch, _ in trained.steps("anew")[12:]] == [0] * 12


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("diverged", "the weights are not finite after epoch 1 ("),
        ("gpu", "torch sees no GPU (CUDA_VISIBLE_DEVICES is '') (--device cuda). Check nvidia-smi"),
        ("latest", "open_clip would resume from epoch_latest.pt, which has no sidecar to be checked by ("),
    ],
)
def test_what_ends_a_run_is_one_line(trained: Trained, name: str, said: str) -> None:
    """It names the error; no checkpoint is left."""
    assert trained.ended[name] == [1]
    assert [line for line in trained.errors.splitlines() if f"TrainingError: {said}" in line] != []
    assert list(trained.folder.glob(f"{name}/checkpoints/*")) == []
