"""Caption files: editions told apart, columns found, batches of bounded size, every damage a typed error."""

import gzip
import io
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from idia_core.caption_files import (
    BATCH_BYTES,
    BATCH_ROWS,
    LINE_BYTES,
    PATTERNS,
    CaptionFile,
    Edition,
    open_caption_file,
    read_captions,
    read_urls,
)
from idia_core.errors import InvalidInputError, MissingInputError
from idia_core.storage import find_files
from idia_core.text_columns import text_blocks

LAION_400M = "SAMPLE_ID URL TEXT HEIGHT WIDTH LICENSE NSFW similarity"
LAION_2B_MULTI = "SAMPLE_ID URL TEXT HEIGHT WIDTH LICENSE LANGUAGE NSFW similarity"
LAION_5B = "URL TEXT WIDTH HEIGHT similarity hash punsafe pwatermark"
IMG2DATASET = "url caption key status error_message width height original_width original_height exif sha256"
LAION_DOWNLOADED = "similarity hash punsafe pwatermark caption url key status error_message width height exif md5"
TEXT_TYPES = [
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.binary(),
    pa.large_binary(),
    pa.binary_view(),
    pa.dictionary(pa.int32(), pa.string()),
]

# Prints by how many MiB reading the captions and some URLs of the file in argv[1] raises this process's peak memory.
PEAK = """
import sys
from pathlib import Path
import numpy as np
from upath import UPath
from idia_core.caption_files import open_caption_file, read_captions, read_urls
def peak():
    # getrusage would give the peak of the process that started this one, if that was higher
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) // 1024
before, file = peak(), open_caption_file(UPath(sys.argv[1]))
rows = sum(len(captions) for _, captions in read_captions(file, range(len(file.groups))))
read_urls(file, range(len(file.groups)), np.array([0, rows - 1]))
print(rows, peak() - before)
"""


@pytest.fixture(params=["local", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> UPath:
    """An empty folder, once on this machine's disk and once on an object store."""
    if request.param == "local":
        return UPath(tmp_path)
    return UPath(f"memory://{tmp_path.name}-{random.randrange(10**9)}")


def _write(path: UPath, content: bytes) -> UPath:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.name.endswith(".gz") else content)
    return path


def _parquet(path: UPath, columns: dict[str, Any], **options: Any) -> UPath:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, **options)
    return _write(path, buffer.getvalue())


def _captions(file: CaptionFile, *groups: int) -> dict[int, list[Any]]:
    """The captions of each batch by its first row; of all row groups where none is given."""
    batches = read_captions(file, groups or range(len(file.groups)))
    return {first: captions.to_pylist() for first, captions in batches}


def _all_captions(file: CaptionFile) -> list[bytes | None]:
    """The captions as bytes, after a look at how the batches are numbered."""
    found: list[bytes | None] = []
    for first, captions in read_captions(file, range(len(file.groups))):
        assert first == len(found)
        assert 0 < len(captions) <= BATCH_ROWS
        found += captions.cast(pa.binary()).to_pylist()
    return found


def _open_tsv(root: UPath, content: bytes, caption_column: str | None = None) -> CaptionFile:
    return open_caption_file(_write(root / "c.tsv", content), caption_column)


# Editions and columns


