"""The headers of a tar: every form of them, and every way in which a tar can be broken."""

import mmap
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idia_core.sample_status import SampleStatus
from idia_core.tars import list_tar
from tests.tar_files import FILES, FORMATS, NEXT, PAIR, Entry, bare_key, header, open_clip_samples, our_samples, tar_of


def test_sizes_to_the_base_of_256_are_read() -> None:
    """GNU writes large ones so; the file after it is found."""
    first = header("a.jpg", size=b"\x80" + (7).to_bytes(11, "big")) + b"picture".ljust(512, b"\0")
    content = first + tar_of([PAIR[1]], tarfile.GNU_FORMAT)
    assert our_samples(content, SampleStatus.OK) == [("a", b"picture", b"caption")]


@pytest.mark.parametrize("size", [b"\xff" * 12, b"\x80" + b"\xff" * 11, b"7" * 12, b"-0000000001\0", b"0000000_017\0"])
def test_an_absurd_size_is_a_fault(size: bytes) -> None:
    """Below zero, beyond any tar, or no number: nothing is read after it, and the sample is not OK."""
    listing = list_tar(tar_of(PAIR)[:2048] + header("b.jpg", size=size) + tar_of(NEXT))
    assert listing.damage is not None
    assert [s.key for s in listing.samples if s.status is SampleStatus.OK] == ["a"]
    assert len(listing.samples) <= 2


def test_every_cut_is_told() -> None:
    """A tar cut at any byte before its end mark is damaged; samples are OK that are whole, one at most is CUT."""
    content = tar_of([*PAIR, ("b.jpg", b"1" * 600), ("b.json", b"{}"), ("b.txt", b"caption"), ("c.jpg", b"1")], 2)
    ends = [sample.caption for sample in list_tar(content).samples if sample.caption]
    mark = 512 * 13
    assert content[mark - 512 : mark] != bytes(512) == content[mark : mark + 512]
    for size in range(mark + 512):
        listing = list_tar(content[:size])
        ok = [sample for sample in listing.samples if sample.status is SampleStatus.OK]
        assert listing.damage is not None
        assert len(ok) == sum(end.at + end.bytes <= size for end in ends)
        assert [s.status for s in listing.samples[len(ok) :]] in ([], [SampleStatus.CUT])
    assert list_tar(content[: mark + 512]).damage is None


@pytest.mark.parametrize(
    ("content", "damage"),
    [
        (b"", "no tar: it has no bytes"),
        (b"no tar at all" * 100, "no tar: it does not begin with a tar's header"),
        (b"\x1f\x8b" + bytes(2000), "no tar: it does not begin with a tar's header"),
        (tar_of(PAIR) + b"\0\1", "data after the end of the tar, at byte 10241"),
        (tar_of(PAIR) + tar_of(NEXT), "data after the end of the tar, at byte 10240"),
        (tar_of(PAIR)[:1024] + b"x" * 9216, "a broken header at byte 1024, after 1 files"),
        (tar_of(PAIR)[:2048], "cut short at byte 2048, in or after its file 2"),
        (
            tar_of(PAIR, tarfile.PAX_FORMAT, pax_headers={"path": "x"}),
            "the header at byte 0 gives every file the same name or size",
        ),
        (header("x", b"x") + tar_of([]), "a broken header at byte 512, after 0 files"),
    ],
)
def test_what_is_wrong_with_a_tar_is_said(content: bytes, damage: str) -> None:
    """Of the tar as a whole."""
    assert list_tar(content).damage == damage


def test_the_bytes_may_lie_anywhere(tmp_path: Path) -> None:
    """In bytes, a memoryview or a file mapped to memory: the listing is the same, and an empty tar has no samples."""
    (tmp_path / "a.tar").write_bytes(tar_of(PAIR))
    with (tmp_path / "a.tar").open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    assert list_tar(mapped) == list_tar(memoryview(tar_of(PAIR))) == list_tar(tar_of(PAIR))
    mapped.close()  # nothing is left that points into it
    assert list_tar(tar_of([])) == ([], None)


@given(
    st.binary(max_size=2000) | st.tuples(st.binary(min_size=512, max_size=512), st.binary(max_size=700)).map(b"".join)
)
@settings(max_examples=100, deadline=None)
def test_random_bytes_are_no_tar(content: bytes) -> None:
    """Nothing is raised, and nothing is found."""
    listing = list_tar(content)
    assert listing.samples == []
    assert (listing.damage is None) == (len(content) >= 512 and not any(content))


@given(
    FILES,
    st.sampled_from(FORMATS[1:]),
    st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=3),
    st.integers(0) | st.none(),
)
@settings(max_examples=300, deadline=None)
def test_a_damaged_tar_is_read_as_far_as_it_is_right(
    files: list[Entry], form: int, flips: list[tuple[int, int]], size: int | None
) -> None:
    """Flipped bytes and cuts: nothing is raised, no place is outside, and what is OK is what open_clip would read."""
    content = bytearray(tar_of(files, form))
    used = -(-len(content.rstrip(b"\0")) // 512) * 512  # before the first block of the end
    for at, byte in flips:
        content[at % (used + 1)] = byte
    cut = bytes(content if size is None else content[: size % (used + 512)])
    listing = list_tar(cut)
    assert size is None or listing.damage is not None
    for place in [place for sample in listing.samples for place in (sample.picture, sample.caption) if place]:
        assert 0 < place.at <= place.at + place.bytes <= len(cut)
    ours = set(our_samples(cut, SampleStatus.OK))
    assert ours <= {(bare_key(key), *rest) for key, *rest in open_clip_samples(cut)}
