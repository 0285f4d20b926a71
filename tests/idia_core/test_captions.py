"""Finding names in captions: against pandas and `re`, on every kind of column, and the counts."""

import re
import warnings
from collections import Counter
from collections.abc import Callable
from itertools import chain, pairwise, product
from random import Random

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from idia_core.captions import MATCHES, CaptionStatus, NameMatcher
from idia_core.errors import DuplicateNameError, InvalidInputError
from idia_core.names import name_key
from idia_core.spellings import JOINING, strict_pattern
from idia_core.text_columns import BLOCK_BYTES
from idia_core.variants import variant

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


def _is_searchable(name: str) -> bool:
    with warnings.catch_warnings(action="ignore"):
        try:
            re.compile(name)
        except re.error:
            return False
    key = name_key(name)
    return len(key) > 1 or not key.isascii()


def _texts(pieces: list[str], longest: int) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(pieces), max_size=longest).map("".join)


EXAMPLES, CAPTIONS = 420, 25  # more than 10,000 captions in all
NAMES = st.lists(
    st.one_of(_texts(PIECES, 4), _texts(PIECES + ODD, 4)).filter(_is_searchable),
    min_size=1,
    max_size=5,
    unique_by=name_key,
)


@st.composite
def _names_and_captions(draw: st.DrawFn) -> tuple[list[str], list[str | None]]:
    """Names of awkward pieces, and captions in which they stand beside more of the same, with nulls between."""
    names = draw(NAMES)
    texts = st.one_of(_texts(PIECES + ODD + 4 * names, 8), _texts(PIECES + ODD + 4 * names, 8), st.text(max_size=12))
    captions: list[str | None] = [*draw(st.lists(texts, min_size=CAPTIONS, max_size=CAPTIONS))]
    for place in draw(st.lists(st.integers(0, CAPTIONS), max_size=3)):
        captions.insert(place, None)
    return names, captions


def _expected(names: list[str], captions: list[str | None]) -> list[tuple[int, str, bool, bool, int]]:
    """Row, name, both rules and start of every match, by pandas and `re`, one name at a time."""
    series = pd.Series(captions, dtype=object)
    found = []
    for name in names:
        paper = series.str.contains(name, na=False) if len(series) else series
        for row, caption in enumerate(captions):
            strict = caption is not None and strict_pattern([name]).search(caption)
            if caption is not None and (strict or paper[row]):
                first = strict or re.search(name, caption)
                found.append((row, name, bool(paper[row]), bool(strict), first.start()))
    return sorted(found, key=lambda match: (match[0], names.index(match[1])))


def _found(matches: pa.Table) -> list[tuple[int, str, bool, bool, int]]:
    return [tuple(row.values()) for row in matches.select(["row", "name", "paper", "strict", "start"]).to_pylist()]


@pytest.mark.filterwarnings("ignore:Possible:FutureWarning", "ignore:This pattern:UserWarning")
def test_scan_equals_pandas() -> None:
    """On 10,000 awkward captions in any kind of column the paper's rule is pandas', the strict rule its pattern."""
    compared: Counter[str] = Counter()

    @settings(
        max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
    )
    @given(case=_names_and_captions(), column=st.sampled_from(sorted(COLUMNS)))
    def compare(case: tuple[list[str], list[str | None]], column: str) -> None:
        names, captions = case
        result = NameMatcher(names).scan(COLUMNS[column](captions))
        expected = _expected(names, captions)
        assert _found(result.matches) == expected
        assert result.captions[CaptionStatus.NULL_CAPTION] == captions.count(None)
        assert result.captions.total() == len(captions)
        searched = result.captions[CaptionStatus.SEARCHED]
        rules = {"paper": sum(match[2] for match in expected), "strict": sum(match[3] for match in expected)}
        compared.update(rules, captions=searched, pairs=searched * len(names))

    compare()
    assert compared["captions"] >= 10_000
    assert compared["pairs"] > 15_000
    assert min(compared["paper"], compared["strict"]) > 1000


