"""`audit.json`: what it holds can be judged again to the same verdicts, as it is and with codes for names."""

import json
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idia_core.audit_json import AuditFile, from_json, to_json
from idia_core.audit_tables import drawn_alike, judge_tables, votes_of
from idia_core.errors import DuplicateNameError, InvalidInputError
from idia_core.prompts import TEMPLATES
from idia_core.redaction import Codes, redact
from idia_core.statistics import judge
from idia_core.tallies import ballots
from tests.audits import PEOPLE, RULES, audit_file, tables


@pytest.fixture(scope="module")
def audit() -> AuditFile:
    """Two models, six people with two to twelve pictures, and a panel."""
    return audit_file(tables(models=("large", "small")))


@pytest.fixture(scope="module")
def redacted(audit: AuditFile) -> tuple[AuditFile, Codes]:
    """The same with codes."""
    codes = Codes.draw(audit.people, audit.pools, audit.models, "a secret")
    return redact(audit, codes), codes


def judged(audit: AuditFile) -> list[dict[str, Any]]:
    """The verdicts that follow from the text of the file alone."""
    again = from_json(to_json(audit), "audit.json")
    return judge(judge_tables(again), again.rules).to_pylist()


def test_the_file_gives_back_what_was_written(audit: AuditFile) -> None:
    """Read again it is the same audit, and written again the same text."""
    text = to_json(audit)
    assert from_json(text, "audit.json") == audit
    assert to_json(from_json(text, "audit.json")) == text


def test_judging_the_file_gives_the_recorded_verdicts(audit: AuditFile) -> None:
    """Every column of every verdict is the same, to the last bit; the people's unequal pictures are drawn alike."""
    assert judged(audit) == [verdict.model_dump() for verdict in audit.verdicts]
    assert {verdict.finding for verdict in audit.verdicts} == {"member", "no evidence", "inconclusive"}


def test_the_text_holds_nothing_that_a_browser_could_run() -> None:
    """It is ASCII without angle brackets, also for a name with a tag, quotes and a character that turns text round."""
    names = ("<script>alert(1)</script>", 'Q"uo\\te & \u202eson', "Cleo Starr")
    audit = audit_file(tables(names, panel=5))
    text = to_json(audit)
    assert text.isascii()
    assert not set("<>&") & set(text)
    assert [person.name for person in from_json(text, "audit.json").people] == list(names)


def test_the_panel_is_told_by_codes_alone(audit: AuditFile) -> None:
    """No identity and no file name of the panel is in the file, though all of its votes are."""
    text = to_json(audit)
    assert "bystander" not in text
    assert len(audit.panel) == 60
    assert len(audit.panel_votes) == 2 * 60


def test_redaction_leaves_no_name_and_no_picture(audit: AuditFile, redacted: tuple[AuditFile, Codes]) -> None:
    """Names, identities, files, hashes of pictures, other names, title, command and a model's path are gone."""
    text = to_json(redacted[0])
    secrets = [*PEOPLE, "Moon", "Starr", "Hara", *(p.identity for p in audit.people)]
    secrets += [picture.picture for person in audit.people for picture in person.pictures]
    secrets += [*audit.pools[0].names, "ab" * 32, "e5" * 32, audit.title, "idia audit", "/home", "ada_moon", "large"]
    assert [secret for secret in secrets if json.dumps(secret)[1:-1].lower() in text.lower()] == []
    assert "Person 0006" in text


def test_redaction_keeps_every_verdict(audit: AuditFile, redacted: tuple[AuditFile, Codes]) -> None:
    """Judged from codes, each person gets the verdict that was reached by name, and the models keep their places."""
    coded, codes = redacted
    again = {(row.pop("model"), row.pop("identity")): row for row in judged(coded)}
    expected = {(codes.models[v.model], codes.identities[v.identity]): v.model_dump() for v in audit.verdicts}
    for verdict in expected.values():
        del verdict["model"], verdict["identity"]
    assert again == expected


def test_the_order_of_codes_depends_on_the_key(audit: AuditFile) -> None:
    """Who does not have the key cannot count out who is who: another key gives another order, the same key the same."""
    drawn = [Codes.draw(audit.people, audit.pools, audit.models, key) for key in ("one", "two", "one")]
    assert drawn[0] == drawn[2]
    assert list(drawn[0].identities) != list(drawn[1].identities)
    assert all(min(codes.identities.values()) == "Person 0001" for codes in drawn)


