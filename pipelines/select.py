"""`select`: who becomes a member and who stays out (paper, Section 5.1 and Appendix C)."""

from collections import Counter
from typing import Any, Literal, Self

import polars as pl
import pyarrow as pa
from pydantic import Field, model_validator

from idia_core.config import SeededConfig
from idia_core.errors import InvalidInputError, MissingInputError
from idia_core.identities import PAIRS, SELECTION, Reason, Role, choose_roles, exclusion, roles_by_occurrence
from idia_core.selection import Halves, Limits, Present, choose_rarest, exclusion_by_presence
from pipelines.stage import Input, Phase, Split, SplitWriter, Stage, StageContext, once

BY_PRESENCE = ("max_hit_rate", "max_clip_rate", "balance")
RATES = ("hit_rate", "clip_rate")


class SelectConfig(SeededConfig):
    """Settings of `select`."""

    by: Literal["draw", "occurrence", "presence"] = "draw"
    """How roles are given. By a seeded draw among the rarest people, for models that are trained here: `draw` counts
    captions that name them, `presence` base pictures that show them (Appendix C). Or, for models trained elsewhere, by
    `occurrence`: who is named in a caption is a member, who is named in none is not (Section 5.1)."""
    count: Literal["count_paper", "count_strict"] = "count_paper"
    """Which count of occurrences is meant."""
    members: int | None = Field(default=None, ge=1)
    """People whose pairs go into the training data; half of those who can take part when null."""
    non_members: int | None = Field(default=None, ge=1)
    """People who are kept out of it; the other half when null."""
    max_occurrences: int | None = 300
    """People named in more captions than this (the paper's rule) are left out; null for no limit. Of no effect without
    `occurrences`."""
    min_pictures: int = Field(default=1, ge=1)
    """People with fewer readable attack pictures are left out."""
    min_pairs: int = Field(default=1, ge=0)
    """People with fewer training pairs are left out: the largest K. Of no effect without `pairs` or `retrievable`."""
    max_hit_rate: float | None = Field(default=0.15, ge=0, le=1)
    """By presence: people whose face is recognised on a larger share of their candidates are left out; null for no
    limit."""
    max_clip_rate: float | None = Field(default=0.20, ge=0, le=1)
    """By presence: people whose name CLIP gives to a larger share of their candidates are left out; null for no limit.
    Of no effect where CLIP was not asked."""
    balance: bool = True
    """By presence: as many men as women in each half; people of unknown sex are then left out."""

    @model_validator(mode="after")
    def _settings_are_for_what_is_chosen_by(self) -> Self:
        if self.by == "occurrence" and (self.members or self.non_members):
            raise ValueError("members and non_members are numbers to draw; by occurrence everybody takes part")
        if self.by != "presence" and (given := self.model_fields_set.intersection(BY_PRESENCE)):
            raise ValueError(f"{min(given)} is for `by: presence`")
        return self


