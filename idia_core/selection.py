"""Who takes part by presence: the filters of the paper's notebook, and balanced halves of the rarest (Appendix C)."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from idia_core.errors import InvalidInputError
from idia_core.identities import Reason, Role

WOMEN, MEN = SEXES = ("F", "M")
CALLED = {WOMEN: "women", MEN: "men"}


class Present(NamedTuple):
    """A person with what the base says of them; the rates are null where that is not known."""

    identity: str
    sex: str | None
    hit_rate: float | None
    clip_rate: float | None


class Limits(NamedTuple):
    """The largest rates that are let through, themselves too; None for no limit."""

    max_hit_rate: float | None
    max_clip_rate: float | None
    needs_sex: bool
    """Whether only people of known sex can take part."""


class Halves(NamedTuple):
    """How many people are wanted on each side; as many as there can be where it is None."""

    members: int | None
    non_members: int | None
    balance: bool
    """Whether each half has as many men as women."""


def exclusion_by_presence(person: Present, limits: Limits) -> Reason | None:
    """Why someone cannot take part, or None; of several reasons the first counts.

    Where CLIP was not asked, its limit is of no effect.
    """
    if person.hit_rate is None:
        return Reason.NO_CANDIDATES
    if _above(person.hit_rate, limits.max_hit_rate):
        return Reason.TOO_PRESENT
    if _above(person.clip_rate, limits.max_clip_rate):
        return Reason.CLIP_AGREES
    if limits.needs_sex and person.sex not in SEXES:
        return Reason.SEX_UNKNOWN
    return None


def _above(rate: float | None, limit: float | None) -> bool:
    return rate is not None and limit is not None and rate > limit


def choose_rarest(eligible: Sequence[Present], halves: Halves, seed: int, left_out: Counter[str]) -> dict[str, Role]:
    """Members and non-members among those who can take part, the rarest first; draws decide ties and sides.

    With `balance` each half has as many men as women; of an odd half the one more is a woman among the members and a
    man among the others. Raises `InvalidInputError` when there are too few people, or too few of a sex; `left_out`
    is for its message.
    """
    rng = np.random.default_rng(seed)
    ranked = _rarest_first(eligible, rng)
    groups = _by_sex(ranked) if halves.balance else {"": [person.identity for person in ranked]}
    sizes = [len(group) for group in groups.values()]
    members, others = _balanced(sizes, halves) if halves.balance else _unbalanced(len(ranked), halves)
    roles = dict[str, Role]()
    for (sex, group), inside, outside in zip(groups.items(), members, others, strict=True):
        if len(group) < inside + outside:
            raise _too_few(CALLED.get(sex, "people"), len(group), inside + outside, left_out)
        drawn = [str(identity) for identity in rng.permutation(group[: inside + outside])]
        roles |= {identity: Role.MEMBER if i < inside else Role.NON_MEMBER for i, identity in enumerate(drawn)}
    return roles


def _rarest_first(people: Sequence[Present], rng: np.random.Generator) -> list[Present]:
    """By hit rate; those of equal rates in an order that is drawn and does not depend on the one given."""
    ordered = sorted(people, key=lambda person: person.identity)
    drawn = [ordered[i] for i in rng.permutation(len(ordered))]
    return sorted(drawn, key=lambda person: person.hit_rate or 0.0)


def _by_sex(people: Sequence[Present]) -> dict[str, list[str]]:
    return {sex: [person.identity for person in people if person.sex == sex] for sex in SEXES}


def _balanced(sizes: Sequence[int], halves: Halves) -> tuple[list[int], list[int]]:
    """The women and men among the members, and among the others; a half that is not given is as large as can be."""
    members, others = halves.members, halves.non_members
    if members is None and others is None:
        members = others = 2 * max(1, min(sizes) // 2)
    if members is None:
        members = _room(sizes, _split(others or 0)[::-1])
    if others is None:
        others = _room(sizes, _split(members))
    return _split(members), _split(others)[::-1]


def _room(sizes: Sequence[int], taken: Sequence[int]) -> int:
    """The people of a balanced half beside those who are taken, two at the least."""
    return 2 * max(1, min(size - gone for size, gone in zip(sizes, taken, strict=True)))


def _split(half: int) -> list[int]:
    return [half - half // 2, half // 2]


def _unbalanced(size: int, halves: Halves) -> tuple[list[int], list[int]]:
    members, others = halves.members, halves.non_members
    if members is None:
        members = max(1, size // 2 if others is None else size - others)
    return [members], [max(1, size - members) if others is None else others]


def _too_few(whom: str, there: int, wanted: int, left_out: Counter[str]) -> InvalidInputError:
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(left_out.items())) or "nobody"
    fix = f"Left out: {reasons}. Loosen the limits, or lower `members` and `non_members`"
    fix += "." if whom == "people" else ", or take any sex with `balance: false`."
    return InvalidInputError(f"{there} {whom} can take part, {wanted} are wanted", "stage select", fix)
