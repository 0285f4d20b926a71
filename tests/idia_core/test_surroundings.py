"""What stands around the places where a name was found."""

import numpy as np
import pyarrow as pa
import pytest

from idia_core.captions import FOUND, NameMatcher
from idia_core.surroundings import between_words, holds_texts, in_longer_names
from idia_core.text_columns import string_parts, text_blocks

NAME = "Jon Hamm"
LONGER = {
    "a surname behind": ("a photo of Jon Hamm Smith at home", True),
    "a hyphenated surname": ("a photo of Jon Hamm-Smith at home", True),
    "a first name before": ("a photo of Peter Jon Hamm at home", True),
    "an accented capital behind": ("a photo of Jon Hamm Ångström at home", True),
    "small words at either side": ("a photo of Jon Hamm at home", False),
    "the first word of the caption": ("Actor Jon Hamm at home", False),
    "the first word of a sentence": ("nice place. Here Jon Hamm lives alone", False),
    "behind a bar": ("Interview | Actor Jon Hamm talks", False),
    "behind an en dash": ("they came – Actor Jon Hamm talks", False),
    "behind a closing quote": ("he said “no”. “Yes” Actor Jon Hamm talks", False),
    "behind an accented letter": ("a café Peter Jon Hamm owns", True),
    "a quote between": ("said “the Actor” Jon Hamm talks", False),
    "possessive": ("the star’s friend Jon Hamm’s Smith talks", False),
    "a no-break space between": ("the star Jon Hamm\u00a0Smith talks", False),
    "a multiplication sign behind": ("the star Jon Hamm ×2 talks", False),
    "a full stop between": ("here came Jon Hamm. Smith came too", False),
    "another alphabet": ("the star Jon Hamm Смит talks", False),
    "only short words small": ("A Pic of Jon Hamm Smith at the HOME", False),
    "a small part of a capitalised word": ("A Pic Of Jon Hamm Smith By McDonald", False),
    "a title": ("Jon Hamm Attends The Premiere Of A Film", False),
    "a title with small short words": ("Jon Hamm Attends the Premiere of a Film", False),
    "capitals": ("JON HAMM ATTENDS", False),
    "a comma between": ("with Peter, Jon Hamm, Mary and others", False),
    "a number behind": ("photo of Jon Hamm 2012", False),
    "an initial behind": ("photo of Jon Hamm B", False),
    "nothing else": ("Jon Hamm", False),
}


@pytest.mark.parametrize(("caption", "expected"), LONGER.values(), ids=LONGER)
def test_part_of_a_longer_name(caption: str, expected: bool) -> None:
    """A capitalised word right beside a name makes it part of a longer one, unless the caption capitalises all."""
    (match,) = NameMatcher([NAME]).scan(pa.array([caption])).matches.to_pylist()
    assert match["longer"] is expected


def _spans(places: list[tuple[int, int, int]]) -> np.ndarray:
    spans = np.zeros(len(places), dtype=FOUND)
    for i, (row, start, stop) in enumerate(places):
        spans[i]["row"], spans[i]["start"], spans[i]["stop"] = row, start, stop
    return spans


def test_neighbours_are_those_of_the_same_caption() -> None:
    """The characters of the captions before and behind do not count."""
    (block,) = text_blocks(pa.array(["abc", "def", "gé", "日h"]))
    spans = _spans([(0, 0, 3), (0, 0, 2), (1, 3, 6), (1, 4, 6), (2, 6, 7), (2, 7, 9), (3, 9, 12), (3, 12, 13)])
    assert between_words(block, spans).tolist() == [True, False, True, False, False, False, False, True]


def test_texts_are_compared_byte_for_byte() -> None:
    """A span holds a text when all bytes are the same and none is left."""
    (block,) = text_blocks(pa.array(["Jon Hamm", "jon Hamm"]))
    spans = _spans([(0, 0, 8), (1, 8, 16), (0, 0, 7), (0, 0, 3)])
    which = np.array([0, 0, 0, 1])
    assert holds_texts(block, spans, string_parts(pa.array(["Jon Hamm", "Jon"])), which).tolist() == [
        True,
        False,
        False,
        True,
    ]


def test_no_spans() -> None:
    """Nothing found is nothing to look at."""
    (block,) = text_blocks(pa.array(["Jon Hamm"]))
    assert in_longer_names(block, _spans([])).tolist() == []