@pytest.mark.parametrize(
    ("columns", "edition", "caption", "url"),
    [
        (LAION_400M, Edition.LAION_400M, "TEXT", "URL"),
        (LAION_2B_MULTI, Edition.LAION_5B, "TEXT", "URL"),
        (LAION_5B, Edition.LAION_5B, "TEXT", "URL"),
        (f"{LAION_5B} LANGUAGE", Edition.LAION_5B, "TEXT", "URL"),
        ("url caption key similarity hash punsafe", Edition.RELAION, "caption", "url"),
        (IMG2DATASET, Edition.IMG2DATASET, "caption", "url"),
        (LAION_DOWNLOADED, Edition.IMG2DATASET, "caption", "url"),
        ("id url text width height", Edition.OTHER, "text", "url"),
        ("url caption key status", Edition.OTHER, "caption", "url"),
        ("url caption", Edition.OTHER, "caption", "url"),
        ("image_url caption", Edition.OTHER, "caption", "image_url"),
        ("text caption TEXT", Edition.OTHER, "TEXT", None),
        ("CAPTION", Edition.OTHER, "CAPTION", None),
    ],
)
def test_the_edition_and_the_columns_of_parquet(
    root: UPath, columns: str, edition: Edition, caption: str, url: str | None
) -> None:
    """The names of its columns say which edition a Parquet file is of, and where its captions and URLs are."""
    path = _parquet(root / "c.parquet", {name: [f"{name} 0", f"{name} 1"] for name in columns.split()})
    file = open_caption_file(path)
    assert file == CaptionFile(path, edition, caption, url, (2,), tuple(columns.split()))
    assert _captions(file) == {0: [f"{caption} 0", f"{caption} 1"]}
    assert read_urls(file, [0], np.array([1])).to_pylist() == [url and f"{url} 1"]


@pytest.mark.parametrize(
    ("content", "edition", "caption", "url"),
    [
        (b"a cat\thttp://x/0\na dog\thttps://x/1\n", Edition.CC3M, "0", "1"),
        (b"http://x/0\ta cat\nhttps://x/1\ta dog\n", Edition.CC12M, "1", "0"),
        (b"caption\turl\na cat\thttp://x/0\na dog\thttps://x/1\n", Edition.CC3M, "caption", "url"),
        (b"url\tcaption\r\nhttp://x/0\ta cat\r\nhttps://x/1\ta dog\r\n", Edition.CC12M, "caption", "url"),
        (b"TEXT\tid\tURL\na cat\t7\thttp://x/0\na dog\t8\thttps://x/1\n", Edition.OTHER, "TEXT", "URL"),
        (b"\xef\xbb\xbfcaption\nrow\na dog\n", Edition.OTHER, "caption", None),
        (b"text\thttp://x/0\na dog\thttps://x/1\n", Edition.CC3M, "0", "1"),
        (b"http://in.a.caption\thttp://x/0\na cat\tbroken\na dog\thttps://x/1", Edition.CC3M, "0", "1"),
    ],
)
def test_the_edition_and_the_columns_of_tsv(
    root: UPath, content: bytes, edition: Edition, caption: str, url: str | None
) -> None:
    """A header line names a TSV's columns and is no row; without one they are told by where most lines have a URL."""
    for name in ("c.tsv", "c.tsv.gz"):
        file = open_caption_file(_write(root / name, content))
        assert (file.edition, file.caption_column, file.url_column, file.groups) == (edition, caption, url, ())
        captions = _all_captions(file)
        assert captions[-1] == b"a dog"
        assert len(captions) == content.rstrip().count(b"\n") + (not file.header)
        last = read_urls(file, [0], np.array([len(captions) - 1])).to_pylist()
        assert last == ["https://x/1" if url else None]


def test_configured_columns_are_taken(root: UPath) -> None:
    """What is configured wins over what would be recognised, in Parquet and in TSV with and without a header line."""
    path = _parquet(root / "c.parquet", {"TEXT": ["a"], "alt": ["b"], "URL": ["c"], "link": ["d"]})
    file = open_caption_file(path, "alt", "link")
    assert (_captions(file), read_urls(file, [0], np.array([0])).to_pylist()) == ({0: ["b"]}, ["d"])
    path = _write(root / "named.tsv", b"alt\tcaption\tlink\na\tb\tc\n")
    file = open_caption_file(path, "alt", "link")
    assert (_captions(file), read_urls(file, [], np.array([0])).to_pylist()) == ({0: ["a"]}, ["c"])
    path = _write(root / "nameless.tsv", b"0\ta\thttp://b\nc\td\thttp://e\n")
    file = open_caption_file(path, "1")
    assert (_captions(file), read_urls(file, [], np.array([1])).to_pylist()) == ({0: ["a", "d"]}, ["http://e"])
    assert _captions(open_caption_file(path, "0", "1")) == {0: ["0", "c"]}
    assert _captions(_open_tsv(root, b"0\t1\na\thttp://b\n", "0")) == {0: ["0", "a"]}


