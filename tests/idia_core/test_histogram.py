"""The histogram of occurrences (paper, Figure 9): who falls in which bin, and its drawing."""

import io
import subprocess
import sys

import pyarrow as pa
import pytest
from matplotlib.figure import Figure
from PIL import Image

from idia_core.figures import to_pdf, to_png, to_svg
from idia_core.histogram import HISTOGRAM, draw_histogram, histogram
from idia_core.occurrences import BINS, OCCURRENCES

PAPER = [0, 0, 1, 25, 26, 50, 51, 275, 276, 300, 301, 90_000]
STRICT = [0, 0, 0, 0, 25, 50, 51, 275, 276, 300, 301, 90_000]
PEOPLE_PAPER = [2, 2, 2, 1, 0, 0, 0, 0, 0, 0, 0, 1, 2, 2]
PEOPLE_STRICT = [4, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 2, 2]

# Prints the hash of the PNG and of the PDF of the histogram that argv[1] and argv[2] count.
DRAW = """
import hashlib, json, sys
import pyarrow as pa
from idia_core.figures import to_pdf, to_png
from idia_core.histogram import HISTOGRAM, draw_histogram
from idia_core.occurrences import BINS
figure = draw_histogram(pa.table([list(BINS), json.loads(sys.argv[1]), json.loads(sys.argv[2])], schema=HISTOGRAM))
print([hashlib.sha256(content).hexdigest() for content in (to_png(figure), to_pdf(figure))])
"""


def occurrences(paper: list[int], strict: list[int]) -> pa.Table:
    """OCCURRENCES of as many names as there are counts."""
    rows = len(paper)
    nothing = {"ambiguous": [False] * rows, "ambiguity": [""] * rows, "share_affected": [None] * rows}
    columns = {"name": [f"Ann {i}" for i in range(rows)], "count_paper": paper, "count_strict": strict}
    return pa.table(columns | nothing | {"bin": ["0"] * rows}, schema=OCCURRENCES)


def drawn() -> Figure:
    """The figure of those counts."""
    return draw_histogram(histogram(occurrences(PAPER, STRICT)))


def test_the_bins_are_those_of_the_paper() -> None:
    """None, 25 wide from 1 to 300, and more than 300."""
    assert (BINS[:3], BINS[-2:], len(BINS)) == (("0", "1-25", "26-50"), ("276-300", ">300"), 14)


def test_every_name_falls_in_one_bin_of_each_rule() -> None:
    """The first and the last count of a bin are in it, and all names are counted."""
    table = histogram(occurrences(PAPER, STRICT))
    assert table.schema.equals(HISTOGRAM)
    assert table.to_pydict() == {"bin": list(BINS), "people_paper": PEOPLE_PAPER, "people_strict": PEOPLE_STRICT}
    assert sum(PEOPLE_PAPER) == sum(PEOPLE_STRICT) == len(PAPER)


def test_the_histogram_of_nobody_has_every_bin() -> None:
    """Without a name all bins are empty, and can be drawn."""
    table = histogram(occurrences([], []))
    assert table["people_paper"].to_pylist() == table["people_strict"].to_pylist() == [0] * len(BINS)
    assert to_png(draw_histogram(table)).startswith(b"\x89PNG")


def test_the_figure_has_a_bar_for_each_bin_and_rule() -> None:
    """Heights are people, in the table's order; bars of one bin stand side by side; bins are named below."""
    (panel,) = drawn().axes
    paper, strict = panel.containers
    assert [bar.get_height() for bar in paper] == PEOPLE_PAPER
    assert [bar.get_height() for bar in strict] == PEOPLE_STRICT
    assert all(a.get_x() + a.get_width() < b.get_x() for a, b in zip(paper, strict, strict=True))
    assert [label.get_text() for label in panel.get_xticklabels()] == [name.replace("-", "–") for name in BINS]
    numbers = [text.get_text() for text in panel.texts]
    assert numbers == [str(people or "") for people in (*PEOPLE_PAPER, *PEOPLE_STRICT)]


@pytest.mark.parametrize("draw", [to_png, to_pdf, to_svg])
def test_a_second_drawing_is_the_same(draw: object) -> None:
    """No date, no name of a program and no random identifier is in a file."""
    assert draw(drawn()) == draw(drawn())


def test_another_process_draws_the_same() -> None:
    """PNG and PDF of one table are the same bytes whoever draws them."""
    command = [sys.executable, "-c", DRAW, str(PEOPLE_PAPER), str(PEOPLE_STRICT)]
    first, second = (subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2))
    assert first == second


def test_the_files_are_what_they_are_called() -> None:
    """The PNG opens at its size, on white; the PDF is one of a page without a date."""
    with Image.open(io.BytesIO(to_png(drawn(), dots_per_inch=50))) as picture:
        assert picture.size == (480, 170)
        assert picture.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
    pdf = to_pdf(drawn())
    assert pdf.startswith(b"%PDF-")
    assert b"CreationDate" not in pdf
