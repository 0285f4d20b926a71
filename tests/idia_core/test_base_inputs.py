"""Base pairs from WebDataset tars, lists with folders of pictures, and Parquet tables."""

import io
import json
import os
import tarfile
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from upath import UPath
from webdataset import TarWriter as WebDatasetWriter

from idia_core.base_inputs import BaseSample, Kind, ListColumns, base_splits, kind_of, read_split
from idia_core.base_samples import key_fault
from idia_core.errors import InvalidInputError, MissingInputError
from idia_core.images import MAX_BYTES
from idia_core.sample_status import SampleStatus
from idia_core.storage import find_files
from idia_core.tars import TarWriter, list_tar

OK = SampleStatus.OK
NO_PAIR = (None, None, None, None, None)


def encoded(kind: str, red: int = 0) -> bytes:
    """A small picture in a format of Pillow's."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (red, 90, 30)).save(buffer, format=kind)
    return buffer.getvalue()


JPEG, PNG, WEBP, GIF = map(encoded, ("JPEG", "PNG", "WEBP", "GIF"))


@pytest.fixture(params=["local", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[UPath]:
    """An empty folder, on this machine and elsewhere."""
    path = UPath(tmp_path) if request.param == "local" else UPath(f"memory://{uuid.uuid4().hex}")
    path.mkdir(exist_ok=True)
    yield path
    if request.param == "memory":
        path.fs.rm(path.path, recursive=True)


def splits_of(files: Sequence[UPath], columns: ListColumns | None = None, images: UPath | None = None) -> list[Any]:
    """The splits as they arrive at a worker."""
    folder = None if images is None else str(images)
    return json.loads(json.dumps(list(base_splits(files, columns or ListColumns(), folder))))


def read(files: Sequence[UPath], columns: ListColumns | None = None, images: UPath | None = None) -> list[BaseSample]:
    """All pairs of some files."""
    return [sample for split in splits_of(files, columns, images) for sample in read_split(split).samples]


def found(samples: Sequence[BaseSample]) -> list[tuple[str, str]]:
    """Keys and statuses."""
    return [(sample.key, str(sample.status)) for sample in samples]


# Kinds


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["0.tar", "1.tar"], Kind.TARS),
        (["0.tar", "0.parquet", "0_stats.json", "1.tar"], Kind.TARS),
        (["a.tsv", "b.tsv"], Kind.LISTS),
        (["0.parquet", "1.parquet"], Kind.TABLES),
    ],
)
def test_the_kind_is_seen_by_the_names(names: list[str], kind: Kind) -> None:
    """Tars with what img2dataset writes beside them are tars; Parquet alone is tables."""
    assert kind_of([UPath("/x") / name for name in names]) is kind


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["0.tar", "1.parquet"], "two kinds: '0.tar' is of tars, '1.parquet' of tables"),
        (["0.tar", "y/0.parquet"], "two kinds: '0.tar' is of tars, '0.parquet' of tables"),
        (["0.parquet", "a.tsv"], "two kinds: '0.parquet' is of tables, 'a.tsv' of lists"),
        (["0.tar", "1_stats.json"], r"no base pairs \(/x/1_stats\.json\)\. Give files that end with \.tar, \.tsv"),
        (["a.csv"], r"no base pairs \(/x/a\.csv\)"),
    ],
)
def test_mixed_kinds_are_refused(names: list[str], message: str) -> None:
    """A Parquet file that is of no tar in the same place would be read as pairs or as nothing: neither is a guess."""
    with pytest.raises(InvalidInputError, match=message):
        kind_of([UPath("/x") / name for name in names])


# Tars


def write_img2dataset(folder: UPath, shard: str, pairs: dict[str, tuple[bytes, str]], failed: Sequence[str]) -> None:
    """A tar with its list and statistics, by webdataset's writer and in the order of img2dataset 1.47."""
    with (folder / f"{shard}.tar").open("wb") as file:
        writer = WebDatasetWriter(file)
        for key, (picture, caption) in pairs.items():
            metadata = {"key": key, "status": "success"}
            writer.write({"__key__": key, "jpg": picture, "txt": caption, "json": json.dumps(metadata, indent=4)})
        writer.close()
    keys, statuses = [*pairs, *failed], ["success"] * len(pairs) + ["failed_to_download"] * len(failed)
    captions = [caption for _, caption in pairs.values()] + [None] * len(failed)
    table = pa.table({"caption": captions, "url": keys, "key": keys, "status": statuses, "sha256": keys})
    (folder / f"{shard}.parquet").write_bytes(as_parquet(table))
    counts = {"count": len(keys), "successes": len(pairs), "failed_to_download": len(failed), "status_dict": {}}
    (folder / f"{shard}_stats.json").write_text(json.dumps(counts, indent=4))


