"""Who takes part by presence: the filters, and balanced halves of the rarest."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idia_core.errors import InvalidInputError
from idia_core.identities import Reason, Role
from idia_core.selection import Halves, Limits, Present, choose_rarest, exclusion_by_presence

PAPER = Limits(max_hit_rate=0.15, max_clip_rate=0.20, needs_sex=True)
EVEN = [Present(f"{sex}{i:02d}", sex, i / 100, None) for i in range(20) for sex in "FM"]


def roles_of(
    people: list[Present], members: int | None, others: int | None, seed: int = 0, *, balance: bool = True
) -> dict[str, Role]:
    """Who is chosen, nobody being left out before."""
    return choose_rarest(people, Halves(members, others, balance), seed, Counter())


def sides(roles: dict[str, Role]) -> Counter[tuple[Role, str]]:
    """How many women and men there are on each side."""
    return Counter((role, identity[0]) for identity, role in roles.items())


@pytest.mark.parametrize(
    ("person", "limits", "reason"),
    [
        (("F", 0.15, 0.20), PAPER, None),
        (("F", 0.1501, 0.20), PAPER, Reason.TOO_PRESENT),
        (("F", 0.15, 0.2001), PAPER, Reason.CLIP_AGREES),
        (("F", 0.9, 0.9), PAPER, Reason.TOO_PRESENT),
        (("F", None, None), PAPER, Reason.NO_CANDIDATES),
        ((None, None, 0.9), PAPER, Reason.NO_CANDIDATES),
        (("F", 0.0, None), PAPER, None),
        ((None, 0.0, 0.0), PAPER, Reason.SEX_UNKNOWN),
        ((None, 0.0, 0.0), PAPER._replace(needs_sex=False), None),
        (("M", 1.0, 1.0), Limits(None, None, needs_sex=True), None),
        (("M", 1e-9, 0.0), Limits(0.0, 0.0, needs_sex=True), Reason.TOO_PRESENT),
        (("M", 0.0, 1e-9), Limits(0.0, 0.0, needs_sex=True), Reason.CLIP_AGREES),
    ],
)
def test_the_filters(
    person: tuple[str | None, float | None, float | None], limits: Limits, reason: Reason | None
) -> None:
    """The limits themselves still pass, a rate that is not known passes only CLIP's, and the first reason counts."""
    assert exclusion_by_presence(Present("x", *person), limits) is reason


def test_the_rarest_of_each_sex_are_taken_in_balanced_halves() -> None:
    """Of 20 women and 20 men the six rarest of each take part, three of each on either side."""
    roles = roles_of(EVEN, 6, 6)
    assert set(roles) == {f"{sex}{i:02d}" for sex in "FM" for i in range(6)}
    assert sides(roles) == {(role, sex): 3 for role in (Role.MEMBER, Role.NON_MEMBER) for sex in "FM"}


def test_the_papers_numbers() -> None:
    """Of 300 women and 250 men, 100 members and 100 others: 50 of each sex on each side, the rarest 100 of each."""
    people = [Present(f"F{i:03d}", "F", i / 1000, 0.0) for i in range(300)]
    people += [Present(f"M{i:03d}", "M", i / 1000, 0.0) for i in range(250)]
    roles = roles_of(people, 100, 100)
    assert sides(roles) == {(role, sex): 50 for role in (Role.MEMBER, Role.NON_MEMBER) for sex in "FM"}
    assert max(int(identity[1:]) for identity in roles) == 99


@pytest.mark.parametrize(
    ("members", "others", "expected"),
    [(3, 3, (2, 1, 1, 2)), (3, 2, (2, 1, 1, 1)), (1, 1, (1, 0, 0, 1)), (2, 5, (1, 1, 2, 3)), (1, 4, (1, 0, 2, 2))],
)
def test_odd_halves(members: int, others: int, expected: tuple[int, int, int, int]) -> None:
    """An odd half has one more woman among the members, and one more man among the others."""
    found = sides(roles_of(EVEN, members, others))
    order = [(role, sex) for role in (Role.MEMBER, Role.NON_MEMBER) for sex in "FM"]
    assert tuple(found[place] for place in order) == expected


@pytest.mark.parametrize(
    ("members", "others", "expected"),
    [(None, None, (8, 8)), (4, None, (4, 14)), (None, 6, (12, 6)), (5, None, (5, 14)), (None, 5, (12, 5))],
)
def test_halves_that_are_not_given_are_as_large_as_can_be(
    members: int | None, others: int | None, expected: tuple[int, int]
) -> None:
    """Of 12 women and 9 men; halves that are both open are equal."""
    people = [person for person in EVEN if int(person.identity[1:]) < (12 if person.sex == "F" else 9)]
    counts = Counter(roles_of(people, members, others).values())
    assert (counts[Role.MEMBER], counts[Role.NON_MEMBER]) == expected


