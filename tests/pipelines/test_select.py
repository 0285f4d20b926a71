"""The stage `select`: the LAION study's members and non-members by occurrence, and CC3M's by presence."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from idia_core.config import Study
from idia_core.errors import ConfigError, InvalidInputError, MissingInputError
from idia_core.identities import IDENTITIES, PICTURES, SELECTION
from idia_core.presence import PRESENCE
from jobs.run import run_study

pytestmark = pytest.mark.usefixtures("local_ray")
PEOPLE = {
    "never": (0, 0, 30),
    "once": (1, 0, 30),
    "often": (299, 299, 30),
    "too often": (300, 1, 30),
    "few": (5, 5, 29),
}
"""Each person's count by the paper's rule and by the strict rule, and number of pictures."""

Select = Callable[..., dict[str, tuple[str, str, int]]]
Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write an input; returns where it is."""

    def to(name: str, rows: list[dict[str, Any]], schema: pa.Schema | None = None) -> str:
        pq.write_table(pa.Table.from_pylist(rows, schema), tmp_path / f"{name}.parquet")
        return str(tmp_path / f"{name}.parquet")

    return to


@pytest.fixture
def select(tmp_path: Path, write: Write) -> Select:
    """Select with some settings; returns role, reason and occurrences of everybody."""

    def run(scanned: int = len(PEOPLE), **fields: Any) -> dict[str, tuple[str, str, int]]:
        counts = [{"name": n, "count_paper": paper, "count_strict": strict} for n, (paper, strict, _) in PEOPLE.items()]
        pictures = [
            {"identity": name, "picture": str(i), "status": "ok", "image": b"x"}
            for name, (_, _, count) in PEOPLE.items()
            for i in range(count)
        ]
        inputs = {
            "identities": write("identities", [{"identity": name, "name": name} for name in PEOPLE], IDENTITIES),
            "occurrences": write("occurrences", counts[:scanned]),
            "pictures": write("pictures", pictures, PICTURES),
        }
        study = Study(name="test", out=str(tmp_path / "out"), stages={"select": {"inputs": inputs, **fields}})
        run_study(study, Console(quiet=True))
        rows = pl.read_parquet(tmp_path / "out/select/selection/*.parquet").to_dicts()
        assert pl.read_csv(tmp_path / "out/select/csv/selection.csv").to_dicts() == rows
        return {row["identity"]: (row["role"], row["reason"], row["occurrences"]) for row in rows}

    return run


def test_who_occurs_is_a_member(select: Select) -> None:
    """Of people with fewer than 300 occurrences and 30 pictures those who occur are members, the others are not."""
    assert select(by="occurrence", max_occurrences=299, min_pictures=30) == {
        "never": ("non_member", "never_named", 0),
        "once": ("member", "named", 1),
        "often": ("member", "named", 299),
        "too often": ("excluded", "too_frequent", 300),
        "few": ("excluded", "too_few_pictures", 5),
    }


def test_the_strict_count_may_decide(select: Select) -> None:
    """By the strict count others are members."""
    found = select(by="occurrence", max_occurrences=299, min_pictures=30, count="count_strict")
    assert {name: role for name, (role, _, _) in found.items()} == {
        "never": "non_member",
        "once": "non_member",
        "often": "member",
        "too often": "member",
        "few": "excluded",
    }


def test_nobody_left_is_an_error(select: Select) -> None:
    """Limits that leave nobody are an error that says which to loosen."""
    with pytest.raises(InvalidInputError, match=r"nobody can take part.*Loosen `max_occurrences`"):
        select(by="occurrence", min_pictures=31)


def test_numbers_of_people_are_for_draws(select: Select) -> None:
    """By occurrence nobody is drawn, so numbers of members are refused."""
    with pytest.raises(ConfigError, match="everybody takes part"):
        select(by="occurrence", members=3)


def test_who_was_not_searched_for_is_an_error(select: Select) -> None:
    """Nobody is taken for a person who never occurs because the scan was for other names."""
    with pytest.raises(InvalidInputError, match="2 people were not searched for, first 'too often'"):
        select(scanned=3, by="occurrence")


RATES: dict[str, tuple[str | None, float | None, float | None, int]] = {
    **{f"woman {i}": ("F", i / 100, 0.0, 100) for i in range(5)},
    **{f"man {i}": ("M", i / 100, 0.1, 100) for i in range(4)},
    "at the limits": ("M", 0.15, 0.20, 100),
    "too present": ("M", 0.151, 0.0, 100),
    "known to CLIP": ("F", 0.0, 0.201, 100),
    "not looked for": ("F", None, None, 100),
    "few pairs": ("F", 0.0, 0.0, 99),
    "of no known sex": (None, 0.0, 0.0, 100),
}
"""Each person's sex, hit rate, CLIP's rate and pairs that can be retrieved."""
Rows = dict[str, dict[str, Any]]


