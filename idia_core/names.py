"""Names of people: reading them from folders and tables, checking those given, and inventing others."""

import importlib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from faker.providers.person.en_US import Provider as Person

from idia_core.errors import DuplicateNameError, InvalidInputError

FIRST_NAMES: dict[str, tuple[str, ...]] = {
    "F": tuple(Person.first_names_female),
    "M": tuple(Person.first_names_male),
}
LAST_NAMES: tuple[str, ...] = tuple(Person.last_names)
NameLists = Mapping[str, tuple[Sequence[str], Sequence[str]]]
"""First and last names of each sex, 'F' and 'M'."""
ENGLISH: NameLists = {sex: (names, LAST_NAMES) for sex, names in FIRST_NAMES.items()}

SEXES = {"f": "F", "female": "F", "m": "M", "male": "M"}
"""What a sex may be called in a table, in any letter case."""

# The i-th person is special where i % period == phase; odd periods reach both sexes, which alternate.
FOREIGN_PERIOD, FOREIGN_PHASES = 13, {3: "de_DE", 6: "fr_FR", 10: "es_ES"}
DOTTED_PERIOD, DOTTED_PHASE = 9, 5
HYPHEN_PERIOD, HYPHEN_PHASE = 11, 7


def name_key(name: str) -> str:
    """What two spellings of one name share: NFC, single spaces, no letter case."""
    folded = unicodedata.normalize("NFC", name).casefold()
    return " ".join(unicodedata.normalize("NFC", folded).split())


def tidy_name(name: str) -> str:
    """The name in NFC, with single spaces and none at its ends."""
    return " ".join(unicodedata.normalize("NFC", name).split())


def name_from_folder(folder: str) -> str:
    """The name that a folder is called after: 'Jon_Hamm' is 'Jon Hamm', in NFC."""
    return tidy_name(folder.replace("_", " "))


def check_names(names: Iterable[str], places: Sequence[str] | None = None) -> None:
    """Raise unless every name is there, and there once; `places` say where each was found, or it is told its number.

    Raises InvalidInputError for a name that is blank, of one letter, or not valid Unicode (as a folder's may be), and
    DuplicateNameError for one that is given twice, also when the two differ only in Unicode composition, white space or
    letter case.
    """
    seen: dict[str, tuple[str, str]] = {}
    for position, name in enumerate(names):
        key, place = name_key(name), places[position] if places else f"name number {position + 1}"
        if not key:
            raise InvalidInputError("a name is blank", place, "Fill it in or take it out.")
        if len(key) == 1 and key.isascii():
            fix = "Nearly every caption holds it; write the name out or take it out."
            raise InvalidInputError(f"the name {name!r} is one letter", place, fix)
        if key in seen:
            other, first = seen[key]
            same = "is given twice" if other == name else f"is the same name as {other!r}"
            raise DuplicateNameError(f"{name!r} {same}", f"{first} and {place}", "Keep one of the two.")
        if any("\ud800" <= character <= "\udfff" for character in name):
            raise InvalidInputError(f"the name {name!r} is not valid Unicode", fix="Write the name in UTF-8.")
        seen[key] = name, place


def invent_names(
    count: int, seed: int, sexes: str = "FM", avoid: Iterable[str] = (), lists: NameLists = ENGLISH
) -> list[str]:
    """`count` different names, first times last name, the i-th of sex `sexes[i % len(sexes)]`.

    None equals one of `avoid` (as `name_key` reads it), and the first n do not depend on `count`. The lists, Faker's
    English ones if not given, are drawn from evenly and without replacement; a name to avoid is passed over, so that
    the others stay the same. Raises InvalidInputError when the lists hold too few.
    """
    taken = {name_key(name) for name in avoid}
    rng = np.random.default_rng(seed)
    pairs = {sex: iter(rng.permutation(len(lists[sex][0]) * len(lists[sex][1]))) for sex in sorted(set(sexes))}
    names: list[str] = []
    for i in range(count):
        firsts, lasts = lists[sexes[i % len(sexes)]]
        for pair in pairs[sexes[i % len(sexes)]]:
            name = f"{firsts[pair // len(lasts)]} {lasts[pair % len(lasts)]}"
            if name_key(name) not in taken:
                break
        else:
            fix = "Ask for fewer names, or give longer lists of first and last names."
            raise InvalidInputError(f"only {i} of {count} names can be invented", fix=fix)
        taken.add(name_key(name))
        names.append(name)
    return names


def _foreign_lists(language: str, sex: str) -> tuple[list[str], list[str]]:
    """First names of one sex, and the last names with an accent, of one of Faker's languages."""
    person = importlib.import_module(f"faker.providers.person.{language}").Provider
    first = person.first_names_female if sex == "F" else person.first_names_male
    accented = [name for name in person.last_names if not name.isascii()]
    return [unicodedata.normalize("NFC", n) for n in first], [unicodedata.normalize("NFC", n) for n in accented]


def mixed_name(i: int, sex: str, rng: np.random.Generator) -> str:
    """A full name for person number `i` of the built-in world: mostly English, some with accent, hyphen or initial.

    A position decides which of these the name has, so that every world has all of them.
    """
    language = FOREIGN_PHASES.get(i % FOREIGN_PERIOD)
    firsts, lasts = _foreign_lists(language, sex) if language else (FIRST_NAMES[sex], LAST_NAMES)
    first, last = firsts[rng.integers(len(firsts))], lasts[rng.integers(len(lasts))]
    if i % HYPHEN_PERIOD == HYPHEN_PHASE:
        last = f"{last}-{LAST_NAMES[rng.integers(len(LAST_NAMES))]}"
    if i % DOTTED_PERIOD == DOTTED_PHASE:
        first = f"{first} {'ABCDEFGHJKLMNPRSTW'[rng.integers(18)]}."
    return f"{first} {last}"