def test_everybody_becomes_a_member_about_equally_often() -> None:
    """Presence decides who takes part, a draw on which side."""
    drawn = (roles_of(EVEN, 4, 4, seed) for seed in range(400))
    times = Counter(name for roles in drawn for name, role in roles.items() if role is Role.MEMBER)
    assert set(times) == {f"{sex}{i:02d}" for sex in "FM" for i in range(4)}
    assert all(150 < count < 250 for count in times.values())


def test_ties_are_drawn() -> None:
    """Of ten women as rare as each other each is taken about equally often; the one who is rarer, always."""
    women = [Present(f"F{i}", "F", 0.0 if i == 0 else 0.1, None) for i in range(10)]
    men = [Present(f"M{i}", "M", 0.1, None) for i in range(4)]
    times = Counter(name for seed in range(600) for name in roles_of([*women, *men], 4, 4, seed) if name[0] == "F")
    assert times.pop("F0") == 600
    assert len(times) == 9
    assert all(140 < count < 260 for count in times.values())


def test_a_sex_that_is_missing_is_an_error_that_tells_the_way_out() -> None:
    """Without men there is no balance; with `balance` off anybody is taken, the rarest first."""
    women = [person for person in EVEN if person.sex == "F"]
    with pytest.raises(InvalidInputError, match=r"0 men can take part, 6 are wanted.*`balance: false`"):
        roles_of(women, 6, 6)
    with pytest.raises(InvalidInputError, match=r"0 men can take part, 2 are wanted"):
        roles_of(women, None, None)
    roles = roles_of(women, 6, 6, balance=False)
    assert sides(roles) == {(Role.MEMBER, "F"): 6, (Role.NON_MEMBER, "F"): 6}
    assert set(roles) == {f"F{i:02d}" for i in range(12)}


def test_without_balance_the_rarest_of_all_are_taken() -> None:
    """Where the women are rarer only women take part."""
    people = [Present(p.identity, p.sex, p.hit_rate + (p.sex == "M"), None) for p in EVEN if p.hit_rate is not None]
    assert sides(roles_of(people, 10, 10, balance=False)) == {(Role.MEMBER, "F"): 10, (Role.NON_MEMBER, "F"): 10}
    assert len(roles_of(people, None, None, balance=False)) == 40


def test_too_few_people_say_who_was_left_out() -> None:
    """One woman too few is an error that counts whom the filters left out."""
    assert len(roles_of(EVEN, 20, 20)) == 40
    left_out = Counter({"too_present": 7, "no_candidates": 2})
    with pytest.raises(InvalidInputError, match=r"^20 women can take part, 21 are wanted.*2 no_candidates, 7 too_pres"):
        choose_rarest(EVEN, Halves(22, 20, balance=True), 0, left_out)
    with pytest.raises(InvalidInputError, match="40 people can take part, 41 are wanted"):
        choose_rarest(EVEN, Halves(21, 20, balance=False), 0, left_out)
    with pytest.raises(InvalidInputError, match="0 women can take part, 2 are wanted"):
        roles_of([], None, None)


PERSON = st.tuples(st.integers(0, 10**6).map(str), st.sampled_from("FM"), st.integers(0, 5).map(lambda n: n / 20))
ANYONE = st.lists(PERSON, min_size=2, max_size=40, unique_by=lambda person: person[0])


@settings(max_examples=150, deadline=None)
@given(ANYONE, st.data())
def test_what_always_holds(rows: list[tuple[str, str, float]], data: st.DataObject) -> None:
    """Exact numbers in exact balance, the rarest of each sex, and the same roles whatever the order of the people."""
    people = [Present(*row, None) for row in rows]
    fewest = min(sum(person.sex == sex for person in people) for sex in "FM")
    inside = data.draw(st.integers(0, fewest))
    outside = data.draw(st.integers(0, fewest - inside))
    seed = data.draw(st.integers(0, 99))
    roles = roles_of(people, 2 * inside, 2 * outside, seed)
    assert roles_of(data.draw(st.permutations(people)), 2 * inside, 2 * outside, seed) == roles
    for sex in "FM":
        own = [person for person in people if person.sex == sex]
        taken = Counter(roles[person.identity] for person in own if person.identity in roles)
        assert (taken[Role.MEMBER], taken[Role.NON_MEMBER]) == (inside, outside)
        rates = sorted(person.hit_rate or 0 for person in own if person.identity in roles)
        assert rates == sorted(person.hit_rate or 0 for person in own)[: inside + outside]
