"""Training sets: who is in them, in which tar, and tars that open_clip's loader reads."""

import io
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import webdataset as wds
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from idia_core.errors import DuplicateNameError, InvalidInputError
from idia_core.shards import PLAN, plan_sets, set_name, shard_path, write_tar

BACKGROUND = [f"bg{i:03d}" for i in range(100)]
PAIRS = pa.schema([("identity", pa.string()), ("key", pa.string())])


def _pairs(members: int, each: int) -> pa.Table:
    rows = [(f"p{m}", f"p{m}-{i:02d}") for m in range(members) for i in range(each)]
    return pa.table({"identity": [row[0] for row in rows], "key": [row[1] for row in rows]}, PAIRS)


def _plan(background: list[str] = BACKGROUND, pairs: pa.Table | None = None, **settings: Any) -> pa.Table:
    defaults = {"images_per_member": (5, 1, 3), "shard_size": 4, "multiple_of": 16, "seed": 0}
    return plan_sets(background, _pairs(6, 7) if pairs is None else pairs, **(defaults | settings))


def _sets(plan: pa.Table) -> dict[int, pl.DataFrame]:
    return {k: frame for (k,), frame in pl.DataFrame(plan).partition_by("images_per_member", as_dict=True).items()}


def test_a_plan_by_its_properties() -> None:
    """K pairs a member, equal shards, a total that fills whole batches, nothing twice, and the sets nested."""
    plan = _plan()
    assert plan.schema == PLAN
    sets = _sets(plan)
    assert list(sets) == [1, 3, 5]
    for k, frame in sets.items():
        assert frame["set"].unique().to_list() == [set_name(k)]
        assert frame.height == (100 + 6 * k) // 16 * 16
        assert frame["key"].n_unique() == frame.height
        assert Counter(frame["identity"].drop_nulls()) == {f"p{m}": k for m in range(6)}
        assert all(key.startswith(identity or "bg") for key, identity in frame.select("key", "identity").rows())
        assert frame.select("shard", "position").rows() == [divmod(i, 4) for i in range(frame.height)]
    members = {k: set(frame.drop_nulls("identity")["key"]) for k, frame in sets.items()}
    assert members[1] < members[3] < members[5]


