"""Tars of pairs: the same bytes as tarfile's, the same samples as open_clip's, and every fault named."""

import io
import mmap
import os
import resource
import signal
import tarfile
import threading
from pathlib import Path

import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip_train.data import group_by_keys_nothrow, log_and_continue
from webdataset.tariterators import tar_file_expander

from idia_core.errors import InvalidInputError
from idia_core.sample_status import SampleStatus
from idia_core.tars import PICTURE_SUFFIXES, Place, TarWriter, list_tar

FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
Entry = tuple[str, bytes] | tarfile.TarInfo
PAIR: list[Entry] = [("a.jpg", b"picture"), ("a.txt", b"caption")]
NEXT: list[Entry] = [("b.jpg", b"picture"), ("b.txt", b"caption")]


def _tar(entries: list[Entry], form: int = tarfile.USTAR_FORMAT, **settings: dict[str, str]) -> bytes:
    """A tar that Python's tarfile writes; a `TarInfo` stands for an entry without content."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form, encoding="utf-8", **settings) as tar:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                tar.addfile(entry)
            else:
                info = tarfile.TarInfo(entry[0])
                info.size = len(entry[1])
                tar.addfile(info, io.BytesIO(entry[1]))
    return file.getvalue()


def _entry(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    info.linkname = "a.jpg" if kind in (tarfile.LNKTYPE, tarfile.SYMTYPE) else ""
    return info


def _write(samples: list[tuple[str, str, bytes, bytes]]) -> bytes:
    file = io.BytesIO()
    with TarWriter(file) as tar:
        for sample in samples:
            tar.add(*sample)
    return file.getvalue()


def _statuses(content: bytes) -> dict[str, str]:
    """Each key with its status; with the detail where there is one."""
    samples = list_tar(content).samples
    return {sample.key: ": ".join(filter(None, (sample.status, sample.detail))) for sample in samples}


def _open_clip_samples(content: bytes) -> list[tuple[str, bytes | None, bytes | None]]:
    """Key, picture and caption of each sample that open_clip's loader makes of a tar, whole or not."""
    files = tar_file_expander([{"url": "a.tar", "stream": io.BytesIO(content)}], log_and_continue)
    return [
        (sample["__key__"], next((sample[s] for s in PICTURE_SUFFIXES if s in sample), None), sample.get("txt"))
        for sample in group_by_keys_nothrow(files)
    ]


def _our_samples(content: bytes, only: SampleStatus | None = None) -> list[tuple[str, bytes | None, bytes | None]]:
    def cut(place: Place | None) -> bytes | None:
        return None if place is None else content[place.at : place.at + place.bytes]

    samples = list_tar(content).samples
    return [(s.key, cut(s.picture), cut(s.caption)) for s in samples if only in (None, s.status)]


def _bare(key: str) -> str:
    while key.startswith("./"):
        key = key[2:]
    return key


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
    assert _write(samples) == _tar(list(files))


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
    assert _our_samples(file.getvalue()) == [(key, picture, b"caption") for key, _, picture in samples]


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
            assert 0 < path.stat().st_size < 200 * 60_000  # some batches are out, not all
        assert file.tell() == path.stat().st_size
    assert path.read_bytes() == _write(samples)


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
    assert received == [_write(samples)]


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
    assert file.tell() > len(picture)
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
    assert _statuses(_write([("k" * 96, "jpg", b"1", b"2"), ("k" * 95, "jpeg", b"1", b"2")])) == {
        "k" * 96: "ok",
        "k" * 95: "ok",
    }
    with pytest.raises(InvalidInputError, match="cannot name a file"):
        TarWriter(io.BytesIO()).add("k" * 96, "jpeg", b"picture", b"caption")
    long = _tar([("k" * 96 + ".jpeg", b"1"), ("k" * 96 + ".txt", b"2")], tarfile.PAX_FORMAT)
    assert _statuses(long) == {"k" * 96: "unusable_key: longer than 96 bytes, or 100 with the suffix"}


def test_a_file_of_eight_gib_is_refused(tmp_path: Path) -> None:
    """A header has room for eleven octal digits, one more would be another format."""
    with (tmp_path / "large").open("w+b") as file:
        file.truncate(8 << 30)
        large = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    with large, pytest.raises(InvalidInputError, match="8589934592 bytes"):
        TarWriter(io.BytesIO()).add("a", "jpg", large, b"caption")


NAMES = st.builds(
    lambda folders, base, suffix: "".join(f"{folder}/" for folder in folders) + base + suffix,
    st.lists(st.sampled_from(["a", "x.d", ".", "..", "__m__", "", "é" * 60]), max_size=2),
    st.sampled_from(["a", "a", "b", "é", "", "__m__", "n" * 120]),
    st.sampled_from([".jpg", ".JPG", ".txt", ".txt", ".png", ".webp", ".json", ".a.jpg", "."]),
)
FILES = st.lists(
    st.tuples(NAMES, st.binary(max_size=3) | st.sampled_from([b"1" * 512, b" ", b"\xe3\x80\x80"])), max_size=9
)


