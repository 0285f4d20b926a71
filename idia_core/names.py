"""Names of people: checking those given, and inventing the candidates beside them (Section 4 of the paper)."""

import importlib
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
from faker.providers.person.en_US import Provider as Person

from idia_core.errors import DuplicateNameError, InvalidInputError

CANDIDATE_NAMES = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("sex", pa.string()),  # 'F' or 'M' of an invented name, null for a tested person
        pa.field("tested", pa.bool_(), nullable=False),
    ]
)

FIRST_NAMES: dict[str, tuple[str, ...]] = {
    "F": tuple(Person.first_names_female),
    "M": tuple(Person.first_names_male),
}
LAST_NAMES: tuple[str, ...] = tuple(Person.last_names)

# The i-th person is special where i % period == phase; odd periods reach both sexes, which alternate.
FOREIGN_PERIOD, FOREIGN_PHASES = 13, {3: "de_DE", 6: "fr_FR", 10: "es_ES"}
DOTTED_PERIOD, DOTTED_PHASE = 9, 5
HYPHEN_PERIOD, HYPHEN_PHASE = 11, 7


def name_key(name: str) -> str:
    """What two spellings of one name share: NFC, single spaces, no letter case."""
    folded = unicodedata.normalize("NFC", name).casefold()
    return " ".join(unicodedata.normalize("NFC", folded).split())


def name_from_folder(folder: str) -> str:
    """The name that a folder is called after: 'Jon_Hamm' is 'Jon Hamm', in NFC."""
    return " ".join(unicodedata.normalize("NFC", folder).replace("_", " ").split())


def check_names(names: Iterable[str]) -> None:
    """Raise unless every name is there, and there once.

    Raises InvalidInputError for a name that is blank, of one letter, or not valid Unicode (as a folder's may be), and
    DuplicateNameError for one that is given twice, also when the two differ only in Unicode composition, white space or
    letter case.
    """
    seen: dict[str, str] = {}
    for position, name in enumerate(names):
        key = name_key(name)
        if not key:
            raise InvalidInputError("a name is blank", f"name number {position + 1}", "Fill it in or take it out.")
        if len(key) == 1 and key.isascii():
            fix = "Nearly every caption holds it; write the name out or take it out."
            raise InvalidInputError(f"the name {name!r} is one letter", f"name number {position + 1}", fix)
        if key in seen:
            same = "is given twice" if seen[key] == name else f"is the same name as {seen[key]!r}"
            raise DuplicateNameError(f"{name!r} {same}", f"name number {position + 1}", "Keep one of the two.")
        if any("\ud800" <= character <= "\udfff" for character in name):
            raise InvalidInputError(f"the name {name!r} is not valid Unicode", fix="Write the name in UTF-8.")
        seen[key] = name


def invent_names(count: int, seed: int, sexes: str = "FM", avoid: Iterable[str] = ()) -> list[str]:
    """`count` different names, first times last name, the i-th of sex `sexes[i % len(sexes)]`.

    None equals one of `avoid` (as `name_key` reads it), and the first n do not depend on `count`. Faker's English lists
    are drawn from evenly and without replacement. Raises InvalidInputError when the lists hold too few.
    """
    taken = {name_key(name) for name in avoid}
    rng = np.random.default_rng(seed)
    pairs = {sex: iter(rng.permutation(len(FIRST_NAMES[sex]) * len(LAST_NAMES))) for sex in sorted(set(sexes))}
    names: list[str] = []
    for i in range(count):
        sex = sexes[i % len(sexes)]
        for pair in pairs[sex]:
            name = f"{FIRST_NAMES[sex][pair // len(LAST_NAMES)]} {LAST_NAMES[pair % len(LAST_NAMES)]}"
            if name_key(name) not in taken:
                break
        else:
            raise InvalidInputError(f"only {i} of {count} names can be invented", fix="Ask for fewer names.")
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


def candidate_names(tested: Sequence[str], total: int, seed: int, *, mixed: bool = False) -> pa.Table:
    """The names that the attack chooses from, as CANDIDATE_NAMES: every tested one, the rest invented, F and M equally.

    The invented ones are first x last names as in the paper, or `mixed`: of the forms that `mixed_name` gives. Exactly
    `total` rows in an order drawn from `seed`. Raises InvalidInputError when the tested names alone are more, or one is
    blank, and DuplicateNameError when one is there twice.
    """
    check_names(tested)
    if len(tested) > total:
        raise InvalidInputError(
            f"{len(tested)} people are tested among only {total} candidate names",
            fix=f"Ask for at least {len(tested)} candidate names.",
        )
    wanted = total - len(tested)
    invented = _invent_mixed(wanted, seed, tested) if mixed else invent_names(wanted, seed, avoid=tested)
    sexes = [None] * len(tested) + ["FM"[i % 2] for i in range(len(invented))]
    is_tested = [True] * len(tested) + [False] * len(invented)
    table = pa.table([[*tested, *invented], sexes, is_tested], schema=CANDIDATE_NAMES)
    return table.take(np.random.default_rng([seed, 1]).permutation(total))


def _invent_mixed(count: int, seed: int, avoid: Iterable[str]) -> list[str]:
    """`count` different names of all forms, women's and men's in turn."""
    taken = {name_key(name) for name in avoid}
    rng = np.random.default_rng([seed, 2])
    names: list[str] = []
    while len(names) < count:
        name = mixed_name(len(names), "FM"[len(names) % 2], rng)
        if name_key(name) not in taken:
            taken.add(name_key(name))
            names.append(name)
    return names
