"""Tables that go out to files and are read back."""

import tempfile
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from upath import UPath

from idia_core import exchange
from idia_core.candidate_lists import read_candidates
from idia_core.errors import InvalidInputError, UsageError
from idia_core.exchange import export
from idia_core.retrieval import CANDIDATE_PAIRS
from idia_core.wanted_urls import read_wanted

ROW = {
    "identity": "Zoë Ball",
    "place": 0,
    "picture": "0.jpg",
    "rank": 1,
    "similarity": 0.1,
    "url": "http://a.example/1",
    "caption": 'Zoë "Z" Ball, 12" \\t tall \\',
    "status": "kept",
    "sha256": None,
}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
ONE_FIELD = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\t\n\r"), max_size=12)


def parquet(folder: Path, rows: list[dict[str, Any]], schema: pa.Schema = CANDIDATE_PAIRS, name: str = "in") -> UPath:
    """Rows as a part of a table."""
    path = folder / f"{name}.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema), path, row_group_size=3)
    return UPath(path)


def candidates(text: st.SearchStrategy[str]) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Rows with any text and number."""
    fields = {
        "picture": text,
        "url": text,
        "caption": text,
        "similarity": st.floats(allow_nan=False),
        "rank": st.integers(-(1 << 63), (1 << 63) - 1),
        "status": st.sampled_from(["kept", "spare"]),
        "sha256": st.sampled_from([None, "ab" * 32]),
    }
    return st.lists(st.fixed_dictionaries(fields).map(lambda row: ROW | row), max_size=9)


@pytest.mark.parametrize(("suffix", "text"), [("parquet", TEXT), ("csv", TEXT), ("tsv", ONE_FIELD)])
def test_candidates_come_back_as_they_were(suffix: str, text: st.SearchStrategy[str]) -> None:
    """Quotes, tabs, line breaks, accents, nulls, and every number to its last bit."""

    @settings(deadline=None)
    @given(candidates(text))
    def come_back(rows: list[dict[str, Any]]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            target = UPath(folder) / f"out.{suffix}"
            assert export([parquet(Path(folder), rows)], target) == len(rows)
            assert read_candidates([target]).to_pylist() == rows

    come_back()


def test_many_parts_are_written_a_group_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In their order, with one line of column names, however little is held at once."""
    monkeypatch.setattr(exchange, "GROUP_ROWS", 4)
    monkeypatch.setattr(exchange, "BATCH_ROWS", 2)
    parts = [
        parquet(tmp_path, [ROW | {"place": first + i} for i in range(count)], name=f"p{first}-{count}")
        for first, count in ((0, 7), (7, 0), (7, 5))
    ]
    for suffix in ("parquet", "csv", "tsv"):
        target = UPath(tmp_path / f"out.{suffix}")
        assert export(parts, target) == 12
        assert read_candidates([target])["place"].to_pylist() == [*range(12)]
    with pq.ParquetFile(tmp_path / "out.parquet") as made:
        assert made.schema_arrow.equals(CANDIDATE_PAIRS)
        groups = [made.metadata.row_group(group).num_rows for group in range(made.num_row_groups)]
    assert groups == [4, 5, 3]  # batches of at most 2, held until there are 4
    assert (tmp_path / "out.csv").read_text(encoding="utf-8").count("similarity") == 1


def test_pictures_go_to_parquet_alone(tmp_path: Path) -> None:
    """A few of them at a time; text says what it cannot hold."""
    schema = pa.schema([("identity", pa.string()), ("image", pa.binary())])
    part = parquet(tmp_path, [{"identity": "Ann", "image": bytes(9)}], schema)
    export([part], UPath(tmp_path / "out.parquet"))
    assert pq.read_table(tmp_path / "out.parquet").to_pylist() == [{"identity": "Ann", "image": bytes(9)}]
    with pytest.raises(UsageError, match="column 'image' holds pictures") as caught:
        export([part], UPath(tmp_path / "out.tsv"))
    assert caught.value.fix == "Use a name that ends in .parquet."
    lists = pa.schema([("aliases", pa.list_(pa.string()))])
    with pytest.raises(UsageError, match="column 'aliases' holds lists"):
        export([parquet(tmp_path, [{"aliases": ["A"]}], lists)], UPath(tmp_path / "out.csv"))
    with pytest.raises(UsageError, match=r"no kind of table ends like 'out\.xlsx'"):
        export([part], UPath(tmp_path / "out.xlsx"))
    assert not [path for path in tmp_path.iterdir() if path.name not in ("in.parquet", "out.parquet")]


@pytest.mark.parametrize("text", ["a\tb", "a\nb", "a\r"])
def test_a_tsv_says_which_value_it_cannot_hold(tmp_path: Path, text: str) -> None:
    """And is not written; CSV holds it."""
    part = parquet(tmp_path, [ROW, ROW | {"caption": text, "place": 1}])
    with pytest.raises(UsageError, match="'caption' of row 2 has a tab or a line break"):
        export([part], UPath(tmp_path / "out.tsv"))
    assert not (tmp_path / "out.tsv").exists()
    export([part], UPath(tmp_path / "out.csv"))
    assert read_candidates([UPath(tmp_path / "out.csv")])["caption"].to_pylist() == [ROW["caption"], text]


def test_a_list_of_ones_own_is_filled_in(tmp_path: Path) -> None:
    """Name, URL and caption are enough; people's rows are counted each for themselves."""
    (tmp_path / "a.tsv").write_text('name\turl\tTEXT\nAnn\thttp://a\tAnn "A"\nBob\thttp://b\t\n', encoding="utf-8")
    (tmp_path / "b.csv").write_text('identity,url,caption,place\nAnn,http://c,"x, y",\n', encoding="utf-8")
    found = read_candidates([UPath(tmp_path / "a.tsv"), UPath(tmp_path / "b.csv")])
    assert found.schema.equals(CANDIDATE_PAIRS)
    told = pl.DataFrame(found).select("identity", "place", "rank", "url", "caption", "status", "picture", "sha256")
    assert told.rows() == [
        ("Ann", 0, 1, "http://a", 'Ann "A"', "kept", "", None),
        ("Bob", 0, 1, "http://b", "", "kept", "", None),
        ("Ann", 1, 2, "http://c", "x, y", "kept", "", None),
    ]
    assert pl.DataFrame(found)["similarity"].is_nan().all()
    assert read_wanted([UPath(tmp_path / "a.tsv")]).table["caption"].to_pylist() == ['Ann "A"', ""]


@pytest.mark.parametrize(
    ("content", "what", "where"),
    [
        ("identity,url\nA,b\n", "no column 'caption'", ""),
        ("url,caption\na,b\n", "no column 'identity'", ""),
        ("identity,url,caption\nA,b,c\n,b,c\n", "there is no identity", ", row 2"),
        ("identity,url,caption,status\nA,b,c,Kept\n", "the status is neither kept nor spare", ", row 1"),
        ("identity,url,caption,sha256\nA,b,c,\nA,b,c,1f\n", "the sha256 is none", ", row 2"),
        ("identity,url,caption,place\nA,b,c,one\n", "'one' in column place is no number", ", row 1"),
        ("identity,url,caption\nA,b,c,d\n", "not a readable table", ""),
    ],
)
def test_a_list_that_is_none_is_an_error(tmp_path: Path, content: str, what: str, where: str) -> None:
    """It names file and row."""
    path = tmp_path / "a.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InvalidInputError, match=what) as caught:
        read_candidates([UPath(path)])
    assert caught.value.where == f"{path}{where}"
