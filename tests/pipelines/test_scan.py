"""`scan`: who is in which captions, whatever the files are like, in little memory and always the same bytes."""

import gzip
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from idia_core.histogram import HISTOGRAM
from idia_core.names import invent_names
from idia_core.occurrences import BINS
from pipelines.scan import ROWS_PER_SPLIT
from tests.pipelines.scans import (
    CAPTIONS,
    FIVE,
    THREE,
    contents,
    matches,
    occurrences,
    scan,
    write_names,
    write_parquet,
)

pytestmark = pytest.mark.usefixtures("local_ray")

# Searches the file argv[1] for 100 names in a `_Matcher` as a worker does, writes to argv[2], and prints the number of
# rows and of matches, and the peak of this process's memory in MiB.
PEAK = """
import re, sys
from pathlib import Path
import pyarrow as pa, pyarrow.parquet as pq
from upath import UPath
from idia_core.name_lists import NAMES
from idia_core.names import invent_names
from pipelines.scan import ScanConfig, _Matcher, _row_groups
from pipelines.stage import ResolvedInput, SplitWriter, StageContext
def peak():  # not ru_maxrss, which a new process takes over from its parent
    return int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024
captions, out = UPath(sys.argv[1]), UPath(sys.argv[2])
(out / "names").mkdir(parents=True)
names = invent_names(100, seed=1)
pq.write_table(pa.table([names, [[]] * 100], schema=NAMES), str(out / "names/part-00000.parquet"))
inputs = {"captions": ResolvedInput("captions", captions.parent, (captions,), "")}
context = StageContext("scan", ScanConfig(), inputs, out)
(split,) = _row_groups(context)
writer = SplitWriter(out, "match-000000", 0, lambda fraction, text: None)
_Matcher(context)(split, writer)
print(writer.counts["rows_in"], writer.files[0].rows, peak())
"""


@pytest.fixture
def collections(tmp_path: Path) -> Path:
    """Four files as four collections publish them, and a list with an alias and blank rows."""
    folder = tmp_path / "captions"
    folder.mkdir()
    texts = [
        b"A portrait of Ann Lee by the sea",
        None,
        b"ANN LEE at the opening",
        b"Lee, Ann and Bob Ray",
        b"Ann Lee \xff",
        b"Bob Rayner plays",
        b"nobody at all",
    ]
    raw = pa.array(texts, pa.binary())
    captions = pa.StringArray.from_buffers(len(texts), raw.buffers()[1], raw.buffers()[2], raw.buffers()[0])
    rows = len(texts)
    laion = {
        "SAMPLE_ID": list(range(rows)),
        "URL": [f"http://l.example/{row}" for row in range(rows)],
        "TEXT": captions,
        "HEIGHT": [1] * rows,
        "WIDTH": [1] * rows,
        "LICENSE": ["?"] * rows,
        "NSFW": ["UNLIKELY"] * rows,
        "similarity": [0.3] * rows,
    }
    pq.write_table(pa.table(laion), folder / "1.parquet", row_group_size=2)
    (folder / "2.tsv").write_bytes(
        b"Bob  Ray sings\thttp://m.example/0\n\thttp://m.example/1\nAnn Lee without a link\nA cat\thttp://m.example/3\n"
    )
    twelve = "http://t.example/0\tZo\u00eb Ball dances\nhttp://t.example/1\nhttp://t.example/2\tA \u00ab quote \u00bb\n"
    (folder / "3.tsv.gz").write_bytes(gzip.compress(twelve.encode()))
    downloaded = {
        "url": ["http://i.example/0", "http://i.example/1"],
        "caption": ["\u00c9t\u00e9: Zoe B. on stage", "Zoe Ball"],
        "key": ["0", "1"],
        "status": ["success", "failed_to_download"],
        "error_message": [None, "404"],
        "width": [1, None],
    }
    pq.write_table(pa.table(downloaded), folder / "4.parquet")
    listed = "name,aliases\nAnn Lee,\nBob Ray,\n,\nZo\u00eb Ball,Zoe B.\n  ,\nNobody Here,\n"
    (tmp_path / "names.csv").write_text(listed, encoding="utf-8")
    return tmp_path


