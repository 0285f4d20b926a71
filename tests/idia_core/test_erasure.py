"""Which rows are a person's, and what tables are without them."""

import hashlib

import pyarrow as pa
import pytest

from idia_core.erasure import Eraser, Marks, Person, Spotter

ANN = Person(
    identity="Zoë Ann-Lee", names=("Zoë Ann-Lee", "Z. Lee"), longer=("Zoë Ann-Lee Jones",), stand_in="erased-1"
)


def eraser(marks: Marks | None = None) -> Eraser:
    """For the stage in the folder `download`."""
    return Eraser(ANN, marks or Marks(), "download")


@pytest.mark.parametrize(
    "text",
    [
        "Zoë Ann-Lee at sea",
        "ZOË ANN-LEE",
        "Zoe Ann Lee, actress",
        "Ann-Lee, Zoë",
        "Zoe\u0308 Ann-Lee",
        "http://a/zo%C3%AB_Ann-Lee.jpg",
        "people/Zoë_Ann-Lee/0.jpg",
        "zoe+ann-lee",
        "with Z. Lee",
        "Zoë Ann-Lee Jones met Zoë Ann-Lee",
    ],
)
def test_names_are_found_as_captions_paths_and_urls_spell_them(text: str) -> None:
    """And are gone once they are replaced."""
    spotter = Spotter(ANN)
    assert spotter.names(text)
    assert not spotter.names(spotter.without(text))
    assert "erased-1" in spotter.without(text)


@pytest.mark.parametrize("text", ["Zoë Ann-Leeds", "Chloë Ann-Lee", "Zoë Lee", "Zoë Ann-Lee Jones", "Z.L.", ""])
def test_other_peoples_names_are_left(text: str) -> None:
    """Also one that holds the person's, where it is known to be somebody's."""
    spotter = Spotter(ANN)
    assert not spotter.names(text)
    assert spotter.without(text) == text


def test_a_row_is_the_persons_by_identity_caption_picture_url_and_key() -> None:
    """Each alone is enough; a null is nobody's."""
    picture = b"picture"
    marks = Marks(
        pictures=frozenset({hashlib.sha256(picture).hexdigest()}),
        sizes=frozenset({len(picture)}),
        urls=frozenset({"http://a/1"}),
        keys=frozenset({("download", "7"), ("elsewhere", "8")}),
    )
    rows = {
        "identity": [ANN.identity, None, "Bob", "Bob", "Bob", "Bob", "Bob", None],
        "caption": ["", "by Z. Lee", "", "", "", "", "", None],
        "image": [b"", b"", picture, b"PICTURE", b"", b"", b"", None],
        "url": ["", "", "", "", "http://a/1", "http://a/2", "", None],
        "key": ["", "", "", "", "", "7", "8", None],
    }
    found = eraser(marks).theirs(pa.table(rows))
    assert found.tolist() == [True, True, True, False, True, True, False, False]


def test_pictures_that_a_search_brought_up_are_not_taken_for_the_persons() -> None:
    """A URL counts where the caption names the person or there is none; a face cut out of the base never does."""
    rows = pa.table({"identity": [ANN.identity] * 2, "url": ["u1", "u2"], "caption": ["a beach", "Z. Lee"]})
    assert eraser().marks_of(rows, "candidates").urls == {"u2"}
    assert eraser().marks_of(rows.drop_columns("caption"), "ledger").urls == {"u1", "u2"}
    faces = pa.table({"identity": [ANN.identity], "face": [0], "key": ["k"], "image": [b"face"]})
    assert eraser().marks_of(faces, "crops") == Marks()


def test_rows_of_others_keep_all_but_the_name() -> None:
    """Texts and lists of them; nulls stay, and so does the schema."""
    schema = pa.schema(
        [
            pa.field("identity", pa.string(), nullable=False),
            pa.field("aliases", pa.list_(pa.string())),
            pa.field("detail", pa.string()),
            pa.field("score", pa.float32()),
        ]
    )
    rows = [
        {"identity": "Bob", "aliases": ["Bobby", "Z. Lee"], "detail": "beside Z. Lee", "score": 1.5},
        {"identity": ANN.identity, "aliases": None, "detail": None, "score": 0.5},
        {"identity": "Eve", "aliases": None, "detail": None, "score": None},
    ]
    cleaned = eraser().clean(pa.Table.from_pylist(rows, schema))
    assert cleaned.rows == 2
    assert cleaned.table.schema == schema
    changed = {"aliases": ["Bobby", "erased-1"], "detail": "beside erased-1"}
    assert cleaned.table.to_pylist() == [rows[0] | changed, rows[2]]


def test_a_table_without_the_person_is_the_same() -> None:
    """Also an empty one."""
    table = pa.table({"identity": ["Bob"], "caption": ["Bob at sea"]})
    for some in (table, table.slice(0, 0)):
        cleaned = eraser().clean(some)
        assert (cleaned.rows, cleaned.table) == (0, some)