def as_parquet(table: pa.Table, **options: Any) -> bytes:
    """The bytes of a Parquet file."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **options)
    return buffer.getvalue()


PAIRS = {f"00000{i:04d}": (encoded("JPEG", i), f"caption {i}, größer 猫") for i in range(4)}


def test_tars_of_img2dataset(root: UPath) -> None:
    """A tar is a split; its pairs are handed over where they lie, and what failed to download is no pair."""
    write_img2dataset(root, "00001", {"000010000": (JPEG, "last")}, [])
    write_img2dataset(root, "00000", PAIRS, ["000000004"])
    files = find_files(str(root), ["*.tar", "*.parquet", "*.json"], "a test")
    splits = splits_of(files)
    assert splits == [{"kind": "tars", "url": str(root / f"0000{i}.tar")} for i in range(2)]
    part = read_split(splits[0])
    samples = list(part.samples)
    assert (part.damage, part.notes) == (None, ())
    assert [(s.key, bytes(s.picture or b""), (s.caption or b"").decode()) for s in samples] == [
        (key, *pair) for key, pair in PAIRS.items()
    ]
    assert {(s.suffix, s.status, s.detail) for s in samples} == {("jpg", OK, None)}
    content = (root / "00000.tar").read_bytes()
    for sample in samples:
        for place, what in ((sample.picture_place, sample.picture), (sample.caption_place, sample.caption)):
            assert place is not None
            assert content[place.at : place.at + place.bytes] == what


def test_pairs_that_a_tar_has_lost(root: UPath) -> None:
    """Downloads that the list says succeeded are rows of their own where the tar lacks them, and the counts differ."""
    write_img2dataset(root, "00000", PAIRS, [])
    list_and_statistics = [(root / name).read_bytes() for name in ("00000.parquet", "00000_stats.json")]
    write_img2dataset(root, "00000", {key: PAIRS[key] for key in ("000000000", "000000002")}, ["000000003"])
    for name, content in zip(("00000.parquet", "00000_stats.json"), list_and_statistics, strict=True):
        (root / name).write_bytes(content)
    part = read_split(splits_of([root / "00000.tar"])[0])
    samples = list(part.samples)
    assert found(samples) == [
        ("000000000", "ok"),
        ("000000002", "ok"),
        ("000000001", "missing"),
        ("000000003", "missing"),
    ]
    lost = "listed by 00000.parquet, not in the tar"
    assert samples[2] == ("000000001", *NO_PAIR, SampleStatus.MISSING, lost)
    assert part.notes == ("00000_stats.json counts 4 pairs, 00000.tar has 2",)


@pytest.mark.parametrize(
    ("name", "content", "note"),
    [
        ("00000.parquet", b"PAR1", "00000.parquet was not used: not a readable Parquet file"),
        (
            "00000.parquet",
            as_parquet(pa.table({"key": ["a"]})),
            "00000.parquet was not used: it has no column 'status'",
        ),
        (
            "00000.parquet",
            as_parquet(pa.table({"key": [0], "status": ["success"]})),
            "00000.parquet was not used: it has no column 'key' of text",
        ),
        ("00000_stats.json", b"{", "00000_stats.json was not used: it does not say"),
        ("00000_stats.json", b"\xff\xfe{", "00000_stats.json was not used: "),
        ("00000_stats.json", b"[1]", "00000_stats.json was not used: it does not say"),
        ("00000_stats.json", b'{"count": 4}', "00000_stats.json was not used: it does not say"),
    ],
)
def test_a_broken_file_beside_a_tar_is_a_note(root: UPath, name: str, content: bytes, note: str) -> None:
    """The pairs are in the tar, which is whole; only the check is lost, and that is said."""
    write_img2dataset(root, "00000", PAIRS, [])
    (root / name).write_bytes(content)
    part = read_split(splits_of([root / "00000.tar"])[0])
    assert [sample.status for sample in part.samples] == [OK] * 4
    assert len(part.notes) == 1
    assert part.notes[0].startswith(note)


def test_a_tar_alone_needs_nothing_beside(root: UPath) -> None:
    """Any WebDataset tar will do."""
    write_img2dataset(root, "00000", PAIRS, [])
    for name in ("00000.parquet", "00000_stats.json"):
        (root / name).unlink()
    part = read_split(splits_of([root / "00000.tar"])[0])
    assert (len(list(part.samples)), part.damage, part.notes) == (4, None, ())


def test_a_tar_cut_in_half(root: UPath) -> None:
    """What comes before the cut is read, the damage is said, and the list names what is behind the cut."""
    write_img2dataset(root, "00000", PAIRS, [])
    tar = root / "00000.tar"
    begin = list_tar(tar.read_bytes()).samples[2].picture
    assert begin is not None
    tar.write_bytes(tar.read_bytes()[: begin.at + 100])
    part = read_split(splits_of([tar])[0])
    assert part.damage is not None
    assert part.damage.startswith("cut short at byte")
    assert found(list(part.samples)) == list(zip(PAIRS, ("ok", "ok", "cut", "missing"), strict=True))
    assert part.notes == ("00000_stats.json counts 4 pairs, 00000.tar has 3",)


def test_a_tar_without_a_byte(root: UPath) -> None:
    """It is damaged, not an error: its list says what is lost with it."""
    write_img2dataset(root, "00000", PAIRS, [])
    (root / "00000.tar").write_bytes(b"")
    part = read_split(splits_of([root / "00000.tar"])[0])
    assert part.damage == "no tar: it has no bytes"
    assert found(list(part.samples)) == [(key, "missing") for key in PAIRS]


def test_faults_of_pairs_in_a_tar(tmp_path: Path) -> None:
    """What is wrong within a tar's pair is its status; its other half is there to be looked at."""
    members = {
        "blank.jpg": JPEG, "blank.txt": "\u3000\n".encode(), "bytes.jpg": JPEG, "bytes.txt": b"caf\xe9",
        "empty.png": b"", "empty.txt": b"a", "only.webp": WEBP, "text.txt": b"a", "großß.jpg": JPEG, "großß.txt": b"a",
    }  # fmt: skip
    with tarfile.open(tmp_path / "0.tar", "w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    samples = read([UPath(tmp_path / "0.tar")])
    assert found(samples) == [
        ("blank", "empty_caption"), ("bytes", "not_utf8"), ("empty", "empty"), ("only", "no_caption"),
        ("text", "no_picture"), ("großß", "ok"),
    ]  # fmt: skip
    assert samples[1].detail == "the caption's byte 3"
    assert (samples[3].caption, bytes(samples[3].picture or b"")) == (None, WEBP)
    assert (samples[4].caption, samples[4].picture, samples[4].suffix) == (b"a", None, None)


@pytest.mark.parametrize("name", ["0.tar", "0.parquet", "0.tsv"])
def test_a_file_that_has_vanished_is_named(root: UPath, name: str) -> None:
    """It was there when the splits were made; a worker that no longer finds it says which."""
    write_img2dataset(root, "0", PAIRS, [])
    (root / "0.parquet").write_bytes(as_parquet(table_of([("a", "x", JPEG)])))
    (root / "0.tsv").write_bytes(b"filepath\ttitle\na.jpg\tx\n")
    split = splits_of([root / name])[0]
    (root / name).unlink()
    with pytest.raises(InvalidInputError, match=rf"is no longer there \(.*{name}\)\. Put it back"):
        list(read_split(split).samples)


def test_a_folder_that_is_called_like_a_tar(tmp_path: Path) -> None:
    """It cannot be read, and is named."""
    (tmp_path / "0.tar").mkdir()
    with pytest.raises(InvalidInputError, match=r"not a readable tar: Is a directory \(.*0\.tar\)"):
        read_split({"kind": "tars", "url": str(tmp_path / "0.tar")})


# Tables


def table_of(rows: Sequence[tuple[Any, Any, Any]]) -> pa.Table:
    """A table of keys, captions and pictures."""
    keys, captions, images = zip(*rows, strict=True)
    columns = {"image": pa.array(images, pa.binary()), "key": keys, "more": [0] * len(rows), "caption": captions}
    return pa.table(columns)


@pytest.mark.parametrize(
    ("groups", "runs"),
    [
        ([400] * 5, [(0, 1200), (1200, 2000)]),
        ([300, 2500, 10, 20], [(0, 300), (300, 1133), (1133, 1966), (1966, 2800), (2800, 2830)]),
        ([1000, 1000], [(0, 1000), (1000, 2000)]),
        ([10_000], [(i * 1250, (i + 1) * 1250) for i in range(8)]),
        ([0, 5], [(0, 5)]),
        ([0], []),
    ],
)
def test_tables_are_cut_into_runs_of_rows(root: UPath, groups: list[int], runs: list[tuple[int, int]]) -> None:
    """Small row groups go together and large ones are cut, not too often; every row is in one run."""
    file, first = root / "a.parquet", 0
    with file.open("wb") as target, pq.ParquetWriter(target, table_of([("", "", b"")]).schema) as writer:
        for rows in groups:
            keys = [f"k{first + i:05d}" for i in range(rows)]
            more = [(key, f"caption of {key}", JPEG) for key in keys]
            writer.write_table(table_of(more) if rows else table_of([("", "", b"")]).slice(0, 0))
            first += rows
    splits = splits_of([file])
    assert [(split["start"], split["stop"]) for split in splits] == runs
    for split in splits:
        samples = list(read_split(split).samples)
        keys = [f"k{i:05d}" for i in range(split["start"], split["stop"])]
        assert [(s.key, s.caption, s.status) for s in samples] == [(k, f"caption of {k}".encode(), OK) for k in keys]


def test_a_run_reads_its_own_row_groups_alone(tmp_path: Path) -> None:
    """Damage in one row group is met by its own run; the others' pairs are read as if nothing were."""
    file = tmp_path / "a.parquet"
    rows = [(f"k{i:04d}", "x", os.urandom(200)) for i in range(3000)]
    file.write_bytes(as_parquet(table_of(rows), row_group_size=1000, use_dictionary=False, write_page_checksum=True))
    metadata = pq.read_metadata(file)
    at = metadata.row_group(1).column(0).data_page_offset + 50_000
    content = bytearray(file.read_bytes())
    content[at : at + 100] = bytes(100)
    file.write_bytes(content)
    first, second, third = splits_of([UPath(file)])
    for split, own in ((first, rows[:1000]), (third, rows[2000:])):
        assert [bytes(s.picture or b"") for s in read_split(split).samples] == [image for _, _, image in own]
    with pytest.raises(InvalidInputError, match=r"not a readable Parquet file: .*CRC.* \(.*a\.parquet\)"):
        list(read_split(second).samples)


def test_faults_of_rows() -> None:
    """A row that cannot be used says why; the picture's format is seen by its first bytes, not by a name."""
    long = "k" * 96
    rows = [
        ("jpg", "a", JPEG), ("png", "a", PNG), ("webp", "a", WEBP), ("gif", "a", GIF), ("html", "a", b"<html>"),
        ("null", None, JPEG), ("blank", " \t\u00a0", JPEG), ("none", "a", None), ("empty", "", b""),
        ("jpg", "again", PNG), (None, "a", JPEG), ("", "a", JPEG), ("a.b", "a", JPEG), (long, "a", JPEG),
        (long + "k", "a", JPEG), (long[1:], "a", WEBP), (long.replace("k", "w"), "a", WEBP), ("/etc/x", "a", JPEG),
        ("a/", "a", JPEG), ("a/b", "a", JPEG), ("z\0z", "a", JPEG), ("__a__/b", "a", JPEG), ("猫" * 32, "猫", JPEG),
        ("猫" * 33, "猫", JPEG), ("late", None, b""),
    ]  # fmt: skip
    file = UPath("memory://faults-of-rows/a.parquet")
    file.write_bytes(as_parquet(table_of(rows)))
    samples = read([file])
    bad = "unusable_key"
    assert [str(sample.status) for sample in samples] == [
        "ok", "ok", "ok", "ok", "ok", "no_caption", "empty_caption", "empty", "empty",
        "duplicate_key", bad, "duplicate_key", bad, "ok",
        bad, "ok", bad, bad,
        bad, "ok", bad, bad, "ok",
        bad, "empty",
    ]  # fmt: skip
    assert [sample.suffix for sample in samples[:5]] == ["jpg", "png", "webp", None, None]
    assert [bytes(s.picture or b"") for s in samples] == [image or b"" for _, _, image in rows]
    assert [s.caption for s in samples] == [None if text is None else text.encode() for _, text, _ in rows]
    assert samples[14].detail == "longer than 96 bytes"
    assert samples[16].detail == "longer than 100 bytes with its suffix"
    assert {(s.picture_place, s.caption_place) for s in samples} == {(None, None)}


def test_texts_in_a_table_that_are_not_utf8(tmp_path: Path) -> None:
    """Columns of bytes may hold captions and keys; those that are no text are said to be none."""
    file = UPath(tmp_path / "a.parquet")
    rows = [(b"a", b"caf\xc3\xa9", JPEG), (b"b", b"caf\xe9", JPEG), (b"c\xff", b"x", JPEG)]
    file.write_bytes(as_parquet(table_of(rows)))
    samples = read([file])
    assert [str(s.status) for s in samples] == ["ok", "not_utf8", "unusable_key"]
    assert (samples[1].caption, samples[2].key, samples[2].detail) == (b"caf\xe9", "c\ufffd", "not UTF-8")


@pytest.mark.parametrize("text", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())])
@pytest.mark.parametrize("image", [pa.large_binary(), pa.binary_view()])
def test_types_of_columns(text: pa.DataType, image: pa.DataType, tmp_path: Path) -> None:
    """All ways in which Arrow stores text and bytes are read alike."""
    schema = pa.schema({"key": text, "caption": text, "image": image})
    rows = [{"key": "a", "caption": "größer", "image": PNG}, {"key": "b", "caption": None, "image": None}]
    file = UPath(tmp_path / "a.parquet")
    file.write_bytes(as_parquet(pa.Table.from_pylist(rows, schema)))
    (first, second) = read([file])
    assert (first.key, first.caption, bytes(first.picture or b"")) == ("a", "größer".encode(), PNG)
    assert (second.key, second.status) == ("b", SampleStatus.EMPTY)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a readable Parquet file"),
        (as_parquet(table_of([("a", "a", JPEG)] * 50))[:300], "not a readable Parquet file"),
        (as_parquet(pa.table({"key": ["a"], "jpg": [JPEG]})), r"no column 'caption' \(.*\)\. It has: key, jpg\."),
        (
            as_parquet(pa.table({"key": ["a"], "caption": ["a"], "image": [{"bytes": JPEG, "path": "a"}]})),
            r"column 'image' holds struct<.*>, not bytes",
        ),
        (as_parquet(pa.table({"key": [1], "caption": ["a"], "image": [JPEG]})), "column 'key' holds int64, not text"),
    ],
)
def test_tables_that_cannot_be_read_are_named(root: UPath, content: bytes, message: str) -> None:
    """No Parquet, half of one, or one without the columns is found before any work is done."""
    (root / "bad.parquet").write_bytes(content)
    with pytest.raises(InvalidInputError, match=message) as caught:
        splits_of([root / "bad.parquet"])
    assert caught.value.where == str(root / "bad.parquet")


