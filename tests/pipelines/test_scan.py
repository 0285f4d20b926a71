"""`scan`: who is in which captions, whatever the files are like, and nothing searched for twice."""

import gzip
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from idia_core.captions import MATCHES
from idia_core.config import Study
from idia_core.errors import DuplicateNameError, IdiaError, InvalidInputError, MissingInputError, SealError
from idia_core.histogram import HISTOGRAM
from idia_core.manifest import Manifest
from idia_core.names import invent_names
from idia_core.occurrences import BINS, OCCURRENCES
from jobs.run import KEPT, run_study
from pipelines.scan import ROWS_PER_SPLIT

pytestmark = pytest.mark.usefixtures("local_ray")
QUIET = Console(quiet=True)
FIRST_PAGE = 4  # behind the magic bytes of a Parquet file
FIVE = ("Ann Lee", "Bob Ray", "Zoë Ball", "Joe B. Kern", "Ida Moss")
THREE = ("Eva Holm", "Tim O'Dell", "Ann-Mai Berg")
CAPTIONS = [
    "Ann Lee by the sea",
    "Bob Ray and Ann Lee",
    "Eva Holm sings",
    None,
    "Zoe Ball at home",
    "a lighthouse",
    "Joe B. Kern, Bob Ray",
    "Kern, Joe B. with Tim O'Dell",
    "BOB RAY LIVE",
    "Ann Mai Berg in Oslo",
    "ann lee, ida moss",
]

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


def write_parquet(path: Path, captions: Sequence[str | None] | pa.Array, **options: Any) -> Path:
    """A file of captions with URLs, its pages plain, so that a text in it can be replaced by one as long."""
    path.parent.mkdir(parents=True, exist_ok=True)
    urls = [f"http://{path.name}.example/{row}" for row in range(len(captions))]
    texts = captions if isinstance(captions, pa.Array) else pa.array(captions, pa.string())
    options = {"compression": "none", "use_dictionary": False} | options
    pq.write_table(pa.table({"url": urls, "caption": texts}), path, **options)
    return path


def write_names(root: Path, names: Iterable[str], aliases: Mapping[str, str] | None = None) -> None:
    """The list of names that `scan` takes."""
    rows = [f'"{name}","{(aliases or {}).get(name, "")}"' for name in names]
    (root / "names.csv").write_text("\n".join(["name,aliases", *rows, ""]), encoding="utf-8")


def study(root: Path, out: str = "out", **fields: Any) -> Study:
    """A scan of `root`/captions for `root`/names.csv that writes to `root`/`out`."""
    inputs = {"captions": str(root / "captions"), "identities": str(root / "names.csv"), **fields.pop("inputs", {})}
    return Study(name="test", out=str(root / out), stages={"scan": {"inputs": inputs, **fields}})


def scan(root: Path, out: str = "out", **fields: Any) -> Manifest:
    """Run that study; returns the seal."""
    return run_study(study(root, out, **fields), QUIET)["scan"].seal()


def scan_fails(root: Path, error: type[IdiaError], **fields: Any) -> str:
    """Run that study, which must end with an error of exactly that type; returns its one line."""
    with pytest.raises(IdiaError) as caught:
        scan(root, **fields)
    assert type(caught.value) is error
    assert caught.value.fix
    assert "\n" not in str(caught.value)
    return str(caught.value)


def contents(folder: Path) -> dict[str, str]:
    """The hash of every file but the seal, which holds times."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)}


def matches(root: Path, *columns: str, out: str = "out") -> list[tuple[Any, ...]]:
    """Those columns of all matches, by split, row and name."""
    parts = sorted((root / out / "scan/matches").iterdir())
    table = pa.concat_tables([pq.read_table(part) for part in parts])
    assert table.schema.equals(MATCHES)
    return pl.DataFrame(table).select(columns).rows()


def occurrences(root: Path) -> dict[str, dict[str, Any]]:
    """What is said of each name."""
    table = pq.read_table(root / "out/scan/occurrences")
    assert table.schema.equals(OCCURRENCES)
    return {row.pop("name"): row for row in table.to_pylist()}


def rewritten(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Change a file behind the back of everybody who looks only at its name, size and time."""
    before, info = path.read_bytes(), path.stat()
    after = change(before)
    assert len(after) == len(before)
    assert after != before
    path.write_bytes(after)
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def without_data(content: bytes) -> bytes:
    """A Parquet file of which only the footer is left, enough to plan with: whoever reads a caption fails."""
    footer = int.from_bytes(content[-8:-4], "little") + 8
    return content[:FIRST_PAGE] + b"\xff" * (len(content) - footer - FIRST_PAGE) + content[-footer:]


