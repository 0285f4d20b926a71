"""The text of the built-in world: people, captions of their pictures, and the caption collection."""

import hashlib
import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from idia_core import phrases
from idia_core.captions import CaptionStatus, NameMatcher
from idia_core.errors import InvalidInputError
from idia_core.identities import IDENTITIES
from idia_core.occurrences import count_matches
from idia_core.prompts import TEMPLATES, fill
from idia_core.synthetic import (
    CAPTIONS,
    PLANTED,
    invent_identities,
    pair_caption,
    plant_captions,
    planted_counts,
)

NAMES = ["Jon Hamm", "Johannes B. Kerner", "Zoë Zeta-Jones", "Jon Hammett", "Sting"]
COUNTS = [40, 25, 7, 0, 3]


def _recounted(table: pa.Table, names: list[str]) -> list[tuple[str, int, int]]:
    """Both counts of each name over a collection, by pandas."""
    texts = pd.Series(table["TEXT"].to_pylist(), dtype=object)
    strict = (rf"(?<!\w){re.escape(name)}(?!\w)" for name in names)
    return [
        (name, int(texts.str.contains(name, na=False).sum()), int(texts.str.contains(pattern, na=False).sum()))
        for name, pattern in zip(names, strict, strict=True)
    ]


def _rows(table: pa.Table) -> list[tuple[object, ...]]:
    return [tuple(row.values()) for row in table.to_pylist()]


def test_identities_alternate_in_sex_and_are_pinned() -> None:
    """Women and men come in turn, and a seed gives these people for ever."""
    table = invent_identities(60, seed=0)
    assert table.schema == IDENTITIES
    assert table["sex"].to_pylist() == ["F", "M"] * 30
    assert table["identity"] == table["name"]
    assert table["name"].to_pylist()[:4] == ["Sheri Berg", "Jesus Church", "Wanda Reyes", "Ismail Süßebier"]


def test_identities_do_not_depend_on_the_count() -> None:
    """The first n people are the same however many are invented; another seed gives others."""
    assert invent_identities(200, seed=3).slice(0, 30) == invent_identities(30, seed=3)
    assert invent_identities(30, seed=4) != invent_identities(30, seed=3)


def test_identities_have_names_of_every_kind() -> None:
    """Among 48 people some, not most, have an accent, a hyphen, or a dot, women and men alike."""
    table = invent_identities(48, seed=1)
    for mark in (r"\.", "-", "[^\x00-\x7f]"):
        sexes = table.filter(pc.match_substring_regex(table["name"], mark))["sex"].to_pylist()
        assert set(sexes) == {"F", "M"}
        assert 3 <= len(sexes) <= 16


def test_no_identity_is_inside_another() -> None:
    """Names that contain each other could not be told apart in captions."""
    names = invent_identities(300, seed=2)["name"].to_pylist()
    assert len(set(names)) == 300
    assert not [(a, b) for a in names for b in names if a != b and a.casefold() in b.casefold()]


@pytest.mark.parametrize(("name", "sex"), [("Jon Hamm", "M"), ("Zoë {0} B. Zeta-Jones", "F")])
def test_pair_captions_hold_the_name_once(name: str, sex: str) -> None:
    """A thousand captions hold the name exactly once, leave no field open, and most are of 6 to 14 words."""
    captions = [pair_caption(name, sex, [5, i]) for i in range(1000)]
    assert all(caption.count(name) == 1 for caption in captions)
    assert not [caption for caption in captions if re.search(r"\{\w+\}", caption.replace(name, ""))]
    words = np.array([len(caption.split()) for caption in captions])
    assert np.mean((words >= 6) & (words <= 14)) > 0.9
    assert len(set(captions)) > 700


def test_pair_captions_are_no_prompt_of_the_attack() -> None:
    """No sentence is one of the attack's templates, so the model is never trained on a prompt itself."""
    assert len(set(phrases.PERSON_SENTENCES)) == len(phrases.PERSON_SENTENCES) >= 60
    captions = {pair_caption("Jon Hamm", "M", [i]).casefold() for i in range(2000)}
    assert not captions & {prompt.casefold() for prompt in fill(TEMPLATES, ["Jon Hamm"])}


def test_pair_captions_place_the_name_everywhere() -> None:
    """The name stands at the beginning, in the middle and at the end of sentences."""
    captions = [pair_caption("Jon Hamm", "M", [i]) for i in range(300)]
    assert sum(caption.startswith("Jon Hamm") for caption in captions) > 60
    assert sum(caption.endswith("Jon Hamm") for caption in captions) > 30
    assert sum(0 < caption.find("Jon Hamm") < len(caption) - 8 for caption in captions) > 60


def test_pair_captions_are_pinned() -> None:
    """A seed gives this caption for ever, and follows the person's sex."""
    assert (
        pair_caption("Jon Hamm", "M", [0, 1])
        == pair_caption("Jon Hamm", "M", [0, 1])
        == "the new series of Jon Hamm was shown in Chicago"
    )
    women = " ".join(pair_caption("Jane Doe", "F", [i]) for i in range(300))
    assert "actress" in women
    assert not re.search(r"\bhis\b|\bactor\b", women)
    unknown = " ".join(pair_caption("Jane Doe", None, [i]) for i in range(300))
    assert not re.search(r"\bhis\b|\bher\b|\bactor\b|\bactress\b", unknown)


