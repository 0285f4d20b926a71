"""Names of people: checking those given, and inventing the candidates beside them (Section 4 of the paper)."""

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


def name_key(name: str) -> str:
    """What two spellings of one name share: NFC, single spaces, no letter case."""
    folded = unicodedata.normalize("NFC", name).casefold()
    return " ".join(unicodedata.normalize("NFC", folded).split())


def name_from_folder(folder: str) -> str:
    """The name that a folder is called after: 'Jon_Hamm' is 'Jon Hamm', in NFC."""
    return " ".join(unicodedata.normalize("NFC", folder).replace("_", " ").split())


def check_names(names: Iterable[str]) -> None:
    """Raise unless every name is there, and there once.

    Raises InvalidInputError for a name that is blank or not valid Unicode (as a folder's may be), and
    DuplicateNameError for one that is given twice, also when the two differ only in Unicode composition, white space or
    letter case.
    """
    seen: dict[str, str] = {}
    for position, name in enumerate(names):
        key = name_key(name)
        if not key:
            raise InvalidInputError("a name is blank", f"name number {position + 1}", "Fill it in or take it out.")
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


def candidate_names(tested: Sequence[str], total: int, seed: int) -> pa.Table:
    """The names that the attack chooses from, as CANDIDATE_NAMES: every tested one, the rest invented, F and M equally.

    Exactly `total` rows in an order drawn from `seed`. Raises InvalidInputError when the tested names alone are more,
    or one is blank, and DuplicateNameError when one is there twice.
    """
    check_names(tested)
    if len(tested) > total:
        raise InvalidInputError(
            f"{len(tested)} people are tested among only {total} candidate names",
            fix=f"Ask for at least {len(tested)} candidate names.",
        )
    invented = invent_names(total - len(tested), seed, avoid=tested)
    sexes = [None] * len(tested) + ["FM"[i % 2] for i in range(len(invented))]
    is_tested = [True] * len(tested) + [False] * len(invented)
    table = pa.table([[*tested, *invented], sexes, is_tested], schema=CANDIDATE_NAMES)
    return table.take(np.random.default_rng([seed, 1]).permutation(total))