def cut_short(path: Path) -> None:
    """Leave the first half of a file, as a broken download does."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with three small files of captions and a list of five names."""
    for number in range(3):
        write_parquet(tmp_path / f"captions/{number}.parquet", CAPTIONS[number:] + CAPTIONS[:number], row_group_size=4)
    write_names(tmp_path, FIVE)
    return tmp_path


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


# What is found


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


# Nothing is searched for twice


def test_added_names_alone_are_searched_for(root: Path) -> None:
    """A list with three more names, in another order, ends as a fresh scan, though the old names' captions changed."""
    names = [*THREE, *reversed(FIVE)]
    scan(root)
    write_names(root, names)
    fresh = scan(root, out="fresh")
    for path in sorted((root / "captions").iterdir()):
        rewritten(path, lambda content: content.replace(b"Ann Lee", b"Nobody!").replace(b"Bob Ray", b"No one."))
    again = scan(root)
    assert contents(root / "out/scan") == contents(root / "fresh/scan")
    assert (again.counts, again.facts) == (fresh.counts, fresh.facts)
    assert ("1.parquet", 0, "Bob Ray") in matches(root, "source", "row", "name")
    write_names(root, [*names, "Nobody!"])
    scan(root)
    assert occurrences(root)["Nobody!"]["count_paper"] == 6  # so the captions are read for a new name
    assert occurrences(root)["Ann Lee"]["count_paper"] == 6


def test_names_added_to_many_matches_leave_no_trace_in_the_bytes(tmp_path: Path) -> None:
    """Parts of many row groups and pages are the same bytes, wherever their rows came from."""
    write_parquet(tmp_path / "captions/a.parquet", [c and f"{c} {i}" for i in range(15_000) for c in CAPTIONS])
    write_names(tmp_path, FIVE[::2])
    scan(tmp_path)
    write_names(tmp_path, (*FIVE, *THREE))
    scan(tmp_path, out="fresh")
    scan(tmp_path)
    assert contents(tmp_path / "out/scan") == contents(tmp_path / "fresh/scan")
    assert pq.read_metadata(tmp_path / "out/scan/matches/part-00000.parquet").num_row_groups > 1


def test_an_added_file_alone_is_scanned(root: Path) -> None:
    """The old files are not read again: nothing is left of them but footers."""
    scan(root)
    write_parquet(root / "captions/1b.parquet", ["Ida Moss", None])
    fresh = scan(root, out="fresh")
    for number in range(3):
        rewritten(root / f"captions/{number}.parquet", without_data)
    again = scan(root)
    assert contents(root / "out/scan") == contents(root / "fresh/scan")
    assert (again.counts, again.facts) == (fresh.counts, fresh.facts)


def test_removed_names_need_no_search(root: Path) -> None:
    """A shorter list in another order is answered from the earlier scan alone."""
    scan(root)
    write_names(root, ["Joe B. Kern", "Ann Lee"])
    fresh = scan(root, out="fresh")
    for path in sorted((root / "captions").iterdir()):
        rewritten(path, without_data)
    again = scan(root)
    assert contents(root / "out/scan") == contents(root / "fresh/scan")
    assert (again.counts, again.facts) == (fresh.counts, fresh.facts)


def test_several_earlier_scans_are_put_together(root: Path) -> None:
    """Names that were searched for in two scans need no third one."""
    scan(root)
    write_names(root, THREE)
    scan(root)
    write_names(root, [FIVE[1], THREE[0], FIVE[0], THREE[1]])
    scan(root, out="fresh")
    for path in sorted((root / "captions").iterdir()):
        rewritten(path, without_data)
    scan(root)
    assert contents(root / "out/scan") == contents(root / "fresh/scan")
    assert len(list((root / "out" / KEPT).iterdir())) == 2


def test_a_changed_alias_is_a_new_search_for_its_name_alone(root: Path) -> None:
    """The name is found by its new alias; the captions of the others are not looked at again."""
    scan(root)
    assert occurrences(root)["Ida Moss"]["count_strict"] == 3
    write_names(root, FIVE, {"Ida Moss": "A Lighthouse; Eva Holm"})
    scan(root, out="fresh")
    for path in sorted((root / "captions").iterdir()):
        rewritten(path, lambda content: content.replace(b"Ann Lee", b"Nobody!"))
    scan(root)
    assert contents(root / "out/scan") == contents(root / "fresh/scan")
    assert occurrences(root)["Ida Moss"]["count_strict"] == 9
    write_names(root, FIVE, {"Ida Moss": "Eva Holm"})
    scan(root)
    assert occurrences(root)["Ida Moss"]["count_strict"] == 6


