"""What the report says of how the models were trained, and of what else they can do (the paper's Table 2)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

ZEROSHOT = ("model", "pictures", "failed", "top1", "top1_low", "top1_high", "top5", "top5_low", "top5_high")
RETRIEVAL_RANK = ("model", "pairs", "failed", "rank1", "rank1_low", "rank1_high", "rank5", "rank5_low", "rank5_high")
RUNS = ("model", "attempt", "first_epoch", "last_epoch", "reason")


@dataclass(frozen=True)
class Share:
    """A rate with the ends of its 95% Wilson interval."""

    rate: float
    low: float
    high: float


@dataclass(frozen=True)
class Ability:
    """A model's row of Table 2; None where it was not measured."""

    model: str
    architecture: str
    images_per_member: int
    zeroshot: tuple[Share, Share] | None
    """Top-1 and top-5 over pictures of known classes."""
    retrieval: tuple[Share, Share] | None
    """rank@1 and rank@5 over pairs that were not trained on."""


@dataclass(frozen=True)
class Abilities:
    """Table 2, with what it was measured on: so many pictures and pairs at most, so many more that were unreadable."""

    rows: list[Ability]
    pictures: int
    pictures_failed: int
    pairs: int
    pairs_failed: int


def restarts(runs: pa.Table) -> dict[str, list[str]]:
    """Why each attempt of a model's training but the last ended; `runs` has the columns of RUNS."""
    reasons = dict[str, list[str]]()
    for row in sorted(runs.to_pylist(), key=lambda row: int(row["attempt"])):
        kept = row["last_epoch"] >= row["first_epoch"]
        when = f"after epoch {row['last_epoch']}" if kept else f"before the end of epoch {row['first_epoch']}"
        reasons.setdefault(row["model"], []).append(f"{when}: {row['reason']}")
    return {model: ended[:-1] for model, ended in reasons.items()}


def abilities(models: Sequence[Any], zeroshot: pa.Table | None, retrieval_rank: pa.Table | None) -> Abilities | None:
    """Table 2 in the order of `models` (each with name, architecture and images_per_member); None without any row."""
    classed = _by_model(zeroshot)
    ranked = _by_model(retrieval_rank)
    rows = [
        Ability(
            model.name,
            model.architecture,
            model.images_per_member,
            _shares(classed[model.name], "top") if model.name in classed else None,
            _shares(ranked[model.name], "rank") if model.name in ranked else None,
        )
        for model in models
        if model.name in classed or model.name in ranked
    ]
    if not rows:
        return None
    return Abilities(
        rows, _most(classed, "pictures"), _most(classed, "failed"), _most(ranked, "pairs"), _most(ranked, "failed")
    )


def _by_model(table: pa.Table | None) -> dict[str, dict[str, Any]]:
    return {row["model"]: row for row in table.to_pylist()} if table is not None else {}


def _shares(row: dict[str, Any], kind: str) -> tuple[Share, Share]:
    first, fifth = (Share(row[k], row[f"{k}_low"], row[f"{k}_high"]) for k in (f"{kind}1", f"{kind}5"))
    return first, fifth


def _most(rows: dict[str, dict[str, Any]], column: str) -> int:
    return max((row[column] for row in rows.values()), default=0)