def test_every_match_of_four_collections_is_found_where_it_is(collections: Path) -> None:
    """Source, row of the file, name, variant, place in characters, rules and URL are as read by eye."""
    scan(collections)
    found = matches(collections, "source", "row", "name", "variant", "start", "paper", "strict", "url")
    assert found == [
        ("1.parquet", 0, "Ann Lee", "exact", 14, True, True, "http://l.example/0"),
        ("1.parquet", 2, "Ann Lee", "case", 0, False, True, "http://l.example/2"),
        ("1.parquet", 3, "Ann Lee", "last_first", 0, False, True, "http://l.example/3"),
        ("1.parquet", 3, "Bob Ray", "exact", 13, True, True, "http://l.example/3"),
        ("1.parquet", 5, "Bob Ray", "paper", 0, True, False, "http://l.example/5"),
        ("2.tsv", 0, "Bob Ray", "space", 0, False, True, "http://m.example/0"),
        ("2.tsv", 2, "Ann Lee", "exact", 0, True, True, None),
        ("3.tsv.gz", 0, "Zoë Ball", "exact", 0, True, True, "http://t.example/0"),
        ("4.parquet", 0, "Zoë Ball", "alias", 5, False, True, "http://i.example/0"),
        ("4.parquet", 1, "Zoë Ball", "accents", 0, False, True, "http://i.example/1"),
    ]


def test_occurrences_count_every_name_in_the_lists_order(collections: Path) -> None:
    """Both counts, the share that may mean another, and the bin; a name that is nowhere has a row as well."""
    scan(collections)
    assert list(occurrences(collections).items()) == [
        ("Ann Lee", said(2, 4, 0.0, "1-25")),
        ("Bob Ray", said(2, 2, pytest.approx(1 / 3), "1-25")),
        ("Zoë Ball", said(1, 3, 0.0, "1-25")),
        ("Nobody Here", said(0, 0, None, "0")),
    ]


def said(paper: int, strict: int, affected: Any, bin_: str) -> dict[str, Any]:
    """The row of a name that is not ambiguous."""
    counts = {"count_paper": paper, "count_strict": strict}
    return counts | {"ambiguous": False, "ambiguity": "", "share_affected": affected, "bin": bin_}


def test_the_seal_names_the_editions_and_counts_every_row(collections: Path) -> None:
    """Rows are kept, or dropped for a reason that is counted; blank rows of the list are counted too."""
    seal = scan(collections)
    assert seal.facts == {"edition": ("cc12m", "cc3m", "img2dataset", "laion-400m")}
    kept = {"rows_in": 16, "rows_kept": 13, "null_caption": 2, "not_utf8": 1}
    assert seal.counts == kept | {"names": 4, "blank_names": 2}