def test_a_run_that_was_not_sealed_is_used_too(root: Path) -> None:
    """A run that ended in its last phase has done its searches, and the next one with more names takes them over."""
    for name in ("bad1", "bad2"):
        cut_short(write_parquet(root / f"captions/{name}.parquet", CAPTIONS))
    scan_fails(root, InvalidInputError, tolerate_failed_inputs=1)
    assert not (root / "out/scan/manifest.json").exists()
    write_names(root, FIVE + THREE)
    scan(root, out="fresh", tolerate_failed_inputs=2)
    for number in range(3):
        rewritten(root / f"captions/{number}.parquet", lambda content: content.replace(b"Ann Lee", b"Nobody!"))
    seal = scan(root, tolerate_failed_inputs=2)
    assert contents(root / "out/scan") == contents(root / "fresh/scan")
    assert len(seal.facts["failed_inputs"]) == 2


def test_a_changed_file_is_scanned_again(root: Path) -> None:
    """A file that was written anew is not answered from what an earlier scan found in it."""
    scan(root)
    write_parquet(root / "captions/1.parquet", ["Ida Moss, Ida Moss", *CAPTIONS])
    scan(root)
    scan(root, out="fresh")
    assert contents(root / "out/scan") == contents(root / "fresh/scan")
    assert ("1.parquet", 0, "Ida Moss") in matches(root, "source", "row", "name")


def test_an_earlier_scan_that_lost_a_file_is_used_as_far_as_it_goes(root: Path) -> None:
    """A split whose part is gone from the kept output is searched again, the others are not."""
    scan(root)
    (root / "out/scan/matches/part-00001.parquet").unlink()
    write_names(root, FIVE[1:])
    scan(root, out="fresh")
    for number in (0, 2):
        rewritten(root / f"captions/{number}.parquet", without_data)
    scan(root)
    assert contents(root / "out/scan") == contents(root / "fresh/scan")


def test_another_caption_column_is_another_search(root: Path) -> None:
    """What was found in one column says nothing of another."""
    scan(root)
    scan(root, caption_column="url")
    assert matches(root, "row") == []


# Bad captions


def test_null_and_broken_captions_are_counted_and_not_searched(tmp_path: Path) -> None:
    """A null and bytes that are no UTF-8 end no run; the rows beside them keep their numbers."""
    texts = pa.array([None, b"Ann Lee \xe9", b"Ann Lee", b"\xff", None, b"", b"Bob Ray"], pa.binary())
    write_parquet(tmp_path / "captions/a.parquet", texts)
    write_parquet(tmp_path / "captions/b.parquet", [None] * 5)
    write_names(tmp_path, FIVE)
    counts = scan(tmp_path).counts
    assert matches(tmp_path, "row", "name") == [(2, "Ann Lee"), (6, "Bob Ray")]
    assert (counts["rows_in"], counts["rows_kept"]) == (12, 3)
    assert (counts["null_caption"], counts["not_utf8"]) == (7, 2)


def test_a_parquet_that_was_cut_short_is_named(root: Path) -> None:
    """The error says which file cannot be read, and what to do."""
    cut_short(root / "captions/1.parquet")
    message = scan_fails(root, InvalidInputError)
    assert message.startswith("not a readable Parquet file: ")
    assert message.endswith(f"({root}/captions/1.parquet). Fetch it again.")


@pytest.mark.parametrize(
    ("name", "what"),
    [("z.parquet", "not a readable Parquet file: "), ("z.tsv", "an empty file"), ("z.tsv.gz", "an empty file")],
)
def test_a_file_of_no_bytes_is_named(root: Path, name: str, what: str) -> None:
    """A download that never began is an error, not a file without rows."""
    (root / "captions" / name).touch()
    message = scan_fails(root, InvalidInputError)
    assert message.startswith(what)
    assert f"({root}/captions/{name}). Fetch it again." in message


