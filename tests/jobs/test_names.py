"""`idia names`, and leave for inputs to fail, on the command line."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from idia_core.errors import DuplicateNameError, InvalidInputError, MissingInputError, UsageError
from jobs.cli import app

RUNNER = CliRunner(env={"COLUMNS": "200"})


def _printed(*words: str) -> str:
    result = RUNNER.invoke(app, ["names", *words], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_a_name_is_shown_as_it_will_be_searched_for() -> None:
    """Spellings of the strict rule, the paper's pattern and ambiguity are printed before any caption is read."""
    output = _printed("Jörg Müller", "Sting", "Jon Hamm", "Jon Hammond", "Johannes B. Kerner")
    for text in ("Joerg Mueller", "Jorg Muller", "Müller, Jörg", "each . is any character", "single_word"):
        assert text in output
    assert "inside_other_name (Jon Hammond)" in output
    assert "5 names can be searched for, 2 may mean another." in output


def test_a_list_is_shown_with_its_aliases(tmp_path: Path) -> None:
    """Lists are read as `scan` reads them; blank rows are counted, and only so many names are shown."""
    (tmp_path / "people.csv").write_text("name,aliases\nGordon Sumner,Sting\n,\nZoë Ball,\n")
    output = _printed("--list", str(tmp_path / "people.csv"), "--show", "1")
    assert "Sting" in output
    assert "Zoë" not in output
    assert "2 names can be searched for, 0 may mean another, 1 blank rows are left out, only the first 1" in output


BAD = {
    "nothing": ((), UsageError, "there is no name to look at"),
    "twice": (("Jon Hamm", "jon hamm"), DuplicateNameError, "is the same name"),
    "one letter": (("X",), InvalidInputError, "one letter"),
    "pattern": (("Jon (Hamm",), InvalidInputError, "not a valid regular expression"),
    "no list": (("--list", "/nowhere/people.csv"), MissingInputError, "no file matches '/nowhere/people.csv'"),
}


@pytest.mark.parametrize(("words", "error", "message"), BAD.values(), ids=BAD)
def test_what_cannot_be_searched_for_is_refused(words: tuple[str, ...], error: type[Exception], message: str) -> None:
    """What `scan` would refuse is refused here first."""
    with pytest.raises(error, match=message):
        _printed(*words)


def test_failed_inputs_are_a_setting_of_the_scan(tmp_path: Path) -> None:
    """`--tolerate-failed-inputs` sets the scan's field; the plan takes it."""
    (tmp_path / "names.txt").write_text("Jon Hamm")
    (tmp_path / "a.tsv").write_text("Jon Hamm\thttp://a.example\n")
    inputs = f"{{captions: {tmp_path}/a.tsv, identities: {tmp_path}/names.txt}}"
    (tmp_path / "s.yaml").write_text(f"name: s\nout: {tmp_path}/out\nstages: {{scan: {{inputs: {inputs}}}}}\n")
    words = ["run", str(tmp_path / "s.yaml"), "--tolerate-failed-inputs", "2", "--dry-run"]
    assert "to do" in RUNNER.invoke(app, words, catch_exceptions=False).output
    words[words.index("2")] = "-1"
    assert RUNNER.invoke(app, words).exit_code == 2
