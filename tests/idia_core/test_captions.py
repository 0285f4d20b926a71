"""Finding names in captions: against pandas and `re`, on every kind of column, and the counts."""

import re
import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idia_core.captions import (
    BINS,
    MATCHES,
    OCCURRENCES,
    CaptionStatus,
    NameMatcher,
    ambiguous_names,
    count_matches,
    merge_counts,
)
from idia_core.errors import DuplicateNameError, InvalidInputError
from idia_core.names import name_key

STATUSES = [CaptionStatus.SEARCHED, CaptionStatus.NULL_CAPTION, CaptionStatus.NOT_UTF8]

COLUMNS: dict[str, Callable[[list[str | None]], pa.Array | pa.ChunkedArray]] = {
    "string": lambda texts: pa.array(texts, pa.string()),
    "large_string": lambda texts: pa.array(texts, pa.large_string()),
    "binary": lambda texts: pa.array(texts, pa.string()).cast(pa.binary()),
    "large_binary": lambda texts: pa.array(texts, pa.string()).cast(pa.large_binary()),
    "string_view": lambda texts: pa.array(texts, pa.string_view()),
    "dictionary": lambda texts: pa.array(texts, pa.string()).dictionary_encode(),
    "sliced": lambda texts: pa.array(["Jon Hamm", *texts, "Jon Hamm"], pa.string()).slice(1, len(texts)),
    "chunked": lambda texts: pa.chunked_array([texts[:1], [], texts[1:3], texts[3:]], pa.string()),
    "chunked slice": lambda texts: pa.chunked_array([["x", *texts[:2]], texts[2:]], pa.string()).slice(1),
}

PIECES = [
    "J",
    "o",
    "Jon",
    "Hamm",
    " ",
    "B",
    ".",
    "é",
    "e\u0301",
    "ß",
    "日本",
    "😀",
    "\u200f",
    "שלום",
    "مر",
    "_",
    "-",
    "'",
    "7",
]
ODD = ["\n", "\0", "\t", "\u00a0", "+", "*", "?", "(", ")", "[", "]", "{", "}", "|", "^", "$", "\\", "\\w"]


def _is_pattern(name: str) -> bool:
    with warnings.catch_warnings(action="ignore"):
        try:
            re.compile(name)
        except re.error:
            return False
    return bool(name_key(name))


def _texts(pieces: list[str], longest: int) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(pieces), max_size=longest).map("".join)


NAMES = st.lists(
    st.one_of(_texts(PIECES, 4), _texts(PIECES + ODD, 4)).filter(_is_pattern),
    min_size=1,
    max_size=5,
    unique_by=name_key,
)


@st.composite
def _names_and_captions(draw: st.DrawFn) -> tuple[list[str], list[str | None]]:
    """Names of awkward pieces, and captions in which they stand beside more of the same."""
    names = draw(NAMES)
    captions = st.one_of(st.none(), _texts(PIECES + ODD + 4 * names, 8), st.text(max_size=12))
    return names, draw(st.lists(captions, max_size=12))


def _expected(names: list[str], captions: list[str | None]) -> list[tuple[int, str, bool, bool, int]]:
    """Row, name, both rules and start of every match, by pandas and `re`, one name at a time."""
    series = pd.Series(captions, dtype=object)
    found = []
    for name in names:
        paper = series.str.contains(name, na=False) if len(series) else series
        for row, caption in enumerate(captions):
            strict = caption is not None and re.search(rf"(?<!\w){re.escape(name)}(?!\w)", caption)
            if caption is not None and (strict or paper[row]):
                first = strict or re.search(name, caption)
                found.append((row, name, bool(paper[row]), bool(strict), first.start()))
    return sorted(found, key=lambda match: (match[0], names.index(match[1])))


def _found(matches: pa.Table) -> list[tuple[int, str, bool, bool, int]]:
    return [tuple(row.values()) for row in matches.select(["row", "name", "paper", "strict", "start"]).to_pylist()]


