"""Lists of URLs in the forms that people have them."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from idia_core.errors import InvalidInputError
from idia_core.retrieval import CANDIDATE_PAIRS
from idia_core.wanted_urls import WANTED_URLS, WantedUrls, read_wanted

HASH = "ab" * 32


def read(*files: Path, people: set[str] | None = None) -> WantedUrls:
    """The URLs of those files."""
    return read_wanted([UPath(file) for file in files], people)


def write(file: Path, content: str) -> Path:
    """A text file."""
    file.write_text(content, encoding="utf-8")
    return file


def candidate(url: str, status: str = "kept", **fields: Any) -> dict[str, Any]:
    """A row that `retrieve` might write."""
    row = {"identity": "Ann", "place": 0, "picture": "0.jpg", "rank": 1, "similarity": 0.5, "caption": f"at {url}"}
    return row | {"url": url, "status": status, "sha256": None} | fields


def test_candidates_that_are_kept_are_wanted_once(tmp_path: Path) -> None:
    """In the order in which they appear, with the first caption and the first hash that is known."""
    rows = [
        candidate("http://b.example/"),
        candidate("http://a.example/"),
        candidate("http://c.example/", "spare"),
        candidate("http://b.example/", caption="again", sha256=HASH.upper()),
        candidate("http://b.example/", sha256="cd" * 32),
    ]
    pq.write_table(pa.Table.from_pylist(rows, CANDIDATE_PAIRS), tmp_path / "a.parquet")
    found = read(tmp_path / "a.parquet")
    assert found.table.schema.equals(WANTED_URLS)
    assert found.table.to_pylist() == [
        {"number": 0, "url": "http://b.example/", "caption": "at http://b.example/", "sha256": HASH},
        {"number": 1, "url": "http://a.example/", "caption": "at http://a.example/", "sha256": None},
    ]
    assert found.counts == {"rows_in": 5, "not_kept": 1, "no_url": 0, "duplicate_url": 2}


def test_candidates_of_some_people_alone_are_wanted(tmp_path: Path) -> None:
    """A URL that is also somebody else's is fetched for them; a list that tells nobody's names has none for anybody."""
    rows = [candidate(f"http://{url}.example/", identity=who) for who, url in ("Aa", "Bb", "Ba", "Cc")]
    rows.append(candidate("http://d.example/", "spare", identity="B"))
    pq.write_table(pa.Table.from_pylist(rows, CANDIDATE_PAIRS), tmp_path / "a.parquet")
    found = read(tmp_path / "a.parquet", people={"B", "Z"})
    assert found.table["url"].to_pylist() == ["http://b.example/", "http://a.example/"]
    assert found.counts == {"rows_in": 5, "not_kept": 1, "not_selected": 2, "no_url": 0, "duplicate_url": 0}
    with pytest.raises(InvalidInputError, match=r"no URL to fetch among 5 rows.*an identity that is selected"):
        read(tmp_path / "a.parquet", people={"Z"})
    with pytest.raises(InvalidInputError, match="no URL to fetch"):
        read(write(tmp_path / "b.csv", "url\nhttp://a.example/\n"), people={"B"})


def test_lists_of_ones_own_need_no_more_than_urls(tmp_path: Path) -> None:
    """As CSV, as TSV, in which a quote is a character, and in LAION's words; several files are one list."""
    csv = write(tmp_path / "a.csv", 'url,caption,sha256\nhttp://a.example/,"one, two",\n,no URL,\n')
    tsv = write(tmp_path / "b.tsv", f'caption\turl\tsha256\n"half\thttp://b.example/\t{HASH}\n\thttp://a.example/\t\n')
    pq.write_table(pa.table({"URL": ["http://c.example/", None], "TEXT": [None, "c"]}), tmp_path / "c.parquet")
    bare = write(tmp_path / "d.csv", "url\n http://d.example/ \n")
    found = read(csv, tsv, tmp_path / "c.parquet", bare)
    assert list(zip(*found.table.to_pydict().values(), strict=True)) == [
        (0, "http://a.example/", "one, two", None),
        (1, "http://b.example/", '"half', HASH),
        (2, "http://c.example/", "", None),
        (3, "http://d.example/", "", None),
    ]
    assert found.counts == {"rows_in": 7, "not_kept": 0, "no_url": 2, "duplicate_url": 1}


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.csv", "link,caption\nhttp://a.example/,a\n", "no column 'url'.*link, caption"),
        ("a.csv", "", "not a readable table"),
        ("a.csv", "url,sha256\nhttp://a.example/,123\n", "'123' is no SHA-256"),
        ("a.csv", "url\n\n", "no URL to fetch"),
        ("a.csv", "url,status\nhttp://a.example/,spare\n", "no URL to fetch among 1 rows"),
        ("a.parquet", "url\nhttp://a.example/\n", "not a readable Parquet file"),
    ],
)
def test_what_is_no_list_is_told(tmp_path: Path, name: str, content: str, complaint: str) -> None:
    """With the file, in one line."""
    with pytest.raises(InvalidInputError, match=complaint) as caught:
        read(write(tmp_path / name, content))
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)
