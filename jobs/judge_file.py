"""What `idia judge` prints: the verdicts that follow from an `audit.json`, and whether they are those recorded."""

from rich.console import Console
from upath import UPath

from idia_core.audit_json import from_json
from idia_core.audit_tables import judge_tables
from idia_core.config import validate
from idia_core.errors import InvalidInputError, MissingInputError
from idia_core.evidence import visible
from idia_core.statistics import Rules, judge
from jobs.findings import print_findings, say


def judge_file(
    path: str,
    console: Console,
    threshold: int | None = None,
    alpha: float | None = None,
    min_pictures: int | None = None,
) -> None:
    """Judge the votes in an audit's file again, by its own rules or by others, and print what comes of it.

    Raises MissingInputError and InvalidInputError for a file that is not there or no audit, and InvalidInputError where
    by the file's own rules another verdict follows than is recorded.
    """
    audit = from_json(_read(path), path)
    given = {"threshold": threshold, "alpha": alpha, "min_pictures": min_pictures}
    changed = {name: value for name, value in given.items() if value is not None}
    rules = validate(Rules, audit.rules.model_dump() | changed, "idia judge")
    rows = judge(judge_tables(audit), rules).to_pylist()
    print_findings(rows, console, {person.identity: person.name for person in audit.people})
    recorded = {(verdict.model, verdict.identity): verdict.model_dump() for verdict in audit.verdicts}
    others = [row for row in rows if recorded.pop((row["model"], row["identity"]), None) != row]
    same = len(rows) - len(others)
    judged_by = f"threshold {rules.threshold}, alpha {rules.alpha}, at least {rules.min_pictures} pictures"
    say(console, f"Judged by: {judged_by}. {same:,} of {len(rows):,} verdicts are those recorded in the file.")
    if rules == audit.rules and (others or recorded):
        first = (others[0]["model"], others[0]["identity"]) if others else next(iter(recorded))
        count = len(others) + len(recorded)
        verdicts = "1 recorded verdict does" if count == 1 else f"{count:,} recorded verdicts do"
        what = f"{verdicts} not follow from the votes, first {visible(first[1])}"
        raise InvalidInputError(
            what, f"{path}, model {visible(first[0])}", "Trust the votes, or ask where it comes from."
        )


def _read(path: str) -> bytes:
    try:
        return UPath(path).read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise MissingInputError(f"no file at '{path}'", "idia judge", "Give the path of an audit.json.") from None
