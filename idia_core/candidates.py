"""The names that a model chooses from: the tested people's and invented ones beside them (paper, Section 4)."""

import functools
import importlib
import pkgutil
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self

import faker.providers.person
import numpy as np
import pyarrow as pa
from faker import Faker
from pydantic import Field, model_validator

from idia_core.config import Strict, suggest
from idia_core.errors import InvalidInputError
from idia_core.name_files import read_first_names, read_last_names
from idia_core.names import ENGLISH, NameLists, check_names, invent_names, mixed_name, name_key, tidy_name

CANDIDATE_NAMES = pa.schema(
    [
        pa.field("pool", pa.string(), nullable=False),  # the list that it is in: `ALL`, or a locale
        pa.field("name", pa.string(), nullable=False),
        pa.field("sex", pa.string()),  # 'F' or 'M', null where it is not known
        pa.field("tested", pa.bool_(), nullable=False),
    ]
)
ALL = "all"
"""The pool of everybody who has no locale."""
MISSES = 1000
"""After so many names in a row that were drawn before, a locale's lists are taken to hold no more."""
LOCALES = tuple(sorted(module.name for module in pkgutil.iter_modules(faker.providers.person.__path__)))
"""The locales for which Faker knows names; for others it would silently give English ones."""
WORDS = {"F": "female", "M": "male"}


class NameSource(Strict):
    """Where the candidate names beside the tested people's come from."""

    first_names: str | None = None
    """First names by sex with their counts, as the US Social Security Administration distributes them: `yob1980.txt`, a
    folder or `names.zip` of such files, or CSV with a header such as `first_name,sex,births`; any fsspec URL. Faker's
    English ones when null."""
    last_names: str | None = None
    """Last names with their counts, as the US Census distributes them: `Names_2010Census.csv`, `dist.all.last`, or CSV
    with a header such as `last_name,count`; any fsspec URL. Faker's English ones when null."""
    most_common: int = Field(default=1000, ge=1, le=5000)
    """So many of the most common names are taken of each file: first names of either sex, and last names."""
    mixed: bool = False
    """Invent names with accents, hyphens and initials too, as the built-in world's people have them, instead of plain
    first x last names. A tested name of a form that is rare among the candidates can be a model's favourite for faces
    that it does not know, which is a false alarm."""
    by_locale: bool = True
    """Ask for people with a locale among names of that locale instead (Faker's, in its own script); everybody is asked
    for in the same list when false, or when nobody has a locale."""

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if self.mixed and (self.first_names or self.last_names):
            raise ValueError("mixed names are not made from files; leave out first_names and last_names, or mixed")
        return self


def pool_of(locale: str | None, source: NameSource) -> str:
    """The pool of names that a person with this locale is asked for in."""
    return locale if locale and source.by_locale else ALL


def candidate_names(people: pa.Table, total: int, seed: int, source: NameSource) -> pa.Table:
    """The candidate names of every pool that the people (IDENTITIES) answer to, as CANDIDATE_NAMES.

    A pool has exactly `total` rows in an order drawn from `seed`: every tested name, the rest invented, women's and
    men's in turn; no invented name is a tested one's or an alias. One that would be is passed over, so that with other
    people under test all the others stay as they are (but for `mixed`) and need not be embedded again.
    Raises InvalidInputError when the tested names alone are more than `total`, when a list holds too few, or for an
    unknown locale, and DuplicateNameError when a name is tested twice.
    """
    tested, sexes = people["name"].to_pylist(), people["sex"].to_pylist()
    check_names(tested)
    if len(tested) > total:
        fix = f"Ask for at least {len(tested)} candidate names."
        raise InvalidInputError(f"{len(tested)} people are tested among only {total} candidate names", fix=fix)
    aliases = [alias for others in people["aliases"].to_pylist() for alias in others or ()]
    avoid = {name_key(name) for name in [*tested, *aliases]}
    pools = sorted({pool_of(locale, source) for locale in people["locale"].to_pylist()})
    order = pa.array(np.random.default_rng([seed, 1]).permutation(total))
    tables = []
    for pool in pools:
        invented = _invented(pool, total - len(tested), seed, avoid, source)
        names, known = [*tested, *(name for name, _ in invented)], [*sexes, *(sex for _, sex in invented)]
        is_tested = [True] * len(tested) + [False] * len(invented)
        tables.append(pa.table([[pool] * total, names, known, is_tested], schema=CANDIDATE_NAMES).take(order))
    return pa.concat_tables(tables).combine_chunks() if tables else CANDIDATE_NAMES.empty_table()


