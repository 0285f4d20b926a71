"""How often open_clip's loader shows each pair: computed, and counted at the loader itself."""

import json
import random
import subprocess
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np
import open_clip_train.data as open_clip_data
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from webdataset.filters import _shuffle

from idia_core.errors import InvalidInputError
from idia_core.exposure import (
    EXPOSURES,
    PAIR_SHUFFLE,
    SHARD_SHUFFLE,
    Loader,
    exact_multiple,
    exactness_problem,
    exposures,
    samples_seen,
    shuffled,
)
from tests.cluster.loader_ranks import Case, write_numbered_tars

ROOT = Path(__file__).parents[2]
# Name: pairs of each shard, pairs of an epoch, loader. The large ones fill the buffers that pairs are drawn from.
READ = {
    "exact": ([12] * 8, 96, Loader(6, 2, 2, 3)),
    "exact, one reader, unequal shards": ([7, 12, 5], 24, Loader(6, 1, 0, 3)),
    "batches not filled": ([10] * 8, 80, Loader(6, 2, 2, 3)),
    "shards left over": ([12] * 9, 108, Loader(6, 2, 2, 4)),
    "unequal shards": ([9, 31, 14, 8, 22, 17, 6, 11], 118, Loader(4, 2, 2, 3)),
    "several passes": ([9, 31, 14, 8], 500, Loader(4, 2, 2, 9)),
    "a part of an epoch": ([12] * 8, 48, Loader(6, 2, 2, 3)),
    "no workers": ([9, 31, 14, 8, 22], 84, Loader(5, 2, 0, 3)),
    "large shards": ([1500, 1100, 1300, 1700], 5600, Loader(64, 2, 2, 3)),
    "large, one reader": ([1500, 1100, 1300, 1700], 5000, Loader(64, 1, 0, 3)),
}


def epochs_read(name: str) -> tuple[int, ...]:
    """Three epochs; of the large ones one, which takes as long."""
    return (1,) if name.startswith("large") else (0, 1, 2)


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Counter[int]]]:
    """How often two real ranks were shown each pair of each case and epoch, by real tars, loaders and workers."""
    folder = tmp_path_factory.mktemp("loader")
    written = {tuple(sizes): str(number) for number, (sizes, _, _) in enumerate(READ.values())}
    data = {sizes: write_numbered_tars(folder / name, sizes) for sizes, name in written.items()}
    cases = [
        Case(data[tuple(sizes)], samples, loader, epochs_read(name)) for name, (sizes, samples, loader) in READ.items()
    ]
    (folder / "cases.json").write_text(json.dumps([asdict(case) for case in cases]), encoding="utf-8")
    argv = [sys.executable, "-m", "tests.cluster.loader_ranks", str(folder / "cases.json")]
    subprocess.run(argv, cwd=ROOT, check=True, timeout=120)
    told = [json.loads((folder / f"rank{rank}.json").read_text(encoding="utf-8")) for rank in range(2)]
    return {
        name: [Counter(first + second) for first, second in zip(*both, strict=True)]
        for name, *both in zip(READ, *told, strict=True)
    }


@pytest.mark.parametrize("name", READ)
def test_open_clips_loader_shows_what_was_computed(name: str, counted: dict[str, list[Counter[int]]]) -> None:
    """In each epoch two ranks with two workers each are shown every pair exactly as often as computed."""
    sizes, samples, loader = READ[name]
    for epoch, shown in zip(epochs_read(name), counted[name], strict=True):
        seen = samples_seen(sizes, loader, epoch, samples)
        assert [len(shard) for shard in seen] == sizes
        computed = np.concatenate(seen)
        assert shown == Counter(dict(enumerate(computed.tolist())))
        assert (set(computed.tolist()) == {1}) == name.startswith("exact")
    assert (exactness_problem(sizes, loader, samples) is None) == name.startswith("exact")