def test_a_gzip_that_was_cut_short_is_named(root: Path) -> None:
    """The text before the cut is no reason to be content."""
    packed = gzip.compress(b"".join(b"http://x.example/%d\tAnn Lee\n" % i for i in range(200_000)))
    path = root / "captions/z.tsv.gz"
    path.write_bytes(packed)
    cut_short(path)
    assert f"({path}). Fetch it again." in scan_fails(root, InvalidInputError)


def test_a_damaged_page_is_named(root: Path) -> None:
    """A file whose footer is whole and whose data is not fails in the worker, with its name."""
    rewritten(root / "captions/2.parquet", without_data)
    message = scan_fails(root, InvalidInputError)
    assert message.startswith("not a readable Parquet file: ")
    assert f"({root}/captions/2.parquet)" in message


def test_a_parquet_without_captions_lists_its_columns(root: Path) -> None:
    """The message has the columns and the field that chooses one; with it the file is read."""
    pq.write_table(pa.table({"id": [1], "alt": ["Ann Lee"]}), root / "captions/9.parquet")
    expected = "no column is known to hold captions (FILE). Set `caption_column`; there are: id, alt."
    assert scan_fails(root, InvalidInputError).replace(str(root / "captions/9.parquet"), "FILE") == expected
    scan(root, inputs={"captions": str(root / "captions/9.parquet")}, caption_column="alt")
    assert matches(root, "source", "name", "url") == [("9.parquet", "Ann Lee", None)]


def test_a_configured_column_that_is_not_there_is_an_error(root: Path) -> None:
    """The message says which columns there are."""
    message = scan_fails(root, InvalidInputError, caption_column="TEXT")
    assert "no column 'TEXT'" in message
    assert "there are: url, caption." in message


def test_captions_that_are_numbers_are_an_error(root: Path) -> None:
    """The message says what the column holds and how to take another one."""
    pq.write_table(pa.table({"caption": [1, 2], "alt": ["a", "b"]}), root / "captions/9.parquet")
    message = scan_fails(root, InvalidInputError)
    assert "column 'caption' holds int64, not text" in message
    assert "Set `caption_column`; there are: caption, alt." in message


def test_a_folder_without_caption_files_is_an_error(root: Path) -> None:
    """The message says what was looked for."""
    (root / "empty").mkdir()
    message = scan_fails(root, MissingInputError, inputs={"captions": str(root / "empty")})
    assert f"no file matches '{root}/empty/*.parquet or *.tsv or *.tsv.gz' (stage scan, input captions)" in message


# Bad names


def test_blank_names_are_counted_and_left_out(root: Path) -> None:
    """Rows without a name are dropped, in every list of a folder."""
    (root / "lists").mkdir()
    (root / "lists/a.txt").write_text("Ann Lee\n\n  \n")
    (root / "lists/b.csv").write_text("id,name\n1,Bob Ray\n2,\n")
    counts = scan(root, inputs={"identities": str(root / "lists")}).counts
    assert (counts["names"], counts["blank_names"]) == (2, 3)
    assert list(occurrences(root)) == ["Ann Lee", "Bob Ray"]


@pytest.mark.parametrize("other", ["Ann Lee", "ANN  lee", "Ann\u00a0Lee"])
def test_a_name_given_twice_is_an_error(root: Path, other: str) -> None:
    """Also when the two differ in case and white space alone, and across two lists."""
    (root / "lists").mkdir()
    (root / "lists/a.txt").write_text("Ann Lee\nBob Ray\n")
    (root / "lists/b.txt").write_text(f"Ida Moss\n{other}\n")
    message = scan_fails(root, DuplicateNameError, inputs={"identities": str(root / "lists")})
    assert "'Ann Lee'" in message
    assert "name number 4" in message


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        (b"name\nAnn Lee\nX\n", "the name 'X' is one letter (name number 2)"),
        (b"person\nAnn Lee\n", "no column 'name' (LIST). It has: person."),
        (b"name\nAnn Lee (\n", "the name 'Ann Lee (' is not a valid regular expression"),
        (b"name\n\n", "there is no name to search for"),
        (b"", "not a readable list of names: empty CSV (LIST)"),
        (b"name\nJos\xe9\n", "not a readable list of names: "),
    ],
)
def test_a_list_that_cannot_be_searched_for_is_an_error(root: Path, listed: bytes, message: str) -> None:
    """The message says which name or list it is."""
    (root / "names.csv").write_bytes(listed)
    assert message in scan_fails(root, InvalidInputError).replace(str(root / "names.csv"), "LIST")


