"""What the entry of a training run changes in open_clip's loader."""

import random

import open_clip_train.data
import pytest
import webdataset
from webdataset.filters import _shuffle

from cluster.training_entry import shuffle_from_seed
from idia_core.exposure import Loader
from tests.cluster.loader_ranks import Case, open_loader, shown, write_numbered_tars

SEED = 11
SIZES = (9, 12, 7, 8)


@pytest.fixture(scope="module")
def tars(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Four small tars of different sizes."""
    return write_numbered_tars(tmp_path_factory.mktemp("tars") / "t", SIZES)


@pytest.fixture(autouse=True)
def _seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry's shuffle, until the test ends."""
    monkeypatch.setattr(open_clip_train.data, "SharedEpoch", open_clip_train.data.SharedEpoch)
    monkeypatch.setattr(webdataset, "shuffle", webdataset.shuffle)
    monkeypatch.delenv("RANK", raising=False)
    shuffle_from_seed(SEED)


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


def test_a_loader_made_later_does_not_set_the_epoch_of_an_earlier_one(tars: str) -> None:
    """As that of the validation data is, once that of the training data is there."""
    case = Case(tars, 36, Loader(6, 1, 0, SEED), (0, 1))
    alone = shown(open_loader(case), case)
    training = open_loader(case)
    open_loader(Case(tars, 36, Loader(6, 1, 0, SEED), (7,)))
    assert shown(training, case) == alone