@pytest.mark.filterwarnings("ignore:Possible:FutureWarning", "ignore:This pattern:UserWarning")
@settings(max_examples=250, deadline=None)
@given(case=_names_and_captions(), column=st.sampled_from(sorted(COLUMNS)))
def test_scan_equals_pandas(case: tuple[list[str], list[str | None]], column: str) -> None:
    """On awkward names and captions in any kind of column the matches are those of pandas and of `re`, row by row."""
    names, captions = case
    result = NameMatcher(names).scan(COLUMNS[column](captions))
    assert _found(result.matches) == _expected(names, captions)
    assert result.captions[CaptionStatus.NULL_CAPTION] == captions.count(None)
    assert result.captions.total() == len(captions)


@settings(max_examples=300, deadline=None)
@given(left=st.text(max_size=3), right=st.text(max_size=3))
def test_word_boundaries_are_those_of_re(left: str, right: str) -> None:
    """Whatever characters stand beside a name, the strict rule is Python's word boundary."""
    caption = f"{left}Jon Hamm{right}"
    (match,) = NameMatcher(["Jon Hamm"]).scan(pa.array([caption])).matches.to_pylist()
    assert match["strict"] == (re.search(r"(?<!\w)Jon Hamm(?!\w)", caption) is not None)
    assert match["start"] == len(left)


CASES = {
    "alone": ("Jon Hamm", "Jon Hamm", True, True),
    "in a sentence": ("Jon Hamm", "a photo of Jon Hamm, actor", True, True),
    "longer surname": ("Jon Hamm", "Jon Hammond", True, False),
    "glued": ("Jon Hamm", "xJon Hamm", True, False),
    "underscore": ("Jon Hamm", "Jon Hamm_1.jpg", True, False),
    "digit": ("Jon Hamm", "Jon Hamm2", True, False),
    "possessive": ("Jon Hamm", "Jon Hamm's dog", True, True),
    "curly quotes": ("Jon Hamm", "“Jon Hamm”", True, True),
    "between ideographs": ("Jon Hamm", "日Jon Hamm本", True, False),
    "between emoji": ("Jon Hamm", "😀Jon Hamm😀", True, True),
    "first long, then exact": ("Jon Hamm", "Jon Hammond met Jon Hamm", True, True),
    "lower case": ("Jon Hamm", "jon hamm", False, False),
    "another surname": ("Jon Hamm", "Jon Snow and Mia Hamm", False, False),
    "over a line end": ("Jon Hamm", "Jon\nHamm", False, False),
    "dot": ("Johannes B. Kerner", "Johannes B. Kerner", True, True),
    "dot as a wildcard": ("Johannes B. Kerner", "Johannes Bo Kerner", True, False),
    "dot as an emoji": ("Johannes B. Kerner", "Johannes B😀 Kerner", True, False),
    "dot is not a line end": ("Johannes B. Kerner", "Johannes B\n Kerner", False, False),
    "dot is one character": ("Johannes B. Kerner", "Johannes B Kerner", False, False),
    "dot at the end": ("Sammy Davis Jr.", "Sammy Davis Jr.", True, True),
    "dot at the end, none there": ("Sammy Davis Jr.", "Sammy Davis Jr", False, False),
    "dots alone": ("...", "ab", False, False),
    "plus is a repetition": ("Anna+", "Ann Annaa", True, False),
    "literal that the pattern misses": ("Jon (Hamm)", "Jon (Hamm)", False, True),
    "pattern that the literal misses": ("Jon (Hamm)", "Jon Hamm", True, False),
    "composed in decomposed": ("René", "Rene\u0301", False, False),
    "NUL": ("Jon Hamm", "\0Jon Hamm\0", True, True),
    "right to left": ("דוד לוי", "תמונה של דוד לוי", True, True),
    "right to left, glued": ("דוד לוי", "ודוד לוי", True, False),
}


@pytest.mark.parametrize(("name", "caption", "paper", "strict"), CASES.values(), ids=CASES)
def test_rules(name: str, caption: str, paper: bool, strict: bool) -> None:
    """The paper's rule is a case-sensitive pattern anywhere, the strict rule the exact name between word boundaries."""
    matches = NameMatcher([name]).scan(pa.array([caption])).matches.to_pylist()
    assert [(match["paper"], match["strict"]) for match in matches] == ([(paper, strict)] if paper or strict else [])


