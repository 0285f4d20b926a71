"""The people of the built-in world: who they are, in the attributes that a picture can show.

Axes in names: N people, A attributes in the order of Person's fields.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from idia_core.errors import InvalidInputError

Numbers = npt.NDArray[np.float64]

HAIR_COLOURS = ("black", "dark brown", "brown", "auburn", "ginger", "blond", "silver", "white")
HAIR_STYLES = ("bald", "receding", "buzz", "short", "parted", "fringe", "curtains", "curly", "afro", "quiff", "bun")
BEARDS = ("none", "stubble", "moustache", "goatee", "full")
GLASSES = ("none", "round", "square", "half-rim")
EYE_COLOURS = ("brown", "hazel", "green", "blue", "grey")
_SHORN = ("bald", "receding", "buzz")

# An attribute counts at most 1, so two people of a world always differ in seven attributes or more.
MIN_DISTANCE = 7.0
_TRIES = 2000


@dataclass(frozen=True)
class Person:
    """A drawn person. Lengths are in units of half a head's height; shares run from 0 to 1.

    Clothing, pose, light and expression are not here: they change from picture to picture.
    """

    skin: float
    """0 is the lightest tone, 1 the darkest."""
    undertone: float
    """-1 is cool (pink), 1 warm (golden)."""
    hair_colour: str
    hair_style: str
    hair_length: float
    """How far the hair falls: 0 stays above the ears, 1 reaches the shoulders."""
    face_width: float
    face_length: float
    jaw: float
    """0 is a pointed chin, 1 a square jaw."""
    eye_colour: str
    eye_size: float
    eye_distance: float
    eye_slant: float
    """Degrees; the outer corners rise where it is positive."""
    brow_thickness: float
    brow_angle: float
    """Degrees; the outer ends rise where it is positive."""
    nose_length: float
    nose_width: float
    mouth_width: float
    lip_thickness: float
    lip_redness: float
    beard: str
    glasses: str
    ear_size: float
    freckles: int
    mole_x: float
    mole_y: float
    mole_radius: float
    """0 where there is no mole."""
    earrings: bool


# What a plain difference in an attribute adds to the distance; 1 where it is not named here.
_WORTH = {
    "skin": 1.0,
    "undertone": 0.2,
    "hair_length": 1.0,
    "face_width": 0.8,
    "face_length": 0.6,
    "jaw": 0.7,
    "eye_colour": 0.2,
    "eye_size": 0.6,
    "eye_distance": 0.6,
    "eye_slant": 0.5,
    "brow_thickness": 0.7,
    "brow_angle": 0.5,
    "nose_length": 0.5,
    "nose_width": 0.5,
    "mouth_width": 0.6,
    "lip_thickness": 0.5,
    "lip_redness": 0.4,
    "ear_size": 0.3,
    "freckles": 0.5,
    "mole_x": 0.0,
    "mole_y": 0.0,
    "mole_radius": 0.4,
    "earrings": 0.4,
}
_RANGES = {
    "skin": (0.0, 1.0),
    "undertone": (-1.0, 1.0),
    "face_width": (0.66, 0.88),
    "face_length": (0.9, 1.1),
    "jaw": (0.0, 1.0),
    "eye_size": (0.135, 0.19),
    "eye_distance": (0.29, 0.37),
    "eye_slant": (-8.0, 10.0),
    "brow_thickness": (0.03, 0.095),
    "brow_angle": (-8.0, 14.0),
    "nose_length": (0.3, 0.46),
    "nose_width": (0.11, 0.2),
    "mouth_width": (0.2, 0.33),
    "lip_thickness": (0.035, 0.09),
    "ear_size": (0.13, 0.22),
    "mole_x": (-0.42, 0.42),
    "mole_y": (0.2, 0.5),
}
_SPANS = {
    **_RANGES,
    "hair_length": (0.0, 1.0),
    "lip_redness": (0.0, 1.0),
    "mole_radius": (0.0, 0.03),
    "freckles": (0, 24),
}
_CHOICES = {
    "hair_colour": HAIR_COLOURS,
    "hair_style": HAIR_STYLES,
    "eye_colour": EYE_COLOURS,
    "beard": BEARDS,
    "glasses": GLASSES,
}
_WORTHS_A = np.array([_WORTH.get(field.name, 1.0) for field in fields(Person)])


def distance(one: Person, other: Person) -> float:
    """How far two people are apart, summed over the visible attributes, each worth at most 1."""
    return float(_distances(_describe(one)[None], _describe(other))[0])


def _distances(people_NA: Numbers, person_A: Numbers) -> Numbers:
    """The distance [N] of each person from one more."""
    apart_N: Numbers = np.minimum(1, np.abs(people_NA - person_A)) @ _WORTHS_A
    return apart_N


def _describe(person: Person) -> Numbers:
    """The person as numbers [A], scaled so that a difference of 1 or more is plain to the eye."""
    numbers = []
    for field in fields(Person):
        value = getattr(person, field.name)
        if field.name in _CHOICES:
            numbers.append(float(_CHOICES[field.name].index(value)))
        elif field.name in _SPANS:
            low, high = _SPANS[field.name]
            # A third of an attribute's span is a plain difference.
            numbers.append(3 * (value - low) / (high - low))
        else:
            numbers.append(float(value))
    return np.array(numbers)


def invent_people(count: int, seed: int, sexes: Sequence[str]) -> list[Person]:
    """People who all differ by at least MIN_DISTANCE; the first n are the same whatever the count.

    `sexes` holds "F" or "M" for each person and only makes some hair, lips and beards likelier.
    Raises InvalidInputError where `sexes` is too short or has another letter, or where no further person fits.
    """
    if len(sexes) < count or not set(sexes) <= {"F", "M"}:
        raise InvalidInputError(f"{count} people need as many sexes, 'F' or 'M', not {len(sexes)}", "invent_people")
    people: list[Person] = []
    known_NA = np.empty((count, len(_WORTHS_A)))
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        for _ in range(_TRIES):
            person = _invent(rng, sexes[number])
            known_NA[number] = _describe(person)
            if np.all(_distances(known_NA[:number], known_NA[number]) >= MIN_DISTANCE):
                people.append(person)
                break
        else:
            raise InvalidInputError(
                f"person {number} is too like an earlier one after {_TRIES} tries",
                "invent_people",
                "Ask for fewer people.",
            )
    return people


def _invent(rng: np.random.Generator, sex: str) -> Person:
    """One person at random."""
    woman = sex == "F"
    numbers = {name: float(rng.uniform(low, high)) for name, (low, high) in _RANGES.items()}
    style_weights = (0.2, 0.1, 1, 2, 3, 5, 4, 3, 2, 1, 3) if woman else (2, 2, 2, 4, 4, 2, 1, 2, 2, 3, 0.5)
    hair_style = _pick(rng, HAIR_STYLES, style_weights)
    long_haired = rng.random() < (0.8 if woman else 0.15) and hair_style not in (*_SHORN, "afro", "quiff", "bun")
    hair_length = float(rng.uniform(0.3, 1.0)) if long_haired else 0.0
    bearded = rng.random() < (0.0 if woman else 0.65)
    spectacled = rng.random() < 0.35
    return Person(
        **numbers,
        hair_colour=_pick(rng, HAIR_COLOURS, (4, 4, 4, 3, 3, 4, 2, 2)),
        hair_style=hair_style,
        hair_length=hair_length,
        eye_colour=_pick(rng, EYE_COLOURS, (3, 1, 1, 2, 1)),
        lip_redness=float(rng.uniform(0.2, 1.0) if woman else rng.uniform(0.0, 0.3)),
        beard=_pick(rng, BEARDS[1:], (1, 1, 1, 1.5)) if bearded else "none",
        glasses=_pick(rng, GLASSES[1:], (1, 1, 1)) if spectacled else "none",
        freckles=int(rng.integers(12, 25)) if rng.random() < 0.2 else 0,
        mole_radius=float(rng.uniform(0.018, 0.03)) if rng.random() < 0.25 else 0.0,
        earrings=bool(rng.random() < (0.4 if woman else 0.08)),
    )


def _pick(rng: np.random.Generator, options: Sequence[str], weights: Sequence[float]) -> str:
    """One option, drawn with the given weights."""
    shares = np.asarray(weights, dtype=np.float64)
    return str(rng.choice(list(options), p=shares / shares.sum()))
