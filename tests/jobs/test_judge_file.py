"""`idia judge`: anybody can judge an audit's file again, and sees when its verdicts are not those of its votes."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from idia_core.audit_json import AuditFile, to_json
from idia_core.errors import ConfigError, InvalidInputError, MissingInputError
from jobs.judge_file import judge_file
from tests.audits import audit_file, tables


@pytest.fixture(scope="module")
def audit() -> AuditFile:
    """One model that knows three of six people; a panel large enough for findings."""
    return audit_file(tables(panel=230))


def printed(folder: Path, text: str, **rules: float) -> str:
    """What judging that text prints."""
    path = folder / "audit.json"
    path.write_text(text, encoding="utf-8")
    out = io.StringIO()
    try:
        judge_file(str(path), Console(file=out, width=160, force_terminal=False), **rules)  # type: ignore[arg-type]
    finally:
        lines = out.getvalue()
    return lines


def test_the_recorded_verdicts_follow_from_the_votes(audit: AuditFile, tmp_path: Path) -> None:
    """Verdicts are printed, the strongest first, with the sum of each model and whether they are the recorded ones."""
    lines = printed(tmp_path, to_json(audit)).splitlines()
    assert lines[0].split() == ["person", "finding", "why", "S", "p,", "names", "p,", "faces", "q"]
    assert " ".join(lines[1].split()) == "Béla Kun-Ray member named 21 0.0097 0.0085 0.016"
    told = "ViT-B-32_small: 6 people: 3 member, 1 inconclusive, 2 no evidence; by the paper's rule 4 members."
    assert told in lines
    assert lines[-1].endswith("6 of 6 verdicts are those recorded in the file.")


def test_other_rules_give_other_verdicts_and_no_error(audit: AuditFile, tmp_path: Path) -> None:
    """With a stricter alpha nobody is a member; how many verdicts differ is said."""
    text = printed(tmp_path, to_json(audit), alpha=0.001, min_pictures=2, threshold=3)
    assert "0 member" in text
    assert "Judged by: threshold 3, alpha 0.001, at least 2 pictures. 0 of 6 verdicts" in text


def test_a_verdict_that_does_not_follow_is_an_error(audit: AuditFile, tmp_path: Path) -> None:
    """A file in which a finding was changed, added or taken out is called out, with the first person it is about."""
    document = json.loads(to_json(audit))
    verdicts = document["verdicts"]
    for forged in ([*verdicts[:3], verdicts[3] | {"finding": "member"}, *verdicts[4:]], verdicts[:3] + verdicts[4:]):
        text = json.dumps(document | {"verdicts": forged})
        with pytest.raises(
            InvalidInputError, match="1 recorded verdict does not follow from the votes, first id Dan Ott"
        ):
            printed(tmp_path, text)


def test_names_cannot_steer_the_terminal(tmp_path: Path) -> None:
    """Markup and control characters in a name come out as text."""
    audit = audit_file(tables(("[red]Ada[/red]", "Bo\x1b[2J", "Cy [/]"), panel=5))
    text = printed(tmp_path, to_json(audit))
    assert "[red]Ada[/red]" in text
    assert "Bo‹U+001B›[2J" in text
    assert "\x1b" not in text


def test_a_file_that_cannot_be_judged_is_a_typed_error(audit: AuditFile, tmp_path: Path) -> None:
    """No file, a folder, another file, and rules that cannot be."""
    console = Console(file=io.StringIO())
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(MissingInputError, match="no file at"):
            judge_file(str(path), console)
    with pytest.raises(InvalidInputError, match="not an audit of this version"):
        printed(tmp_path, "{}")
    with pytest.raises(ConfigError, match="alpha"):
        printed(tmp_path, to_json(audit), alpha=2)