class _Selector:
    """Applies the limits and gives the roles."""

    def __init__(self, context: StageContext) -> None:
        self._context = context
        self._config: SelectConfig = context.config

    def __call__(self, split: Split, out: SplitWriter) -> None:
        people = _people(self._context).rows(named=True)
        reasons = {person["identity"]: self._exclusion(person) for person in people}
        left_out = Counter(str(reason) for reason in reasons.values() if reason)
        roles = self._roles([person for person in people if reasons[person["identity"]] is None], left_out)
        rows = [
            {
                "role": str(roles.get(person["identity"], Role.EXCLUDED)),
                "reason": str(reasons[person["identity"]] or self._why(roles.get(person["identity"]))),
                **{column: person[column] for column in SELECTION.names if column in person},
            }
            for person in people
        ]
        table = pa.Table.from_pylist(rows, SELECTION)
        out.table("selection", table)
        out.csv("selection", table)
        dropped = Counter(row["reason"] for row in rows if row["role"] == Role.EXCLUDED)
        out.count(rows_in=len(rows), rows_kept=len(roles), **dropped)

    def _exclusion(self, person: dict[str, Any]) -> Reason | None:
        config = self._config
        fewest_pairs = config.min_pairs if person["pairs_known"] else 0
        limits = (config.max_occurrences, config.min_pictures, fewest_pairs)
        reason = exclusion(person["occurrences"] or 0, person["pictures"], person["pairs"], limits)
        if reason or config.by != "presence":
            return reason
        return exclusion_by_presence(
            _present(person), Limits(config.max_hit_rate, config.max_clip_rate, config.balance)
        )

    def _roles(self, eligible: list[dict[str, Any]], left_out: Counter[str]) -> dict[str, Role]:
        config, seed = self._config, int(self._config.seed or 0)
        if config.by == "presence":
            halves = Halves(config.members, config.non_members, config.balance)
            return choose_rarest([_present(person) for person in eligible], halves, seed, left_out)
        counted = [(person["identity"], person["sex"], person["occurrences"]) for person in eligible]
        if config.by == "occurrence":
            return roles_by_occurrence(counted)
        members = config.members or max(1, len(counted) // 2)
        others = config.non_members or max(1, len(counted) - members)
        return choose_roles(counted, members, others, seed)

    def _why(self, role: Role | None) -> Reason:
        if self._config.by == "occurrence":
            return Reason.NAMED if role is Role.MEMBER else Reason.NEVER_NAMED
        return Reason.RAREST if role else Reason.NOT_NEEDED


def _present(person: dict[str, Any]) -> Present:
    return Present(*(person[field] for field in Present._fields))


def _people(context: StageContext) -> pl.DataFrame:
    """A row a person: identity, sex, occurrences, pictures, pairs, hit_rate, clip_rate, and whether pairs are known."""
    inputs = context.inputs
    people = pl.DataFrame(inputs["identities"].read("identity", "name", "sex"))
    people = _with_presence(_with_occurrences(people, context), context)
    pictures = pl.DataFrame(inputs["pictures"].read("identity", "status")).filter(pl.col("status") == "ok")
    people = people.join(pictures.group_by("identity").len("pictures"), on="identity", how="left")
    people = people.join(_pairs(context), on="identity", how="left")
    known = "pairs" in inputs or "retrievable" in inputs
    whole = people.with_columns(pl.col("pictures", "pairs").fill_null(0).cast(pl.Int64), pairs_known=pl.lit(known))
    return whole.sort("identity")


def _pairs(context: StageContext) -> pl.DataFrame:
    """How many pairs there are, or could be retrieved, of each person."""
    inputs = context.inputs
    if "retrievable" not in inputs:
        pairs = pl.DataFrame(inputs["pairs"].read("identity") if "pairs" in inputs else PAIRS.empty_table())
        return pairs.group_by("identity").len("pairs")
    if "pairs" in inputs:
        what, fix = "both `pairs` and `retrievable` say how many pairs there are", "Keep one."
        raise InvalidInputError(what, "stage select, inputs", fix)
    return pl.DataFrame(inputs["retrievable"].read("identity", "pairs")).group_by("identity").agg(pl.col("pairs").sum())


def _with_occurrences(people: pl.DataFrame, context: StageContext) -> pl.DataFrame:
    """The people with how often captions name them, which only a choice by presence can do without."""
    if "occurrences" not in context.inputs:
        _must_be_given("occurrences", context, unless=context.config.by == "presence")
        return people.with_columns(occurrences=pl.lit(None, pl.Int64))
    count = context.config.count
    counts = pl.DataFrame(context.inputs["occurrences"].read("name", count)).rename({count: "occurrences"})
    joined = people.join(counts, on="name", how="left").with_columns(pl.col("occurrences").cast(pl.Int64))
    if missing := joined.filter(pl.col("occurrences").is_null())["name"].to_list():
        what = f"{len(missing)} people were not searched for, first {missing[0]!r}"
        raise InvalidInputError(what, "stage select, input occurrences", "Scan for all names of `identities`.")
    return joined


def _with_presence(people: pl.DataFrame, context: StageContext) -> pl.DataFrame:
    """The people with how often they are in the base."""
    if "presence" not in context.inputs:
        _must_be_given("presence", context, unless=context.config.by != "presence")
        return people.with_columns(pl.lit(None, pl.Float64).alias(rate) for rate in RATES)
    presence = pl.DataFrame(context.inputs["presence"].read("identity", *RATES))
    where = "stage select, input presence"
    if twice := presence.filter(pl.col("identity").is_duplicated())["identity"].to_list():
        raise InvalidInputError(f"{min(twice)!r} is there more than once", where, "Give each person one row.")
    if missing := sorted(set(people["identity"]) - set(presence["identity"])):
        what = f"{len(missing)} people are not in it, first {missing[0]!r}"
        raise InvalidInputError(what, where, "Run `faces` and `presence` for all of `identities`.")
    return people.join(presence, on="identity", how="left")


def _must_be_given(field: str, context: StageContext, *, unless: bool) -> None:
    if not unless:
        where = f"stage select, by: {context.config.by}"
        raise MissingInputError(f"the input `{field}` is not given", where, "Add it under `inputs`.")


STAGE = Stage(
    name="select",
    version=3,
    summary="choose members and non-members",
    config=SelectConfig,
    inputs={
        "identities": Input("people (identity, name, sex)"),
        "occurrences": Input("how often each name occurs (name, count_paper, count_strict)", optional=True),
        "presence": Input("how often people are in the base (identity, hit_rate, clip_rate)", optional=True),
        "pictures": Input("attack pictures (identity, status)"),
        "pairs": Input("training pairs (identity)", optional=True),
        "retrievable": Input("how many pairs can be had of people (identity, pairs), instead of pairs", optional=True),
    },
    phases=(Phase("choose", once, _Selector),),
    tables=("selection", "csv"),
)
