"""Which fetched candidates become a person's pairs, why the others do not, and how many are left at each step."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from PIL import Image, ImageOps

from idia_core.face_search import FaceSearch, Looked
from idia_core.fetch_status import FetchStatus
from idia_core.leakage import AttackPictures
from idia_core.perceptual_hash import as_hashes, nearest, perceptual_hash
from idia_core.sample_pictures import Examined, decode_reduced
from idia_core.sample_status import SampleStatus

FUNNEL = pa.schema(
    [
        pa.field("identity", pa.string(), nullable=False),
        pa.field("retrieved", pa.int64(), nullable=False),  # base rows near to the person's pictures
        pa.field("name_in_caption", pa.int64(), nullable=False),  # of these, with a URL and a caption that names them
        pa.field("unique", pa.int64(), nullable=False),  # of these, without a URL or caption that comes again
        pa.field("kept", pa.int64(), nullable=False),  # of these, to be downloaded: the others are more than wanted
        pa.field("downloaded", pa.int64(), nullable=False),
        pa.field("distinct_pictures", pa.int64(), nullable=False),  # of these, readable and unlike the earlier ones
        pa.field("not_attack_pictures", pa.int64(), nullable=False),
        pa.field("face_verified", pa.int64()),  # of these, with the person's face; null where nobody looked
        pa.field("achieved_k", pa.int64(), nullable=False),  # pairs
    ]
)
"""What is left of a person's pairs: no number is larger than the one before."""
REJECTED = pa.schema(
    [
        pa.field("identity", pa.string(), nullable=False),
        pa.field("place", pa.int64(), nullable=False),  # as in `candidates`
        pa.field("url", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),  # a `FetchStatus`, or a `Rejection`
        pa.field("detail", pa.string(), nullable=False),
    ]
)
"""The candidates that did not become pairs."""


class Rejection(StrEnum):
    """Why a candidate whose picture was fetched is no pair."""

    UNREADABLE = "unreadable"
    IDENTICAL_FILE = "identical_file"
    NEAR_DUPLICATE = "near_duplicate"
    ATTACK_PICTURE = "attack_picture"
    NO_FACE = "no_face"
    OTHER_FACE = "other_face"


STEPS: dict[str, tuple[str, ...]] = {
    "downloaded": tuple(str(status) for status in FetchStatus if status is not FetchStatus.OK),
    "distinct_pictures": (Rejection.UNREADABLE, Rejection.IDENTICAL_FILE, Rejection.NEAR_DUPLICATE),
    "not_attack_pictures": (Rejection.ATTACK_PICTURE,),
    "face_verified": (Rejection.NO_FACE, Rejection.OTHER_FACE),
}
"""The columns of FUNNEL in which a reason makes a difference, in the order in which candidates are looked at."""


class Candidate(NamedTuple):
    """A candidate that was to be fetched; `picture` is the encoded picture, there if the status is ok."""

    identity: str
    place: int
    status: str
    detail: str
    picture: memoryview | None


class Fault(NamedTuple):
    """Why a candidate is no pair."""

    reason: str
    detail: str


class PairSieve:
    """Keeps the candidates that can be pairs.

    Each is looked at in the order of STEPS until a reason is found. A picture is a near-duplicate where its perceptual
    hash differs in at most `max_distance` bits from that of an earlier picture of the same person, mirrored or not.
    With `faces` it must show a face that is recognised as the person's.
    """

    def __init__(self, attack: AttackPictures, max_distance: int, faces: FaceSearch | None = None) -> None:
        self._attack, self._max_distance, self._faces = attack, max_distance, faces

    def sift(self, candidates: Sequence[Candidate]) -> list[Fault | None]:
        """Why each candidate is no pair, None where it is one; a person's are in the order of their places."""
        faults: list[Fault | None] = [None] * len(candidates)
        examined = list(self._distinct(candidates, faults))
        leaks = self._attack.find([_content(candidates[i]) for i, _ in examined], [one for _, one in examined])
        for (i, _), leak in zip(examined, leaks, strict=True):
            if leak:
                faults[i] = Fault(Rejection.ATTACK_PICTURE, f"{leak.found}, {leak.how}, {leak.value or 0:.0f} bits")
        if self._faces:
            shown = [(i, bytes(_content(candidates[i]))) for i, _ in examined if faults[i] is None]
            for seen in self._faces.look(shown):
                faults[seen.tag] = _face_fault(seen, candidates[seen.tag].identity)
        return faults

    def _distinct(self, candidates: Sequence[Candidate], faults: list[Fault | None]) -> Iterator[tuple[int, Examined]]:
        """The pictures that can be read and are unlike the person's earlier ones; the others get their faults."""
        people = dict[str, _Earlier]()
        for i, candidate in enumerate(candidates):
            if candidate.status != FetchStatus.OK:
                faults[i] = Fault(candidate.status, candidate.detail)
                continue
            reduced = decode_reduced(_content(candidate))
            if reduced.picture is None:
                faults[i] = Fault(Rejection.UNREADABLE, str(reduced.status))
                continue
            earlier = people.setdefault(candidate.identity, _Earlier(self._max_distance))
            hashed = perceptual_hash(reduced.picture)
            faults[i] = earlier.repeated(candidate, hashed)
            if faults[i] is None:
                earlier.add(candidate, hashed, reduced.picture)
                yield i, Examined(SampleStatus.OK, reduced.size, hashed)


