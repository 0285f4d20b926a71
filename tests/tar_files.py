"""Small tars for tests, and what open_clip's loader makes of them."""

import io
import tarfile

from hypothesis import strategies as st
from open_clip_train.data import group_by_keys_nothrow, log_and_continue
from webdataset.tariterators import tar_file_expander

from idia_core.sample_status import SampleStatus
from idia_core.tars import PICTURE_SUFFIXES, Place, TarWriter, list_tar

FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
Entry = tuple[str, bytes] | tarfile.TarInfo
PAIR: list[Entry] = [("a.jpg", b"picture"), ("a.txt", b"caption")]
NEXT: list[Entry] = [("b.jpg", b"picture"), ("b.txt", b"caption")]


def tar_of(entries: list[Entry], form: int = tarfile.USTAR_FORMAT, **settings: dict[str, str]) -> bytes:
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


def bare_entry(name: str, kind: bytes) -> tarfile.TarInfo:
    """An entry of a kind that has no content; a link leads to `a.jpg`."""
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = "a.jpg" if kind in (tarfile.LNKTYPE, tarfile.SYMTYPE) else ""
    return info


def written(samples: list[tuple[str, str, bytes, bytes]]) -> bytes:
    """What `TarWriter` makes of samples."""
    file = io.BytesIO()
    with TarWriter(file) as tar:
        for sample in samples:
            tar.add(*sample)
    return file.getvalue()


def statuses(content: bytes) -> dict[str, str]:
    """Each key with its status; with the detail where there is one."""
    samples = list_tar(content).samples
    return {sample.key: ": ".join(filter(None, (sample.status, sample.detail))) for sample in samples}


def open_clip_samples(content: bytes) -> list[tuple[str, bytes | None, bytes | None]]:
    """Key, picture and caption of each sample that open_clip's loader makes of a tar, whole or not."""
    files = tar_file_expander([{"url": "a.tar", "stream": io.BytesIO(content)}], log_and_continue)
    return [
        (sample["__key__"], next((sample[s] for s in PICTURE_SUFFIXES if s in sample), None), sample.get("txt"))
        for sample in group_by_keys_nothrow(files)
    ]


def our_samples(content: bytes, only: SampleStatus | None = None) -> list[tuple[str, bytes | None, bytes | None]]:
    """Key, picture and caption of each sample that `list_tar` finds, or of those with one status only."""

    def cut(place: Place | None) -> bytes | None:
        return None if place is None else content[place.at : place.at + place.bytes]

    samples = list_tar(content).samples
    return [(s.key, cut(s.picture), cut(s.caption)) for s in samples if only in (None, s.status)]


def bare_key(key: str) -> str:
    """A key without the `./` that it may begin with."""
    while key.startswith("./"):
        key = key[2:]
    return key


def header(name: str, kind: bytes = tarfile.REGTYPE, size: bytes = b"00000000000\0") -> bytes:
    """An entry's header with the very bytes of its size, under the right checksum."""
    block = bytearray(bare_entry(name, kind).tobuf(tarfile.USTAR_FORMAT))
    block[124:136], block[148:156] = size, b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


NAMES = st.builds(
    lambda folders, base, suffix: "".join(f"{folder}/" for folder in folders) + base + suffix,
    st.lists(st.sampled_from(["a", "x.d", ".", "..", "__m__", "", "é" * 60]), max_size=2),
    st.sampled_from(["a", "a", "b", "é", "", "__m__", "n" * 120]),
    st.sampled_from([".jpg", ".JPG", ".txt", ".txt", ".png", ".webp", ".json", ".a.jpg", "."]),
)
FILES = st.lists(
    st.tuples(NAMES, st.binary(max_size=3) | st.sampled_from([b"1" * 512, b" ", b"\xe3\x80\x80"])), max_size=9
)