SIMPLE_WORDS = ["Jo", "Jon", "Ann", "An", "Lee", "Le", "ab", "A", "Hamm", "nn"]
BESIDE = [*"'-.,_7", "é", "\u0301", "s", "x", "ที่", "日", "ー", "😀", "\0", ", ", " ", "\u00a0", "\n"]


def _simple_name(random: Random) -> str:
    return " ".join(random.choices(SIMPLE_WORDS, k=random.choice([1, 2, 2, 3]))).ljust(2, "o")


def _cased(random: Random, text: str) -> str:
    return random.choice([str, str, str, str.upper, str.lower, str.swapcase])(text)


def _simple_caption(random: Random, names: list[str]) -> str:
    """Words, whole names, turned ones and what may stand beside them, in any case and with any white space."""
    pieces = []
    for _ in range(random.randint(0, 6)):
        words = random.choice([*names, random.choice(SIMPLE_WORDS)]).split()
        i = random.randrange(len(words))
        text = " ".join(words) if random.random() < 0.5 or not i else f"{' '.join(words[i:])}, {' '.join(words[:i])}"
        spaced = re.sub(" ", lambda _: random.choice([" ", " ", " ", "  ", "\u00a0", "\t\u3000"]), text)
        pieces += [_cased(random, spaced), random.choice([" ", " ", "", random.choice(BESIDE)])]
    return "".join(pieces)