class _Earlier:
    """The pictures of a person so far."""

    def __init__(self, max_distance: int) -> None:
        self._max_distance = max_distance
        self._files = dict[bytes, int]()
        self._hashes, self._places = list[bytes](), list[int]()

    def repeated(self, candidate: Candidate, hashed: bytes | None) -> Fault | None:
        """Whether a picture repeats one of them, which it names."""
        place = self._files.get(_digest(candidate))
        if place is not None:
            return Fault(Rejection.IDENTICAL_FILE, f"of place {place}")
        if hashed is None:
            return None
        places, distances = nearest(as_hashes([hashed]), as_hashes(self._hashes))
        if distances[0] > self._max_distance:
            return None
        return Fault(Rejection.NEAR_DUPLICATE, f"of place {self._places[places[0]]}, {distances[0]} bits")

    def add(self, candidate: Candidate, hashed: bytes | None, picture: Image.Image) -> None:
        """Take one in, as it is and mirrored."""
        self._files[_digest(candidate)] = candidate.place
        for view in (hashed, perceptual_hash(ImageOps.mirror(picture))):
            if view:
                self._hashes.append(view)
                self._places.append(candidate.place)


def _content(candidate: Candidate) -> memoryview:
    if candidate.picture is None:
        raise AssertionError(f"no picture of a candidate whose status is {candidate.status}")
    return candidate.picture


def _digest(candidate: Candidate) -> bytes:
    return hashlib.sha256(_content(candidate)).digest()


def _face_fault(seen: Looked[int], identity: str) -> Fault | None:
    """Whether none of the faces is the person's; of the others it is told whose they are."""
    named = [face.recognition for face in seen.faces]
    if not named:
        return Fault(Rejection.NO_FACE, "")
    if any(one.identity == identity for one in named):
        return None
    return Fault(Rejection.OTHER_FACE, ", ".join(f"{one.identity or 'nobody known'} {one.score:.2f}" for one in named))


def funnel_row(retrieved: Mapping[str, Any], faults: Sequence[Fault | None], *, verified: bool) -> dict[str, Any]:
    """The person's row of FUNNEL, from the one of RETRIEVED and the faults of the candidates that were kept."""
    row = {name: retrieved[name] for name in ("identity", "retrieved", "name_in_caption", "unique", "kept")}
    reasons, left = Counter(str(fault.reason) for fault in faults if fault), len(faults)
    for column, own in STEPS.items():
        left -= sum(reasons[reason] for reason in own)
        row[column] = left
    return row | {"face_verified": left if verified else None, "achieved_k": left}


def fewest_first(funnel: pa.Table) -> list[dict[str, Any]]:
    """The rows of a funnel, from the person with the fewest pairs on."""
    rows: list[dict[str, Any]] = funnel.to_pylist()
    return sorted(rows, key=lambda row: (row["achieved_k"], row["kept"], row["identity"]))


def totals(funnel: pa.Table) -> dict[str, int]:
    """The sum of each column over everybody, in their order; without `face_verified` where nobody looked at faces."""
    verified = funnel["face_verified"].null_count < len(funnel)
    names = [name for name in FUNNEL.names[1:] if verified or name != "face_verified"]
    return {name: int(np.sum(funnel[name].drop_null().to_numpy())) for name in names}


def largest_k(funnel: pa.Table, members: set[str] | None = None) -> str:
    """A sentence on the K up to which training sets can be built with as many pairs of each member (Section 5.1).

    All people count where `members` is not given.
    """
    rows = [row for row in funnel.to_pylist() if members is None or row["identity"] in members]
    every, many = ("Everybody", "people") if members is None else ("Every member", "members")
    if not rows:
        return f"There are no {many}."
    lowest = min(row["achieved_k"] for row in rows)
    if lowest == 0:
        without = sum(row["achieved_k"] == 0 for row in rows)
        return f"{without:,} of {len(rows):,} {many} have no pair: no training set can have pairs of all of them."
    pairs = "1 pair" if lowest == 1 else f"{lowest:,} pairs"
    return f"{every} has {pairs} or more: K can be up to {lowest:,}."
