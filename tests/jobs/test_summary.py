"""What a finished audit says on the terminal."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from upath import UPath

from idia_core.statistics import VERDICTS
from jobs.findings import SHOWN
from jobs.plan import PlannedStage, State
from jobs.summary import print_summary
from pipelines.evidence import EvidenceConfig
from pipelines.judge import JudgeConfig
from pipelines.registry import STAGES

Printed = Callable[..., str]
NOTE = "Too few other people to compare with: give pictures of at least 200 with --panel."


def verdict(identity: str, finding: str, reason: str, q: float | None, score: int = 0, **others: Any) -> dict[str, Any]:
    """A row of `verdicts`; p-values follow from q."""
    row = {"model": "m", "identity": identity, "images_used": 3, "images_failed": 0, "score": score, "threshold": 1}
    row |= {"share": 0.1, "member": score >= 1, "decoys": 900, "others": 200, "p_name": q, "p_face": q, "p_value": q}
    return row | {"q_value": q, "finding": finding, "reason": reason} | others


MEMBER = verdict("Ann Lee", "member", "named", 0.012, 20)
SURER = verdict("Zoë Ball", "member", "named", 0.0012, 21)
UNCLEAR = verdict("Bob Ray", "inconclusive", "too_few_pictures", None, 1)
NOBODY = verdict("Al", "no evidence", "below_threshold", 1.0, 0)
BY_RULE = verdict("Ida Moss", "no evidence", "other_faces_do_as_well", 1.0, 3, p_name=0.002)


@pytest.fixture
def printed(tmp_path: Path) -> Printed:
    """Writes verdicts as `judge` does, and returns what is printed when `evidence` is done, or in another state."""

    def of(rows: list[dict[str, Any]], redact: bool = False, state: State = State.DONE) -> str:
        (tmp_path / "judge/verdicts").mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows, VERDICTS), tmp_path / "judge/verdicts/part-00000.parquet")
        plans = {
            "judge": PlannedStage(STAGES["judge"], JudgeConfig(), UPath(tmp_path / "judge"), State.DONE, ""),
            "evidence": PlannedStage(
                STAGES["evidence"], EvidenceConfig(redact=redact), UPath(tmp_path / "evidence"), state, ""
            ),
        }
        out = io.StringIO()
        print_summary(plans, Console(file=out, width=100, force_terminal=False))
        return out.getvalue()

    return of


def first_words(text: str, number: int = 2) -> list[str]:
    """The first words of every line."""
    return [" ".join(line.split()[:number]) for line in text.splitlines()]


def test_members_come_first_and_the_surest_of_them_leads(printed: Printed, tmp_path: Path) -> None:
    """Then those without a conclusion, then the others, by score; a line sums up, another says where the page is."""
    lines = printed([NOBODY, MEMBER, UNCLEAR, BY_RULE, SURER]).splitlines()
    assert [" ".join(line.split()) for line in lines] == [
        "person finding why S p, names p, faces q",
        "Zoë Ball member named 21 0.0012 0.0012 0.0012",
        "Ann Lee member named 20 0.012 0.012 0.012",
        "Bob Ray inconclusive too few pictures 1 – – –",
        "Ida Moss no evidence other faces do as well 3 0.002 1 1",
        "Al no evidence below threshold 0 1 1 1",
        "m: 5 people: 2 member, 1 inconclusive, 2 no evidence; by the paper's rule 4 members.",
        f"Evidence: {tmp_path}/evidence/page/index.html",
    ]


def test_of_many_people_the_first_are_shown_and_the_rest_counted(printed: Printed) -> None:
    """With 1,019 people 20 rows stand there; the one member is among them although last in the table."""
    text = printed([*(NOBODY | {"identity": f"P {i}"} for i in range(SHOWN + 998)), MEMBER])
    assert "and 999 more" in text
    shown = [line for line in first_words(text) if line.startswith(("P ", "Ann Lee"))]
    assert len(shown) == SHOWN
    assert shown[0] == "Ann Lee"
    assert "m: 1,018" not in text
    assert "m: 1,019 people: 1 member, 0 inconclusive, 1,018 no evidence" in text


def test_exactly_as_many_as_fit_are_all_shown(printed: Printed) -> None:
    """Nobody is left to be counted."""
    text = printed([NOBODY | {"identity": f"P {i}"} for i in range(SHOWN)])
    assert "more" not in text.replace("for more", "")
    assert len([line for line in first_words(text) if line.startswith("P ")]) == SHOWN


def test_every_model_has_its_own_findings(printed: Printed) -> None:
    """Its name, a table and a line for each, in the order of the verdicts."""
    rows = [MEMBER | {"model": "b"}, NOBODY | {"model": "b"}, MEMBER | {"model": "a", "finding": "no evidence"}]
    *lines, _ = printed(rows).splitlines()
    assert [line.split()[0] for line in lines] == ["b", "person", "Ann", "Al", "b:", "a", "person", "Ann", "a:"]
    assert lines[-1] == "a: 1 person: 0 member, 0 inconclusive, 1 no evidence; by the paper's rule 1 member."


def test_the_panel_is_asked_for_where_it_would_help(printed: Printed) -> None:
    """The note is there, on one line, if anybody was compared with too few others, and only then."""
    assert NOTE in printed([MEMBER, verdict("X", "inconclusive", "too_few_others", 0.3, 2)]).splitlines()


def test_the_panel_is_not_asked_for_where_it_would_not(printed: Printed) -> None:
    """Other reasons have other remedies."""
    assert "--panel" not in printed([MEMBER, UNCLEAR, NOBODY, BY_RULE])


def test_a_redacted_audit_names_nobody(printed: Printed) -> None:
    """The sums are printed, and no table."""
    text = printed([MEMBER, UNCLEAR], redact=True)
    assert "Ann" not in text
    assert "Bob" not in text
    assert "m: 2 people: 1 member, 1 inconclusive, 0 no evidence; by the paper's rule 2 members." in text


def test_an_audit_without_its_pages_is_not_summed_up(printed: Printed) -> None:
    """Nothing is printed of stages that are not done."""
    assert printed([MEMBER], state=State.TO_DO) == ""


def test_names_are_no_markup(printed: Printed) -> None:
    """Brackets in a name or a model's name come out as they are."""
    text = printed([MEMBER | {"identity": "[red]Ann[/red] [/]", "model": "m[bold]"}])
    assert "[red]Ann[/red] [/]" in text
    assert "m[bold]: 1 person" in text