@settings(max_examples=400, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_simple_names_are_settled_as_by_their_patterns(seed: int) -> None:
    """For names of plain letters, which no pattern is tried for, every column is what their patterns would say."""
    random = Random(seed)
    drawn = {name_key(name): name for name in (_simple_name(random) for _ in range(random.randint(1, 5)))}
    names = list(drawn.values())
    aliases = [[_simple_name(random) for _ in range(random.choice([0, 0, 1, 2]))] for _ in names]
    captions = [_simple_caption(random, [*names, *chain(*aliases)]) for _ in range(20)]
    expected = []
    rules = [strict_pattern([name, *others]) for name, others in zip(names, aliases, strict=True)]
    for row, caption in enumerate(captions):
        for name, others, rule in zip(names, aliases, rules, strict=True):
            found, paper = rule.search(caption), caption.find(name)
            if found:
                label = variant(name, tuple(others), found[0])
                expected.append((row, name, paper >= 0, True, found.start(), label))
            elif paper >= 0:
                expected.append((row, name, True, False, paper, "paper"))
    matches = NameMatcher(names, aliases).scan(pa.array(captions)).matches
    columns = ["row", "name", "paper", "strict", "start", "variant"]
    assert [tuple(match.values()) for match in matches.select(columns).to_pylist()] == expected


@settings(max_examples=300, deadline=None)
@given(left=st.text(max_size=3), right=st.text(max_size=3))
def test_word_boundaries_are_those_of_re(left: str, right: str) -> None:
    """Whatever characters stand beside a name, the strict rule looks whether they join it."""
    caption = f"{left}Jon Hamm{right}"
    (match,) = NameMatcher(["Jon Hamm"]).scan(pa.array([caption])).matches.to_pylist()
    assert match["strict"] == (not JOINING.match(left[-1:]) and not JOINING.match(right[:1]))
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
    "between ideographs": ("Jon Hamm", "日Jon Hamm本", True, True),
    "between emoji": ("Jon Hamm", "😀Jon Hamm😀", True, True),
    "first long, then exact": ("Jon Hamm", "Jon Hammond met Jon Hamm", True, True),
    "lower case": ("Jon Hamm", "jon hamm", False, True),
    "another surname": ("Jon Hamm", "Jon Snow and Mia Hamm", False, False),
    "over a line end": ("Jon Hamm", "Jon\nHamm", False, True),
    "dot": ("Johannes B. Kerner", "Johannes B. Kerner", True, True),
    "dot as a wildcard": ("Johannes B. Kerner", "Johannes Bo Kerner", True, False),
    "dot as an emoji": ("Johannes B. Kerner", "Johannes B😀 Kerner", True, False),
    "dot is not a line end": ("Johannes B. Kerner", "Johannes B\n Kerner", False, True),
    "dot is one character": ("Johannes B. Kerner", "Johannes B Kerner", False, True),
    "dot at the end": ("Sammy Davis Jr.", "Sammy Davis Jr.", True, True),
    "dot at the end, none there": ("Sammy Davis Jr.", "Sammy Davis Jr", False, True),
    "dots alone": ("...", "ab", False, False),
    "plus is a repetition": ("Anna+", "Ann Annaa", True, False),
    "literal that the pattern misses": ("Jon (Hamm)", "Jon (Hamm)", False, True),
    "pattern that the literal misses": ("Jon (Hamm)", "Jon Hamm", True, False),
    "composed in decomposed": ("René", "Rene\u0301", False, True),
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
    """Source and row within it, variant, position and caption stand beside each match, in the table's fixed schema."""
    captions = pa.chunked_array([["Zoë Ball", "nobody"], ["JON HAMM with Zoe Ball"]])
    matches = NameMatcher(["Zoë Ball", "Jon Hamm"]).scan(captions, source="part-3", first_row=1000).matches
    assert matches.schema == MATCHES
    common = {"source": "part-3", "strict": True, "longer": False, "url": None}
    third = {"row": 1002, "caption": "JON HAMM with Zoe Ball", "paper": False}
    assert matches.to_pylist() == [
        dict(common, row=1000, name="Zoë Ball", variant="exact", start=0, paper=True, caption="Zoë Ball"),
        dict(common, name="Zoë Ball", variant="accents", start=14, **third),
        dict(common, name="Jon Hamm", variant="case", start=0, **third),
    ]


MIXED_NAMES = [
    "Jon Hamm",
    "Jon Hammond",
    "Zoë Ball",
    "Sting",
    "J. Hamm",
    "Jon (Hamm)",
    "Ann Lee",
    "Lee",
    "An.*e",
    "日本",
]
MIXED_ALIASES = [["Hamm"], [], ["Lee"], ["Gordon Sumner", "Ann Lee"], [], ["Jon"], ["Jon Hamm"], ["Sting"], [], []]


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_what_else_is_searched_for_changes_nothing(seed: int) -> None:
    """The matches of a name are the same alone and among others, plain and special, that share its spellings."""
    random = Random(seed)
    chosen = random.sample(range(len(MIXED_NAMES)), random.randint(2, 6))
    names, aliases = [MIXED_NAMES[i] for i in chosen], [MIXED_ALIASES[i] for i in chosen]
    captions = pa.array([_simple_caption(random, MIXED_NAMES) for _ in range(20)])
    together = NameMatcher(names, aliases).scan(captions).matches
    for name, others in zip(names, aliases, strict=True):
        alone = NameMatcher([name], [others]).scan(captions).matches
        assert together.filter(pc.equal(together["name"], name)) == alone


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_the_kind_of_column_and_its_chunks_change_nothing(seed: int) -> None:
    """All that is told of a match is the same for every Arrow type, and when the captions come in pieces."""
    random = Random(seed)
    texts = [None if random.random() < 0.1 else _simple_caption(random, MIXED_NAMES) for _ in range(25)]
    matcher = NameMatcher(MIXED_NAMES, MIXED_ALIASES)
    whole = matcher.scan(pa.array(texts), source="all")
    for kind in COLUMNS.values():
        assert matcher.scan(kind(texts), source="all") == whole
    cuts = sorted(random.sample(range(26), random.randint(1, 6)))
    pieces = [(a, texts[a:b]) for a, b in pairwise([0, *cuts, 25])]
    results = [matcher.scan(pa.array(piece, pa.string()), source="all", first_row=first) for first, piece in pieces]
    assert pa.concat_tables([result.matches for result in results]) == whole.matches
    assert sum((result.captions for result in results), Counter()) == +whole.captions


def test_blocks_change_nothing() -> None:
    """A column that is searched in several blocks gives what its parts give."""
    random = Random(0)
    texts = [_simple_caption(random, MIXED_NAMES) + "é " * random.randint(0, 300) for _ in range(20_000)]
    matcher = NameMatcher(["Jon Hamm", "Zoë Ball", "Ann Lee", "Sting"])
    column = pa.array(texts)
    assert column.nbytes > 2 * BLOCK_BYTES
    whole = matcher.scan(column).matches
    parts = [matcher.scan(column.slice(i, 999), first_row=i).matches for i in range(0, 20_000, 999)]
    assert whole.num_rows > 10_000
    assert pa.concat_tables(parts) == whole


def test_aliases_count_as_the_name() -> None:
    """A match of an alias is one of the name, and says so; the paper's rule knows no aliases."""
    matcher = NameMatcher(["Gordon Sumner", "Jon Hamm"], [["Sting", "Gordon Matthew Thomas Sumner"], []])
    matches = matcher.scan(pa.array(["Sting live", "Stingray", "Sumner, Gordon"])).matches
    assert matches.select(["row", "name", "variant", "paper"]).to_pylist() == [
        {"row": 0, "name": "Gordon Sumner", "variant": "alias", "paper": False},
        {"row": 2, "name": "Gordon Sumner", "variant": "last_first", "paper": False},
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


def test_captions_of_a_megabyte_equal_pandas() -> None:
    """In captions of a megabyte of awkward pieces the paper's rule is that of pandas too."""
    rng = np.random.default_rng(0)
    names = ["Jon Hamm", "B. Hamm", "é日", "n.H.m", "J[o]n H"]
    pieces = [*PIECES, *ODD, "Jon Hamm", "B. Hamm"]
    captions = ["".join(pieces[i] for i in rng.integers(len(pieces), size=700_000)) for _ in range(3)]
    assert min(map(len, captions)) > 1_000_000
    assert _found(NameMatcher(names).scan(pa.array(captions)).matches) == _expected(names, captions)


def test_long_captions_and_many_blocks() -> None:
    """Captions of a megabyte each are searched to their ends, over several blocks, with the right rows and places."""
    filler = "ä" * 500_000
    captions = [filler + "Jon Hamm" if i % 2 else "Jon Hamm " + filler for i in range(9)]
    matches = NameMatcher(["Jon Hamm"]).scan(pa.array(captions), first_row=50).matches
    assert matches["row"].to_pylist() == list(range(50, 59))
    assert matches["start"].to_pylist() == [500_000 if i % 2 else 0 for i in range(9)]
    assert matches["strict"].to_pylist() == [i % 2 == 0 for i in range(9)]


def test_many_names_are_found_as_few_are() -> None:
    """With thousands of names, of plain letters and others, each is still found in its caption."""
    words = ["".join(letters) for letters in product("bdfk", "aeiou", "lmnrst", "aeiou", "xyz")]
    names = [f"{first.title()} {last.title()}" for first, last in zip(words, reversed(words), strict=True)]
    names += [f"{word.title()}-{word.title()} É{i}" for i, word in enumerate(words[::5])]
    assert len(names) == 2160
    matches = NameMatcher(names).scan(pa.array([f"a photo of {name.upper()}." for name in names])).matches
    assert set(matches["variant"].to_pylist()) == {"case"}
    assert matches["name"].to_pylist() == names
    assert matches["row"].to_pylist() == list(range(2160))


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        (["Jon Hamm", "Jon (Hamm"], InvalidInputError, r"'Jon \(Hamm' is not a valid regular expression.*Take the"),
        (["Jon Hamm", " "], InvalidInputError, "blank"),
        (["Jon Hamm", "JON  HAMM"], DuplicateNameError, "same name"),
        ([], InvalidInputError, "no name"),
        (["Jon \ud800+"], InvalidInputError, "not valid Unicode"),
        (["Jon Hamm", "X"], InvalidInputError, "'X' is one letter"),
    ],
    ids=["open bracket", "blank", "twice", "none", "surrogate", "one letter"],
)
def test_bad_names_are_errors(names: list[str], error: type[Exception], message: str) -> None:
    """A name list that cannot be searched is a typed error that says what is wrong."""
    with pytest.raises(error, match=message):
        NameMatcher(names)


def test_a_column_that_is_not_text_is_an_error() -> None:
    """Numbers in the place of captions are an error that names their type."""
    with pytest.raises(InvalidInputError, match="int64 is not text"):
        NameMatcher(["Jon Hamm"]).scan(pa.array([1, 2]))