# Lists


def test_a_list_with_paths(root: UPath) -> None:
    """As open_clip has it: columns by their names, in any order, paths relative to the list's folder; CRLF or LF."""
    names = {"a/0.jpg": JPEG, "a/größe 1.PNG": PNG, "b.c/2": WEBP, "猫.gif": GIF}
    for name, content in names.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    lines = ["id\ttitle\tfilepath", *(f'{i}\t"caption" {i} ä\t{name}' for i, name in enumerate(names))]
    for ending in ("\n", "\r\n"):
        (root / "list.tsv").write_bytes(ending.join(lines).encode())
        samples = read([root / "list.tsv"])
        assert [(s.key, s.suffix, s.status) for s in samples] == [
            ("a_0", "jpg", OK), ("a_größe 1", "png", OK), ("b_c_2", "webp", OK), ("猫", None, OK),
        ]  # fmt: skip
        assert [s.picture for s in samples] == list(names.values())
        assert [(s.caption or b"").decode() for s in samples] == [f'"caption" {i} ä' for i in range(4)]


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf", b"caption\turl\n", b"\xef\xbb\xbfcaption\turl\r\n"])
def test_a_list_of_googles(root: UPath, start: bytes) -> None:
    """Captions and URLs without a header line: a row's picture is where the pattern says, a row's number is its key."""
    (root / "pictures").mkdir()
    for row in (0, 1, 3):
        (root / "pictures" / f"p{row:03d}.jpg").write_bytes(encoded("JPEG", row))
    lines = [f"a caption {row}\thttps://example.org/{row}.jpg\n".encode() for row in range(4)]
    (root / "Train.tsv").write_bytes(start + b"".join(lines))
    samples = read([root / "Train.tsv"], ListColumns(pattern="p{row:03d}.jpg"), root / "pictures")
    assert found(samples) == [("00000000", "ok"), ("00000001", "ok"), ("00000002", "missing"), ("00000003", "ok")]
    assert [s.picture for s in samples] == [encoded("JPEG", 0), encoded("JPEG", 1), None, encoded("JPEG", 3)]
    assert [s.caption for s in samples] == [f"a caption {row}".encode() for row in range(4)]
    assert (samples[2].detail or "").startswith("there is no '")


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("lines", [999, 1000, 1001, 2500])
def test_lists_are_cut_between_lines(tmp_path: Path, header: bool, lines: int) -> None:
    """A split has 1,000 lines, whole ones, and knows the number of its first row; the last line may be open."""
    for row in range(0, lines, 7):
        (tmp_path / f"{row:08d}.jpg").write_bytes(b"%d" % row)
    texts = [f"{row:08d}.jpg\tä{row}" if header else f"ä{row}\thttp://e.org/{row}" for row in range(lines)]
    path = UPath(tmp_path / "list.tsv")
    path.write_bytes("\n".join(["filepath\ttitle"] * header + texts).encode())
    splits = splits_of([path])
    assert [split["row"] for split in splits] == list(range(0, lines, 1000))
    assert splits[-1]["end"] == path.stat().st_size
    samples = [sample for split in splits for sample in read_split(split).samples]
    assert [s.key for s in samples] == [f"{row:08d}" for row in range(lines)]
    assert [(s.caption or b"").decode() for s in samples] == [f"ä{row}" for row in range(lines)]
    assert [s.picture for s in samples] == [None if row % 7 else b"%d" % row for row in range(lines)]


