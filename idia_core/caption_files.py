"""Caption collections as they are published: Parquet of any columns and TSV, read in batches of bounded size.

A file whose name ends with `.tsv` or `.tsv.gz` is TSV: fields between tabs, lines between newlines, nothing quoted, so
that a `"` is a character like any other. Its lines are cut here because `pyarrow.csv` ends a line at a lone carriage
return and gives up on a line that has too few or too many fields. Every other file is Parquet.
"""

import enum
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from idia_core.errors import InvalidInputError, MissingInputError
from idia_core.storage import is_local
from idia_core.text_columns import readable

PATTERNS = ("*.parquet", "*.tsv", "*.tsv.gz")
"""Which files of a folder are caption files."""
CAPTION_NAMES = ("TEXT", "caption", "text", "CAPTION")
URL_NAMES = ("URL", "url", "image_url")
"""The columns taken where none is configured: the first of these that a file has."""

BATCH_ROWS = 16_384  # about a megabyte of captions, which a core keeps close at hand
BATCH_BYTES = 32 << 20  # of a Parquet batch if its rows, all columns of them, were of the average size
BLOCK_BYTES = 1 << 20  # read at once
LINE_BYTES = 16 << 20  # a longer "line" is no TSV, and would not fit in memory
SAMPLE_LINES = 100
TAB, NEWLINE, RETURN = b"\t\n\r"

Batches = Generator[tuple[int, pa.Array], None, None]
"""Values with the number of the first one's row."""
Names = Sequence[str]
Wanted = tuple[str | None, str | None]
"""The configured columns of captions and of URLs."""


class Edition(enum.StrEnum):
    """Which collection a file's columns are those of; collections with the same columns share a value."""

    LAION_400M = "laion-400m"
    """Has SAMPLE_ID, URL, TEXT, LICENSE and NSFW, and no LANGUAGE; the first release of laion2B-en has the same."""
    LAION_5B = "laion-5b"
    """As LAION-400M with LANGUAGE (the first laion2B-multi and laion1B-nolang), or URL, TEXT, punsafe, pwatermark."""
    RELAION = "relaion"
    """Has url and caption, and key or hash, but not the status that img2dataset adds."""
    CC3M = "cc3m"
    """A TSV of captions, then URLs; without a header line, or with the header line 'caption url'."""
    CC12M = "cc12m"
    """A TSV of URLs, then captions; without a header line, or with the header line 'url caption'."""
    IMG2DATASET = "img2dataset"
    """Has key, status and error_message, which img2dataset writes beside whatever it was told to keep."""
    OTHER = "other"


ORDERS: dict[tuple[str, ...], Edition] = {("caption", "url"): Edition.CC3M, ("url", "caption"): Edition.CC12M}
"""The editions of TSVs by what their columns hold."""


@dataclass(frozen=True)
class CaptionFile:
    """A file that can be read: where its captions and URLs are, and how many rows its row groups have."""

    path: UPath
    edition: Edition
    caption_column: str
    url_column: str | None
    groups: tuple[int, ...]
    """Rows of each row group; none for TSV, which has to be read to the end to know."""
    columns: tuple[str, ...]
    """All columns in order; "0", "1", ... where a TSV does not name them."""
    header: bool = False
    """True for a TSV whose first line names the columns and is no row."""


def open_caption_file(path: UPath, caption_column: str | None = None, url_column: str | None = None) -> CaptionFile:
    """What the footer or the first lines of a file say; a column not configured is recognised.

    In a TSV without a header line the URLs are in the column where most of the first lines begin with http:// or
    https://, and the captions in the other one of two.

    Raises `MissingInputError` when there is no file, and `InvalidInputError` when it cannot be read, lacks a configured
    column, has no column that is known to hold captions, or holds something else than text in one of the two.
    """
    return (_open_tsv if _is_tsv(path) else _open_parquet)(path, (caption_column, url_column))


def read_captions(file: CaptionFile, groups: Sequence[int]) -> Iterator[tuple[int, pa.Array]]:
    """The captions of those row groups, or of a whole TSV, in batches of at most BATCH_ROWS with their first row.

    Rows are counted from the file's beginning. Values keep the type they are stored with and may not be UTF-8; a field
    that a line of a TSV does not have is null. Raises `InvalidInputError` on reaching a part that is damaged.
    """
    return _read_column(file, file.caption_column, groups)


