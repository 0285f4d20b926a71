"""`select`: who becomes a member and who stays out (paper, Section 5.1)."""

from collections import Counter
from typing import Literal, Self

import polars as pl
import pyarrow as pa
from pydantic import Field, model_validator

from idia_core.config import SeededConfig
from idia_core.errors import InvalidInputError
from idia_core.identities import PAIRS, SELECTION, Reason, Role, choose_roles, exclusion, roles_by_occurrence
from pipelines.stage import Input, Phase, Split, SplitWriter, Stage, StageContext, once


class SelectConfig(SeededConfig):
    """Settings of `select`."""

    by: Literal["draw", "occurrence"] = "draw"
    """How roles are given. By a seeded draw among the rarest people, for models that are trained here. Or, for models
    trained elsewhere, by occurrence: who is named in a caption is a member, who is named in none is not (paper, Section
    5.1)."""
    count: Literal["count_paper", "count_strict"] = "count_paper"
    """Which count of occurrences is meant."""
    members: int | None = Field(default=None, ge=1)
    """People whose pairs go into the training data; half of those who can take part when null."""
    non_members: int | None = Field(default=None, ge=1)
    """People who are kept out of it; the other half when null."""
    max_occurrences: int | None = 300
    """People named in more captions than this (the paper's rule) are left out; null for no limit."""
    min_pictures: int = Field(default=1, ge=1)
    """People with fewer readable attack pictures are left out."""
    min_pairs: int = Field(default=1, ge=0)
    """People with fewer training pairs are left out: the largest K. Of no effect without `pairs`."""

    @model_validator(mode="after")
    def _numbers_are_for_draws(self) -> Self:
        if self.by == "occurrence" and (self.members or self.non_members):
            raise ValueError("members and non_members are numbers to draw; by occurrence everybody takes part")
        return self


class _Selector:
    """Applies the limits and draws the roles."""

    def __init__(self, context: StageContext) -> None:
        self._context = context
        self._config: SelectConfig = context.config

    def __call__(self, split: Split, out: SplitWriter) -> None:
        config = self._config
        fewest_pairs = config.min_pairs if "pairs" in self._context.inputs else 0
        limits = (config.max_occurrences, config.min_pictures, fewest_pairs)
        people = _people(self._context).rows(named=True)
        reasons = {p["identity"]: exclusion(p["occurrences"], p["pictures"], p["pairs"], limits) for p in people}
        eligible = [(p["identity"], p["sex"], p["occurrences"]) for p in people if reasons[p["identity"]] is None]
        roles = self._drawn(eligible) if config.by == "draw" else roles_by_occurrence(eligible)
        rows = [
            {
                "identity": person["identity"],
                "role": str(roles.get(person["identity"], Role.EXCLUDED)),
                "reason": str(reasons[person["identity"]] or self._why(roles.get(person["identity"]))),
                **{count: person[count] for count in ("occurrences", "pictures", "pairs")},
            }
            for person in people
        ]
        table = pa.Table.from_pylist(rows, SELECTION)
        out.table("selection", table)
        out.csv("selection", table)
        dropped = Counter(row["reason"] for row in rows if row["role"] == Role.EXCLUDED)
        out.count(rows_in=len(rows), rows_kept=len(roles), **dropped)

    def _drawn(self, eligible: list[tuple[str, str | None, int]]) -> dict[str, Role]:
        members = self._config.members or max(1, len(eligible) // 2)
        others = self._config.non_members or max(1, len(eligible) - members)
        return choose_roles(eligible, members, others, int(self._config.seed or 0))

    def _why(self, role: Role | None) -> Reason:
        if self._config.by == "occurrence":
            return Reason.NAMED if role is Role.MEMBER else Reason.NEVER_NAMED
        return Reason.RAREST if role else Reason.NOT_NEEDED


def _people(context: StageContext) -> pl.DataFrame:
    """A row a person: identity, sex, occurrences, pictures, pairs."""
    inputs = context.inputs
    people = pl.DataFrame(inputs["identities"].read("identity", "name", "sex"))
    count = context.config.count
    counts = pl.DataFrame(inputs["occurrences"].read("name", count)).rename({count: "occurrences"})
    pictures = pl.DataFrame(inputs["pictures"].read("identity", "status")).filter(pl.col("status") == "ok")
    pairs = pl.DataFrame(inputs["pairs"].read("identity") if "pairs" in inputs else PAIRS.empty_table())
    joined = people.join(counts, on="name", how="left")
    if missing := joined.filter(pl.col("occurrences").is_null())["name"].to_list():
        what = f"{len(missing)} people were not searched for, first {missing[0]!r}"
        raise InvalidInputError(what, "stage select, input occurrences", "Scan for all names of `identities`.")
    joined = joined.join(pictures.group_by("identity").len("pictures"), on="identity", how="left")
    joined = joined.join(pairs.group_by("identity").len("pairs"), on="identity", how="left")
    return joined.with_columns(pl.col("occurrences", "pictures", "pairs").fill_null(0).cast(pl.Int64)).sort("identity")


STAGE = Stage(
    name="select",
    version=2,
    summary="choose members and non-members",
    config=SelectConfig,
    inputs={
        "identities": Input("people (identity, name, sex)"),
        "occurrences": Input("how often each name occurs (name, count_paper, count_strict)"),
        "pictures": Input("attack pictures (identity, status)"),
        "pairs": Input("training pairs (identity)", optional=True),
    },
    phases=(Phase("choose", once, _Selector),),
    tables=("selection", "csv"),
)