def test_patterns_find_all_caption_files_of_a_folder(root: UPath) -> None:
    """The patterns match Parquet, TSV and compressed TSV, each once."""
    for name in ("a.parquet", "b.tsv", "c.tsv.gz", "d.csv", "e.json"):
        _write(root / name, b"x")
    found = [file.name for file in find_files(str(root), PATTERNS, "")]
    assert found == ["a.parquet", "b.tsv", "c.tsv.gz"]


# Reading Parquet


def test_rows_are_counted_from_the_beginning_of_the_file(root: UPath) -> None:
    """Any row groups can be read, in any order; a batch says which row of the file it begins with."""
    path = _parquet(root / "c.parquet", {"caption": [str(i) for i in range(10)]}, row_group_size=4)
    file = open_caption_file(path)
    assert file.groups == (4, 4, 2)
    assert _captions(file) == {0: list("0123"), 4: list("4567"), 8: list("89")}
    assert _captions(file, 2, 0) == {8: ["8", "9"], 0: list("0123")}
    assert list(read_captions(file, [])) == []


def test_batches_are_of_bounded_size(root: UPath) -> None:
    """A batch has no more than BATCH_ROWS rows, and fewer where the rows are long."""
    many = open_caption_file(_parquet(root / "a.parquet", {"caption": ["x"] * (2 * BATCH_ROWS + 1)}))
    assert [(first, len(found)) for first, found in read_captions(many, [0])] == [
        (0, BATCH_ROWS),
        (BATCH_ROWS, BATCH_ROWS),
        (2 * BATCH_ROWS, 1),
    ]
    texts = [f"{i:2}" * 500_000 for i in range(99)]
    long = open_caption_file(_parquet(root / "b.parquet", {"caption": texts}, use_dictionary=False))
    batches = [found for _, found in read_captions(long, [0])]
    assert max(len(batch) for batch in batches) == BATCH_BYTES // 1_000_000
    assert [text for batch in batches for text in batch.to_pylist()] == texts


@pytest.mark.parametrize("kind", TEXT_TYPES, ids=str)
def test_every_type_of_text_passes_through(root: UPath, kind: pa.DataType) -> None:
    """Captions come in the type they are stored with, ready for `text_blocks`; URLs come as strings."""
    values = pa.array(["Zoë", None, "", "Zoë"]).cast(pa.binary() if "binary" in str(kind) else pa.string())
    values = values.dictionary_encode() if pa.types.is_dictionary(kind) else values.cast(kind)
    file = open_caption_file(_parquet(root / "c.parquet", {"TEXT": values, "URL": values}))
    ((first, captions),) = read_captions(file, [0])
    assert (first, captions.type, captions.null_count) == (0, kind, 1)
    assert [block.data.tobytes() for block in text_blocks(captions)] == ["ZoëZoë".encode()]
    assert read_urls(file, [0], np.array([0, 1, 2, 3])).to_pylist() == ["Zoë", None, "", "Zoë"]


def test_a_column_of_nulls_is_text(root: UPath) -> None:
    """A shard whose captions and URLs are all null has a column of type null, and can be read."""
    file = open_caption_file(_parquet(root / "c.parquet", {"TEXT": pa.nulls(2), "URL": pa.nulls(2)}))
    assert _captions(file) == {0: [None, None]}
    assert read_urls(file, [0], np.array([0, 1])).to_pylist() == [None, None]


@pytest.mark.parametrize("row_groups", [0, 1])
def test_parquet_without_rows_is_fine(root: UPath, row_groups: int) -> None:
    """A file of no rows yields nothing, whether it has an empty row group or none."""
    buffer, schema = io.BytesIO(), pa.schema([("caption", pa.string()), ("url", pa.string())])
    with pq.ParquetWriter(buffer, schema) as writer:
        for _ in range(row_groups):
            writer.write_table(schema.empty_table())
    file = open_caption_file(_write(root / "c.parquet", buffer.getvalue()))
    assert (file.groups, _captions(file)) == ((0,) * row_groups, {})
    assert read_urls(file, range(row_groups), np.array([], np.int64)).to_pylist() == []


