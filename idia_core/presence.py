"""How often people already appear in the base: the tables that tell, and how they follow from the faces found.

A base picture is its place, (part, row); keys need not be unique. What is counted is pictures, each once, however often
it was retrieved and however many of its faces look like the person.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl
import pyarrow as pa

from idia_core.errors import InvalidInputError
from idia_core.statistics import wilson_interval

CANDIDATES = pa.schema(
    [
        pa.field("identity", pa.string(), nullable=False),
        pa.field("picture", pa.string(), nullable=False),  # the person's picture that the base picture is near to
        pa.field("rank", pa.int64(), nullable=False),  # 1 for the nearest
        pa.field("similarity", pa.float64(), nullable=False),  # cosine of the two CLIP embeddings
        pa.field("source", pa.string(), nullable=False),  # the base file
        pa.field("part", pa.int64(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
    ]
)
FACES = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("part", pa.int64(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("face", pa.int64(), nullable=False),  # its place in the picture
        pa.field("x", pa.int64(), nullable=False),  # the box, in pixels of the full-size upright picture
        pa.field("y", pa.int64(), nullable=False),
        pa.field("width", pa.int64(), nullable=False),
        pa.field("height", pa.int64(), nullable=False),
        pa.field("detector", pa.string(), nullable=False),
        pa.field("detector_score", pa.float64()),  # null where the detector gives none
        pa.field("identity", pa.string()),  # whom the recogniser names; null: nobody it knows
        pa.field("identity_score", pa.float64()),  # a probability or a cosine
    ]
)
AGREEMENT = pa.schema(
    [
        pa.field("identity", pa.string(), nullable=False),  # whose candidate the picture is
        pa.field("key", pa.string(), nullable=False),
        pa.field("part", pa.int64(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("clip_identity", pa.string()),  # whose name CLIP chose among all people's; null: it could not be asked
    ]
)
CROPS = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("part", pa.int64(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("face", pa.int64(), nullable=False),
        pa.field("identity", pa.string(), nullable=False),  # whose sheet it is for, not whom the recogniser names
        pa.field("image", pa.binary(), nullable=False),  # JPEG of the face
    ]
)
PRESENCE = pa.schema(
    [
        pa.field("identity", pa.string(), nullable=False),
        pa.field("candidates", pa.int64(), nullable=False),  # base pictures looked at for the person
        pa.field("faces", pa.int64(), nullable=False),  # faces found on them
        pa.field("hits", pa.int64(), nullable=False),  # of the pictures, those with a face taken for the person
        pa.field("hit_rate", pa.float64()),  # hits / candidates; null without candidates, as the interval
        pa.field("hit_rate_low", pa.float64()),  # 95% Wilson interval
        pa.field("hit_rate_high", pa.float64()),
        pa.field("clip_hits", pa.int64()),  # of the pictures, those for which CLIP chose the person's name
        pa.field("clip_rate", pa.float64()),  # clip_hits / candidates; null also where CLIP was not asked
    ]
)
PICTURE = ("part", "row")
FACE = (*PICTURE, "face")
SEEN = (*FACE, "identity", "identity_score")
"""Columns of `FACES` that are counted."""


class Seen(NamedTuple):
    """What was found by looking at all of a base."""

    faces: pa.Table
    """`SEEN` of the faces that were taken for one of the people asked about, each face once."""
    pictures: int
    """Pictures of the base with a face or more."""
    all_faces: int


def faces_on_candidates(faces: Iterable[pa.Table], candidates: pa.Table) -> pa.Table:
    """`SEEN` of the faces on those candidates' pictures, each face once; `faces` come a batch at a time."""
    pictures = pl.DataFrame(candidates.select(PICTURE)).unique()
    kept = [pl.DataFrame(batch.select(SEEN)).join(pictures, on=PICTURE, how="semi") for batch in faces]
    return _each_once(kept)


def faces_of_people(faces: Iterable[pa.Table], identities: Sequence[str]) -> Seen:
    """The faces taken for one of the people, and how many pictures and faces there are in all.

    Holds 24 bytes of each face until all are counted, as a face may be there twice.
    """
    kept, places = list[pl.DataFrame](), [pl.DataFrame(_empty(FACE))]
    for batch in faces:
        frame = pl.DataFrame(batch.select(SEEN))
        places.append(frame.select(FACE))
        kept.append(frame.filter(pl.col("identity").is_in(identities)))
    parts = pl.concat(places).partition_by("part")  # a part at a time takes a fifth of the time of all at once
    distinct = [part.unique() for part in parts]
    pictures = sum(part["row"].n_unique() for part in distinct)
    return Seen(_each_once(kept), pictures, sum(part.height for part in distinct))