def read_urls(file: CaptionFile, groups: Sequence[int], rows: npt.NDArray[np.int64]) -> pa.Array:
    """The URLs (strings, U+FFFD where not UTF-8) of ascending rows of those row groups; nulls if the file has none.

    Reading ends with the last of the rows. Raises `InvalidInputError` when one is not there.
    """
    if file.url_column is None or not len(rows):
        return pa.nulls(len(rows), pa.string())
    ends = np.cumsum((0, *file.groups))
    wanted = [g for g in groups if _is_tsv(file.path) or np.diff(np.searchsorted(rows, ends[g : g + 2]))]
    found: list[str | None] = []
    with closing(_read_column(file, file.url_column, wanted)) as batches:
        for first, values in batches:
            end = np.searchsorted(rows, first + len(values))
            texts = values.dictionary_decode() if pa.types.is_dictionary(values.type) else values
            texts = texts.cast(pa.large_binary())  # `take` knows no string_view
            found += readable(texts.take(pa.array(rows[len(found) : end] - first)))
            if end == len(rows):
                return pa.array(found, pa.string())
    raise InvalidInputError(f"no row {rows[len(found)]}", str(file.path), "Has the file changed? Run again.")


def _is_tsv(path: UPath) -> bool:
    return path.name.endswith((".tsv", ".tsv.gz"))


def _read_column(file: CaptionFile, column: str, groups: Sequence[int]) -> Batches:
    return _read_tsv(file, column) if _is_tsv(file.path) else _read_parquet(file, column, groups)


@contextmanager
def _reading(path: UPath, kind: str) -> Iterator[None]:
    """Turns what the file system and Arrow say about a file into a typed error that names it."""
    try:
        yield
    except FileNotFoundError:
        raise MissingInputError("no such file", str(path), "Check the path.") from None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).partition("\n")[0]
        raise InvalidInputError(f"not a readable {kind} file: {reason}", str(path), "Fetch it again.") from None


def _unusable(what: str, path: UPath, role: str, columns: Names) -> InvalidInputError:
    return InvalidInputError(what, str(path), f"Set `{role}_column`; there are: {', '.join(columns)}.")


def _choose(path: UPath, columns: Names, wanted: Wanted, known: tuple[Names, Names]) -> tuple[str, str | None]:
    """The column of captions and that of URLs: the configured one, which must be there, or the first known one."""
    found: list[str | None] = []
    for role, name, names in zip(("caption", "url"), wanted, known, strict=True):
        if name is not None and name not in columns:
            raise _unusable(f"no column '{name}'", path, role, columns)
        found.append(next((other for other in names if other in columns), None) if name is None else name)
    caption, url = found
    if caption is None:
        raise _unusable("no column is known to hold captions", path, "caption", columns)
    return caption, url


# Parquet


@contextmanager
def _parquet(path: UPath) -> Iterator[pq.ParquetFile]:
    """The file, read a little at a time: neither a row group nor a column of one is ever in memory as a whole."""
    options: dict[str, Any] = {"pre_buffer": False, "buffer_size": BLOCK_BYTES, "page_checksum_verification": True}
    options["filesystem"] = None if is_local(path) else path.fs  # Arrow's own reads local files faster
    with _reading(path, "Parquet"), pq.ParquetFile(path.path, **options) as parquet:
        yield parquet


def _open_parquet(path: UPath, wanted: Wanted) -> CaptionFile:
    with _parquet(path) as parquet:
        schema, metadata = parquet.schema_arrow, parquet.metadata
        groups = tuple(metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))
    columns = tuple(schema.names)
    caption, url = _choose(path, columns, wanted, (CAPTION_NAMES, URL_NAMES))
    for role, column in (("caption", caption), ("url", url)):
        kind = None if column is None else schema.field(columns.index(column)).type
        if kind is not None and not _is_text(kind):
            raise _unusable(f"column '{column}' holds {kind}, not text", path, role, columns)
    return CaptionFile(path, _edition(set(columns)), caption, url, groups, columns)


def _is_text(kind: pa.DataType) -> bool:
    """True for what `idia_core.text_columns` reads; a column of nothing but nulls is text too."""
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    texts = (pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view())
    return kind in (*texts, pa.null())


def _edition(names: set[str]) -> Edition:
    """The edition of a Parquet file."""
    if names >= {"key", "status", "error_message"}:
        return Edition.IMG2DATASET
    if names >= {"SAMPLE_ID", "URL", "TEXT", "LICENSE", "NSFW"}:
        return Edition.LAION_5B if "LANGUAGE" in names else Edition.LAION_400M
    if names >= {"URL", "TEXT", "punsafe", "pwatermark"}:
        return Edition.LAION_5B
    relaion = names >= {"url", "caption"} and names & {"key", "hash"} and "status" not in names
    return Edition.RELAION if relaion else Edition.OTHER


def _read_parquet(file: CaptionFile, column: str, groups: Sequence[int]) -> Batches:
    with _parquet(file.path) as parquet:
        for group in groups:
            first = sum(file.groups[:group])
            end, footer = first + file.groups[group], parquet.metadata.row_group(group)
            rows = footer.num_rows * BATCH_BYTES // max(1, footer.total_byte_size)
            options = {"row_groups": [group], "columns": [column], "use_threads": False}
            for batch in parquet.iter_batches(max(1, min(BATCH_ROWS, rows)), **options):
                yield first, batch.column(0)
                first += batch.num_rows
            if first != end:  # damage can pass for an early end
                what = f"row group {group} lacks {end - first} of its {file.groups[group]} rows"
                raise InvalidInputError(what, str(file.path), "Fetch it again.")