def test_start_is_the_strict_hit_in_characters() -> None:
    """The position is that of the first strict hit, else of the first hit, in characters and not in bytes."""
    captions = ["é日😀 Jon Hammond, Jon Hamm, Jon Hamm", "日Jon Hamm xJon Hamm"]
    matches = NameMatcher(["Jon Hamm"]).scan(pa.array(captions)).matches
    assert matches["start"].to_pylist() == [17, 1]


def test_a_match_carries_where_it_was_found() -> None:
    """Source, row within it, caption and URL stand beside each match, in the table's fixed schema."""
    captions = pa.chunked_array([["Zoë Ball", "nobody"], ["Jon Hamm with Zoë Ball"]])
    urls = pa.chunked_array([["http://a.example"], ["http://b.example", None]])
    matches = NameMatcher(["Zoë Ball", "Jon Hamm"]).scan(captions, urls, source="part-3", first_row=1000).matches
    assert matches.schema == MATCHES
    common = {"source": "part-3", "variant": "exact", "paper": True, "strict": True}
    third = {"row": 1002, "caption": "Jon Hamm with Zoë Ball", "url": None}
    assert matches.to_pylist() == [
        dict(common, row=1000, name="Zoë Ball", start=0, caption="Zoë Ball", url="http://a.example"),
        dict(common, name="Zoë Ball", start=14, **third),
        dict(common, name="Jon Hamm", start=0, **third),
    ]


def test_neighbouring_captions_do_not_join() -> None:
    """A name that begins in one caption and ends in the next, or stands under a null, is not found."""
    assert NameMatcher(["Jon Hamm"]).scan(pa.array(["Jon Ha", "mm", "", "Jon", " Hamm"])).matches.num_rows == 0
    mask = pa.py_buffer(bytes([0b101]))
    _, offsets, data = pa.array(["x", "Jon Hamm", "y"]).buffers()
    hidden = pa.StringArray.from_buffers(3, offsets, data, mask)
    result = NameMatcher(["Jon Hamm"]).scan(hidden)
    assert result.matches.num_rows == 0
    assert [result.captions[status] for status in STATUSES] == [2, 1, 0]


@pytest.mark.parametrize("type_", [pa.string(), pa.binary(), pa.large_string(), pa.large_binary()], ids=str)
def test_captions_that_are_not_utf8_are_counted(type_: pa.DataType) -> None:
    """Bytes that are not UTF-8 are counted and not searched; the captions around them are."""
    blobs = [b"Jon Hamm", b"Jon Hamm \xff", None, b"\xed\xa0\x80", "Zoë Jon Hamm".encode(), b"Jon Hamm caf\xc3"]
    captions = pa.array(blobs, pa.binary()).cast(type_, safe=False)
    result = NameMatcher(["Jon Hamm", "J[o]n"]).scan(captions)
    assert sorted(set(result.matches["row"].to_pylist())) == [0, 4]
    assert [result.captions[status] for status in STATUSES] == [2, 1, 3]


def test_a_url_that_is_not_utf8_is_kept_readable() -> None:
    """A broken URL does not stop the scan."""
    urls = pa.array([b"http://a.example/\xff"]).cast(pa.string(), safe=False)
    matches = NameMatcher(["Jon Hamm"]).scan(pa.array(["Jon Hamm"]), urls).matches
    assert matches["url"].to_pylist() == ["http://a.example/\ufffd"]


@pytest.mark.parametrize(
    "captions",
    [
        pa.array([], pa.string()),
        pa.chunked_array([], pa.string()),
        pa.array(["", ""]),
        pa.nulls(2),
        pa.nulls(2, pa.string()),
    ],
    ids=["empty", "no chunk", "empty strings", "null type", "all null"],
)
def test_columns_without_text(captions: pa.Array) -> None:
    """Nothing to search gives no match, and every row is counted."""
    result = NameMatcher(["Jon Hamm"]).scan(captions)
    assert result.matches.schema == MATCHES
    assert result.matches.num_rows == 0
    assert result.captions.total() == len(captions)
    assert result.captions[CaptionStatus.NULL_CAPTION] == captions.null_count