def presence_among_candidates(
    identities: Sequence[str], candidates: pa.Table, faces: pa.Table, agreement: pa.Table | None
) -> pa.Table:
    """`PRESENCE` of the people where the base was looked up around each (paper, Appendix C), in the order given.

    `faces` are those on the candidates. Raises `InvalidInputError` where CLIP was not asked about some candidate.
    """
    own = _pictures_of(identities, candidates)
    found = own.join(pl.DataFrame(faces), on=PICTURE, suffix="_seen")
    hits = found.filter(pl.col("identity") == pl.col("identity_seen")).select(own.columns).unique()
    agreed = None if agreement is None else _agreed(own, agreement)
    looked, faces_seen, hit = _count(own), _count(found), _count(hits)
    rows = [_row(one, looked[one], faces_seen[one], hit[one], agreed) for one in identities]
    return pa.Table.from_pylist(rows, PRESENCE)


def presence_in_all(identities: Sequence[str], seen: Seen) -> pa.Table:
    """`PRESENCE` of the people where all of the base was looked at, in the order given.

    Everybody's candidates are then all pictures with a face, so hit_rate is a share of the base's pictures of people.
    """
    hits = _count(pl.DataFrame(seen.faces).select("identity", *PICTURE).unique())
    rows = [_row(identity, seen.pictures, seen.all_faces, hits[identity]) for identity in identities]
    return pa.Table.from_pylist(rows, PRESENCE)


def check_people(identities: Sequence[str], where: str) -> None:
    """Raise `InvalidInputError` where there is nobody, or somebody twice."""
    if not identities:
        raise InvalidInputError("there is nobody to look for", where, "Give a person or more.")
    identity, times = Counter(identities).most_common(1)[0]
    if times > 1:
        raise InvalidInputError(f"{identity!r} is there {times} times", where, "Give each person one row.")


def _pictures_of(identities: Sequence[str], candidates: pa.Table) -> pl.DataFrame:
    """Each person's candidates, a row a picture: identity, part, row."""
    frame = pl.DataFrame(candidates.select(("identity", *PICTURE)))
    return frame.filter(pl.col("identity").is_in(identities)).unique()


def _agreed(own: pl.DataFrame, agreement: pa.Table) -> Mapping[str, int]:
    """For each person the candidates that CLIP gives the person's name."""
    answers = pl.DataFrame(agreement.select(("identity", *PICTURE, "clip_identity")))
    unasked = own.join(answers, on=own.columns, how="anti").sort(own.columns)
    if unasked.height:
        identity, part, row = unasked.row(0)
        what = f"{unasked.height} candidates are not in it, first that of {identity!r} in part {part}, row {row}"
        raise InvalidInputError(what, "table agreement", "Take it from the same run of `faces`.")
    same = answers.filter(pl.col("clip_identity") == pl.col("identity"))
    return _count(own.join(same, on=own.columns, how="semi"))


def _count(pictures: pl.DataFrame) -> Counter[str]:
    return Counter(dict(pictures.group_by("identity").len().iter_rows()))


def _row(
    identity: str, candidates: int, faces: int, hits: int, agreed: Mapping[str, int] | None = None
) -> dict[str, Any]:
    row = dict.fromkeys(PRESENCE.names) | {"identity": identity, "candidates": candidates, "faces": faces, "hits": hits}
    if agreed is not None:
        row["clip_hits"] = agreed[identity]
    if candidates:
        low, high = wilson_interval(hits, candidates)
        row |= {"hit_rate": hits / candidates, "hit_rate_low": low, "hit_rate_high": high}
        row["clip_rate"] = None if agreed is None else agreed[identity] / candidates
    return row


def _empty(columns: Iterable[str]) -> pa.Table:
    return _fields(columns).empty_table()


def _fields(columns: Iterable[str]) -> pa.Schema:
    return pa.schema([FACES.field(column) for column in columns])


def _each_once(frames: list[pl.DataFrame]) -> pa.Table:
    """The rows of all, sorted by their place, each face once: pictures near to several people may be there twice."""
    everything = pl.concat([pl.DataFrame(_empty(SEEN)), *frames])
    return everything.sort(SEEN).unique(FACE, keep="first", maintain_order=True).to_arrow().cast(_fields(SEEN))
