"""Who takes part, and on which side."""

from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idia_core.errors import InvalidInputError
from idia_core.identities import PICTURES, SELECTION, Reason, Role, attackable, choose_roles, exclusion

Person = tuple[str, str | None, int]
EVEN: list[Person] = [(f"{sex}{i:02d}", sex, i) for i in range(20) for sex in "FM"]


def _people(draw_sexes: st.SearchStrategy[str | None]) -> st.SearchStrategy[list[Person]]:
    person = st.tuples(st.integers(0, 10**6).map(str), draw_sexes, st.integers(0, 400))
    return st.lists(person, min_size=2, max_size=40, unique_by=lambda p: p[0])


ANYONE = _people(st.sampled_from(["F", "M", None]))


def _of(roles: dict[str, Role], role: Role) -> set[str]:
    return {identity for identity, own in roles.items() if own is role}


@pytest.mark.parametrize(
    ("counts", "limits", "reason"),
    [
        ((300, 5, 5), (300, 5, 5), None),
        ((301, 5, 5), (300, 5, 5), Reason.TOO_FREQUENT),
        ((301, 5, 5), (None, 5, 5), None),
        ((300, 4, 5), (300, 5, 5), Reason.TOO_FEW_PICTURES),
        ((300, 5, 4), (300, 5, 5), Reason.TOO_FEW_PAIRS),
        ((301, 4, 4), (300, 5, 5), Reason.TOO_FREQUENT),
        ((300, 4, 4), (300, 5, 5), Reason.TOO_FEW_PICTURES),
        ((0, 0, 0), (0, 0, 0), None),
        ((1, 0, 0), (0, 0, 0), Reason.TOO_FREQUENT),
    ],
)
def test_exclusion(counts: tuple[int, int, int], limits: tuple[int | None, int, int], reason: Reason | None) -> None:
    """The limits themselves still pass, and of several reasons the first counts: names, then pictures, then pairs."""
    assert exclusion(*counts, limits) is reason


def test_a_selection_may_lack_what_was_not_looked_up() -> None:
    """Occurrences and the two rates may be null, nothing else; every reason is a word of its own."""
    assert [field.name for field in SELECTION if field.nullable] == ["occurrences", "hit_rate", "clip_rate"]
    assert [field.type for field in SELECTION if field.nullable] == [pa.int64(), pa.float64(), pa.float64()]
    assert len({str(reason) for reason in Reason}) == len(Reason) == 11


def test_attackable_pictures_are_those_that_are_ok() -> None:
    """A picture with any other status is not shown to a model."""
    rows = [
        {"identity": "a", "picture": str(i), "status": status, "image": b"x" if status == "ok" else None}
        for i, status in enumerate(["ok", "broken", "ok", "duplicate", "empty", "too_large"])
    ]
    assert attackable(pa.Table.from_pylist(rows, PICTURES))["picture"].to_pylist() == ["0", "2"]


def test_the_rarest_are_taken_in_equal_halves() -> None:
    """Of 20 women and 20 men the six rarest of each take part, three of each on either side."""
    roles = choose_roles(EVEN, 6, 6, seed=0)
    assert set(roles) == {f"{sex}{i:02d}" for sex in "FM" for i in range(6)}
    assert Counter((role, identity[0]) for identity, role in roles.items()) == {
        (role, sex): 3 for role in (Role.MEMBER, Role.NON_MEMBER) for sex in "FM"
    }


def test_the_draw_depends_on_the_seed_alone() -> None:
    """The same seed gives the same roles whatever the order of the people, another seed other ones among the same."""
    first = choose_roles(EVEN, 6, 6, seed=0)
    assert choose_roles(EVEN[::-1], 6, 6, seed=0) == first
    others = [choose_roles(EVEN, 6, 6, seed=seed) for seed in range(1, 30)]
    assert all(set(other) == set(first) for other in others)
    assert len({frozenset(_of(other, Role.MEMBER)) for other in others}) > 20


