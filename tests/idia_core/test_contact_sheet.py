"""Contact sheets: what they show in which order, and that no name can run or reach out."""

import io
import re
from html.parser import HTMLParser
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image

from idia_core.contact_sheet import (
    SHOWN,
    Sheet,
    ShownFace,
    by_rate,
    render_index,
    render_sheet,
    share,
    shown_faces,
)
from idia_core.presence import CANDIDATES, CROPS, PRESENCE, SEEN

HOSTILE = ("<script>alert('x')</script>", '" onmouseover="alert(1)', "علي \u202eevil\u0007")
PATTERN = re.compile(r"<(style|script)>.*?</\1>", re.DOTALL)


def jpeg() -> bytes:
    """A small picture."""
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 120, 40)).save(stream, "JPEG")
    return stream.getvalue()


def row(identity: str, candidates: int, hits: int, **fields: Any) -> dict[str, Any]:
    """A row of PRESENCE."""
    values = dict.fromkeys(PRESENCE.names) | {"identity": identity, "candidates": candidates, "faces": 2 * candidates}
    values |= {"hits": hits}
    if candidates:
        values |= {"hit_rate": hits / candidates, "hit_rate_low": 0.01, "hit_rate_high": 0.75}
    return values | fields


def sheet(name: str = "Ann Lee", **fields: Any) -> Sheet:
    """A sheet with one hit and two near misses."""
    hit = ShownFace(jpeg(), "key 1", name, 0.973, 4)
    misses = [ShownFace(jpeg(), "key 2", None, None, 9), ShownFace(None, "key 3", "Ben Ray", 0.5, 12)]
    values: dict[str, Any] = {
        "identity": "a1", "name": name, "presence": row("a1", 1234, 1), "pictures": [jpeg()] * 3,
        "hits": [hit], "more_hits": 0, "misses": misses, "more_misses": 0,
    }  # fmt: skip
    return Sheet(**values | fields)


