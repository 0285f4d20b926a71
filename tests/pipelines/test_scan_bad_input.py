"""`scan` of captions, lists and files that are not as they should be: a clear error, or a counted row."""

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from idia_core.errors import DuplicateNameError, InvalidInputError, MissingInputError, SealError
from pipelines.scan import ROWS_PER_SPLIT
from tests.pipelines.scans import (
    CAPTIONS,
    FIVE,
    THREE,
    contents,
    cut_short,
    matches,
    occurrences,
    rewritten,
    scan,
    scan_fails,
    without_data,
    write_names,
    write_parquet,
)

pytestmark = pytest.mark.usefixtures("local_ray")

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