def test_faults_of_lines(root: UPath) -> None:
    """A line that cannot be used says why, with its row; nothing outside the folder is ever looked at."""
    (root / "images" / "sub").mkdir(parents=True)
    for name in ("a.jpg", "b.jpg", "empty.jpg", "sub/c.jpg", "sub_c.jpg"):
        (root / "images" / name).write_bytes(b"" if name == "empty.jpg" else JPEG)
    (root / "secret.jpg").write_bytes(JPEG)
    long = "x" * 97 + ".jpg"
    lines = [
        ("a.jpg\tfine", "a", "ok"), ("./a.jpg\tagain", "a", "duplicate_key"), ("b.jpg", "b", "no_caption"),
        ("", "", "no_caption"), ("\tno path", "", "no_picture"), ("b.jpg\t ", "b", "empty_caption"),
        ("empty.jpg\tx", "empty", "empty"), ("gone.jpg\tx", "gone", "missing"), ("sub\tx", "sub", "not_a_file"),
        ("sub/c.jpg\tx\tmore", "sub_c", "ok"), ("sub_c.jpg\tx", "sub_c", "duplicate_key"),
        ("../secret.jpg\tx", "___secret", "unsafe_path"), ("sub/../a.jpg\tx", "sub____a", "unsafe_path"),
        (f"{root.path}/secret.jpg\tx", None, "unsafe_path"), ("s3://x/y.jpg\tx", "s3:_x_y", "unsafe_path"),
        (".\tx", "_", "unsafe_path"), (f"{long}\tx", long[:-4], "unusable_key"),
        ("a.jpg/d.jpg\tx", "a_jpg_d", "missing"),
        ("y" * 90 + "/" + "z" * 300 + "\tx", None, "unusable_key"), ("z\0.jpg\tx", "z\0", "unusable_key"),
    ]  # fmt: skip
    text = "\n".join(["filepath\ttitle", *(line for line, _, _ in lines)]).encode()
    (root / "l.tsv").write_bytes(text + b"\ncaf\xe9.jpg\tx\nlast.jpg\tcaf\xe9\n")
    (root / "images" / "last.jpg").write_bytes(JPEG)
    samples = read([root / "l.tsv"], images=root / "images")
    expected = [*lines, ("", "caf\ufffd", "unusable_key"), ("", "last", "not_utf8")]
    assert [str(s.status) for s in samples] == [status for _, _, status in expected]
    keys = [(s.key, key) for s, (_, key, _) in zip(samples, expected, strict=True) if key is not None]
    assert [own for own, _ in keys] == [key for _, key in keys]
    assert samples[2].detail == "row 2: the line has 1 of 2 columns"
    assert samples[11].detail == "row 11: '../secret.jpg' leaves the folder"
    assert all(s.picture is None for s in samples if s.status in (SampleStatus.UNSAFE_PATH, SampleStatus.NO_PICTURE))