def test_long_captions_and_many_blocks() -> None:
    """Captions of a megabyte each are searched to their ends, over several blocks, with the right rows and places."""
    filler = "ä" * 500_000
    captions = [filler + "Jon Hamm" if i % 2 else "Jon Hamm " + filler for i in range(9)]
    matches = NameMatcher(["Jon Hamm"]).scan(pa.array(captions), first_row=50).matches
    assert matches["row"].to_pylist() == list(range(50, 59))
    assert matches["start"].to_pylist() == [500_000 if i % 2 else 0 for i in range(9)]
    assert matches["strict"].to_pylist() == [i % 2 == 0 for i in range(9)]


def test_many_names_are_found_as_few_are() -> None:
    """With thousands of names, where the automaton is of another kind, each is still found in its caption."""
    names = [f"First{i} Last{i}" for i in range(5000)]
    matches = NameMatcher(names).scan(pa.array([f"a photo of {name}." for name in names])).matches
    strict = matches.filter(matches["strict"])
    assert strict["name"].to_pylist() == names
    assert strict["row"].to_pylist() == list(range(5000))


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        (["Jon Hamm", "Jon (Hamm"], InvalidInputError, r"'Jon \(Hamm' is not a valid regular expression.*Take the"),
        (["Jon Hamm", " "], InvalidInputError, "blank"),
        (["Jon Hamm", "JON  HAMM"], DuplicateNameError, "same name"),
        ([], InvalidInputError, "no name"),
        (["Jon \ud800+"], InvalidInputError, "not valid Unicode"),
    ],
    ids=["open bracket", "blank", "twice", "none", "surrogate"],
)
def test_bad_names_are_errors(names: list[str], error: type[Exception], message: str) -> None:
    """A name list that cannot be searched is a typed error that says what is wrong."""
    with pytest.raises(error, match=message):
        NameMatcher(names)


def test_a_column_that_is_not_text_is_an_error() -> None:
    """Numbers in the place of captions are an error that names their type."""
    with pytest.raises(InvalidInputError, match="int64 is not text"):
        NameMatcher(["Jon Hamm"]).scan(pa.array([1, 2]))


def test_counts_of_splits_sum_to_the_whole() -> None:
    """Splits counted apart and merged give the counts of one scan, with a row for the name that nobody wrote."""
    names = ["Jon Hamm", "Jon Hammond", "Zoë Ball", "Sting"]
    captions = ["Jon Hammond"] * 26 + ["Jon Hamm"] * 4 + ["Stingray", "Sting"]
    matcher = NameMatcher(names)
    splits = [matcher.scan(pa.array(captions[i : i + 7]), first_row=i).matches for i in range(0, len(captions), 7)]
    merged = merge_counts((count_matches(split, names) for split in splits), names)
    assert merged.schema == OCCURRENCES
    assert merged == merge_counts([count_matches(matcher.scan(pa.array(captions)).matches, names)], names)
    assert [tuple(row.values()) for row in merged.to_pylist()] == [
        ("Jon Hamm", 30, 4, True, "26-50"),
        ("Jon Hammond", 26, 26, False, "26-50"),
        ("Zoë Ball", 0, 0, False, "0"),
        ("Sting", 2, 1, True, "1-25"),
    ]


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        *[(0, "0"), (1, "1-25"), (25, "1-25"), (26, "26-50"), (275, "251-275"), (276, "276-300"), (300, "276-300")],
        *[(301, ">300"), (10**12, ">300")],
    ],
)
def test_bins_are_the_papers(count: int, expected: str) -> None:
    """Bins are 25 wide up to 300, with one for none and one for more."""
    counts = pa.table({"name": ["Jon Hamm"], "count_paper": [count], "count_strict": [0]})
    assert merge_counts([counts], ["Jon Hamm"])["bin"].to_pylist() == [expected]
    assert len(BINS) == 14


def test_counts_of_other_names_are_refused() -> None:
    """Summing counts that belong to another list of names would be silently wrong, so it is an error."""
    counts = count_matches(MATCHES.empty_table(), ["Jon Hamm"])
    with pytest.raises(InvalidInputError, match="other names"):
        merge_counts([counts], ["Zoë Ball"])


def test_ambiguous_names() -> None:
    """A name inside another one, or of a single word, may stand for somebody else."""
    names = ["Jon Hamm", "Jon Hammond", "Sting", "Zoë Ball", "Jo. Hamm"]
    assert np.flatnonzero(ambiguous_names(names)).tolist() == [0, 2, 4]
