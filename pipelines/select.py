"""`select`: who becomes a member and who stays out (paper, Section 5.1)."""

from collections import Counter

import polars as pl
import pyarrow as pa
from pydantic import Field

from idia_core.config import SeededConfig
from idia_core.identities import SELECTION, Reason, Role, choose_roles, exclusion
from pipelines.stage import Input, Phase, Split, SplitWriter, Stage, StageContext, once


class SelectConfig(SeededConfig):
    """Settings of `select`."""

    members: int | None = Field(default=None, ge=1)
    """People whose pairs go into the training data; half of those who can take part when null."""
    non_members: int | None = Field(default=None, ge=1)
    """People who are kept out of it; the other half when null."""
    max_occurrences: int | None = 300
    """People named in more captions than this (the paper's rule) are left out; null for no limit."""
    min_pictures: int = Field(default=1, ge=1)
    """People with fewer readable attack pictures are left out."""
    min_pairs: int = Field(default=1, ge=0)
    """People with fewer training pairs are left out: the largest K."""


class _Selector:
    """Applies the limits and draws the roles."""

    def __init__(self, context: StageContext) -> None:
        self._context = context
        self._config: SelectConfig = context.config

    def __call__(self, split: Split, out: SplitWriter) -> None:
        config = self._config
        limits = (config.max_occurrences, config.min_pictures, config.min_pairs)
        people = _people(self._context).rows(named=True)
        reasons = {p["identity"]: exclusion(p["occurrences"], p["pictures"], p["pairs"], limits) for p in people}
        eligible = [(p["identity"], p["sex"], p["occurrences"]) for p in people if reasons[p["identity"]] is None]
        members = config.members or max(1, len(eligible) // 2)
        others = config.non_members or max(1, len(eligible) - members)
        roles = choose_roles(eligible, members, others, int(config.seed or 0))
        rows = [
            {
                "identity": person["identity"],
                "role": str(roles.get(person["identity"], Role.EXCLUDED)),
                "reason": str(_reason(reasons[person["identity"]], person["identity"] in roles)),
                **{count: person[count] for count in ("occurrences", "pictures", "pairs")},
            }
            for person in people
        ]
        out.table("selection", pa.Table.from_pylist(rows, SELECTION))
        dropped = Counter(row["reason"] for row in rows if row["role"] == Role.EXCLUDED)
        out.count(rows_in=len(rows), rows_kept=len(roles), **dropped)


def _reason(excluded: Reason | None, chosen: bool) -> Reason:
    return excluded or (Reason.RAREST if chosen else Reason.NOT_NEEDED)


def _people(context: StageContext) -> pl.DataFrame:
    """A row a person: identity, sex, occurrences (paper rule), pictures, pairs."""
    inputs = context.inputs
    people = pl.DataFrame(inputs["identities"].read("identity", "name", "sex"))
    counts = pl.DataFrame(inputs["occurrences"].read("name", "count_paper")).rename({"count_paper": "occurrences"})
    pictures = pl.DataFrame(inputs["pictures"].read("identity", "status")).filter(pl.col("status") == "ok")
    pairs = pl.DataFrame(inputs["pairs"].read("identity"))
    joined = people.join(counts, on="name", how="left")
    joined = joined.join(pictures.group_by("identity").len("pictures"), on="identity", how="left")
    joined = joined.join(pairs.group_by("identity").len("pairs"), on="identity", how="left")
    return joined.with_columns(pl.col("occurrences", "pictures", "pairs").fill_null(0).cast(pl.Int64)).sort("identity")


STAGE = Stage(
    name="select",
    version=1,
    summary="choose members and non-members",
    config=SelectConfig,
    inputs={
        "identities": Input("people (identity, name, sex)"),
        "occurrences": Input("how often each name occurs (name, count_paper)"),
        "pictures": Input("attack pictures (identity, status)"),
        "pairs": Input("training pairs (identity)"),
    },
    phases=(Phase("choose", once, _Selector),),
    tables=("selection",),
)