def test_what_is_not_utf8_does_not_raise(root: UPath) -> None:
    """Bytes that are not UTF-8 come as they are in captions, and with U+FFFD in URLs, from Parquet and from TSV."""
    broken = pa.array([b"caf\xe9", b"\xff"]).cast(pa.large_binary()).cast(pa.large_string(), safe=False)
    parquet = open_caption_file(_parquet(root / "c.parquet", {"caption": broken, "url": broken}))
    tsv = _open_tsv(root, b"caf\xe9\thttp://caf\xe9\n\xff\thttp://\xff\n")
    assert _all_captions(parquet) == _all_captions(tsv) == [b"caf\xe9", b"\xff"]
    assert read_urls(parquet, [0], np.array([0, 1])).to_pylist() == ["caf\ufffd", "\ufffd"]
    assert read_urls(tsv, [], np.array([0, 1])).to_pylist() == ["http://caf\ufffd", "http://\ufffd"]


# Reading TSV


@pytest.mark.parametrize(
    ("content", "captions", "urls"),
    [
        (b'"a\thttp://x\n', [b'"a'], ["http://x"]),
        (b'"a ""b"""\thttp://x\n', [b'"a ""b"""'], ["http://x"]),
        (b"a\thttp://x\r\nb\r\thttp://y\r", [b"a", b"b\r"], ["http://x", "http://y"]),
        (b"a\rb\thttp://x\n", [b"a\rb"], ["http://x"]),
        (b"a\thttp://x\n\thttp://y\nb\t\n", [b"a", b"", b"b"], ["http://x", "http://y", ""]),
        (b"a\thttp://x\nalone\n\nb\thttp://y", [b"a", b"alone", b"", b"b"], ["http://x", None, None, "http://y"]),
        (b"a\thttp://x\tmore\n\r\nb\thttp://y\t\t\nc\thttp://z", [b"a", b"", b"b", b"c"], None),
        (b"\\N\thttp://x\nNA\thttp://y\nnull\thttp://z\n", [b"\\N", b"NA", b"null"], None),
        ("Zoë\0\u2028\x0b\x1c\thttp://x\n".encode(), ["Zoë\0\u2028\x0b\x1c".encode()], ["http://x"]),
    ],
)
def test_tsv_has_tabs_and_newlines_and_nothing_else(
    root: UPath, content: bytes, captions: list[bytes], urls: list[str | None] | None
) -> None:
    """No character is special but tab and newline; no line is lost; a field that is not there is null."""
    file = open_caption_file(_write(root / "c.tsv", content), "0", "1")
    assert _all_captions(file) == captions
    if urls is not None:
        assert read_urls(file, [], np.arange(len(urls))).to_pylist() == urls


@pytest.mark.parametrize("name", ["c.tsv", "c.tsv.gz"])
@pytest.mark.parametrize("header", [b"", b"caption\turl\n"])
def test_tsv_of_many_blocks(root: UPath, name: str, header: bytes) -> None:
    """Files larger than what is read at once give every line, also lines that are longer than that."""
    generator = random.Random(1)
    sizes = [generator.randrange(60) for _ in range(40_000)] + [1_000_000, 3_000_000] + [0, 1] * 60_000
    generator.shuffle(sizes)
    captions = [b"%d " % i + b"x" * size for i, size in enumerate(sizes)]
    lines = [caption if i % 7 == 6 else caption + b"\thttp://x/%d" % i for i, caption in enumerate(captions)]
    file = open_caption_file(_write(root / name, header + b"\n".join(lines)))
    assert _all_captions(file) == captions
    rows = np.array([0, 1, 6, 100_000, 100_000, len(lines) - 1])
    expected = [None if row % 7 == 6 else f"http://x/{row}" for row in rows.tolist()]
    assert read_urls(file, [], rows).to_pylist() == expected


def test_a_block_of_many_short_lines_is_cut(root: UPath) -> None:
    """Lines so short that a block has more than BATCH_ROWS of them come in several batches."""
    file = _open_tsv(root, b"\n" * (3 * BATCH_ROWS + 5), "0")
    assert [(first, len(found)) for first, found in read_captions(file, [])] == [
        (i * BATCH_ROWS, min(BATCH_ROWS, 3 * BATCH_ROWS + 5 - i * BATCH_ROWS)) for i in range(4)
    ]