def test_nothing_of_the_old_order_is_left(redacted: tuple[AuditFile, Codes]) -> None:
    """People, verdicts, names and votes stand in the order of their codes."""
    coded, _ = redacted
    people = [person.identity for person in coded.people]
    assert people == sorted(people)
    assert [v.identity for v in coded.verdicts] == people * 2
    assert [v.identity for v in coded.votes] == people * 2
    assert list(coded.pools[0].names) == sorted(coded.pools[0].names)
    assert [person.name for person in coded.people] == people


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.text(max_size=8), st.text(max_size=8), st.integers(1, 12)), max_size=6), st.integers(0, 99)
)
def test_reordered_rows_are_drawn_under_a_code_as_under_the_identity(
    renamed: list[tuple[str, str, int]], seed: int
) -> None:
    """Whatever the identity, the code and the number of pictures, `ballots` gives the same votes in the same order."""
    names = [f"{k:02d}" for k in range(12)]
    for (identity, code, rows), order in zip(renamed, drawn_alike(renamed, seed), strict=True):
        assert sorted(order) == list(range(rows))

        def cast(who: str, said: list[str]) -> Any:
            votes = {"image": [f"{i:06d}" for i in range(len(said))], "predicted": said}
            frame = pl.DataFrame(votes).with_columns(identity=pl.lit(who), template=pl.lit("t"))
            return ballots(frame, [who], names, seed)[0]

        assert np.array_equal(cast(identity, names[:rows]), cast(code, [names[row] for row in order]))


def broken(audit: AuditFile, **changed: Any) -> str:
    """The file's text with other values in some fields."""
    return json.dumps(json.loads(to_json(audit)) | changed)


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"version": 2}, "version: input should be 1"),
        ({"format": "other"}, "format: input should be 'idia-audit'"),
        ({"surplus": 1}, "surplus: extra inputs are not permitted"),
        ({"templates": "{0}"}, "templates: input should be a valid"),
        ({"models": []}, "is not in the file .*votes of"),
        ({"people": []}, "is not in the file .*votes of .*identity"),
        ({"panel": []}, "is not in the file .*panel votes"),
        ({"templates": ["{0}"]}, "21 votes on a picture, for 1 templates"),
    ],
)
def test_a_file_that_does_not_fit_together_is_refused(
    audit: AuditFile, changed: dict[str, Any], complaint: str
) -> None:
    """What is wrong is a typed error that names the file and the place."""
    with pytest.raises(InvalidInputError, match=complaint) as raised:
        from_json(broken(audit, **changed), "their.json")
    assert raised.value.where.startswith("their.json")


def test_votes_that_cannot_be_are_refused(audit: AuditFile) -> None:
    """A name beyond the pool, a picture too many, a string for a number, and text that is no JSON."""
    votes = json.loads(to_json(audit))["votes"]
    for key, value, complaint in (
        ("votes", [[999] * 21, *votes[0]["votes"][1:]], "a vote for a name beyond the pool's 206"),
        ("votes", [[-2] * 21, *votes[0]["votes"][1:]], "a vote for a name beyond"),
        ("votes", votes[0]["votes"][1:], "not one row of votes for each picture"),
        ("pictures", [99, *votes[0]["pictures"][1:]], "a picture that the person does not have"),
        ("votes", [["1"] * 21, *votes[0]["votes"][1:]], "valid integer"),
    ):
        with pytest.raises(InvalidInputError, match=complaint):
            from_json(broken(audit, votes=[votes[0] | {key: value}, *votes[1:]]), "their.json")
    with pytest.raises(DuplicateNameError, match="comes twice"):
        from_json(broken(audit, votes=[*votes, votes[0]]), "their.json")
    for text in ("", "{", "[]", '{"format": NaN}', b"\xff"):
        with pytest.raises(InvalidInputError, match="not an audit of this version"):
            from_json(text, "their.json")


def test_votes_for_unknown_names_and_pictures_are_refused(audit: AuditFile) -> None:
    """A table of votes that was made with other candidates, other templates or other pictures does not pass."""
    found = pl.DataFrame(tables().votes)
    for column, complaint in (("predicted", "no candidate"), ("template", "no template"), ("image", "does not have")):
        strange = found.with_columns(pl.lit("strange").alias(column)).unique(["identity", "template", "image"])
        with pytest.raises(InvalidInputError, match=complaint):
            votes_of(strange.to_arrow(), audit.people, audit.pools, TEMPLATES)


def test_a_picture_without_an_answer_to_a_template_stays_so() -> None:
    """A vote that is missing is -1 in the file and missing again in the tables."""
    found = tables()
    audit = audit_file(found)
    cut = votes_of(found.votes.slice(1), audit.people, audit.pools, TEMPLATES)
    assert cut[0].votes[0][0] == -1
    file = audit.model_copy(update={"votes": cut})
    assert judge_tables(file).votes.num_rows == found.votes.num_rows - 1
    assert from_json(to_json(file), "audit.json").rules == RULES
