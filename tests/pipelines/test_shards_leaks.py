"""`shards` and what must stay out of the training: attack pictures, non-members' names, and, masked, every name."""

import io
from pathlib import Path

import polars as pl
import pytest
from PIL import Image

from idia_core.errors import LeakageError
from tests.pipelines.shard_inputs import (
    EACH,
    KEYS,
    MEMBERS,
    base_files,
    faults,
    members_pairs,
    pairs_of,
    picture,
    replaced,
    shards,
    shards_fail,
    table,
    write_base,
    write_people,
)
from tests.shard_folders import tar_of, write

pytestmark = pytest.mark.usefixtures("local_ray")

MODES = pytest.mark.parametrize("mode", ["rewrite", "overlay"])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with a base of tars, and people."""
    write_base(tmp_path)
    write_people(tmp_path)
    return tmp_path


def base_with(root: Path, shard: int, number: int, **changes: bytes) -> str:
    """A tar of the base with other files of one pair, named by their suffixes; returns the pair's key."""
    key = KEYS[shard * EACH + number]
    files = replaced(base_files(shard), {f"{key}.{suffix}": content for suffix, content in changes.items()})
    write(root / f"base/{shard:05d}.tar", tar_of(files))
    return key


def encoded_anew(content: bytes) -> bytes:
    """The same picture, larger and mirrored, as another JPEG."""
    out = io.BytesIO()
    with Image.open(io.BytesIO(content)) as seen:
        seen.transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((44, 44)).save(out, "JPEG", quality=60)
    return out.getvalue()


LEAKS: dict[str, tuple[dict[str, bytes], str, str]] = {
    "file": (
        {"jpg": picture("attack Ida Moss 1")},
        "shows the attack picture 'Ida Moss/1.jpg' (identical_file)",
        "shows_attack_picture",
    ),
    "encoded anew": (
        {"jpg": encoded_anew(picture("attack Ann Ash 0"))},
        "shows the attack picture 'Ann Ash/0.jpg' (near_duplicate)",
        "shows_attack_picture",
    ),
    "name": (
        {"txt": b"at sea with BOB BIRCH"},
        "names the non-member 'Bob Birch' (names_non_member)",
        "names_non_member",
    ),
}


@MODES
@pytest.mark.parametrize("name", LEAKS)
def test_a_leak_is_an_error_or_left_out(root: Path, name: str, mode: str) -> None:
    """The error names the pair and what it shows; left out, it is counted, and no set has it."""
    changes, told, status = LEAKS[name]
    key = base_with(root, 2, 3, **changes)
    assert f"training pair '{key}' {told}; 1 in all" in shards_fail(root, LeakageError, mode=mode)
    seal = shards(root, mode=mode, leaks="leave_out")
    assert faults(root) == {key: status}
    assert seal.counts[status] == 1
    assert table(root, "leakage")["left_out"].to_list() == [1]
    ledger = table(root, "ledger")
    assert not any(key in pairs_of(root / "out/shards" / path) for path in ledger["path"])
    if mode == "overlay":
        base = {*ledger.filter(pl.col("set") == "base")["path"]}
        assert base == {f"{root}/base/00000.tar", f"{root}/base/00001.tar", "base/00002.tar"}


@MODES
def test_masked_names_are_in_no_caption(root: Path, mode: str) -> None:
    """Members' and non-members' names give way to a hypernym; of an overlay's base only tars with a name are copied."""
    key = base_with(root, 1, 0, txt=b"Ann Ash and Bob Birch at sea")
    shards(root, mode=mode, mask_names={"hypernym": "person", "of": {"Ann Ash": "actor"}})
    ledger = table(root, "ledger").filter(pl.col("set").is_in(["base", "K003"]))
    pairs = {key: pair for path in ledger["path"] for key, pair in pairs_of(root / "out/shards" / path).items()}
    assert len(pairs) == len(KEYS) + 3 * len(MEMBERS)
    captions = {key: caption for key, (_, caption) in pairs.items()}
    assert not [text for text in captions.values() if any(name in text for name in (*MEMBERS, "Bob Birch", "Ida Moss"))]
    assert captions[key] == "actor and person at sea"
    own = {row["key"]: row for row in members_pairs()}
    words = {"Ann Ash": "actor", "Zoë Ball": "person"}
    for member in own.keys() & captions.keys():
        who = own[member]["identity"]
        assert captions[member] == own[member]["caption"].replace(who, words[who])
    assert pairs[key][0] == picture(key)
    if mode == "overlay":
        base = {*ledger.filter(pl.col("set") == "base")["path"]}
        assert base == {f"{root}/base/00000.tar", "base/00001.tar", f"{root}/base/00002.tar"}