def test_names_that_are_numbers_are_an_error(root: Path) -> None:
    """A list of identifiers is no list of names."""
    pq.write_table(pa.table({"name": [1, 2]}), root / "names.parquet")
    message = scan_fails(root, InvalidInputError, inputs={"identities": str(root / "names.parquet")})
    assert f"column 'name' holds Int64, not text ({root}/names.parquet)" in message


# Files that may fail


def test_one_bad_file_may_fail_and_is_named(root: Path) -> None:
    """The run ends, the seal says which file and why, and the others' matches are all there."""
    scan(root, out="whole")
    expected = [row for row in matches(root, "source", "row", "name", out="whole") if row[0] != "1.parquet"]
    cut_short(root / "captions/1.parquet")
    seal = scan(root, tolerate_failed_inputs=1)
    (failed,) = seal.facts["failed_inputs"]
    assert failed.startswith(f"{root}/captions/1.parquet: not a readable Parquet file: ")
    assert matches(root, "source", "row", "name") == expected
    assert seal.counts["rows_in"] == 2 * len(CAPTIONS)


def test_more_bad_files_than_may_fail_are_an_error_that_is_overcome_without_a_search(root: Path) -> None:
    """The error says how many failed and names the option; with it the next run takes what this one found."""
    for number in range(3, 5):
        cut_short(write_parquet(root / f"captions/{number}.parquet", CAPTIONS))
    message = scan_fails(root, InvalidInputError, tolerate_failed_inputs=1)
    assert "2 inputs could not be read in full and 1 may fail" in message
    assert f"{root}/captions/3.parquet" in message
    assert "--tolerate-failed-inputs 2" in message
    for number in range(3):
        rewritten(root / f"captions/{number}.parquet", without_data)
    seal = scan(root, tolerate_failed_inputs=2)
    assert [fact.partition(": ")[0] for fact in seal.facts["failed_inputs"]] == [
        f"{root}/captions/3.parquet",
        f"{root}/captions/4.parquet",
    ]
    assert {source for (source,) in matches(root, "source")} == {f"{number}.parquet" for number in range(3)}


def test_what_was_made_without_an_input_is_not_taken_for_whole(root: Path) -> None:
    """Without the option the sealed output is an error that names it; with it, it is done; mended, it is redone."""
    whole = (root / "captions/1.parquet").read_bytes()
    cut_short(root / "captions/1.parquet")
    scan(root, tolerate_failed_inputs=1)
    message = scan_fails(root, SealError)
    assert "it was made without 1 inputs that could not be read" in message
    assert "--tolerate-failed-inputs 1" in message
    seal = (root / "out/scan/manifest.json").read_text()
    scan(root, tolerate_failed_inputs=3)
    assert (root / "out/scan/manifest.json").read_text() == seal
    (root / "captions/1.parquet").write_bytes(whole)
    for number in (0, 2):
        rewritten(root / f"captions/{number}.parquet", without_data)
    assert "failed_inputs" not in scan(root).facts
    assert len({source for (source,) in matches(root, "source")}) == 3


def damage_group(path: Path, group: int) -> None:
    """Overwrite the first page of the captions of one row group."""
    begin = pq.read_metadata(path).row_group(group).column(1).data_page_offset
    rewritten(path, lambda content: content[:begin] + b"\xff" * 40 + content[begin + 40 :])


def test_a_file_damaged_in_the_middle_keeps_what_was_read_before(root: Path) -> None:
    """The first row group's matches stay, the rows behind the damage are not counted, and the file is named."""
    damage_group(root / "captions/0.parquet", 1)
    seal = scan(root, tolerate_failed_inputs=1)
    (failed,) = seal.facts["failed_inputs"]
    assert failed.startswith(f"{root}/captions/0.parquet: not a readable Parquet file: ")
    assert [row for source, row in matches(root, "source", "row") if source == "0.parquet"] == [0, 1, 1]
    assert seal.counts["rows_in"] == 4 + 2 * len(CAPTIONS)


def test_a_gzip_that_was_cut_short_keeps_what_was_read_before(root: Path) -> None:
    """The lines before the cut are searched and counted, and the file is named."""
    path = root / "captions/z.tsv.gz"
    path.write_bytes(gzip.compress(b"".join(b"http://x.example/%d\tIda Moss\n" % i for i in range(200_000))))
    cut_short(path)
    seal = scan(root, tolerate_failed_inputs=1)
    (failed,) = seal.facts["failed_inputs"]
    assert failed.startswith(f"{path}: not a readable TSV file: ")
    found = [row for source, row in matches(root, "source", "row") if source == path.name]
    assert found == list(range(len(found)))
    assert 50_000 < len(found) < 200_000
    assert seal.counts["rows_in"] == len(found) + 3 * len(CAPTIONS)


