"""Which rows are a person's, and tables without them: what `idia erase` does to one table."""

import hashlib
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import regex
from pydantic import BaseModel, ConfigDict

from idia_core.caption_files import CAPTION_NAMES, URL_NAMES
from idia_core.spellings import strict_pattern

Rows = npt.NDArray[np.bool_]
IDENTITY, NAME = "identity", "name"
TESTED = "tested"
"""A column of candidate names: models chose among them, so that one is replaced and not taken away."""
PLACED = "image_path"
"""A column of the metadata of embeddings: a row is the place of a vector, so that it is blanked and not taken away."""
FACE = "face"
"""A column of faces cut out of base pictures, which may be anybody's."""
DIGEST, KEY = "sha256", "key"
OWN_TEXTS = (*CAPTION_NAMES, *URL_NAMES, KEY, "path", PLACED)
"""Columns that say of a row's picture what or where it is: who is named there, is on it."""
KEYED = ("appearances", "fetched", "ledger", "links", "pairs", "web")
"""Tables whose `key` is that of the row's own picture in all of the stage's tables."""


class Person(BaseModel):
    """Who is erased."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    identity: str
    names: tuple[str, ...]
    """The identity, the name, and the aliases that nobody else is called by."""
    longer: tuple[str, ...]
    """Names of others that hold one of these: where they stand, the person is not meant."""
    stand_in: str
    """What stands for the names in rows of others."""


class Marks(BaseModel):
    """What the person's pictures are known by where no name is."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    pictures: frozenset[str] = frozenset()
    """SHA-256 of their files."""
    sizes: frozenset[int] = frozenset()
    """Bytes of these files, by which most others are ruled out unhashed."""
    urls: frozenset[str] = frozenset()
    keys: frozenset[tuple[str, str]] = frozenset()
    """A stage's folder, and a key in its tables and tars."""

    def __or__(self, other: "Marks") -> "Marks":
        return Marks(
            pictures=self.pictures | other.pictures,
            sizes=self.sizes | other.sizes,
            urls=self.urls | other.urls,
            keys=self.keys | other.keys,
        )

    def __len__(self) -> int:
        return len(self.pictures) + len(self.urls) + len(self.keys)


class Cleaned(NamedTuple):
    """A table without the person, and how many rows were taken away, blanked or given a name replaced."""

    table: pa.Table
    rows: int


def name_pattern(names: Iterable[str]) -> str:
    """Where names stand in texts, by the strict rule of `spellings`, and in paths and URLs: `ann_lee`, `Ann%20Lee`."""
    slugs = [pattern for name in names if (pattern := _slug(name))]
    return "|".join([f"(?:{strict_pattern(names).pattern.removeprefix('(?V1)')})", *slugs])


def _slug(name: str) -> str:
    """The words of a name with anything but letters and digits between them; nothing for a single word."""
    words = name.split()
    gap = r"(?:%20|[\W_])*"
    return rf"(?i:(?<![^\W\d_]){gap.join(map(_word, words))}(?![^\W\d_]))" if len(words) > 1 else ""


def _word(word: str) -> str:
    """A word as it is, without accents, and as URLs and pages spell it."""
    bare = "".join(c for c in unicodedata.normalize("NFD", word) if not unicodedata.combining(c))
    forms = dict.fromkeys((word, bare, quote(word), unicodedata.normalize("NFD", word)))
    return f"(?:{'|'.join(map(regex.escape, forms))})"


class Spotter:
    """Finds and replaces the person's names in texts."""

    def __init__(self, person: Person) -> None:
        self._stand_in = person.stand_in
        longer = f"(?:{name_pattern(person.longer)})|" if person.longer else ""
        self._pattern = regex.compile(f"(?V1){longer}(?P<them>{name_pattern(person.names)})")

    def names(self, text: str) -> bool:
        """Whether the person is named in the text."""
        return any(match["them"] is not None for match in self._pattern.finditer(text))

    def without(self, text: str) -> str:
        """The text with the stand-in for the person's names."""
        return self._pattern.sub(lambda match: match[0] if match["them"] is None else self._stand_in, text)


