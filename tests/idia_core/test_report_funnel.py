"""The report's part on people's pairs: who has the fewest, and up to which K training sets can be built."""

import re
from dataclasses import replace

import pyarrow as pa
import pytest

from idia_core.identities import Role
from idia_core.pair_funnel import FUNNEL
from idia_core.report import METRICS, VERDICTS, Leakage, ModelInfo, PersonCard, ReportData, render_report
from idia_core.report_funnel import funnel_part

ANN, BOB, IDA, HOSTILE = "Ann Lee", "Bob Ray", "Ida Moss", "<script>alert('x')</script>"
ROLES = {BOB: Role.MEMBER, HOSTILE: Role.MEMBER, IDA: Role.NON_MEMBER}


def funnel(verified: bool = False, **pairs: int) -> pa.Table:
    """People's rows: so many pairs of as many distinct pictures, of one more that was downloaded."""
    rows = [(who, 9000, 120, 110, 100, k + 1, k, k, k if verified else None, k) for who, k in pairs.items()]
    return pa.Table.from_pylist([dict(zip(FUNNEL.names, row, strict=True)) for row in rows], FUNNEL)


PAIRS = {HOSTILE: 80, BOB: 75, IDA: 3, ANN: 0}


def test_the_person_with_the_fewest_pairs_comes_first() -> None:
    """With the role of those who are tested; the K that can be built is the members'."""
    part = funnel_part(funnel(**PAIRS), ROLES)
    assert part is not None
    assert part.sentence == "Every member has 75 pairs or more: K can be up to 75."
    assert part.columns == [
        *("near to their pictures", "captions name them", "unique", "wanted", "downloaded", "distinct pictures"),
        *("no attack pictures", "pairs"),
    ]
    assert part.rows == [
        (ANN, None, [9000, 120, 110, 100, 1, 0, 0, 0]),
        (IDA, "non_member", [9000, 120, 110, 100, 4, 3, 3, 3]),
        (BOB, "member", [9000, 120, 110, 100, 76, 75, 75, 75]),
        (HOSTILE, "member", [9000, 120, 110, 100, 81, 80, 80, 80]),
    ]
    assert {width for width, svg in part.figure.items() if "36,000 near to their pictures, 480 captions" in svg} == {
        "wide",
        "narrow",
    }


def test_verified_faces_are_a_column_where_somebody_looked() -> None:
    """And no part is made of no funnel."""
    part = funnel_part(funnel(verified=True, **PAIRS), ROLES)
    assert part is not None
    assert part.columns[-2:] == ["face verified", "pairs"]
    assert funnel_part(None, ROLES) is None
    assert funnel_part(FUNNEL.empty_table(), ROLES) is None


@pytest.fixture(scope="module")
def data() -> ReportData:
    """A study of one model and three people."""
    verdicts = [("m", who, 1, 0, 1, 1, True) for who in ROLES]
    metrics = [("m", "all", 1, 0, 2, 0, 1, 0)]
    tables = [
        pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows])
        for names, rows in ((VERDICTS, verdicts), (METRICS, metrics))
    ]
    people = [PersonCard(who, "member" if role == Role.MEMBER else "non_member") for who, role in ROLES.items()]
    models = [ModelInfo("m", "vit", 75, "a1" * 32, 20)]
    return ReportData("s", "t", models, people, *tables, 21, 1000, Leakage({}, "Apart."), [], {})


def test_a_page_without_a_funnel_is_as_it_was(data: ReportData) -> None:
    """With one it has a section more and the way to it, and nothing else; names are text."""
    without, page = render_report(data), render_report(replace(data, funnel=funnel(**PAIRS)))
    assert 'id="funnel"' not in without
    (part,) = re.findall(r'<section id="funnel">.*?</section>\n', page, re.DOTALL)
    assert page.replace(part, "").replace('<li><a href="#funnel">Pairs</a></li>\n', "") == without
    assert part.count('role="img"') == 2
    assert re.findall(r"<bdi>(.*?)</bdi>", part) == [ANN, IDA, BOB, "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;"]
    assert all('scope="' in header for header in re.findall(r"<th [^>]*>", part))
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