@settings(max_examples=60, deadline=None)
@given(
    members=st.integers(0, 5),
    counts=st.lists(st.integers(0, 6), min_size=1, max_size=4),
    background=st.integers(0, 60),
    shape=st.tuples(st.integers(1, 5), st.integers(1, 4)),
    seed=st.integers(0, 9),
)
def test_what_always_holds(members: int, counts: list[int], background: int, shape: tuple[int, int], seed: int) -> None:
    """Any plan that can be made fills its batches without a repeat; the others are refused."""
    shard_size, multiple_of = shape[0], shape[0] * shape[1]
    wanted = {k: (background + members * k) // multiple_of * multiple_of for k in set(counts)}
    arguments: dict[str, Any] = {
        "images_per_member": counts, "shard_size": shard_size, "multiple_of": multiple_of, "seed": seed,
    }  # fmt: skip
    if any(total < max(members * k, 1) for k, total in wanted.items()):
        with pytest.raises(InvalidInputError):
            _plan(BACKGROUND[:background], _pairs(members, 6), **arguments)
        return
    sets = _sets(_plan(BACKGROUND[:background], _pairs(members, 6), **arguments))
    assert {k: frame["key"].n_unique() for k, frame in sets.items()} == wanted
    for k, frame in sets.items():
        assert frame.height == wanted[k]
        assert Counter(frame["identity"].drop_nulls()) == {f"p{m}": k for m in range(members if k else 0)}
        assert set(frame["shard"].value_counts()["count"]) == {shard_size}


def test_a_plan_depends_on_what_it_is_made_of() -> None:
    """The order of pairs and background does not matter; a seed gives the same plan again, another seed another one."""
    plan, pairs = _plan(), _pairs(6, 7)
    assert _plan(BACKGROUND[::-1], pairs.take(np.random.default_rng(0).permutation(len(pairs)))).equals(plan)
    other = _sets(_plan(seed=1))
    for k, frame in _sets(plan).items():
        assert frame["key"].to_list() != other[k]["key"].to_list()
        assert set(frame["key"]) != set(other[k]["key"])
    assert [key for key in _sets(plan)[5]["key"] if key in set(_sets(plan)[1]["key"])] != _sets(plan)[1][
        "key"
    ].to_list()


def test_members_are_spread_over_the_shards() -> None:
    """Members' pairs are mixed with the background, not put at one end."""
    frame = _sets(_plan(BACKGROUND, _pairs(6, 7), images_per_member=(7,)))[7]
    per_quarter = frame.with_row_index().drop_nulls("identity").group_by(pl.col("index") * 4 // frame.height).len()
    assert (per_quarter["len"] >= 4).all()
    assert per_quarter.height == 4


def test_a_k_given_twice_counts_once() -> None:
    """Repeating a K does not put every pair of that set into its tars twice."""
    assert _plan(images_per_member=(3, 1, 3)).equals(_plan(images_per_member=(1, 3)))


@pytest.mark.parametrize("background", [[], ["spare"]])
def test_members_alone_can_fill_a_set(background: list[str]) -> None:
    """Where the members' pairs fill the batches exactly no background is needed, and what does not fit is left out."""
    frame = _sets(_plan(background, _pairs(4, 4), images_per_member=(4,)))[4]
    assert (frame.height, frame["identity"].null_count()) == (16, 0)


def test_background_alone_can_fill_a_set() -> None:
    """A set without members, as a baseline, is background alone."""
    assert _plan(pairs=_pairs(0, 0), images_per_member=(1,)).num_rows == 96


@pytest.mark.parametrize(
    ("arguments", "what", "fix"),
    [
        (
            {"pairs": pa.concat_tables([_pairs(2, 5), pa.table({"identity": ["zoë"], "key": ["z"]}, PAIRS)])},
            "'zoë' has 1 pairs, 5 are wanted (stage shards, images_per_member).",
            "Lower it, or select people with more pairs.",
        ),
        (
            {"background": BACKGROUND[:9], "images_per_member": (1,)},
            "6 members' and 9 background pairs do not fill one batch of 16 (stage shards, K = 1).",
            "Give more background pairs or a smaller batch.",
        ),
        (
            {"background": BACKGROUND[:1], "images_per_member": (5,)},
            "30 members' and 1 background pairs do not fill one batch of 16 (stage shards, K = 5).",
            "Give more background pairs or a smaller batch.",
        ),
        (
            {"shard_size": 5},
            "multiple_of 16 is not a multiple of shard_size 5 (stage shards).",
            "Equal shards need that.",
        ),
        (
            {"shard_size": 32},
            "multiple_of 16 is not a multiple of shard_size 32 (stage shards).",
            "Equal shards need that.",
        ),
    ],
)
def test_plans_that_cannot_be_made(arguments: dict[str, Any], what: str, fix: str) -> None:
    """The error says who has too few pairs, or which numbers do not fit."""
    with pytest.raises(InvalidInputError) as caught:
        _plan(**arguments)
    assert str(caught.value) == f"{what} {fix}"


def test_enough_is_enough() -> None:
    """The numbers just above those refused are accepted."""
    assert _plan(background=BACKGROUND[:10], images_per_member=(1,)).num_rows == 16
    assert _plan(background=BACKGROUND[:2], images_per_member=(5,)).num_rows == 32


@pytest.mark.parametrize("background", [["a", "b", "a"], ["p0-00", "b", "c"]])
def test_a_key_given_twice_is_refused(background: list[str]) -> None:
    """Two pairs under one key, also one of a member and one of the background, would be mixed up in the tar."""
    with pytest.raises(DuplicateNameError, match=r"^the key '(a|p0-00)' is given to two pairs"):
        _plan([*background, *BACKGROUND])


@pytest.mark.parametrize("key", ["", "photo.1", "x" * 97, "ü" * 49])
def test_a_key_that_cannot_name_a_file_is_refused(key: str) -> None:
    """WebDataset cuts a name at its first dot, and a tar's names end at 100 bytes."""
    with pytest.raises(InvalidInputError, match=f"^the key '{key}' cannot name a file in a tar"):
        _plan([key, *BACKGROUND])
    assert "x" * 96 in _plan(["x" * 96, *BACKGROUND[:9]], images_per_member=(1,))["key"].to_pylist()


def test_names() -> None:
    """Sets and shards sort by name as they do by number."""
    assert [set_name(k) for k in (1, 25, 1000)] == ["K001", "K025", "K1000"]
    assert shard_path("K025", 7) == "K025/00007.tar"


def _picture(kind: str, colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), colour).save(buffer, kind)
    return buffer.getvalue()


SAMPLES = [
    ("person00001-00000", _picture("JPEG", "red"), "Zoë Müller, 漢字 “quoted”\n"),
    ("bg1", _picture("PNG", "lime"), ""),
    ("x" * 96, _picture("JPEG", "blue"), "a photo of Ann"),
]


def _tar(samples: list[tuple[str, bytes, str]] = SAMPLES) -> bytes:
    buffer = io.BytesIO()
    write_tar(buffer, samples)
    return buffer.getvalue()


def test_a_tar_holds_the_samples_and_nothing_of_its_maker() -> None:
    """Picture and caption of each sample lie side by side; no time, owner or mode of this machine is in it."""
    with tarfile.open(fileobj=io.BytesIO(_tar())) as tar:
        entries = tar.getmembers()
        read = [file.read() for entry in entries if (file := tar.extractfile(entry))]
    suffixes = [("jpg", "txt"), ("png", "txt"), ("jpg", "txt")]
    assert [entry.name for entry in entries] == [
        f"{sample[0]}.{suffix}" for sample, kinds in zip(SAMPLES, suffixes, strict=True) for suffix in kinds
    ]
    assert read == [content for _, image, caption in SAMPLES for content in (image, caption.encode())]
    assert {(e.mtime, e.uid, e.gid, e.uname, e.gname, e.mode) for e in entries} == {(0, 0, 0, "", "", 0o644)}
    assert all(entry.isreg() for entry in entries)


def test_the_same_samples_make_the_same_bytes() -> None:
    """Writing twice gives equal files, whole tar blocks long; another caption gives another file."""
    assert _tar() == _tar()
    assert len(_tar()) % tarfile.RECORDSIZE == 0
    assert _tar([(key, image, caption + "!") for key, image, caption in SAMPLES]) != _tar()
    assert len(_tar([])) == tarfile.RECORDSIZE


@pytest.mark.filterwarnings(
    "ignore:unclosed file:ResourceWarning"
)  # webdataset leaves closing to the garbage collector
def test_open_clips_loader_reads_the_tars(tmp_path: Path) -> None:
    """Read with WebDataset under the names that open_clip_train asks for, every sample comes back."""
    (tmp_path / "00000.tar").write_bytes(_tar())
    dataset = wds.WebDataset([str(tmp_path / "00000.tar")], shardshuffle=False)
    read = list(
        dataset.decode("pilrgb").rename(image="jpg;png;jpeg;webp", text="txt").to_tuple("__key__", "image", "text")
    )
    assert [(key, text) for key, _, text in read] == [(key, caption) for key, _, caption in SAMPLES]
    for (_, picture, _), colour in zip(read, [(255, 0, 0), (0, 255, 0), (0, 0, 255)], strict=True):
        np.testing.assert_allclose(np.asarray(picture)[0, 0], colour, atol=3)
