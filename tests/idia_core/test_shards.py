"""Training sets: who is in them, and in which place of which tar."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idia_core.errors import DuplicateNameError, InvalidInputError
from idia_core.shards import (
    LISTING,
    PLAN,
    ExactFor,
    Shape,
    equal_sizes,
    plan_base,
    plan_overlay,
    plan_rewrite,
    ranked_pairs,
    set_name,
    shard_path,
    usable_base,
)

BACKGROUND = [f"bg{i:03d}" for i in range(100)]
SHAPE = Shape(4, ExactFor(batch_size=16))


def _listing(rows: Sequence[tuple[str, str | None]], status: str = "ok", source: str = "/base.tar") -> pl.DataFrame:
    """Pairs (key, identity) as the stage lists them."""
    found = [
        {"source": "members/00000.tar" if who else source, "key": key, "identity": who, "suffix": "jpg"}
        | {"picture_at": i * 2048 + 512, "picture_bytes": 600, "caption_at": i * 2048 + 1536, "caption_bytes": 9}
        | {"caption_source": None, "status": status, "detail": None}
        for i, (key, who) in enumerate(rows)
    ]
    return pl.DataFrame(pa.Table.from_pylist(found, LISTING))


def _background(keys: Sequence[str], **options: str) -> pl.DataFrame:
    return _listing([(key, None) for key in keys], **options)


def _pairs(members: int, each: int) -> pl.DataFrame:
    return _listing([(f"p{m}-{i:02d}", f"p{m}") for m in range(members) for i in range(each)])


def _plan(
    background: Sequence[str] = BACKGROUND,
    pairs: pl.DataFrame | None = None,
    images_per_member: Sequence[int] = (5, 1, 3),
    shape: Shape = SHAPE,
    seed: int = 0,
) -> dict[int, pl.DataFrame]:
    """The sets of a rewrite by their K."""
    pairs = _pairs(6, 7) if pairs is None else pairs
    ranked = ranked_pairs(pairs, sorted(set(pairs["identity"])), seed)
    base = usable_base(_background(background))
    sets = {k: plan_rewrite(base, ranked, k, shape, seed) for k in sorted(set(images_per_member))}
    assert all(plan.schema == PLAN for plan in sets.values())
    return {k: pl.DataFrame(plan) for k, plan in sets.items()}


def test_a_plan_by_its_properties() -> None:
    """K pairs a member, equal shards, a total that fills whole batches, nothing twice, and the sets nested."""
    sets = _plan()
    for k, frame in sets.items():
        assert frame["set"].unique().to_list() == [set_name(k)]
        assert frame["images_per_member"].unique().to_list() == [k]
        assert frame.height == (100 + 6 * k) // 16 * 16
        assert frame["key"].n_unique() == frame.height
        assert Counter(frame["identity"].drop_nulls()) == {f"p{m}": k for m in range(6)}
        assert all(key.startswith(identity or "bg") for key, identity in frame.select("key", "identity").rows())
        assert frame.select("shard", "position").rows() == [divmod(i, 4) for i in range(frame.height)]
    members = {k: set(frame.drop_nulls("identity")["key"]) for k, frame in sets.items()}
    assert members[1] < members[3] < members[5]


def test_a_plan_says_where_each_pair_is_copied_from() -> None:
    """Source and places of a pair are those of the listing."""
    places = ["key", "source", "suffix", "picture_at", "picture_bytes", "caption_at", "caption_bytes"]
    listed = {row[0]: row for row in pl.concat([_background(BACKGROUND), _pairs(6, 7)]).select(places).rows()}
    assert all(row == listed[row[0]] for row in _plan()[5].select(places).rows())


@settings(max_examples=60, deadline=None)
@given(
    members=st.integers(0, 5),
    counts=st.lists(st.integers(0, 6), min_size=1, max_size=4),
    background=st.integers(0, 60),
    shape=st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 2)),
    seed=st.integers(0, 9),
)
def test_what_always_holds(
    members: int, counts: list[int], background: int, shape: tuple[int, int, int], seed: int
) -> None:
    """Any plan that can be made fills its batches without a repeat; the others are refused."""
    shard_size, batch, ranks = shape
    exact_for = ExactFor(batch_size=batch, ranks=ranks)
    multiple = exact_for.multiple(shard_size)
    wanted = {k: (background + members * k) // multiple * multiple for k in set(counts)}
    arguments = (BACKGROUND[:background], _pairs(members, 6), counts, Shape(shard_size, exact_for), seed)
    if any(total < max(members * k, 1) for k, total in wanted.items()):
        with pytest.raises(InvalidInputError):
            _plan(*arguments)
        return
    sets = _plan(*arguments)
    assert {k: frame["key"].n_unique() for k, frame in sets.items()} == wanted
    for k, frame in sets.items():
        assert frame.height == wanted[k]
        assert Counter(frame["identity"].drop_nulls()) == {f"p{m}": k for m in range(members if k else 0)}
        assert set(frame["shard"].value_counts()["count"]) == {shard_size}


def test_without_an_exact_training_every_pair_is_in() -> None:
    """Nothing is left out, and the tars differ by one pair at most."""
    frame = _plan(shape=Shape(12, None))[5]
    assert (frame.height, frame["key"].n_unique()) == (130, 130)
    assert Counter(frame["shard"].value_counts()["count"]) == {11: 2, 12: 9}  # 130 pairs in 11 tars
    assert Counter(equal_sizes(130, 11)) == {11: 2, 12: 9}


def test_the_multiple_gives_every_loader_whole_tars_and_batches() -> None:
    """Batches of 24 in tars of 36 over 2 ranks with 4 workers: 72 pairs for each of the 8 loaders."""
    assert ExactFor(batch_size=24, ranks=2, workers=4).multiple(36) == 576


def test_a_plan_depends_on_what_it_is_made_of() -> None:
    """The order of the pairs does not matter; a seed gives the same plan again, another seed another one."""
    plan, pairs = _plan(), _pairs(6, 7)
    again = _plan(BACKGROUND[::-1], pairs.sample(fraction=1, shuffle=True, seed=1))
    other = _plan(seed=1)
    for k, frame in plan.items():
        assert again[k]["key"].to_list() == frame["key"].to_list()
        assert frame["key"].to_list() != other[k]["key"].to_list()
        assert set(frame["key"]) != set(other[k]["key"])


def test_another_list_of_k_leaves_the_other_sets_as_they_were() -> None:
    """K = 5 is the same set beside K = 1 and 3 as it is beside K = 2."""
    assert _plan(images_per_member=(5, 2))[5].equals(_plan()[5])


def test_members_are_spread_over_the_shards() -> None:
    """Members' pairs are mixed with the background, not put at one end."""
    frame = _plan(images_per_member=(7,))[7]
    per_quarter = frame.with_row_index().drop_nulls("identity").group_by(pl.col("index") * 4 // frame.height).len()
    assert (per_quarter["len"] >= 4).all()
    assert per_quarter.height == 4


@pytest.mark.parametrize("background", [[], ["spare"]])
def test_members_alone_can_fill_a_set(background: list[str]) -> None:
    """Where the members' pairs fill the batches exactly no background is needed, and what does not fit is left out."""
    frame = _plan(background, _pairs(4, 4), (4,))[4]
    assert (frame.height, frame["identity"].null_count()) == (16, 0)


def test_background_alone_can_fill_a_set() -> None:
    """A set without members, as a baseline, is background alone."""
    assert _plan(pairs=_pairs(0, 0), images_per_member=(1,))[1].height == 96


def test_only_usable_pairs_of_members_are_in() -> None:
    """A pair that is broken, and one of somebody who is no member, is in no set."""
    listing = pl.concat([_pairs(3, 2), _listing([("p1-99", "p1")], status="truncated")])
    assert set(ranked_pairs(listing, ["p0", "p1"], 0)["key"]) == {"p0-00", "p0-01", "p1-00", "p1-01"}
    listing = pl.concat([_background(["a", "b"]), _background(["c"], status="empty"), _pairs(1, 1)])
    assert usable_base(listing)["key"].to_list() == ["a", "b"]


def test_a_member_with_fewer_pairs_gives_those_there_are() -> None:
    """The stage refuses such members or goes on with what they have; the plan takes what is there."""
    pairs = pl.concat([_pairs(2, 5), _listing([("z", "zoe")])])
    assert Counter(_plan(pairs=pairs)[5]["identity"].drop_nulls()) == {"p0": 5, "p1": 5, "zoe": 1}


@pytest.mark.parametrize(("background", "k", "total"), [(BACKGROUND[:9], 1, 16), (BACKGROUND[:1], 5, 32)])
def test_plans_that_cannot_be_made(background: list[str], k: int, total: int) -> None:
    """The error says which numbers do not fit; one pair more, and they do."""
    what = f"^{6 * k} members' and {len(background)} background pairs do not fill one batch of 16"
    with pytest.raises(InvalidInputError, match=what):
        _plan(background, images_per_member=(k,))
    assert _plan(BACKGROUND[: len(background) + 1], images_per_member=(k,))[k].height == total


def test_a_key_given_twice_is_refused() -> None:
    """Two pairs under one key would be one sample of the tar: two of the base, of a member, or one of each."""
    twice = pl.concat([_background(["a", "b"]), _background(["b"], source="/more.tar")])
    with pytest.raises(DuplicateNameError, match=r"^the key 'b' is given to two pairs, in '/base.tar' and in '/more"):
        usable_base(twice)
    with pytest.raises(DuplicateNameError, match=r"^the key .p0-00. is given to two pairs"):
        ranked_pairs(pl.concat([_pairs(1, 2), _pairs(1, 1)]), ["p0"], 0)
    with pytest.raises(DuplicateNameError, match=r"^the key .p0-00. is given to two pairs, of a member and"):
        _plan([*BACKGROUND, "p0-00"])
    with pytest.raises(DuplicateNameError, match=r"^the key .p0-00. is given to two pairs, of a member and"):
        plan_base(_background(["p0-00"]), ranked_pairs(_pairs(1, 1), ["p0"], 0))


def test_an_overlay_puts_the_members_into_small_equal_tars() -> None:
    """K pairs a member in as many tars as asked for, whose sizes differ by one at most; the sets are nested."""
    ranked = ranked_pairs(_pairs(6, 7), [f"p{m}" for m in range(6)], 0)
    sets = {k: pl.DataFrame(plan_overlay(ranked, k, 4, 0)) for k in (1, 5)}
    for k, frame in sets.items():
        assert Counter(frame["identity"]) == {f"p{m}": k for m in range(6)}
    assert [sets[5].filter(shard=i).height for i in range(4)] == [7, 8, 7, 8]
    assert set(sets[1]["key"]) < set(sets[5]["key"])
    assert plan_overlay(ranked, 1, 100, 0)["shard"].to_pylist() == [0, 1, 2, 3, 4, 5]  # no empty tars


def test_the_base_of_an_overlay_stays_in_its_tars() -> None:
    """Its pairs are planned in the order in which they lie in the tars; unusable ones are not."""
    second = pl.concat([_background(["z", "y"], source="/b.tar"), _background(["x"], status="broken", source="/b.tar")])
    base = usable_base(pl.concat([second, _background(["q"], source="/a.tar"), _pairs(1, 1)]))
    plan = pl.DataFrame(plan_base(base, ranked_pairs(_pairs(1, 1), ["p0"], 0)))
    assert plan.select("set", "shard", "position", "key", "source").rows() == [
        ("base", 0, 0, "q", "/a.tar"),
        ("base", 1, 0, "z", "/b.tar"),
        ("base", 1, 1, "y", "/b.tar"),
    ]


def test_names() -> None:
    """Sets and shards sort by name as they do by number."""
    assert [set_name(k) for k in (1, 25, 1000)] == ["K001", "K025", "K1000"]
    assert shard_path("K025", 7) == "K025/00007.tar"


def test_sizes_add_up() -> None:
    """Nothing is lost when pairs are dealt out."""
    for total in (0, 1, 7, 100):
        for shards in (1, 3, 7):
            sizes = equal_sizes(total, shards)
            assert (sum(sizes), len(sizes)) == (total, shards)
            assert np.ptp(sizes) <= 1