def test_a_short_line_of_googles_list(tmp_path: Path) -> None:
    """A line without its URL is no pair, though its row may have a picture; the rows behind it keep their numbers."""
    for row in range(3):
        (tmp_path / f"{row:08d}.jpg").write_bytes(JPEG)
    path = UPath(tmp_path / "list.tsv")
    path.write_bytes(b"one\thttp://e.org/1\ntwo\nthree\thttp://e.org/3\n")
    assert found(read([path])) == [("00000000", "ok"), ("00000001", "no_caption"), ("00000002", "ok")]


def test_pictures_behind_links_and_what_is_no_picture(tmp_path: Path) -> None:
    """A link may lead out of the folder; a pipe would never end, a huge file never fit, and neither is read."""
    (tmp_path / "store.jpg").write_bytes(JPEG)
    images = tmp_path / "images"
    images.mkdir()
    for name, target in (("link", "../store.jpg"), ("dead", "nowhere"), ("loop", "loop.jpg")):
        (images / f"{name}.jpg").symlink_to(target)
    os.mkfifo(images / "pipe.jpg")
    with (images / "huge.jpg").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    names = ["link", "dead", "loop", "pipe", "huge", "n" * 90]
    path = UPath(tmp_path / "list.tsv")
    lines = [f"{name}{'.jpg' if len(name) < 90 else '.' + 's' * 200}\tx\n" for name in names]
    path.write_text("filepath\ttitle\n" + "".join(lines))
    samples = read([path], images=UPath(images))
    statuses = ["ok", "missing", "missing", "not_a_file", "too_large", "missing"]
    assert found(samples) == list(zip(names, statuses, strict=True))
    assert [s.picture for s in samples] == [JPEG, None, None, None, None, None]


