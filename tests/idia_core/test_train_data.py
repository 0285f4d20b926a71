"""The string that names the shards to open_clip, expanded again by those who read it."""

import subprocess
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from open_clip_train.data import expand_urls as open_clip_expand
from webdataset.shardlists import expand_urls

from idia_core.errors import InvalidInputError
from idia_core.train_data import LONGEST_ARGUMENT, train_data


def usable(path: str) -> bool:
    """Whether a path can be written at all."""
    return not path.endswith(":")


TRICKY = st.text(st.sampled_from("{}\\,:.$-0919abé٣ \n/*?["), min_size=1, max_size=12).filter(usable)
ANY = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=12).filter(usable)
NUMBERED = st.builds(
    lambda before, start, count, width, after: [f"{before}{n:0{width}d}{after}" for n in range(start, start + count)],
    TRICKY,
    st.integers(0, 120),
    st.integers(1, 30),
    st.integers(1, 5),
    st.sampled_from([".tar", "", "}", "::}", "\\"]),
)
PATHS = st.lists(st.one_of(NUMBERED, TRICKY.map(lambda path: [path]), ANY.map(lambda path: [path])), min_size=1)


@given(PATHS)
@example([["a::b"], [":c"], [":::d:1.tar"]])
@example([["$" + "{HOME}/1.tar", "$" + "{HOME}/2.tar"]])
@example([["a9", "a10"], ["b09", "b10"], ["c1", "c01"], ["d0", "d1"]])
@settings(max_examples=300, deadline=None)
def test_webdataset_and_open_clip_read_the_paths_that_were_written(groups: list[list[str]]) -> None:
    """Whatever the paths hold, both expand the string to the same paths in the same order."""
    paths = [path for group in groups for path in group]
    text = train_data(paths)
    assert expand_urls(text) == paths
    assert open_clip_expand(text) == (paths, None)
    assert open_clip_expand(text, weights="::".join("1" for _ in text.split("::")))[0] == paths


def test_consecutive_numbers_are_written_as_ranges() -> None:
    """A set of numbered tars behind the base tars is two ranges; a gap or another width begins a new one."""
    base = [f"https://example.org/cc3m/{n:05d}.tar" for n in range(280)]
    members = [f"/sets/tars/K025/{n:05d}.tar" for n in range(75)]
    assert train_data([*base, *members]) == (
        "https://example.org/cc3m/{00000..00279}.tar::/sets/tars/K025/{00000..00074}.tar"
    )
    assert train_data(["7.tar"]) == "7.tar"
    assert train_data(["08.tar", "09.tar", "10.tar", "12.tar", "9.tar"]) == "{08..10}.tar::12.tar::9.tar"
    assert train_data(["2.tar", "1.tar", "1.tar"]) == "2.tar::1.tar::1.tar"


def test_a_string_that_linux_would_not_pass_on_is_refused() -> None:
    """The longest argument reaches a command, and one byte more is refused before Linux refuses it."""
    longest = "é" * (LONGEST_ARGUMENT // 2) + "a"
    assert len(longest.encode()) == LONGEST_ARGUMENT
    count = [sys.executable, "-c", "import os, sys; print(len(os.fsencode(sys.argv[1])))", train_data([longest])]
    assert subprocess.run(count, check=True, capture_output=True, text=True).stdout.strip() == str(LONGEST_ARGUMENT)
    with pytest.raises(InvalidInputError, match=r"131,072 bytes.*131,071.*rewrite"):
        train_data([longest + "a"])


@pytest.mark.parametrize("paths", [[], [""], ["a.tar", ""], ["a\0.tar"], ["a:"]])
def test_what_names_no_shard_is_refused(paths: list[str]) -> None:
    """No paths, an empty one, one with a zero byte and one whose colon would join the two between paths are refused."""
    with pytest.raises(InvalidInputError, match="no shard can be named"):
        train_data(paths)
