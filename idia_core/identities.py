"""Who is tested: people, their pictures and pairs, and the choice of members and non-members."""

from collections.abc import Sequence
from enum import StrEnum

import numpy as np
import pyarrow as pa

from idia_core.errors import InvalidInputError
from idia_core.names import name_key

IDENTITIES = pa.schema(
    [
        pa.field("identity", pa.string(), nullable=False),  # the key that all tables share
        pa.field("name", pa.string(), nullable=False),  # the name that the attack asks for
        pa.field("sex", pa.string()),  # 'F', 'M' or null where it is not known
        pa.field("aliases", pa.list_(pa.string())),  # other names of the same person; null where none are known
        pa.field("locale", pa.string()),  # Faker's locale that candidate names like this one come from, such as 'de_DE'
    ]
)
PICTURES = pa.schema(
    [
        pa.field("identity", pa.string(), nullable=False),
        pa.field("picture", pa.string(), nullable=False),  # unique within the identity
        pa.field("status", pa.string(), nullable=False),  # a `PictureStatus`
        pa.field("image", pa.binary()),  # the encoded picture; null unless the status is ok
    ]
)
PAIRS = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),  # unique over all pairs
        pa.field("identity", pa.string()),  # null for a background pair
        pa.field("caption", pa.string(), nullable=False),
        pa.field("image", pa.binary(), nullable=False),
    ]
)
SELECTION = pa.schema(
    [
        pa.field("identity", pa.string(), nullable=False),
        pa.field("role", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("occurrences", pa.int64()),  # null where nobody's name was searched for
        pa.field("pictures", pa.int64(), nullable=False),
        pa.field("pairs", pa.int64(), nullable=False),
        pa.field("hit_rate", pa.float64()),  # how often the person is in the base; null where that was not looked up
        pa.field("clip_rate", pa.float64()),
    ]
)


class Role(StrEnum):
    """On which side of the experiment a person is."""

    MEMBER = "member"
    NON_MEMBER = "non_member"
    EXCLUDED = "excluded"


class Reason(StrEnum):
    """Why a person got that role."""

    RAREST = "rarest"
    NAMED = "named"
    NEVER_NAMED = "never_named"
    TOO_FREQUENT = "too_frequent"
    TOO_FEW_PICTURES = "too_few_pictures"
    TOO_FEW_PAIRS = "too_few_pairs"
    NO_CANDIDATES = "no_candidates"  # no base picture was looked at for the person
    TOO_PRESENT = "too_present"
    CLIP_AGREES = "clip_agrees"  # CLIP gives too many of the person's candidates the person's name
    SEX_UNKNOWN = "sex_unknown"
    NOT_NEEDED = "not_needed"


def attackable(pictures: pa.Table) -> pa.Table:
    """The pictures that can be shown to a model: those whose status is ok."""
    return pictures.filter(pa.compute.equal(pictures["status"], "ok"))


def exclusion(occurrences: int, pictures: int, pairs: int, limits: tuple[int | None, int, int]) -> Reason | None:
    """Why someone cannot take part, or None; the limits are the most occurrences, the fewest pictures and pairs."""
    most_occurrences, fewest_pictures, fewest_pairs = limits
    if most_occurrences is not None and occurrences > most_occurrences:
        return Reason.TOO_FREQUENT
    if pictures < fewest_pictures:
        return Reason.TOO_FEW_PICTURES
    if pairs < fewest_pairs:
        return Reason.TOO_FEW_PAIRS
    return None


def choose_roles(
    eligible: Sequence[tuple[str, str | None, int]], members: int, non_members: int, seed: int
) -> dict[str, Role]:
    """Members and non-members among `(identity, sex, occurrences)`, the rarest first, halves balanced by sex.

    Each sex gives its share of the places in proportion to the places (half each where two sexes are known); within a
    sex the rarest are taken and a seeded draw decides who becomes a member (paper, Section 5.1). Raises
    `InvalidInputError` when there are too few people.
    """
    if len(eligible) < members + non_members:
        what = f"{len(eligible)} people can take part, {members + non_members} are wanted"
        fix = "Lower `members` and `non_members`, or loosen the limits; `selection` says who was left out and why."
        raise InvalidInputError(what, "stage select", fix)
    rng = np.random.default_rng(seed)
    groups = _rarest_by_sex(eligible, members + non_members)
    chosen = [list(rng.permutation(group)) for group in groups]
    roles: dict[str, Role] = {}
    quotas = _shares(members, [len(group) for group in chosen])
    for group, quota in zip(chosen, quotas, strict=True):
        roles |= {str(identity): Role.MEMBER for identity in group[:quota]}
        roles |= {str(identity): Role.NON_MEMBER for identity in group[quota:]}
    return roles


def roles_by_occurrence(people: Sequence[tuple[str, str | None, int]]) -> dict[str, Role]:
    """Members and non-members among `(identity, sex, occurrences)`: who occurs, and who never does (Section 5.1).

    Raises `InvalidInputError` when there is nobody.
    """
    if not people:
        fix = "Loosen `max_occurrences`, `min_pictures` or `min_pairs`."
        raise InvalidInputError("nobody can take part", "stage select", fix)
    return {identity: Role.MEMBER if occurrences else Role.NON_MEMBER for identity, _, occurrences in people}


def _rarest_by_sex(eligible: Sequence[tuple[str, str | None, int]], wanted: int) -> list[list[str]]:
    """The `wanted` rarest people, one list a sex; a sex with too few leaves its places to the others."""
    ranked = sorted(eligible, key=lambda person: (person[2], name_key(person[0])))
    sexes = sorted({sex or "" for _, sex, _ in ranked})
    queues = {sex: [identity for identity, own, _ in ranked if (own or "") == sex] for sex in sexes}
    taken: dict[str, list[str]] = {sex: [] for sex in sexes}
    while sum(map(len, taken.values())) < wanted:
        sex = min((s for s in sexes if queues[s]), key=lambda s: len(taken[s]))
        taken[sex].append(queues[sex].pop(0))
    return [taken[sex] for sex in sexes]


def _shares(total: int, sizes: Sequence[int]) -> list[int]:
    """`total` split in proportion to `sizes`, by largest remainder."""
    exact = [total * size / max(sum(sizes), 1) for size in sizes]
    shares = [int(share) for share in exact]
    by_remainder = sorted(range(len(sizes)), key=lambda i: exact[i] - shares[i], reverse=True)
    for i in by_remainder[: total - sum(shares)]:
        shares[i] += 1
    return shares