def test_the_counts_are_drawn_and_written_as_csv(collections: Path) -> None:
    """The CSV holds what the table holds; the histogram's bins hold all names; the figures open."""
    scan(collections)
    out = collections / "out/scan"
    csv = pl.read_csv(out / "csv/occurrences.csv")
    table = pl.DataFrame(pq.read_table(out / "occurrences"))
    assert csv.select("name", "count_paper", "count_strict", "bin").equals(
        table.select("name", "count_paper", "count_strict", "bin")
    )
    histogram = pq.read_table(out / "histogram")
    assert histogram.schema.equals(HISTOGRAM)
    assert histogram["bin"].to_pylist() == list(BINS)
    assert histogram["people_paper"].to_pylist() == [1, 3, *[0] * 12]
    assert histogram["people_strict"].to_pylist() == [1, 3, *[0] * 12]
    assert (out / "figures/occurrences.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "figures/occurrences.pdf").read_bytes().startswith(b"%PDF")


def test_rows_count_through_the_splits_of_a_large_file(tmp_path: Path) -> None:
    """A file of several splits has one part of matches for each, and rows are those of the file."""
    rows = ROWS_PER_SPLIT * 6 // 10
    texts = ["Ann Lee", *["a cat"] * (rows - 2), "Bob Ray"] * 3
    write_parquet(tmp_path / "captions/a.parquet", texts, row_group_size=rows, use_dictionary=True)
    write_names(tmp_path, FIVE)
    seal = scan(tmp_path)
    assert [len(pq.read_table(p)) for p in sorted((tmp_path / "out/scan/matches").iterdir())] == [2, 2, 2]
    expected = [
        (name, group * rows + row) for group in range(3) for name, row in (("Ann Lee", 0), ("Bob Ray", rows - 1))
    ]
    assert matches(tmp_path, "name", "row") == expected
    assert [url for (url,) in matches(tmp_path, "url")] == [f"http://a.parquet.example/{row}" for _, row in expected]
    assert seal.counts["rows_in"] == 3 * rows


def test_files_in_sub_folders_are_named_by_their_way_from_the_common_folder(root: Path) -> None:
    """Two files of one name are told apart by their folders."""
    for part in ("a", "b"):
        write_parquet(root / f"parts/{part}/0.parquet", ["Ann Lee"])
    scan(root, inputs={"captions": str(root / "parts/*/0.parquet")})
    assert matches(root, "source", "row") == [("a/0.parquet", 0), ("b/0.parquet", 0)]


def test_urls_can_be_left_out(root: Path) -> None:
    """With `urls: false` the matches are the same, without URLs."""
    scan(root)
    scan(root, out="bare", urls=False)
    columns = ("source", "row", "name", "variant", "start", "caption")
    assert matches(root, *columns) == matches(root, *columns, out="bare")
    assert {url is None for (url,) in matches(root, "url")} == {False}
    assert {url for (url,) in matches(root, "url", out="bare")} == {None}


def test_files_without_a_row_are_scanned_too(root: Path) -> None:
    """A Parquet file without rows and a TSV of nothing but a header line are not errors."""
    before = scan(root).counts
    write_parquet(root / "captions/none.parquet", [])
    (root / "captions/none.tsv").write_bytes(b"caption\turl\n")
    assert scan(root).counts == before
    assert len(list((root / "out/scan/matches").iterdir())) == 5


# The same bytes


def test_the_bytes_do_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    """One worker, two and four write the same files from eight splits."""
    for number in range(7):
        write_parquet(tmp_path / f"captions/{number}.parquet", CAPTIONS[number:] * (50 + number), row_group_size=64)
    (tmp_path / "captions/7.tsv").write_bytes(b"http://x.example/0\tIda Moss\n" * 500)
    write_names(tmp_path, FIVE + THREE)
    found = []
    for workers in (1, 2, 4):
        scan(tmp_path, out=f"out{workers}", resources={"workers": workers})
        found.append(contents(tmp_path / f"out{workers}/scan"))
    assert found[0] == found[1] == found[2]
    assert len([path for path in found[0] if path.startswith("matches/")]) == 8


@pytest.mark.slow
def test_memory_does_not_grow_with_the_row_group(tmp_path: Path) -> None:
    """A worker stays below 500 MB, and little above what a small file takes, while it reads one of 5 million rows."""
    peaks = {}
    for rows in (5_000, 5_000_000):
        path = tmp_path / f"{rows}/captions.parquet"
        path.parent.mkdir()
        times = np.tile(np.arange(5_000), rows // 5_000)
        captions = [f"a caption of about seventy letters, of thing {i:06d} in place {i % 97:04d}" for i in range(5_000)]
        captions[-1] = f"at the very end {invent_names(1, seed=1)[0]} in the place where nobody is"
        urls = [f"https://img.example.org/{i:020d}.jpg" for i in range(5_000)]
        table = pa.table({"caption": pa.array(captions).take(times), "url": pa.array(urls).take(times)})
        pq.write_table(table, path, row_group_size=rows, use_dictionary=False, compression="snappy")
        assert pq.read_metadata(path).num_row_groups == 1
        command = [sys.executable, "-c", PEAK, str(path), str(tmp_path / f"out{rows}")]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        read, found, peaks[rows] = map(int, printed.split())
        assert (read, found) == (rows, rows // 5_000)
    assert peaks[5_000_000] < 500
    assert peaks[5_000_000] - peaks[5_000] < 150
