"""The loop of the paper: which of a backend's answers become candidates of a person, and what is counted."""

from collections.abc import Sequence

import pyarrow as pa
import pytest

from idia_core.caption_names import CaptionNames, Named
from idia_core.retrieval import ANSWER, CANDIDATE_PAIRS, RETRIEVED, Found, Query, retrieve_person

NAMES = CaptionNames([Named("ann", "Ann Lee"), Named("smith", "Ann Lee Smith"), Named("bob", "Bob Ray")])
Row = tuple[int, float, str | None, str | None]


class Base:
    """A backend with the answers that a test gives it; it keeps what it was asked."""

    def __init__(self, answers: Sequence[Sequence[Row]]) -> None:
        self._answers = answers
        self.asked = list[str]()

    def answer(self, query: Query) -> pa.Table:
        self.asked.append(query.picture)
        columns = list(zip(*self._answers[query.place], strict=True)) or [()] * 4
        arrays = [pa.array(column, field.type) for column, field in zip(columns, ANSWER, strict=False)]
        return pa.table([*arrays, pa.nulls(len(columns[0]), pa.string())], ANSWER)


def retrieve(base: Base, goal: int, person: str = "ann", queries: int | None = None) -> Found:
    """What is found with the pictures 0.jpg, 1.jpg, ..."""
    count = len(base._answers) if queries is None else queries
    return retrieve_person([Query(person, f"{n}.jpg", n) for n in range(count)], base, NAMES, goal)


def row(number: int, caption: str | None, url: str | None = None, similarity: float | None = None) -> Row:
    """A row with a URL of its own; lower numbers are nearer."""
    return number, 1 - number / 100 if similarity is None else similarity, url or f"http://x/{number}", caption


def test_captions_that_name_the_person_are_candidates() -> None:
    """In the order of the pictures and ranks, each base row once; the rest is counted."""
    base = Base(
        [
            [row(5, "Ann Lee at sea"), row(2, "a boat"), row(7, "LEE, ANN"), row(9, None)],
            [row(7, "LEE, ANN", similarity=0.995), row(1, "ann lee"), row(3, "Annlee")],
        ]
    )
    found = retrieve(base, 10)
    kept = [(c["picture"], c["rank"], c["place"], c["url"], c["caption"], c["status"]) for c in found.candidates]
    assert kept == [
        ("0.jpg", 2, 0, "http://x/5", "Ann Lee at sea", "kept"),
        ("0.jpg", 3, 1, "http://x/7", "LEE, ANN", "kept"),
        ("1.jpg", 2, 2, "http://x/1", "ann lee", "kept"),
    ]
    assert [c["similarity"] for c in found.candidates] == pytest.approx([0.95, 0.93, 0.99])
    expected = {"pictures": 2, "retrieved": 6, "name_in_caption": 3, "unique": 3, "kept": 3}
    others = {"duplicate_url": 0, "duplicate_caption": 0, "other_people": 0, "no_url": 0}
    assert found.counts == expected | others
    rows = [candidate | {"identity": "ann"} for candidate in found.candidates]
    assert pa.Table.from_pylist(rows, CANDIDATE_PAIRS).num_rows == 3
    assert set(RETRIEVED.names) - {"identity"} == set(found.counts) - {"no_url"}


def test_it_stops_at_the_wanted_number() -> None:
    """No picture is asked with after the one that reaches it; what that one brings beyond it is spare."""
    first = [row(1, "Ann Lee 1"), row(2, "Ann Lee 2")]
    second = [row(3, "Ann Lee 3"), row(4, "nobody"), row(5, "Ann Lee 5")]
    base = Base([first, second, [row(6, "Ann Lee 6")]])
    found = retrieve(base, 3)
    assert base.asked == ["0.jpg", "1.jpg"]
    assert [c["status"] for c in found.candidates] == ["kept", "kept", "kept", "spare"]
    assert (found.counts["pictures"], found.counts["unique"], found.counts["kept"]) == (2, 4, 3)
    again = Base([first, second])
    assert retrieve(again, 2).counts["pictures"] == 1
    assert again.asked == ["0.jpg"]


def test_duplicates_are_dropped() -> None:
    """A URL, or a caption, that a candidate has already; of both at once the URL counts; blanks do not differ."""
    first = [row(1, "Ann Lee", "http://x/a"), row(2, "Ann Lee 2", " http://x/a"), row(3, " Ann Lee ", "http://x/c")]
    second = [row(4, "Ann Lee", "http://x/a"), row(5, "Ann Lee 5", "http://x/c"), row(6, "Ann Lee 2", "http://x/d")]
    found = retrieve(Base([first, second]), 10)
    assert [(c["url"], c["caption"]) for c in found.candidates] == [
        ("http://x/a", "Ann Lee"),
        ("http://x/c", "Ann Lee 5"),
        ("http://x/d", "Ann Lee 2"),
    ]
    assert {name: found.counts[name] for name in ("name_in_caption", "duplicate_url", "duplicate_caption")} == {
        "name_in_caption": 6,
        "duplicate_url": 2,
        "duplicate_caption": 1,
    }


def test_a_name_inside_another_ones() -> None:
    """A caption with Ann Lee Smith names her and not Ann Lee; one with both names both."""
    base = Base([[row(1, "Ann Lee Smith sings"), row(2, "Ann Lee with Ann Lee Smith"), row(3, "Smith, Ann Lee")]])
    found = retrieve(base, 10)
    assert [c["caption"] for c in found.candidates] == ["Ann Lee with Ann Lee Smith"]
    assert (found.counts["other_people"], found.counts["name_in_caption"]) == (2, 1)
    smith = retrieve(base, 10, "smith")
    assert [c["place"] for c in smith.candidates] == [0, 1, 2]
    assert smith.counts["other_people"] == 0


def test_a_row_without_a_url_is_no_candidate() -> None:
    """It is counted apart, and neither its caption nor its missing URL makes another row a duplicate."""
    found = retrieve(Base([[(1, 0.9, None, "Ann Lee"), (2, 0.8, " ", "Ann Lee"), row(3, "Ann Lee")]]), 10)
    assert [c["url"] for c in found.candidates] == ["http://x/3"]
    assert (found.counts["no_url"], found.counts["name_in_caption"]) == (2, 1)


def test_the_order_is_by_similarity_then_row() -> None:
    """However a backend orders its answer."""
    rows = [row(9, "Ann Lee 9", similarity=0.5), row(4, "Ann Lee 4", similarity=0.5), row(7, "Ann Lee 7", None, 0.75)]
    for answer in (rows, rows[::-1]):
        found = retrieve(Base([answer]), 10)
        assert [(c["rank"], c["caption"]) for c in found.candidates] == [
            (1, "Ann Lee 7"),
            (2, "Ann Lee 4"),
            (3, "Ann Lee 9"),
        ]


def test_nobody_found_is_a_result() -> None:
    """Answers without the name, empty answers, and no picture at all."""
    found = retrieve(Base([[row(1, "Bob Ray")], []]), 3)
    assert found.candidates == []
    assert (found.counts["pictures"], found.counts["retrieved"], found.counts["kept"]) == (2, 1, 0)
    assert retrieve(Base([]), 3).counts["pictures"] == 0
