"""The samples of a tar: those of open_clip, and each fault with its status."""

import io
import tarfile

import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st

from idia_core.sample_status import SampleStatus
from idia_core.tars import list_tar
from tests.tar_files import (
    FILES,
    FORMATS,
    NEXT,
    PAIR,
    Entry,
    bare_entry,
    bare_key,
    open_clip_samples,
    our_samples,
    statuses,
    tar_of,
)


@given(FILES, st.sampled_from(FORMATS[1:]))
@settings(max_examples=300, deadline=None)
def test_samples_are_those_of_open_clip(files: list[Entry], form: int) -> None:
    """Also with folders, keys that come again, suffixes in capitals and names of more than 100 bytes."""
    content = tar_of(files, form)
    theirs = [(bare_key(key), *rest) for key, *rest in open_clip_samples(content)]
    unsafe = {s.key for s in list_tar(content).samples if s.status is SampleStatus.UNSAFE_PATH}
    unseen = unsafe - {key for key, *_ in theirs}  # by open_clip, which reads over notes
    assert [sample for sample in our_samples(content) if sample[0] not in unseen] == theirs
    assert list_tar(content).damage is None


@given(FILES)
@settings(max_examples=100, deadline=None)
def test_the_format_of_a_tar_does_not_matter(files: list[Entry]) -> None:
    """USTAR, GNU and PAX tars of the same files have the same samples."""
    files = [file for file in files if len(file[0].encode()) <= 100]
    assert len({tuple(statuses(tar_of(files, form)).items()) for form in FORMATS}) == 1
    assert len({tuple(our_samples(tar_of(files, form))) for form in FORMATS}) == 1


def test_a_tar_of_webdataset_is_read() -> None:
    """Its writer puts a PAX header before each file, as img2dataset's tars have them."""
    file = io.BytesIO()
    with webdataset.TarWriter(file) as tar:
        for i in range(3):
            tar.write({"__key__": f"{i:09d}", "jpg": b"picture", "txt": f"caption {i}", "json": b"{}"})
    assert b"PaxHeader" in file.getvalue() or b"mtime=" in file.getvalue()
    assert our_samples(file.getvalue(), SampleStatus.OK) == [
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
        ([bare_entry("a.jpg", tarfile.LNKTYPE), ("a.txt", b"1")], {"a": "not_a_file: a hard link"}),
        ([bare_entry("a.jpg", tarfile.SYMTYPE), *NEXT], {"a": "not_a_file: a symbolic link", "b": "ok"}),
        ([*PAIR, bare_entry("c", tarfile.FIFOTYPE)], {"a": "ok", "c": "not_a_file: a named pipe"}),
        ([bare_entry("a.jpg", tarfile.CHRTYPE), ("a.txt", b"1")], {"a": "not_a_file: a device"}),
        ([bare_entry("a.jpg", b"?"), ("a.txt", b"1")], {"a": "not_a_file: of an unknown type"}),
        ([bare_entry("a.jpg", tarfile.GNUTYPE_SPARSE), ("a.txt", b"1")], {"a": "not_a_file: a sparse file"}),
        ([bare_entry("x.d/", tarfile.DIRTYPE), ("README", b"1"), ("__m__", b"1"), *PAIR], {"a": "ok"}),
    ],
)
def test_each_fault_has_its_status(entries: list[Entry], status: dict[str, str]) -> None:
    """One fault at a time, in a tar that is complete."""
    content = tar_of(entries)
    assert statuses(content) == status
    assert list_tar(content).damage is None


def test_the_later_sample_of_a_key_is_a_duplicate() -> None:
    """Also where it follows at once, with another suffix of a picture, or with `./` before it."""
    again = [("a.jpg", b"1"), ("a.txt", b"2"), ("./a.png", b"1"), ("./a.txt", b"2")]
    assert [s.status for s in list_tar(tar_of([*PAIR, *again])).samples] == ["ok", "duplicate_key", "duplicate_key"]


def test_a_key_that_is_not_utf8_is_unusable() -> None:
    """Its bytes are shown, and a file beside it is read."""
    content = bytearray(tar_of([("\udcff.jpg", b"1"), ("\udcff.txt", b"1"), *PAIR], tarfile.USTAR_FORMAT))
    assert statuses(bytes(content)) == {"\\xff": "unusable_key: not UTF-8", "a": "ok"}