def test_a_failed_file_stays_named_when_names_are_added(root: Path) -> None:
    """What was found in a part of a file is not taken for all of it: the file is tried again."""
    damage_group(root / "captions/0.parquet", 1)
    first = scan(root, tolerate_failed_inputs=1)
    write_names(root, FIVE + THREE)
    scan(root, out="fresh", tolerate_failed_inputs=1)
    second = scan(root, tolerate_failed_inputs=1)
    assert contents(root / "out/scan") == contents(root / "fresh/scan")
    assert second.facts["failed_inputs"] == first.facts["failed_inputs"]


@pytest.fixture
def twice_damaged(tmp_path: Path) -> Path:
    """A folder with a whole file, and one of two splits with a damage in each."""
    rows = ROWS_PER_SPLIT * 6 // 10
    path = write_parquet(tmp_path / "captions/a.parquet", ["Ann Lee", *["a cat"] * (rows - 1)] * 2, row_group_size=rows)
    write_parquet(tmp_path / "captions/b.parquet", CAPTIONS)
    write_names(tmp_path, FIVE)
    damage_group(path, 0)
    second = pq.read_metadata(path).row_group(1).column(1).data_page_offset + 200_000
    rewritten(path, lambda content: content[:second] + b"\x00" * 300_000 + content[second + 300_000 :])
    return tmp_path


def test_a_file_with_damage_in_two_splits_is_one_failed_input(twice_damaged: Path) -> None:
    """What may fail is counted in files, though the seal has each reason."""
    failed = scan(twice_damaged, tolerate_failed_inputs=1).facts["failed_inputs"]
    assert [fact.partition(": ")[0] for fact in failed] == [str(twice_damaged / "captions/a.parquet")] * 2
    assert occurrences(twice_damaged)["Bob Ray"]["count_paper"] == 2


def test_a_sealed_run_counts_failed_inputs_by_the_file_too(twice_damaged: Path) -> None:
    """With the same option the output is done; without it the error tells the number that it takes."""
    scan(twice_damaged, tolerate_failed_inputs=1)
    scan(twice_damaged, tolerate_failed_inputs=1)
    assert "--tolerate-failed-inputs 1." in scan_fails(twice_damaged, SealError)


def test_a_scan_that_could_read_nothing_is_an_error(root: Path) -> None:
    """However many files may fail, all of them may not."""
    for path in sorted((root / "captions").iterdir()):
        cut_short(path)
    message = scan_fails(root, InvalidInputError, tolerate_failed_inputs=10)
    assert message.startswith(f"no input could be read in full ({root}/captions/0.parquet: ")
    assert not (root / "out/scan/manifest.json").exists()


# Memory


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


def test_a_file_that_could_not_be_read_is_tried_again(root: Path) -> None:
    """What failed in a run that did not end may have been a passing fault, and counts only if it fails again."""
    files = [root / f"captions/{number}.parquet" for number in range(2)]
    whole = [file.read_bytes() for file in files]
    for file in files:
        rewritten(file, without_data)
    assert "2 inputs could not be read" in scan_fails(root, InvalidInputError, tolerate_failed_inputs=1)
    for file, content in zip(files, whole, strict=True):
        rewritten(file, lambda _damaged, content=content: content)
    assert "failed_inputs" not in scan(root, tolerate_failed_inputs=1).facts
    scan(root, out="fresh")
    assert contents(root / "out/scan") == contents(root / "fresh/scan")


def test_a_file_in_another_folder_leaves_the_others_as_they_are(root: Path) -> None:
    """A glob over folders names its files from where it begins, so that a new folder has only its own scanned."""
    write_parquet(root / "sets/a/0.parquet", CAPTIONS)
    inputs = {"captions": str(root / "sets/*/*.parquet")}
    scan(root, inputs=inputs)
    assert {source for (source,) in matches(root, "source")} == {"a/0.parquet"}
    write_parquet(root / "sets/b/0.parquet", CAPTIONS)
    scan(root, out="fresh", inputs=inputs)
    rewritten(root / "sets/a/0.parquet", lambda content: content.replace(b"Ann Lee", b"Nobody!"))
    scan(root, inputs=inputs)
    assert contents(root / "out/scan") == contents(root / "fresh/scan")