def test_a_picture_that_is_there_but_cannot_be_read_stops_the_run(tmp_path: Path) -> None:
    """What the next run may read must not be counted as missing by this one."""
    (tmp_path / "a.jpg").symlink_to("/proc/self/mem")  # its first byte cannot be read
    path = UPath(tmp_path / "list.tsv")
    path.write_text("filepath\ttitle\na.jpg\tx\n")
    with pytest.raises(InvalidInputError, match=r"a picture that cannot be read: \w.* \(.*/a\.jpg\)"):
        read([path])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an empty file"),
        (b"path\tcaption\na\tb\n", r"names no columns 'filepath' and 'title', .* the first line is: path, caption\."),
        (b"filepath,title\na,b\n", r"the first line is: filepath,title\."),
        (b"filepath\ttitle\n" + b"x" * (17 << 20), "a line is longer than 16 MiB"),
    ],
)
def test_lists_that_cannot_be_read_are_named(root: UPath, content: bytes, message: str) -> None:
    """Nothing in it, no layout that is known, or no lines is found before any work is done."""
    (root / "bad.tsv").write_bytes(content)
    with pytest.raises(InvalidInputError, match=message) as caught:
        splits_of([root / "bad.tsv"])
    assert caught.value.where == str(root / "bad.tsv")