def _invented(pool: str, count: int, seed: int, avoid: set[str], source: NameSource) -> list[tuple[str, str | None]]:
    """`count` names of a pool, each with its sex where that is known."""
    if pool != ALL:
        return _from_locale(pool, count, seed, avoid)
    names = _mixed(count, seed, avoid) if source.mixed else invent_names(count, seed, avoid=avoid, lists=_lists(source))
    return [(name, "FM"[i % 2]) for i, name in enumerate(names)]


def _lists(source: NameSource) -> NameLists:
    firsts: Mapping[str, Any] = {sex: first for sex, (first, _) in ENGLISH.items()}
    if source.first_names:
        firsts = read_first_names(source.first_names, source.most_common)
    lasts = read_last_names(source.last_names, source.most_common) if source.last_names else ENGLISH["F"][1]
    return {sex: (firsts[sex], lasts) for sex in "FM"}


def _mixed(count: int, seed: int, avoid: Iterable[str]) -> list[str]:
    """`count` different names of all forms, women's and men's in turn; those after one to avoid are others, too."""
    taken, rng = set(avoid), np.random.default_rng([seed, 2])
    names: list[str] = []
    while len(names) < count:
        name = mixed_name(len(names), "FM"[len(names) % 2], rng)
        if name_key(name) not in taken:
            taken.add(name_key(name))
            names.append(name)
    return names


def _from_locale(locale: str, count: int, seed: int, avoid: set[str]) -> list[tuple[str, str | None]]:
    """`count` different names of a locale, women's and men's in turn; without sex where Faker's lists do not tell."""
    if locale not in LOCALES:
        raise InvalidInputError(f"no names for the locale '{locale}'", "column locale", suggest(locale, LOCALES))
    taken = set(avoid)
    draws = {sex: _endless(locale, sex, seed) for sex in "FM"}
    told = all(hasattr(_provider(locale), f"first_names_{word}") for word in WORDS.values())
    names: list[tuple[str, str | None]] = []
    for i in range(count):
        sex = "FM"[i % 2]
        fresh = (name for _, name in zip(range(MISSES), draws[sex], strict=False) if name_key(name) not in taken)
        if (name := next(fresh, None)) is None:
            what = f"Faker's {WORDS[sex]} names of the locale '{locale}' are used up: {i} of {count} could be invented"
            raise InvalidInputError(what, fix="Ask for fewer candidate names, or leave the locale out.")
        taken.add(name_key(name))
        names.append((name, sex if told else None))
    return names


def _endless(locale: str, sex: str, seed: int) -> Iterator[str]:
    """Full names, evenly drawn, in the locale's own order of first and last name."""
    fake = Faker(locale, use_weighting=False)
    fake.seed_instance(f"{seed} {sex}")  # of one seed, women and men would get the same last names
    first, last = (getattr(fake, f"{part}_name_{WORDS[sex]}") for part in ("first", "last"))
    form = _form(locale)
    while True:
        yield tidy_name(form.format(first=first(), last=last()).replace(",", ""))  # a few of Faker's hold a stray one


@functools.cache
def _form(locale: str) -> str:
    """How a first and a last name make a name: in the order of Faker's first form that has no more than the two."""
    for form in _provider(locale).formats:
        if found := re.fullmatch(r"\{\{(first|last)_name\w*\}\}( ?)\{\{(first|last)_name\w*\}\}", form):
            return f"{{{found[1]}}}{found[2]}{{{found[3]}}}"
    return "{first} {last}"


def _provider(locale: str) -> Any:
    return importlib.import_module(f"{faker.providers.person.__name__}.{locale}").Provider