def test_everybody_becomes_a_member_about_equally_often() -> None:
    """Rarity decides who takes part, not on which side."""
    times = Counter(name for seed in range(400) for name in _of(choose_roles(EVEN, 4, 4, seed), Role.MEMBER))
    assert set(times) == {f"{sex}{i:02d}" for sex in "FM" for i in range(4)}
    assert all(150 < count < 250 for count in times.values())


def test_a_sex_with_too_few_leaves_its_places_to_the_other() -> None:
    """With one man and many women, the man takes part and women fill up."""
    people: list[Person] = [(f"f{i}", "F", i) for i in range(9)] + [("m", "M", 300)]
    roles = choose_roles(people, 3, 3, seed=1)
    assert set(roles) == {"m", "f0", "f1", "f2", "f3", "f4"}
    assert len(_of(roles, Role.MEMBER)) == 3


def test_unknown_sexes_are_one_group() -> None:
    """Where no sex is known the rarest of all are taken."""
    people: list[Person] = [(str(i), None, (i * 7) % 10) for i in range(10)]
    rarest = {identity for identity, _, occurrences in people if occurrences < 5}
    roles = choose_roles(people, 3, 2, seed=0)
    assert set(roles) == rarest
    assert (len(_of(roles, Role.MEMBER)), len(_of(roles, Role.NON_MEMBER))) == (3, 2)


@pytest.mark.parametrize(("members", "others"), [(1, 0), (0, 1), (0, 0), (1, 1), (3, 2), (2, 3), (5, 0), (7, 1)])
def test_odd_and_empty_sides(members: int, others: int) -> None:
    """Any two numbers of people come out exactly, the sexes on a side as near to equal as their numbers allow."""
    roles = choose_roles(EVEN, members, others, seed=3)
    assert (len(_of(roles, Role.MEMBER)), len(_of(roles, Role.NON_MEMBER))) == (members, others)
    by_sex = Counter(identity[0] for identity in roles)
    assert abs(by_sex["F"] - by_sex["M"]) <= 1


def test_too_few_people() -> None:
    """One person too few is an error that says how many there are and how many are wanted."""
    assert len(choose_roles(EVEN, 20, 20, seed=0)) == 40
    with pytest.raises(InvalidInputError, match=r"^40 people can take part, 41 are wanted \(stage select\)\. Lower"):
        choose_roles(EVEN, 21, 20, seed=0)


@settings(max_examples=200, deadline=None)
@given(ANYONE, st.data())
def test_what_always_holds(people: list[Person], data: st.DataObject) -> None:
    """Exact numbers, no stranger, the rarest within each sex, members spread over the sexes in proportion."""
    members = data.draw(st.integers(0, len(people)))
    others = data.draw(st.integers(0, len(people) - members))
    roles = choose_roles(people, members, others, seed=data.draw(st.integers(0, 99)))
    assert Counter(roles.values()) == Counter({Role.MEMBER: members, Role.NON_MEMBER: others})
    assert all(type(identity) is str for identity in roles)
    sizes = []
    for sex in ("F", "M", None):
        own = sorted(occurrences for _, s, occurrences in people if s == sex)
        taken = sorted(occurrences for identity, s, occurrences in people if s == sex and identity in roles)
        assert taken == own[: len(taken)]
        share = len(taken) * members / max(members + others, 1)
        assert abs(sum(s == sex and roles.get(i) is Role.MEMBER for i, s, _ in people) - share) < 1
        sizes.append((len(taken), len(own)))
    fullest = max(taken for taken, _ in sizes)
    assert all(taken >= fullest - 1 or taken == there for taken, there in sizes)


@settings(max_examples=50, deadline=None)
@given(ANYONE, st.randoms())
def test_the_order_of_the_people_does_not_matter(people: list[Person], random: object) -> None:
    """Shuffled input gives the same roles."""
    shuffled = people.copy()
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    half = len(people) // 2
    assert choose_roles(shuffled, half, len(people) - half, 5) == choose_roles(people, half, len(people) - half, 5)