def test_gzip_in_several_members(root: UPath) -> None:
    """Compressed files that were put together with `cat` are read to the end."""
    parts = [b"a\thttp://x\nb", b"\thttp://y\n", b"", b"c\thttp://z\n"]
    path = root / "c.tsv.gz"
    _write(root / "x", b"")
    path.write_bytes(b"".join(gzip.compress(part) for part in parts))
    assert _all_captions(open_caption_file(path)) == [b"a", b"b", b"c"]


# URLs


def test_urls_of_rows(root: UPath) -> None:
    """Rows may repeat and lie in any of the row groups; none at all is fine."""
    columns = {"caption": [""] * 10, "url": [None if i == 5 else f"u{i}" for i in range(10)]}
    file = open_caption_file(_parquet(root / "c.parquet", columns, row_group_size=4))
    assert read_urls(file, [0, 1, 2], np.array([0, 3, 3, 5, 9])).to_pylist() == ["u0", "u3", "u3", None, "u9"]
    assert read_urls(file, [1, 2], np.array([4, 8])).to_pylist() == ["u4", "u8"]
    assert read_urls(file, [1], np.array([], np.int64)).type == pa.string()


def test_urls_are_null_where_the_file_has_none(root: UPath) -> None:
    """A file without a column of URLs gives a null for each row."""
    urls = read_urls(open_caption_file(_parquet(root / "c.parquet", {"TEXT": ["a", "b"]})), [0], np.array([0, 1]))
    assert (urls.type, urls.to_pylist()) == (pa.string(), [None, None])


def test_a_row_that_is_not_there_is_an_error(root: UPath) -> None:
    """A file that has become shorter since the rows were counted is not passed over."""
    file = _open_tsv(root, b"a\thttp://x\n")
    with pytest.raises(InvalidInputError, match=r"^no row 1 \(.*c\.tsv\)\. Has the file changed\?"):
        read_urls(file, [], np.array([0, 1]))


# Errors


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.parquet", b"", "not a readable Parquet file: Parquet file size is 0 bytes"),
        ("c.parquet", b"caption,url\n" * 9, "not a readable Parquet file: Parquet magic bytes not found in footer"),
        ("c.csv", b"caption,url\n" * 9, "not a readable Parquet file: Parquet magic bytes not found in footer"),
        ("c.tsv", b"", "an empty file"),
        ("c.tsv.gz", b"", "an empty file"),
        ("c.tsv", b"x" * (LINE_BYTES + 1), "a line is longer than 16 MiB"),
    ],
)
def test_files_that_are_something_else(root: UPath, name: str, content: bytes, message: str) -> None:
    """An empty file and one of another format are refused with the file's name and what is wrong."""
    path = _write(root / name, content)
    with pytest.raises(InvalidInputError) as caught:
        open_caption_file(path)
    assert str(caught.value).startswith(message)
    assert caught.value.where == str(path)
    assert caught.value.fix


@pytest.mark.parametrize("name", ["c.parquet", "c.tsv", "c.tsv.gz"])
def test_a_file_that_is_not_there(root: UPath, name: str) -> None:
    """No file is a missing input, when it is opened and when it has gone before it is read."""
    path = root / name
    with pytest.raises(MissingInputError, match=rf"^no such file \(.*{name}\)\. Check the path\.$"):
        open_caption_file(path)
    if name == "c.parquet":
        file = open_caption_file(_parquet(path, {"caption": ["a"]}))
    else:
        file = open_caption_file(_write(path, b"a\thttp://x"))
    path.unlink()
    with pytest.raises(MissingInputError):
        list(read_captions(file, [0]))


