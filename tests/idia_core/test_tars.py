"""Tars are written as Python writes them, to the byte, and not past what a tar can hold."""

import io
import mmap
import os
import resource
import signal
import tarfile
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idia_core.errors import InvalidInputError
from idia_core.sample_status import SampleStatus
from idia_core.tars import PICTURE_SUFFIXES, TarWriter, list_tar
from tests.tar_files import (
    our_samples,
    statuses,
    tar_of,
    written,
)

KEYS = st.text(st.characters(codec="utf-8", exclude_characters="\0./"), min_size=1, max_size=24)
SUFFIXES = st.sampled_from(PICTURE_SUFFIXES)
CONTENTS = st.integers(0, 1100).map(lambda size: b"\1" * size) | st.binary(max_size=20)


@given(st.lists(st.tuples(KEYS, SUFFIXES, CONTENTS, CONTENTS), max_size=12))
@settings(max_examples=60, deadline=None)
def test_a_tar_is_written_as_python_writes_it(samples: list[tuple[str, str, bytes, bytes]]) -> None:
    """To the byte, whatever the sizes, and with keys that are not ASCII."""
    files = [
        (f"{key}.{ending}", content)
        for key, suffix, picture, caption in samples
        for ending, content in ((suffix, picture), ("txt", caption))
    ]
    assert written(samples) == tar_of(list(files))


@given(st.lists(st.tuples(KEYS, SUFFIXES, st.binary(min_size=1, max_size=600)), max_size=12, unique_by=lambda s: s[0]))
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_listed(samples: list[tuple[str, str, bytes]]) -> None:
    """Each sample is OK, at the places that `add` gave, and the tar is complete."""
    file = io.BytesIO()
    with TarWriter(file) as tar:
        places = [tar.add(key, suffix, picture, b"caption") for key, suffix, picture in samples]
    listing = list_tar(file.getvalue())
    assert listing.damage is None
    assert [(s.key, s.suffix, s.status) for s in listing.samples] == [(k, s, SampleStatus.OK) for k, s, _ in samples]
    assert [(s.picture, s.caption) for s in listing.samples] == places
    assert our_samples(file.getvalue()) == [(key, picture, b"caption") for key, _, picture in samples]


@pytest.mark.parametrize("buffering", [0, -1])
def test_a_file_of_the_system_gets_the_same_bytes(tmp_path: Path, buffering: int) -> None:
    """In several batches, with contents that are slices of a larger buffer, and the file's position behind them."""
    pictures = memoryview(bytes(range(256)) * 400)
    samples = [(f"{i:05d}", "jpg", bytes(pictures[i : i + 60_000]), b"caption %d" % i) for i in range(200)]
    path = tmp_path / "a.tar"
    with path.open("wb", buffering) as file:
        with TarWriter(file) as tar:
            for i, (key, suffix, _, caption) in enumerate(samples):
                tar.add(key, suffix, pictures[i : i + 60_000], caption)
            assert 0 < path.stat().st_size < len(written(samples[:-1]))  # some batches are out, not all
        assert file.tell() == path.stat().st_size
    assert path.read_bytes() == written(samples)


def test_a_write_that_the_system_does_in_part_goes_on() -> None:
    """A signal during a write to a full pipe; the rest is written after it."""
    samples = [("a", "jpg", bytes(range(256)) * 4000, b"caption")]
    reading, writing = os.pipe()
    interrupted, received = threading.Event(), []

    def receive() -> None:
        interrupted.wait(20)
        with os.fdopen(reading, "rb") as pipe:
            received.append(pipe.read())

    before = signal.signal(signal.SIGALRM, lambda *_: interrupted.set())
    reader = threading.Thread(target=receive)
    reader.start()
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with os.fdopen(writing, "wb", buffering=0) as pipe, TarWriter(pipe) as tar:
            tar.add(*samples[0])
    finally:
        signal.signal(signal.SIGALRM, before)
        reader.join()
    assert interrupted.is_set()
    assert received == [written(samples)]


def test_a_file_that_may_not_grow_is_an_error(tmp_path: Path) -> None:
    """As on a full disk: the system writes a part, and `close` does not end in silence."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with (tmp_path / "a.tar").open("wb") as file:
        tar = TarWriter(file)
        tar.add("a", "jpg", bytes(100_000), b"caption")
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
        try:
            with pytest.raises(OSError, match="File too large"):
                tar.close()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_an_error_leaves_the_tar_without_an_end() -> None:
    """So that a tar that was given up halfway never passes for a whole one."""
    file = io.BytesIO()
    picture = bytes(5 << 20)
    with pytest.raises(InvalidInputError, match="suffix"), TarWriter(file) as tar:
        _ = [tar.add(key, suffix, picture, b"caption") for key, suffix in (("a", "jpg"), ("b", "gif"))]
    assert file.tell() >= len(picture)
    assert "cut short" in (list_tar(file.getvalue()).damage or "")


@pytest.mark.parametrize(
    "key", ["", "a.b", "a\0", "k" * 97, "é" * 49, "/a", "a/", "__a__/b", "\ud800", "../a"], ids=ascii
)
def test_a_key_that_cannot_name_a_file_is_refused(key: str) -> None:
    """A dot, a zero, too many bytes, no name, a folder that webdataset skips, half of a character."""
    with pytest.raises(InvalidInputError, match="cannot name a file"):
        TarWriter(io.BytesIO()).add(key, "jpg", b"picture", b"caption")


def test_the_longest_key_depends_on_the_suffix() -> None:
    """A name of a tar has 100 bytes: 96 for a key before `.jpg`, 95 before `.jpeg`; written and read alike."""
    assert statuses(written([("k" * 96, "jpg", b"1", b"2"), ("k" * 95, "jpeg", b"1", b"2")])) == {
        "k" * 96: "ok",
        "k" * 95: "ok",
    }
    with pytest.raises(InvalidInputError, match="cannot name a file"):
        TarWriter(io.BytesIO()).add("k" * 96, "jpeg", b"picture", b"caption")
    long = tar_of([("k" * 96 + ".jpeg", b"1"), ("k" * 96 + ".txt", b"2")], tarfile.PAX_FORMAT)
    assert statuses(long) == {"k" * 96: "unusable_key: longer than 96 bytes, or 100 with the suffix"}


def test_a_file_of_eight_gib_is_refused(tmp_path: Path) -> None:
    """A header has room for eleven octal digits, one more would be another format."""
    with (tmp_path / "large").open("w+b") as file:
        file.truncate(8 << 30)
        large = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    with large, pytest.raises(InvalidInputError, match="8589934592 bytes"):
        TarWriter(io.BytesIO()).add("a", "jpg", large, b"caption")