@dataclass(frozen=True)
class Eraser:
    """Takes one person out of the tables of one stage."""

    person: Person
    marks: Marks
    folder: str
    """The stage's folder below the study's."""

    @cached_property
    def spotter(self) -> Spotter:
        """Finds the person's names."""
        return Spotter(self.person)

    @cached_property
    def keys(self) -> frozenset[str]:
        """The keys of the person's pictures in this stage."""
        return frozenset(key for folder, key in self.marks.keys if folder == self.folder)

    def with_marks(self, marks: Marks) -> "Eraser":
        """The same with more marks; the names' pattern is not built anew."""
        other = Eraser(self.person, marks, self.folder)
        other.__dict__["spotter"] = self.spotter
        return other

    def theirs(self, table: pa.Table) -> Rows:
        """Which rows are the person's: by identity, by a caption, URL or key that names them, by the picture."""
        found = np.zeros(table.num_rows, bool)
        columns = table.column_names
        if IDENTITY in columns:
            found |= _among(table[IDENTITY], [self.person.identity])
        elif NAME in columns and TESTED not in columns:
            found |= _among(table[NAME], self.person.names)
        for name in columns:
            column = table[name]
            if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
                if name in OWN_TEXTS:
                    found |= _where(column, self.spotter.names)
                known = {DIGEST: self.marks.pictures, KEY: self.keys} | dict.fromkeys(URL_NAMES, self.marks.urls)
                if values := known.get(name):
                    found |= _among(column, list(values))
            elif _is_binary(column.type) and self.marks.pictures:
                found |= self._pictures(column)
        return found

    def is_picture(self, content: bytes) -> bool:
        """Whether a file is one of the person's pictures."""
        return len(content) in self.marks.sizes and hashlib.sha256(content).hexdigest() in self.marks.pictures

    def _pictures(self, column: pa.ChunkedArray) -> Rows:
        found = _among(pc.binary_length(column), list(self.marks.sizes))
        for place in np.flatnonzero(found):
            found[place] = self.is_picture(column[place].as_py())
        return found

    def marks_of(self, table: pa.Table, name: str) -> Marks:
        """What the pictures of rows of the person are known by; `name` is the table's.

        A picture that a search brought up for the person need not show them, so a URL counts where the caption names
        them or there is none.
        """
        columns = table.column_names
        pictures = list[bytes]()
        for column in columns:
            if _is_binary(table[column].type) and FACE not in columns:
                pictures += [content for content in table[column].to_pylist() if content]
        captioned = [column for column in columns if column in CAPTION_NAMES]
        named = np.ones(table.num_rows, bool) if not captioned else np.zeros(table.num_rows, bool)
        for column in captioned:
            named |= _where(table[column], self.spotter.names)
        of_urls = table.filter(pa.array(named))
        digests = {hashlib.sha256(content).hexdigest() for content in pictures}
        urls = {url for column in columns if column in URL_NAMES for url in of_urls[column].to_pylist() if url}
        if urls and DIGEST in columns:
            digests |= {digest for digest in of_urls[DIGEST].to_pylist() if digest}
        keys = table[KEY].to_pylist() if KEY in columns and name in KEYED else []
        return Marks(
            pictures=frozenset(digests),
            sizes=frozenset(map(len, pictures)),
            urls=frozenset(urls),
            keys=frozenset((self.folder, key) for key in keys if key is not None),
        )

    def clean(self, table: pa.Table) -> Cleaned:
        """The table without the person's rows, and with the stand-in for their names in the rows of others."""
        theirs = self.theirs(table)
        if PLACED in table.column_names:
            left, touched = _blanked(table, theirs, self.person.stand_in), theirs
        else:
            left, touched = table.filter(pa.array(~theirs)), np.zeros(table.num_rows - int(theirs.sum()), bool)
        for place, field in enumerate(left.schema):
            column = left[field.name]
            cleaned = self._replaced(column)
            if cleaned is not None:
                touched |= ~np.asarray(pc.fill_null(_same(column, cleaned), True))
                left = left.set_column(place, field, cleaned)
        dropped = table.num_rows - left.num_rows
        return Cleaned(left, dropped + int(touched.sum()))

    def _replaced(self, column: pa.ChunkedArray) -> pa.ChunkedArray | None:
        """A column of texts, or of lists of them, with names replaced; None where there is nothing to replace."""
        kind = column.type
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            texts = pc.unique(column).drop_null().to_pylist()
        elif pa.types.is_list(kind) and pa.types.is_string(kind.value_type):
            texts = pc.unique(pc.list_flatten(column)).drop_null().to_pylist()
        else:
            return None
        wrong = {text: self.spotter.without(text) for text in texts if self.spotter.names(text)}
        if not wrong:
            return None
        if pa.types.is_list(kind):
            lists = [None if row is None else [wrong.get(text, text) for text in row] for row in column.to_pylist()]
            return pa.chunked_array([pa.array(lists, kind)])
        return pa.chunked_array([pa.array([wrong.get(text, text) for text in column.to_pylist()], kind)])


def _same(column: pa.ChunkedArray, other: pa.ChunkedArray) -> pa.Array:
    if pa.types.is_list(column.type):
        return pa.array([a == b for a, b in zip(column.to_pylist(), other.to_pylist(), strict=True)], pa.bool_())
    return pc.equal(column, other)


def _blanked(table: pa.Table, rows: Rows, stand_in: str) -> pa.Table:
    """The table with the stand-in for what these rows say of their pictures, or null for a URL if there may be none."""
    for place, field in enumerate(table.schema):
        if field.name in OWN_TEXTS and rows.any():
            value = pa.scalar(None if field.nullable and field.name in URL_NAMES else stand_in, field.type)
            table = table.set_column(place, field, pc.if_else(pa.array(rows), value, table[field.name]))
    return table


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _among(column: pa.ChunkedArray, values: Sequence[object]) -> Rows:
    found = pc.is_in(column, value_set=pa.array(values, column.type))
    return np.array(found, bool)


def _where(column: pa.ChunkedArray, holds: Callable[[str], bool]) -> Rows:
    """Which texts pass; each is looked at once, however often it is there."""
    coded = column.combine_chunks().dictionary_encode()
    coded = coded.combine_chunks() if isinstance(coded, pa.ChunkedArray) else coded
    right = np.array([text is not None and holds(text) for text in coded.dictionary.to_pylist()] + [False], bool)
    return right[np.asarray(pc.fill_null(coded.indices, len(right) - 1)).astype(np.int64)]


def salted(salt: str, name: str) -> str:
    """The SHA-256 by which a record of an erasure knows a name that it does not tell."""
    folded = " ".join(unicodedata.normalize("NFC", name).casefold().split())
    return hashlib.sha256(f"{salt}\0{folded}".encode()).hexdigest()
