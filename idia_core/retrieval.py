"""Retrieving people's pairs from a base: base pictures near to a person's own, under captions that name the person.

The loop is the paper's (Section 5.1): a base is asked with one picture of a person after another for its nearest
neighbours, until enough of their captions name the person. Whoever answers, a `Backend`, it is the same loop.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

CANDIDATE_PAIRS = pa.schema(
    [
        pa.field("identity", pa.string(), nullable=False),
        pa.field("place", pa.int64(), nullable=False),  # 0.. among the person's own, in the order they were found
        pa.field("picture", pa.string(), nullable=False),  # the person's picture, or the text, that was asked with
        pa.field("rank", pa.int64(), nullable=False),  # in the answer to it, 1 for the nearest
        pa.field("similarity", pa.float64(), nullable=False),  # cosine of the two CLIP embeddings
        pa.field("url", pa.string(), nullable=False),
        pa.field("caption", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),  # a `CandidateStatus`
        pa.field("sha256", pa.string()),  # of the file at the URL; null where the base does not tell
    ]
)
RETRIEVED = pa.schema(
    [
        pa.field("identity", pa.string(), nullable=False),
        pa.field("pictures", pa.int64(), nullable=False),  # of the person, or texts, that were asked with
        pa.field("retrieved", pa.int64(), nullable=False),  # different base rows in the answers
        pa.field("name_in_caption", pa.int64(), nullable=False),  # of these, with a URL and a caption that names them
        pa.field("duplicate_url", pa.int64(), nullable=False),
        pa.field("duplicate_caption", pa.int64(), nullable=False),
        pa.field("unique", pa.int64(), nullable=False),  # name_in_caption without the duplicates
        pa.field("kept", pa.int64(), nullable=False),
        pa.field("other_people", pa.int64(), nullable=False),  # the name is only a part of another one's in the caption
    ]
)
RETRIEVABLE = pa.schema(
    [pa.field("identity", pa.string(), nullable=False), pa.field("pairs", pa.int64(), nullable=False)]
)
ANSWER = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),  # the number by which the base knows the pair
        pa.field("similarity", pa.float64(), nullable=False),
        pa.field("url", pa.string()),
        pa.field("caption", pa.string()),  # may be left out, null, where it names none of the people
        pa.field("sha256", pa.string()),
    ]
)
NO_URL = "no_url"
"""Counts the base rows whose caption names the person and that have no URL."""


class CandidateStatus(StrEnum):
    """What a candidate is for."""

    KEPT = "kept"  # to be downloaded
    SPARE = "spare"  # beyond the wanted number, in the answer in which that was reached


class Query(NamedTuple):
    """A question to a base; one of the last three is given, as the backend wants it."""

    identity: str
    picture: str
    """The picture's name, or the text itself."""
    place: int = 0
    """Its number among the questions that are asked together."""
    embedding_D: npt.NDArray[np.float32] | None = None
    image: bytes | None = None
    """An encoded picture."""
    text: str | None = None


class Backend(Protocol):
    """A base that can be asked for its nearest neighbours."""

    def answer(self, query: Query) -> pa.Table:
        """The base rows nearest to a query, as ANSWER, in any order."""


class Judge(Protocol):
    """Tells whom captions name."""

    def judge(self, identity: str, captions: Sequence[str]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Of each caption: whether it names the person; whether it does not, as the name is a part of another's."""


class Found(NamedTuple):
    """What was found of one person: rows of CANDIDATE_PAIRS, and the counts of RETRIEVED and NO_URL."""

    candidates: list[dict[str, Any]]
    counts: dict[str, int]


def retrieve_person(queries: Iterable[Query], backend: Backend, judge: Judge, goal: int) -> Found:
    """Ask with one query of a person after another, until there are `goal` candidates or all queries are used up.

    A base row counts once, in the first answer that holds it. Of rows whose captions name the person those are
    candidates that repeat neither a URL nor a caption. The first `goal` are kept; further ones of the last answer are
    spare. Of equal similarities the lower row comes first, so that backends agree.
    """
    person = _Person(judge, goal)
    for query in queries:
        person.add(query, backend.answer(query))
        if len(person.candidates) >= goal:
            break
    return person.found()


class _Person:
    """What is known of a person so far."""

    def __init__(self, judge: Judge, goal: int) -> None:
        self._judge, self._goal = judge, goal
        self._rows, self._urls, self._captions = set[int](), set[str](), set[str]()
        self._counts = Counter[str]()
        self.candidates = list[dict[str, Any]]()

    def add(self, query: Query, answer: pa.Table) -> None:
        """Take in the answer to a query."""
        answer = answer.sort_by([("similarity", "descending"), ("row", "ascending")])
        self._counts["pictures"] += 1
        fresh = [place for place, row in enumerate(answer["row"].to_pylist()) if self._is_new(row)]
        self._counts["retrieved"] += len(fresh)
        captioned = [place for place, here in zip(fresh, _given(answer["caption"], fresh), strict=True) if here]
        if not captioned:
            return
        rows = answer.take(pa.array(captioned)).to_pylist()
        named_N, other_N = self._judge.judge(query.identity, [row["caption"] for row in rows])
        self._counts["other_people"] += int(other_N.sum())
        for n in np.flatnonzero(named_N).tolist():
            self._add_named(rows[n], {"picture": query.picture, "identity": query.identity, "rank": captioned[n] + 1})

    def _is_new(self, row: int) -> bool:
        if row in self._rows:
            return False
        self._rows.add(row)
        return True

    def _add_named(self, row: dict[str, Any], about: dict[str, Any]) -> None:
        """Count a row that names the person, and make it a candidate if it repeats nothing."""
        url, caption = (row["url"] or "").strip(), row["caption"].strip()
        if not url:
            self._counts[NO_URL] += 1
            return
        self._counts["name_in_caption"] += 1
        if url in self._urls or caption in self._captions:
            self._counts["duplicate_url" if url in self._urls else "duplicate_caption"] += 1
            return
        self._urls.add(url)
        self._captions.add(caption)
        place = len(self.candidates)
        status = CandidateStatus.KEPT if place < self._goal else CandidateStatus.SPARE
        about |= {"place": place, "similarity": row["similarity"], "status": str(status), "sha256": row["sha256"]}
        self.candidates.append(about | {"url": url, "caption": caption})

    def found(self) -> Found:
        """All of it."""
        columns = [name for name in RETRIEVED.names if name != "identity"]
        unique = len(self.candidates)
        counts = {name: self._counts[name] for name in (*columns, NO_URL)}
        return Found(self.candidates, counts | {"unique": unique, "kept": min(unique, self._goal)})


def _given(column: pa.ChunkedArray, places: Sequence[int]) -> list[bool]:
    given: list[bool] = column.is_valid().take(pa.array(places, pa.int64())).to_pylist()
    return given