def test_a_list_of_other_columns(root: UPath) -> None:
    """The columns can be named; a list of only a header line has no pairs."""
    (root / "x.jpg").write_bytes(JPEG)
    (root / "l.tsv").write_bytes(b"caption\turl\timage\nhello\thttp://e.org\tx.jpg\n")
    columns = ListColumns(picture="image", caption="caption")
    assert [(s.key, s.caption, s.status) for s in read([root / "l.tsv"], columns)] == [("x", b"hello", OK)]
    (root / "l.tsv").write_bytes(b"caption\turl\timage\n")
    assert splits_of([root / "l.tsv"], columns) == []


def test_no_folder_of_pictures(root: UPath) -> None:
    """A folder that is not there would make every pair a missing one."""
    (root / "l.tsv").write_bytes(b"filepath\ttitle\na.jpg\tx\n")
    with pytest.raises(MissingInputError, match=r"no folder of pictures \(.*/images\)\. Check `images`"):
        splits_of([root / "l.tsv"], images=root / "images")


def test_a_list_that_was_shortened_meanwhile(root: UPath) -> None:
    """Its splits no longer fit, and half a line must not pass for one."""
    (root / "l.tsv").write_bytes(b"filepath\ttitle\na.jpg\tx\n")
    split = splits_of([root / "l.tsv"])[0]
    (root / "l.tsv").write_bytes(b"filepath\ttitle\na.jp")
    with pytest.raises(InvalidInputError, match=r"shorter than it was at first \(.*l\.tsv\)"):
        read_split(split)