@pytest.mark.parametrize(
    ("columns", "configured", "message"),
    [
        ({"a": ["x"], "b": [1]}, (None, None), "no column is known to hold captions"),
        ({"a": ["x"], "b": [1]}, ("TEXT", None), "no column 'TEXT'"),
        ({"TEXT": [1]}, (None, None), "column 'TEXT' holds int64, not text"),
        ({"a": [["x"]]}, ("a", None), "column 'a' holds list<element: string>, not text"),
        ({"TEXT": ["x"], "b": [1]}, (None, "link"), "no column 'link'"),
        ({"TEXT": ["x"], "b": [1]}, (None, "b"), "column 'b' holds int64, not text"),
    ],
)
def test_columns_that_will_not_do(
    root: UPath, columns: dict[str, Any], configured: tuple[str | None, str | None], message: str
) -> None:
    """The error says what is wrong with which column, which setting to change, and which columns there are."""
    path = _parquet(root / "c.parquet", columns)
    with pytest.raises(InvalidInputError) as caught:
        open_caption_file(path, *configured)
    setting = "url_column" if configured[1] else "caption_column"
    assert str(caught.value).startswith(message)
    assert (caught.value.where, caught.value.fix) == (str(path), f"Set `{setting}`; there are: {', '.join(columns)}.")


@pytest.mark.parametrize(
    ("content", "configured", "message", "columns"),
    [
        (b"a\tb\thttp://x\n", (None, None), "no column is known to hold captions", "0, 1, 2"),
        (b"a\tb\nc\td\n", (None, None), "no column is known to hold captions", "0, 1"),
        (b"a\thttp://x\n", ("caption", None), "no column 'caption'", "0, 1"),
        (b"a\thttp://x\n", ("0", "2"), "no column '2'", "0, 1"),
        (b"title\turl\na\thttp://x\n", (None, None), "no column is known to hold captions", "title, url"),
    ],
)
def test_tsv_columns_that_will_not_do(
    root: UPath, content: bytes, configured: tuple[str | None, str | None], message: str, columns: str
) -> None:
    """The columns of a TSV without a header line go by their numbers in the error too."""
    path = _write(root / "c.tsv", content)
    setting = "url_column" if configured[1] else "caption_column"
    with pytest.raises(InvalidInputError) as caught:
        open_caption_file(path, *configured)
    assert str(caught.value) == f"{message} ({path}). Set `{setting}`; there are: {columns}."