@given(FILES, st.sampled_from(FORMATS[1:]))
@settings(max_examples=300, deadline=None)
def test_samples_are_those_of_open_clip(files: list[Entry], form: int) -> None:
    """Also with folders, keys that come again, suffixes in capitals and names of more than 100 bytes."""
    content = _tar(files, form)
    theirs = [(_bare(key), *rest) for key, *rest in _open_clip_samples(content)]
    unsafe = {s.key for s in list_tar(content).samples if s.status is SampleStatus.UNSAFE_PATH}
    unseen = unsafe - {key for key, *_ in theirs}  # by open_clip, which reads over notes
    assert [sample for sample in _our_samples(content) if sample[0] not in unseen] == theirs
    assert list_tar(content).damage is None


@given(FILES)
@settings(max_examples=100, deadline=None)
def test_the_format_of_a_tar_does_not_matter(files: list[Entry]) -> None:
    """USTAR, GNU and PAX tars of the same files have the same samples."""
    files = [file for file in files if len(file[0].encode()) <= 100]
    assert len({tuple(_statuses(_tar(files, form)).items()) for form in FORMATS}) == 1
    assert len({tuple(_our_samples(_tar(files, form))) for form in FORMATS}) == 1


def test_a_tar_of_webdataset_is_read() -> None:
    """Its writer puts a PAX header before each file, as img2dataset's tars have them."""
    file = io.BytesIO()
    with webdataset.TarWriter(file) as tar:
        for i in range(3):
            tar.write({"__key__": f"{i:09d}", "jpg": b"picture", "txt": f"caption {i}", "json": b"{}"})
    assert b"PaxHeader" in file.getvalue() or b"mtime=" in file.getvalue()
    assert _our_samples(file.getvalue(), SampleStatus.OK) == [
        (f"{i:09d}", b"picture", f"caption {i}".encode()) for i in range(3)
    ]


@pytest.mark.parametrize(
    ("entries", "status"),
    [
        ([("a.jpg", b"1")], {"a": "no_caption"}),
        ([("a.txt", b"1")], {"a": "no_picture"}),
        ([("a.json", b"1")], {"a": "no_picture"}),
        ([("a.jpg", b""), ("a.txt", b"1")], {"a": "empty"}),
        ([("a.jpg", b"1"), ("a.txt", b"")], {"a": "empty_caption"}),
        ([("a.jpg", b"1"), ("a.txt", b" \t\r\n\x1f")], {"a": "empty_caption"}),
        ([("a.jpg", b"1"), ("a.txt", "\u3000 \u00a0".encode())], {"a": "empty_caption"}),
        ([("a.jpg", b"1"), ("a.txt", "\u3000 \u4eba".encode())], {"a": "ok"}),
        ([("a.d/b.jpg", b"1"), ("a.d/b.txt", b"1")], {"a.d/b": "unusable_key: a dot in a folder's name"}),
        ([("../../x.jpg", b"1"), *PAIR], {"../../x": "unsafe_path: the path has a '..'", "a": "ok"}),
        ([PAIR[0], ("../../x", b"1"), PAIR[1]], {"../../x": "unsafe_path: the path has a '..'", "a": "ok"}),
        ([("/x.jpg", b"1"), ("/x.txt", b"1")], {"/x": "unsafe_path: the path is absolute"}),
        ([_entry("a.jpg", tarfile.LNKTYPE), ("a.txt", b"1")], {"a": "not_a_file: a hard link"}),
        ([_entry("a.jpg", tarfile.SYMTYPE), *NEXT], {"a": "not_a_file: a symbolic link", "b": "ok"}),
        ([*PAIR, _entry("c", tarfile.FIFOTYPE)], {"a": "ok", "c": "not_a_file: a named pipe"}),
        ([_entry("a.jpg", tarfile.CHRTYPE), ("a.txt", b"1")], {"a": "not_a_file: a device"}),
        ([_entry("a.jpg", b"?"), ("a.txt", b"1")], {"a": "not_a_file: of an unknown type"}),
        ([_entry("a.jpg", tarfile.GNUTYPE_SPARSE), ("a.txt", b"1")], {"a": "not_a_file: a sparse file"}),
        ([_entry("x.d/", tarfile.DIRTYPE), ("README", b"1"), ("__m__", b"1"), *PAIR], {"a": "ok"}),
    ],
)
def test_each_fault_has_its_status(entries: list[Entry], status: dict[str, str]) -> None:
    """One fault at a time, in a tar that is complete."""
    content = _tar(entries)
    assert _statuses(content) == status
    assert list_tar(content).damage is None