class Page(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.parts: list[str] = []
        self.feed(PATTERN.sub("", html))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep the tag."""
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        """Keep the text."""
        self.parts.append(data)

    @property
    def text(self) -> str:
        """All text in one line."""
        return " ".join(" ".join(self.parts).split())


def test_faces_are_sorted_into_hits_and_near_misses() -> None:
    """Hits first, the nearest picture first, with the best of a picture's ranks, and each crop once."""
    box = {"part": 0, "image": b"x"}
    crops = [
        box | {"key": f"k{at}", "row": at, "face": face, "identity": who}
        for who, at, face in [("ann", 1, 0), ("ann", 2, 0), ("ann", 2, 1), ("ann", 3, 0), ("ben", 2, 0), ("ann", 1, 0)]
    ]
    faces = {"part": [0] * 4, "row": [1, 2, 2, 3], "face": [0, 0, 1, 0]}
    faces |= {"identity": ["ann", "ben", "ann", None], "identity_score": [0.7, 0.8, 0.9, 0.3]}
    near = [("ann", 1, 30), ("ann", 2, 7), ("ann", 2, 5), ("ann", 3, 1), ("ben", 2, 50)]
    candidates = [
        {"identity": who, "picture": "p", "rank": rank, "similarity": 0.5, "source": "s", "part": 0}
        | {"row": at, "key": f"k{at}"}
        for who, at, rank in near
    ]
    table = shown_faces(
        pa.Table.from_pylist(crops, CROPS),
        pa.table(faces).select(SEEN),
        pa.Table.from_pylist(candidates, CANDIDATES),
    )
    assert table.schema == SHOWN
    columns = ("identity", "row", "face", "hit", "taken_for", "score", "rank")
    assert [tuple(found[column] for column in columns) for found in table.to_pylist()] == [
        ("ann", 2, 1, True, "ann", 0.9, 5),
        ("ann", 1, 0, True, "ann", 0.7, 30),
        ("ann", 3, 0, False, None, 0.3, 1),
        ("ann", 2, 0, False, "ben", 0.8, 5),
        ("ben", 2, 0, True, "ben", 0.8, 50),
    ]
    unranked = shown_faces(pa.Table.from_pylist(crops, CROPS), pa.table(faces).select(SEEN), None)
    assert unranked["rank"].null_count == 5
    assert unranked.filter(unranked["hit"])["score"].to_pylist() == [0.9, 0.7, 0.8]


def test_a_sheet_says_what_was_counted() -> None:
    """The counts, each hit's score, rank and key, whom near misses were taken for, and what is not shown."""
    page = Page(render_sheet(sheet(more_hits=1, more_misses=1200), full=False))
    for said in (
        "pictures looked at 1,234", "faces on them 2,468", "pictures with a hit 1",
        "hit rate 0.081% 95%: 1.0% to 75.0%",
        "score 0.97 rank 4 key key 1", "score – rank 9 taken for nobody key key 2", "cannot be read",
        "score 0.50 rank 12 taken for Ben Ray key key 3", "1 more face is not shown", "1,200 more faces are not shown",
    ):  # fmt: skip
        assert said in page.text
    assert "CLIP" not in page.text
    assert sum(tag == "img" for tag, _ in page.tags) == 3 + 1 + 1


def test_a_sheet_of_a_base_looked_at_as_a_whole() -> None:
    """It has no ranks and no near misses, and says so by its words."""
    page = Page(render_sheet(sheet(hits=[ShownFace(jpeg(), "key 1", "Ann Lee", 0.9, None)], misses=[]), full=True))
    assert "pictures with a face 1,234" in page.text
    assert "Near misses" not in page.text
    assert "rank" not in page.text


def test_a_sheet_of_somebody_nobody_looked_for() -> None:
    """Nothing is known, and no rate is made up."""
    empty = row("a1", 0, 0, clip_hits=0)
    page = Page(render_sheet(sheet(presence=empty, hits=[], misses=[], pictures=[]), full=False))
    assert "so nothing is known" in page.text
    assert "hit rate – CLIP says the same name –" in page.text


def test_the_index_has_everybody_the_rarest_first() -> None:
    """By hit rate, then identity; who was not looked for comes last; each name leads to its page."""
    rows = [row("d", 0, 0), row("c", 10, 5, clip_rate=0.2, clip_hits=2), row("b", 20, 1), row("a", 10, 5)]
    assert [found["identity"] for found in by_rate(rows)] == ["b", "a", "c", "d"]
    named = [
        found | {"name": f"Name {found['identity']}", "page": f"people/{found['identity']}.html"} for found in rows
    ]
    html = render_index(named, full=False)
    links = [attributes["href"] for tag, attributes in Page(html).tags if tag == "a"]
    assert links == [f"people/{identity}.html" for identity in "bacd"]
    assert "Name c 50.0% 1.0% to 75.0% 5 10 20 20.0%" in Page(html).text
    assert "Name d nothing looked at" in Page(html).text
    assert html.count("<svg") == 2
    assert "Hit rates of 3 people, from 5.0% to 50.0%." in html


def test_an_index_without_any_rate_has_no_chart() -> None:
    """Where nobody was looked for there is a table, and nothing is drawn."""
    html = render_index([row("d", 0, 0) | {"name": "D", "page": "people/00001.html"}], full=True)
    assert "<svg" not in html
    assert "CLIP agrees" not in html


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_never_code(name: str) -> None:
    """A name that tries to be a tag or an attribute, or to turn the text around, is text; nothing is asked for."""
    face = ShownFace(jpeg(), name, name, 0.9, 1)
    shown = sheet(name, identity=name, hits=[face], misses=[face])
    index = render_index([row(name, 4, 1) | {"name": name, "page": "people/00001.html"}], full=False)
    for html in (render_sheet(shown, full=False), index):
        tags = Page(html).tags
        assert not [tag for tag, _ in tags if tag == "script"]
        assert not [key for _, attributes in tags for key in attributes if key.startswith("on")]
        assert "\u202e" not in html
        assert "\u0007" not in html
        sources = [a["src"] for _, a in tags if "src" in a]
        assert all(str(source).startswith("data:image/jpeg;base64,") for source in sources)
        links = {a.get("href") for tag, a in tags if tag in ("a", "link")}
        assert {str(link) for link in links} <= {"../index.html", "people/00001.html", "data:,"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.0, "0%"),
        (1.0, "100.0%"),
        (0.1234, "12.3%"),
        (0.001, "0.1%"),
        (0.00099, "0.099%"),
        (0.00000123456, "0.00012%"),
    ],
)
def test_shares(value: float | None, text: str) -> None:
    """One decimal, more where the share is small, and never a power of ten."""
    assert share(value) == text
