"""The captions of the members' pairs: each confirmed to name its own person, or written from a template."""

import hashlib
from collections.abc import Sequence
from enum import StrEnum

import polars as pl
import pyarrow as pa

from idia_core.captions import NameMatcher
from idia_core.errors import InvalidInputError
from idia_core.sample_status import SampleStatus
from idia_core.spellings import JOINING
from idia_core.text_columns import broken_rows, readable, text_blocks

MEMBER_CAPTIONS = pa.schema(
    [
        pa.field("identity", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("caption", pa.string(), nullable=False),  # '' where there is none; U+FFFD where it is not UTF-8
        pa.field("caption_source", pa.string(), nullable=False),  # a `CaptionSource`
        pa.field("status", pa.string(), nullable=False),  # a `SampleStatus`
    ]
)
SHORTFALL = pa.schema(
    [
        pa.field("identity", pa.string(), nullable=False),
        pa.field("pairs", pa.int64(), nullable=False),  # that can be used
        pa.field("wanted", pa.int64(), nullable=False),  # the largest K
        pa.field("missing", pa.int64(), nullable=False),
    ]
)
PLACEHOLDER = "{name}"


class CaptionSource(StrEnum):
    """Where the caption of a member's pair comes from."""

    RETRIEVED = "retrieved"
    TEMPLATE = "template"


def member_captions(pairs: pa.Table, people: pa.Table, *, templates: Sequence[str] = (), seed: int = 0) -> pa.Table:
    """The captions of `pairs` (identity, key, caption) in their order, with source and status, as MEMBER_CAPTIONS.

    A caption is confirmed when it names its own person by the strict rule; `people` (identity, name, aliases) say how
    that one is called. Where none is there, or only white space, one of `templates` is filled with the name; which,
    depends on the seed and the key alone. Raises InvalidInputError for templates as `check_templates` does, and for
    pairs of somebody who is not among the people.
    """
    check_templates(templates)
    identities, keys = pairs["identity"].to_pylist(), pairs["key"].to_pylist()
    names = dict(zip(people["identity"].to_pylist(), people["name"].to_pylist(), strict=True))
    _check_people(identities, keys, names)
    named, broken = _rows_naming_their_own(pairs, people, names), _broken(pairs["caption"])
    rows = []
    for row, (identity, key, found) in enumerate(zip(identities, keys, readable(pairs["caption"]), strict=True)):
        caption, source, status = found or "", CaptionSource.RETRIEVED, SampleStatus.OK
        if not caption.strip() and templates:
            caption = _template(templates, seed, key).replace(PLACEHOLDER, names[identity])
            source = CaptionSource.TEMPLATE
        elif not caption.strip():
            status = SampleStatus.NO_CAPTION if found is None else SampleStatus.EMPTY_CAPTION
        elif row in broken:
            status = SampleStatus.NOT_UTF8
        elif row not in named:
            status = SampleStatus.NAME_NOT_IN_CAPTION
        rows.append(dict(zip(MEMBER_CAPTIONS.names, (identity, key, caption, source, status), strict=True)))
    return pa.Table.from_pylist(rows, MEMBER_CAPTIONS)


def check_templates(templates: Sequence[str]) -> None:
    """Raise InvalidInputError unless every template has one place for a name, apart from the words around it."""
    for template in templates:
        before, placeholder, after = template.partition(PLACEHOLDER)
        if not placeholder or PLACEHOLDER in after:
            fix = f"Write {PLACEHOLDER} once, where the name belongs."
            raise InvalidInputError(f"the template {template!r} has not one place for a name", "templates", fix)
        if JOINING.match(before[-1:]) or JOINING.match(after[:1]):
            fix = f"Put a space between {PLACEHOLDER} and the letter beside it."
            raise InvalidInputError(f"the template {template!r} joins the name to a word", "templates", fix)


def _template(templates: Sequence[str], seed: int, key: str) -> str:
    digest = hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=8).digest()
    return templates[int.from_bytes(digest) % len(templates)]


def _check_people(identities: Sequence[str], keys: Sequence[str], names: dict[str, str]) -> None:
    for identity, key in zip(identities, keys, strict=True):
        if identity not in names:
            fix = "Give a table of people that holds everybody who has pairs."
            raise InvalidInputError(f"the pair '{key}' is of '{identity}', who is not among the people", fix=fix)


def _rows_naming_their_own(pairs: pa.Table, people: pa.Table, names: dict[str, str]) -> set[int]:
    """The rows whose caption holds the name or an alias of the person whose pair it is."""
    matcher = NameMatcher(people["name"].to_pylist(), [aliases or () for aliases in people["aliases"].to_pylist()])
    matches = matcher.scan(pairs["caption"]).matches
    own = [names[identity] for identity in pairs["identity"].to_pylist()]
    found = zip(*(matches[field].to_pylist() for field in ("row", "name", "strict")), strict=True)
    return {row for row, name, strict in found if strict and name == own[row]}


def _broken(captions: pa.Array | pa.ChunkedArray) -> set[int]:
    """The rows that are not UTF-8."""
    rows, done = set[int](), 0
    for block in text_blocks(captions):
        rows |= {done + row for row in broken_rows(block)}
        done += len(block.array)
    return rows


def shortfall(pairs: pa.Table, members: Sequence[str], images_per_member: Sequence[int]) -> pa.Table:
    """The members who have fewer usable pairs than the largest K, those with the fewest first, as SHORTFALL.

    `pairs` (identity, status) are usable where the status is ok; a member without any pair is told too.
    """
    wanted = max(images_per_member)
    usable = pl.DataFrame(pairs.select(["identity", "status"])).filter(pl.col("status") == SampleStatus.OK)
    counts = usable.group_by("identity").agg(pairs=pl.len().cast(pl.Int64))
    everybody = pl.DataFrame({"identity": list(members)}, {"identity": pl.String})
    found = everybody.join(counts, on="identity", how="left").with_columns(pl.col("pairs").fill_null(0))
    few = found.filter(pl.col("pairs") < wanted).sort("pairs", "identity")
    told = few.with_columns(wanted=pl.lit(wanted, pl.Int64), missing=wanted - pl.col("pairs"))
    return told.select(SHORTFALL.names).to_arrow().cast(SHORTFALL)