def test_a_name_that_the_sentences_use_is_an_error() -> None:
    """What is in every sentence already cannot be named once."""
    with pytest.raises(InvalidInputError, match="' ' is in the captions already"):
        pair_caption(" ", "F", [0])


def test_planted_counts_are_those_of_pandas() -> None:
    """What is said to be planted is what pandas counts, by both rules, with near-misses and names inside others."""
    table, truth = plant_captions(NAMES, 3000, seed=1, counts=COUNTS)
    assert truth.schema == PLANTED
    assert _rows(truth) == _recounted(table, NAMES)
    assert truth["count_strict"].to_pylist()[:4] == COUNTS[:4]
    assert all(paper > strict for _, paper, strict in _rows(truth))


def test_scan_finds_what_was_planted() -> None:
    """In 20,000 captions with 60 invented people the scan finds the planted counts exactly, under both rules."""
    names = invent_identities(60, seed=8)["name"].to_pylist()
    table, truth = plant_captions(names, 20_000, seed=8)
    result = NameMatcher(names).scan(table["TEXT"])
    assert count_matches(result.matches, names) == truth
    assert result.captions == {
        CaptionStatus.SEARCHED: 19_960,
        CaptionStatus.NULL_CAPTION: 40,
        CaptionStatus.NOT_UTF8: 0,
    }
    assert _recounted(table, names[:12]) == _rows(truth)[:12]


def test_near_misses_are_planted_for_every_name() -> None:
    """Each name has a longer and a glued near-miss, each dotted one another character at its dot."""
    table, _ = plant_captions(NAMES, 3000, seed=2, counts=[0] * 5)
    texts = "\n".join(text for text in table["TEXT"].to_pylist() if text)
    for name in NAMES:
        assert re.search(re.escape(name) + "[a-z]", texts)
        assert re.search("[a-z]" + re.escape(name), texts)
    assert re.search(r"Johannes B[a-z] Kerner", texts)
    assert re.search(r"Jon (?!Hamm)[A-Z]", texts)


def test_planted_counts_are_skewed() -> None:
    """A third of the people are in no caption, a few in more than 300, the others between."""
    counts = np.array(planted_counts(48, seed=0))
    assert (counts == 0).sum() == 16
    assert (counts > 300).sum() == 3
    assert counts.max() < 420
    assert np.median(counts[(counts > 0) & (counts <= 300)]) < 60


def test_collection_looks_like_laion() -> None:
    """The columns are LAION-400M's; ids are unique, hosts are reserved, similarity, ratings and lengths plausible."""
    table, _ = plant_captions(NAMES, 20_000, seed=3)
    assert table.schema == CAPTIONS
    assert table.num_rows == pc.count_distinct(table["SAMPLE_ID"]).as_py() == 20_000
    assert table["TEXT"].null_count == 40
    hosts = set(pc.replace_substring_regex(table["URL"], r"https://img\.([^/]*)/\d+\.jpg", r"\1").to_pylist())
    assert hosts == {"example.org", "example.com", "example.net"}
    assert set(table["NSFW"].to_pylist()) == {"UNLIKELY", "UNSURE", "NSFW", None}
    assert 0.28 <= pc.min(table["similarity"]).as_py() < pc.max(table["similarity"]).as_py() <= 0.45
    assert 60 < pc.mean(pc.binary_length(table["TEXT"])).as_py() < 85
    assert "{" not in "".join(text or "" for text in table["TEXT"].to_pylist())


def test_collection_is_pinned_to_its_seed() -> None:
    """The same seed gives the same bytes, on every machine; another seed gives others."""
    table, truth = plant_captions(NAMES, 2000, seed=4, counts=COUNTS)
    again = plant_captions(NAMES, 2000, seed=4, counts=COUNTS)
    assert again == (table, truth)
    assert plant_captions(NAMES, 2000, seed=5, counts=COUNTS)[0] != table
    assert hashlib.sha256(repr(table.to_pylist()).encode()).hexdigest()[:16] == "dd0729e6a8a9c592"


def test_planting_more_than_fits_is_an_error() -> None:
    """The error says how many captions were to be planted."""
    with pytest.raises(InvalidInputError, match=r"\d+ planted and 0 null captions do not fit into 75"):
        plant_captions(NAMES, 75, seed=0, counts=COUNTS)


def test_a_name_of_the_sentences_cannot_be_planted() -> None:
    """A person called like a city of the sentences would be counted too often, so it is an error."""
    with pytest.raises(InvalidInputError, match="in the sentences themselves"):
        plant_captions(["Rome", *NAMES], 5000, seed=0)


def test_background_holds_no_name() -> None:
    """Names that the background would hold by chance are kept out of it."""
    names = ["guitar", "Free Shipping", "niños b.envenidos"]
    table, truth = plant_captions(names, 4000, seed=6, counts=[2, 3, 4])
    assert _rows(truth) == _recounted(table, names)