# TSV


def _open_tsv(path: UPath, wanted: Wanted) -> CaptionFile:
    with closing(_lines(path)) as blocks:
        sample = b"".join(islice(blocks, 2)).split(b"\n", SAMPLE_LINES)[:-1]  # a short file's last line may be a block
    if not sample:
        raise InvalidInputError("an empty file", str(path), "Fetch it again.")
    rows = [line.removesuffix(b"\r").split(b"\t") for line in sample]
    columns = tuple(name.decode("utf-8-sig", errors="replace") for name in rows[0])
    names = {*CAPTION_NAMES, *URL_NAMES, *wanted} - {"0", "1"}
    if names.isdisjoint(columns) or any(map(_is_url, rows[0])):
        return _open_nameless(path, rows, wanted)
    caption, url = _choose(path, columns, wanted, (CAPTION_NAMES, URL_NAMES))
    return CaptionFile(path, ORDERS.get(columns, Edition.OTHER), caption, url, (), columns, header=True)


def _open_nameless(path: UPath, rows: list[list[bytes]], wanted: Wanted) -> CaptionFile:
    """A TSV without a header line, as wide as most of its first rows."""
    columns = tuple(str(index) for index in range(Counter(map(len, rows)).most_common(1)[0][0]))
    urls = _url_columns(rows) if wanted[1] is None else [wanted[1]]
    others = [column for column in columns if column not in urls[:1]]
    captions = others if urls and len(others) == 1 else []
    caption, url = _choose(path, columns, wanted, (captions, urls))
    order = tuple({caption: "caption", url: "url"}.get(column, "") for column in columns)
    return CaptionFile(path, ORDERS.get(order, Edition.OTHER), caption, url, (), columns)


def _is_url(field: bytes) -> bool:
    return field.startswith((b"http://", b"https://"))


def _url_columns(rows: list[list[bytes]]) -> list[str]:
    """The columns where more than half of the rows have a URL, the surest first."""
    urls = Counter(index for row in rows for index, field in enumerate(row) if _is_url(field))
    return [str(index) for index, count in urls.most_common() if 2 * count > len(rows)]


def _lines(path: UPath) -> Generator[bytes, None, None]:
    """The file's text in blocks of whole lines; the last line ends with a newline too."""
    parts: list[bytes] = []
    with _reading(path, "TSV"), path.fs.open(path.path, "rb") as raw:
        packed = path.name.endswith(".gz")
        with pa.CompressedInputStream(pa.PythonFile(raw, "r"), "gzip") if packed else closing(raw) as file:
            while block := file.read(BLOCK_BYTES):
                end = block.rfind(b"\n") + 1
                if end:
                    yield b"".join((*parts, block[:end]))
                    parts = []
                parts.append(block[end:])
                if sum(map(len, parts)) > LINE_BYTES:
                    what = f"a line is longer than {LINE_BYTES >> 20} MiB"
                    raise InvalidInputError(what, str(path), "Is it a TSV?")
    if any(parts):
        yield b"".join((*parts, b"\n"))


def _read_tsv(file: CaptionFile, column: str) -> Batches:
    position, first = file.columns.index(column), -1 if file.header else 0
    for lines in _lines(file.path):
        fields = _fields(lines, position)
        if first < 0:
            fields, first = fields[1:], 0
        for begin in range(0, len(fields), BATCH_ROWS):
            yield first + begin, fields[begin : begin + BATCH_ROWS]
        first += len(fields)


def _fields(lines: bytes, position: int) -> pa.Array:
    """The field at a position of each line, null where the line has fewer."""
    data = np.frombuffer(lines, np.uint8)
    stops = np.flatnonzero((data == TAB) | (data == NEWLINE))
    lasts = np.flatnonzero(data[stops] == NEWLINE)  # which fields end a line
    bounds = np.zeros(2 * len(stops) + 1, np.int32)  # every field, then what parts it from the next one
    bounds[1::2] = stops
    bounds[2::2] = stops + 1
    ends = stops[lasts]
    bounds[2 * lasts + 1] -= data[ends - 1] == RETURN  # before the first byte comes the last, a newline: no harm
    wanted = np.concatenate(([0], lasts[:-1] + 1)) + position
    missing = wanted > lasts
    pieces = pa.StringArray.from_buffers(len(bounds) - 1, pa.py_buffer(bounds), pa.py_buffer(lines))
    return pieces.take(pa.array(np.where(missing, 0, 2 * wanted), mask=missing))