@pytest.mark.parametrize(
    "pattern", ["{row:08d", "{key}.jpg", "{}.jpg", "{row:zz}", "same.jpg", "../{row}.jpg", "/x/{row}", "s3://{row}"]
)
def test_patterns_that_name_no_file_for_each_row(pattern: str) -> None:
    """A mistake in the pattern is met when the study is read, not as a million missing pictures."""
    with pytest.raises(ValidationError, match=r"is no pattern|names no file of its own"):
        ListColumns(pattern=pattern)


# Keys


@given(st.lists(st.text(st.sampled_from("ab_/.\0 ä猫")) | st.text(max_size=120), max_size=6))
def test_a_key_that_is_called_usable_can_be_written_and_read(keys: list[str]) -> None:
    """The writer of tars takes it, and the lister finds it again; of equal keys the first is the one."""
    taken: set[str] = set()
    usable = [key for key in keys if key_fault(key, taken)[0] is OK]
    assert len(usable) == len(set(usable))
    buffer = io.BytesIO()
    with TarWriter(buffer) as tar:
        for key in usable:
            tar.add(key, "jpg", JPEG, b"a")
    listing = list_tar(buffer.getvalue())
    assert [(sample.key, sample.status) for sample in listing.samples] == [(key, OK) for key in usable]