def test_truncated_parquet(root: UPath) -> None:
    """A Parquet file whose end is missing is refused when it is opened, wherever it was cut."""
    whole = _parquet(root / "c.parquet", {"caption": [f"caption {i}" for i in range(1000)]}).read_bytes()
    for size in (1, 4, 11, 12, len(whole) // 2, len(whole) - 9, len(whole) - 1):
        with pytest.raises(InvalidInputError, match=r"^not a readable Parquet file: .*c\.parquet"):
            open_caption_file(_write(root / "c.parquet", whole[:size]))


def test_a_column_name_that_is_not_utf8(root: UPath) -> None:
    """Damage to the names in the footer is a damaged file like any other."""
    whole = _parquet(root / "c.parquet", {"caption": ["a"]}, store_schema=False).read_bytes()
    with pytest.raises(InvalidInputError, match=r"^not a readable Parquet file: 'utf-8' codec can't decode"):
        open_caption_file(_write(root / "c.parquet", whole.replace(b"caption", b"\xffaption")))


@pytest.mark.parametrize(
    ("options", "damage"),
    [({"compression": "snappy"}, b"\xff" * 40), ({"compression": "none", "write_page_checksum": True}, b"\0")],
    ids=["garbled", "checksum"],
)
def test_a_damaged_page(root: UPath, options: dict[str, Any], damage: bytes) -> None:
    """The batches before a damaged page come first, then the error; rows before the damage still have their URLs."""
    generator = random.Random(1)
    texts = [f"{generator.random()} {i}" for i in range(4 * BATCH_ROWS)]
    path = _parquet(root / "c.parquet", {"caption": texts, "url": texts}, use_dictionary=False, **options)
    whole = bytearray(path.read_bytes())
    for quarter in (1, 3):  # the middle of the first column, and of the second
        middle = whole.index(b"0.", len(whole) * quarter // 4)
        whole[middle : middle + len(damage)] = damage
    file = open_caption_file(_write(path, bytes(whole)))
    batches, found = read_captions(file, [0]), 0
    with pytest.raises(InvalidInputError, match=r"^not a readable Parquet file: .*c\.parquet\)\. Fetch it again\.$"):  # noqa: PT012 - what comes before the error counts
        for first, captions in batches:
            assert captions.to_pylist() == texts[first : first + len(captions)]
            found += len(captions)
    assert BATCH_ROWS <= found <= 2 * BATCH_ROWS
    assert read_urls(file, [0], np.array([0, 7])).to_pylist() == [texts[0], texts[7]]
    with pytest.raises(InvalidInputError):
        read_urls(file, [0], np.array([0, len(texts) - 1]))


def test_row_groups_without_a_wanted_row_are_not_read(root: UPath) -> None:
    """URLs come from the row groups that hold them, though one before these is damaged."""
    path = _parquet(root / "c.parquet", {"caption": list("abcd"), "url": list("wxyz")}, row_group_size=2)
    whole = bytearray(path.read_bytes())
    second = pq.read_metadata(io.BytesIO(whole)).row_group(1).column(0).dictionary_page_offset
    whole[4:second] = bytes(second - 4)
    file = open_caption_file(_write(path, bytes(whole)))
    assert read_urls(file, [0, 1], np.array([2, 3])).to_pylist() == ["y", "z"]
    with pytest.raises(InvalidInputError):
        read_urls(file, [0, 1], np.array([0]))


def test_a_row_group_with_too_few_rows(root: UPath) -> None:
    """A file that was replaced by a shorter one after it was opened does not end early without a word."""
    file = open_caption_file(_parquet(root / "c.parquet", {"caption": ["a", "b", "c"]}))
    _parquet(root / "c.parquet", {"caption": ["a", "b"]})
    with pytest.raises(InvalidInputError, match=r"^row group 0 lacks 1 of its 3 rows"):
        list(read_captions(file, [0]))


def test_compressed_tsv_cut_short(root: UPath) -> None:
    """The lines before the cut come first, then the error; a file cut in its first block is not even opened."""
    generator = random.Random(1)
    captions = [b"%r" % generator.random() for _ in range(200_000)]
    packed = gzip.compress(b"".join(caption + b"\thttp://x\n" for caption in captions))
    path = root / "c.tsv.gz"
    _write(root / "x", b"")
    path.write_bytes(packed[: len(packed) // 2])
    file, found = open_caption_file(path), []
    with pytest.raises(InvalidInputError, match=r"^not a readable TSV file: .*c\.tsv\.gz\)\. Fetch it again\.$"):  # noqa: PT012 - what comes before the error counts
        for _, batch in read_captions(file, []):
            found += batch.cast(pa.binary()).to_pylist()
    assert found == captions[: len(found)]
    assert 60_000 < len(found) < 120_000
    for content in (packed[:5], packed[:1000], b"a\thttp://x\n"):
        path.write_bytes(content)
        with pytest.raises(InvalidInputError, match=r"^not a readable TSV file: "):
            open_caption_file(path)


# Memory


@pytest.mark.parametrize("name", ["c.parquet", "c.tsv"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, name: str) -> None:
    """Columns of 200 MB in one row group, and a TSV of 400 MB, are never in memory as a whole."""
    rows, caption, url = 2_000_000, "a caption " * 10, "http://x/".ljust(100, "y")
    path = tmp_path / name
    if name == "c.tsv":
        with path.open("wb") as file:
            for _ in range(rows // 1000):
                file.write(f"{caption}\t{url}\n".encode() * 1000)
    else:
        options = {"use_dictionary": False, "row_group_size": rows, "compression": "none"}
        pq.write_table(pa.table({"TEXT": pa.repeat(caption, rows), "URL": pa.repeat(url, rows)}), path, **options)
    done = subprocess.run([sys.executable, "-c", PEAK, str(path)], check=True, capture_output=True, text=True)
    found, growth = map(int, done.stdout.split())
    assert found == rows
    assert growth < 180  # 50 of it for loading pyarrow.compute; a whole column would make it 320
