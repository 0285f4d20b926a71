"""The stage `select`, by occurrence: the LAION study's members and non-members."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from idia_core.config import Study
from idia_core.errors import ConfigError, InvalidInputError
from idia_core.identities import IDENTITIES, PICTURES
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


@pytest.fixture
def select(tmp_path: Path) -> Select:
    """Select with some settings; returns role, reason and occurrences of everybody."""

    def write(name: str, rows: list[dict[str, Any]], schema: pa.Schema | None = None) -> str:
        pq.write_table(pa.Table.from_pylist(rows, schema), tmp_path / f"{name}.parquet")
        return str(tmp_path / f"{name}.parquet")

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