def test_the_shuffles_are_open_clips() -> None:
    """Buffer sizes are read from open_clip, and the order is webdataset's at every relation of count to buffer."""
    assert SHARD_SHUFFLE == (open_clip_data._SHARD_SHUFFLE_SIZE, open_clip_data._SHARD_SHUFFLE_INITIAL)
    assert PAIR_SHUFFLE == (open_clip_data._SAMPLE_SHUFFLE_SIZE, open_clip_data._SAMPLE_SHUFFLE_INITIAL)
    for count in (0, 1, 2, 499, 500, 501, 999, 1000, 1001, 1999, 2000, 2001, 4999, 5000, 5001, 12_345):
        for shuffle in (SHARD_SHUFFLE, PAIR_SHUFFLE):
            expected = list(_shuffle(iter(range(count)), *shuffle, random.Random(count)))
            assert shuffled(count, shuffle, count).tolist() == expected


@given(st.integers(1, 24), st.integers(1, 3), st.integers(0, 3), st.integers(1, 24), st.integers(1, 3))
@settings(deadline=None)
def test_exact_multiple_is_the_least_total_that_shows_each_pair_once(
    batch_size: int, ranks: int, workers: int, shard_size: int, times: int
) -> None:
    """Its multiples are exact, and no smaller number of whole shards is."""
    loader, multiple = Loader(batch_size, ranks, workers, 0), exact_multiple(batch_size, ranks, workers, shard_size)
    assert exactness_problem([shard_size] * (times * multiple // shard_size), loader) is None
    for shards in range(1, multiple // shard_size):
        assert exactness_problem([shard_size] * shards, loader) is not None


@given(st.lists(st.integers(0, 9), min_size=1, max_size=8), st.integers(1, 4), st.integers(1, 2), st.integers(0, 2))
@settings(deadline=None)
def test_a_set_is_exact_just_where_no_problem_is_named(
    sizes: list[int], batch_size: int, ranks: int, workers: int
) -> None:
    """With one, some of 40 epochs shows a pair twice or never; with none, an epoch of twice as many shows all twice."""
    loader = Loader(batch_size, ranks, workers, 0)
    exact, total = exactness_problem(sizes, loader) is None, sum(sizes)
    try:
        # An epoch of another length is computed draw by draw, without asking whether the set is exact.
        seen = [np.concatenate(samples_seen(sizes, loader, epoch, 2 * total if exact else None)) for epoch in range(40)]
    except InvalidInputError:
        assert not exact
    else:
        assert all((epoch == 2).all() for epoch in seen) if exact else any((epoch != 1).any() for epoch in seen)


@pytest.mark.parametrize(
    ("sizes", "loader", "samples", "problem"),
    [
        ([100] * 281, Loader(50, 8, 2, 0), None, "281 shards do not divide among 16 workers (8 ranks x 2)"),
        ([99, 101], Loader(50, 2, 0, 0), None, "shards of 99 to 101 pairs give 2 workers (2 ranks x 1) unequal shares"),
        (
            [2505] * 8,
            Loader(128, 2, 1, 0),
            None,
            "each worker gets 10,020 pairs, not a multiple of the batch size of 128",
        ),
        ([100] * 2, Loader(50, 2, 1, 0), 1000, "an epoch is 1,000 pairs and the shards hold 200"),
        ([], Loader(50, 2, 1, 0), None, "the shards hold no pairs"),
        ([100] * 2, Loader(50, 2, 1, 0), 200, None),
        ([101, 99], Loader(50, 1, 0, 0), None, None),
    ],
)
def test_what_keeps_a_set_from_being_exact_is_said(
    sizes: list[int], loader: Loader, samples: int | None, problem: str | None
) -> None:
    """The reason has the numbers in it that must change."""
    assert exactness_problem(sizes, loader, samples) == problem


def test_members_pairs_have_their_exposures_by_epoch_and_checkpoint() -> None:
    """Base pairs are counted with but not listed; a checkpoint has seen the sum of its epochs."""
    base, own, loader = [9, 14], [5, 6], Loader(4, 1, 0, 3)
    rows = [
        {"set": "K002", "identity": "Ada", "key": "a", "shard": 0, "position": 4},
        {"set": "K002", "identity": "Bo", "key": "b", "shard": 1, "position": 0},
        {"set": "K002", "identity": None, "key": "c", "shard": 1, "position": 1},
    ]
    table = exposures(pa.Table.from_pylist(rows), [*base, *own], [(4, loader)], samples=50, first_shard=2)
    seen = [samples_seen([*base, *own], loader, epoch, 50) for epoch in range(4)]
    ada, bo = ([int(shards[shard][position]) for shards in seen] for shard, position in ((2, 4), (3, 0)))
    assert table.schema == EXPOSURES
    assert table["epoch"].to_pylist() == [1, 1, 2, 2, 3, 3, 4, 4]
    assert table["key"].to_pylist() == ["a", "b"] * 4
    assert table["identity"].to_pylist() == ["Ada", "Bo"] * 4
    assert table["seen"].to_pylist() == [times for both in zip(ada, bo, strict=True) for times in both]
    assert table["seen_so_far"].to_pylist()[::2] == np.cumsum(ada).tolist()
    assert table["seen_so_far"].to_pylist()[1::2] == np.cumsum(bo).tolist()
    assert len({*ada, *bo}) > 1
    nobody = exposures(pa.Table.from_pylist(rows[2:]), own, [(4, loader)])
    assert (nobody.num_rows, nobody.schema) == (0, EXPOSURES)


def test_a_run_that_went_on_with_fewer_ranks_has_the_exposures_of_both() -> None:
    """Each epoch is computed with the loader that served it, epochs count on, and what came before is added."""
    sizes, two, one = [9, 14, 8, 22], Loader(5, 2, 0, 3), Loader(5, 1, 0, 3)
    rows = [
        {"set": "K002", "identity": "Ada", "key": f"{shard}-{position}", "shard": shard, "position": position}
        for shard, pairs in enumerate(sizes)
        for position in range(pairs)
    ]
    table = exposures(pa.Table.from_pylist(rows), sizes, [(1, two), (2, one)])
    served = [two, one, one]
    seen = [np.concatenate(samples_seen(sizes, loader, epoch)) for epoch, loader in enumerate(served)]
    assert table["epoch"].to_pylist() == [epoch for epoch in (1, 2, 3) for _ in rows]
    assert table["seen"].to_pylist() == np.concatenate(seen).tolist()
    assert table["seen_so_far"].to_pylist()[-len(rows) :] == sum(seen).tolist()
    for epoch, other in enumerate((one, two, two)):
        assert np.concatenate(samples_seen(sizes, other, epoch)).tolist() != seen[epoch].tolist()


@pytest.mark.parametrize(("shard", "position"), [(2, 0), (-1, 0), (0, 5), (1, -1), (1, 6)])
def test_a_pair_that_is_in_no_shard_is_refused(shard: int, position: int) -> None:
    """A plan given with the sizes of other shards is an error, not a wrong count."""
    row = {"set": "K002", "identity": "Ada", "key": "a", "shard": shard, "position": position}
    with pytest.raises(InvalidInputError, match=f"'a' has position {position} of shard {shard}, which is not there"):
        exposures(pa.Table.from_pylist([row]), [5, 6], [(1, Loader(1, 1, 0, 0))])


@pytest.mark.parametrize(
    ("sizes", "loader", "samples", "what"),
    [
        ([8, 3], Loader(4, 2, 0, 0), None, "a worker gets 3 pairs, not one batch of 4"),
        ([8], Loader(4, 2, 0, 0), None, "a worker gets 0 pairs, not one batch of 4"),
        ([8, 8], Loader(4, 2, 0, 0), 0, "an epoch of 0 pairs never ends"),
    ],
)
def test_a_loader_that_would_never_end_is_refused(
    sizes: list[int], loader: Loader, samples: int | None, what: str
) -> None:
    """Where open_clip would read the same shards over and over for its next batch, an error says so."""
    with pytest.raises(InvalidInputError, match=what):
        samples_seen(sizes, loader, 0, samples)


@pytest.mark.parametrize(
    ("batch_size", "ranks", "workers", "seed"), [(0, 1, 0, 0), (1, 0, 0, 0), (1, 1, -1, 0), (1, 1, 0, -1)]
)
def test_a_loader_that_cannot_be_is_refused(batch_size: int, ranks: int, workers: int, seed: int) -> None:
    """No batch, no rank, fewer than no workers and a seed that open_clip takes from elsewhere are errors."""
    with pytest.raises(InvalidInputError, match="there is no loader"):
        Loader(batch_size, ranks, workers, seed)