@pytest.fixture
def by_presence(tmp_path: Path, write: Write) -> Callable[..., Rows]:
    """Select by presence with some settings; returns everybody's row."""

    def run(leave_out: str = "", extra: tuple[str, ...] = (), repeat: int = 1, **fields: Any) -> Rows:
        people = [{"identity": name, "name": name, "sex": sex} for name, (sex, *_) in RATES.items()]
        found = [
            dict.fromkeys(PRESENCE.names, 0) | {"identity": name, "hit_rate": hit, "clip_rate": clip}
            for name, (_, hit, clip, _) in list(RATES.items()) * repeat
            if name != leave_out
        ]
        pictures = [{"identity": name, "picture": "1", "status": "ok", "image": b"x"} for name in RATES]
        inputs = {
            "identities": write("identities", people, IDENTITIES),
            "presence": write("presence", found, PRESENCE),
            "pictures": write("pictures", pictures, PICTURES),
            "retrievable": write("retrievable", [{"identity": n, "pairs": rate[3]} for n, rate in RATES.items()]),
            "occurrences": write("occurrences", [{"name": n, "count_paper": 301 * (n[0] == "k")} for n in RATES]),
        }
        given = {name: path for name, path in inputs.items() if name != leave_out and name not in extra}
        settings = {"by": "presence", "min_pairs": 100, "inputs": given} | fields
        study = Study(name="test", out=str(tmp_path / "out"), seed=3, stages={"select": settings})
        run_study(study, Console(quiet=True))
        table = pq.read_table(tmp_path / "out/select/selection/part-00000.parquet")
        assert table.schema == SELECTION
        return {row["identity"]: row for row in table.to_pylist()}

    return run


def test_the_notebooks_filters_and_balanced_halves(by_presence: Callable[..., Rows]) -> None:
    """The two rarest women and men are on either side, each other person is left out for a reason of their own."""
    rows = by_presence(leave_out="occurrences", members=4, non_members=4)
    taken = [f"{sex} {i}" for sex in ("woman", "man") for i in range(4)]
    assert {name for name, row in rows.items() if row["role"] != "excluded"} == set(taken)
    for role in ("member", "non_member"):
        assert sorted(n.split()[0] for n in taken if rows[n]["role"] == role) == ["man", "man", "woman", "woman"]
    assert {name: row["reason"] for name, row in rows.items()} == dict.fromkeys(taken, "rarest") | {
        "woman 4": "not_needed",
        "at the limits": "not_needed",
        "too present": "too_present",
        "known to CLIP": "clip_agrees",
        "not looked for": "no_candidates",
        "few pairs": "too_few_pairs",
        "of no known sex": "sex_unknown",
    }
    assert rows["man 3"] | {"role": ""} == {
        "identity": "man 3", "role": "", "reason": "rarest", "occurrences": None, "pictures": 1, "pairs": 100,
        "hit_rate": 0.03, "clip_rate": 0.1,
    }  # fmt: skip


def test_looser_limits_without_balance(by_presence: Callable[..., Rows]) -> None:
    """Without limits and balance all that were looked for take part; a count of captions still counts if given."""
    rows = by_presence(max_hit_rate=None, max_clip_rate=None, balance=False, min_pairs=0)
    left_out = {name: row["reason"] for name, row in rows.items() if row["role"] == "excluded"}
    assert left_out == {"not looked for": "no_candidates", "known to CLIP": "too_frequent"}
    assert [sum(row["role"] == role for row in rows.values()) for role in ("member", "non_member")] == [6, 7]
    assert rows["few pairs"]["occurrences"] == 0


def test_too_few_men(by_presence: Callable[..., Rows]) -> None:
    """Where there is one man too few the error counts whom the filters left out."""
    expected = r"4 men can take part, 5 are wanted.*1 clip_agrees, 1 no_candidates, 1 sex_unknown, 1 too_few_pairs"
    with pytest.raises(InvalidInputError, match=expected):
        by_presence(leave_out="occurrences", members=5, non_members=5, max_hit_rate=0.04)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"leave_out": "presence"}, r"the input `presence` is not given \(stage select, by: presence\)"),
        ({"extra": ("occurrences", "presence"), "by": "draw"}, "the input `occurrences` is not given"),
        ({"leave_out": "occurrences", "by": "occurrence"}, "the input `occurrences` is not given"),
    ],
)
def test_what_the_choice_rests_on_must_be_there(
    by_presence: Callable[..., Rows], fields: dict[str, Any], message: str
) -> None:
    """Each way of choosing says which input it lacks."""
    with pytest.raises(MissingInputError, match=message):
        by_presence(**fields)


def test_presence_of_other_people_is_refused(by_presence: Callable[..., Rows]) -> None:
    """Nobody is taken for rare who was not looked for, and nobody may be there twice."""
    with pytest.raises(InvalidInputError, match="1 people are not in it, first 'man 1'"):
        by_presence(leave_out="man 1")
    with pytest.raises(InvalidInputError, match="'at the limits' is there more than once"):
        by_presence(repeat=2)


def test_limits_of_presence_are_not_for_draws(select: Select) -> None:
    """A limit that would do nothing is refused."""
    with pytest.raises(ConfigError, match="max_hit_rate is for `by: presence`"):
        select(max_hit_rate=0.1)