def test_the_later_sample_of_a_key_is_a_duplicate() -> None:
    """Also where it follows at once, with another suffix of a picture, or with `./` before it."""
    again = [("a.jpg", b"1"), ("a.txt", b"2"), ("./a.png", b"1"), ("./a.txt", b"2")]
    assert [s.status for s in list_tar(_tar([*PAIR, *again])).samples] == ["ok", "duplicate_key", "duplicate_key"]


def test_a_key_that_is_not_utf8_is_unusable() -> None:
    """Its bytes are shown, and a file beside it is read."""
    content = bytearray(_tar([("\udcff.jpg", b"1"), ("\udcff.txt", b"1"), *PAIR], tarfile.USTAR_FORMAT))
    assert _statuses(bytes(content)) == {"\\xff": "unusable_key: not UTF-8", "a": "ok"}


def _header(name: str, form: int, **fields: bytes | int) -> bytes:
    """A header of an entry by its raw type or size, with the right checksum."""
    info = _entry(name, fields.get("kind", tarfile.REGTYPE))  # type: ignore[arg-type]
    block = bytearray(info.tobuf(form))
    block[124:136] = fields.get("size", b"%011o\0" % 0)  # type: ignore[assignment]
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def test_sizes_to_the_base_of_256_are_read() -> None:
    """GNU writes large ones so; the file after it is found."""
    first = _header("a.jpg", tarfile.GNU_FORMAT, size=b"\x80" + (7).to_bytes(11, "big")) + b"picture".ljust(512, b"\0")
    content = first + _tar([PAIR[1]], tarfile.GNU_FORMAT)
    assert _our_samples(content, SampleStatus.OK) == [("a", b"picture", b"caption")]


@pytest.mark.parametrize("size", [b"\xff" * 12, b"\x80" + b"\xff" * 11, b"7" * 12, b"-0000000001\0", b"0000000_017\0"])
def test_an_absurd_size_is_a_fault(size: bytes) -> None:
    """Below zero, beyond any tar, or no number: nothing is read after it, and the sample is not OK."""
    listing = list_tar(_tar(PAIR)[:2048] + _header("b.jpg", tarfile.GNU_FORMAT, size=size) + _tar(NEXT))
    assert listing.damage is not None
    assert [s.key for s in listing.samples if s.status is SampleStatus.OK] == ["a"]
    assert len(listing.samples) <= 2


def test_every_cut_is_told() -> None:
    """A tar cut at any byte before its end mark is damaged; samples are OK that are whole, one at most is CUT."""
    content = _tar([*PAIR, ("b.jpg", b"1" * 600), ("b.json", b"{}"), ("b.txt", b"caption"), ("c.jpg", b"1")], 2)
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
        (_tar(PAIR) + b"\0\1", "data after the end of the tar, at byte 10241"),
        (_tar(PAIR) + _tar(NEXT), "data after the end of the tar, at byte 10240"),
        (_tar(PAIR)[:1024] + b"x" * 9216, "a broken header at byte 1024, after 1 files"),
        (_tar(PAIR)[:2048], "cut short at byte 2048, in or after its file 2"),
        (
            _tar(PAIR, tarfile.PAX_FORMAT, pax_headers={"path": "x"}),
            "the header at byte 0 gives every file the same name or size",
        ),
        (_header("x", 0, kind=b"x") + _tar([]), "a broken header at byte 512, after 0 files"),
    ],
)
def test_what_is_wrong_with_a_tar_is_said(content: bytes, damage: str) -> None:
    """Of the tar as a whole."""
    assert list_tar(content).damage == damage


def test_the_bytes_may_lie_anywhere(tmp_path: Path) -> None:
    """In bytes, a memoryview or a file mapped to memory: the listing is the same, and an empty tar has no samples."""
    (tmp_path / "a.tar").write_bytes(_tar(PAIR))
    with (tmp_path / "a.tar").open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    assert list_tar(mapped) == list_tar(memoryview(_tar(PAIR))) == list_tar(_tar(PAIR))
    mapped.close()  # nothing is left that points into it
    assert list_tar(_tar([])) == ([], None)


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
    content = bytearray(_tar(files, form))
    used = -(-len(content.rstrip(b"\0")) // 512) * 512  # before the first block of the end
    for at, byte in flips:
        content[at % (used + 1)] = byte
    cut = bytes(content if size is None else content[: size % (used + 512)])
    listing = list_tar(cut)
    assert size is None or listing.damage is not None
    for place in [place for sample in listing.samples for place in (sample.picture, sample.caption) if place]:
        assert 0 < place.at <= place.at + place.bytes <= len(cut)
    ours = set(_our_samples(cut, SampleStatus.OK))
    assert ours <= {(_bare(key), *rest) for key, *rest in _open_clip_samples(cut)}
