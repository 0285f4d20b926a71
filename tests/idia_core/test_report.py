"""The report page: its answer, its table, and that nothing in it can run or reach out."""

import io
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image

from idia_core.errors import DuplicateNameError, InvalidInputError
from idia_core.loss_curves import CURVES
from idia_core.report import (
    METRICS,
    PICTURE_BYTES,
    VERDICTS,
    Leakage,
    ModelInfo,
    PersonCard,
    ReportData,
    StageInfo,
    _rows,
    headline,
    render_report,
)
from idia_core.report_training import RETRIEVAL_RANK, RUNS, ZEROSHOT

HOSTILE = ["<script>alert('x')</script>", '" onmouseover="alert(1)', "علي \u202eevil", "O'Brien & Søns"]


def table(columns: tuple[str, ...], rows: list[tuple[object, ...]]) -> pa.Table:
    """An Arrow table from rows."""
    return pa.table({name: [row[place] for row in rows] for place, name in enumerate(columns)})


def jpeg() -> bytes:
    """A small picture."""
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 120, 40)).save(stream, "JPEG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def data() -> ReportData:
    """Two models and four people; K001 misses both members, K025 finds both and accuses one of the two others."""
    people = [
        PersonCard(name, "member" if i < 2 else "non_member", 25 * (i < 2), [jpeg()]) for i, name in enumerate(HOSTILE)
    ]
    scores = {"K001": (0, 0, 0, 0), "K025": (21, 7, 2, 0)}
    verdicts = [
        (model, name, 10, 1 if name == HOSTILE[3] else 0, score, 1, score >= 1)
        for model, row in scores.items()
        for name, score in zip(HOSTILE, row, strict=True)
    ]
    metrics = [(m, "all", n, d, d, 2 - d, 0, 2) for m in scores for n in (1, 3) for d in (0, 1)]
    return ReportData(
        study="demo",
        title="Four people & two models",
        models=[ModelInfo("K001", "vit", 1, "a1" * 32, 20), ModelInfo("K025", "vit", 25, "b2" * 32, 20)],
        people=people,
        verdicts=table(VERDICTS, verdicts),
        metrics=table(METRICS, metrics),
        templates=21,
        candidates=1000,
        leakage=Leakage({"attack_pictures": 1040, "near_duplicates": 0}, "Kept apart by folder."),
        stages=[StageInfo("attack", "3", "c3" * 32, 61.4, 1041, 1040, {"BROKEN_JPEG": 1}, 4, ["train.checkpoints"])],
        provenance={"commit": "abc123", "argv": "idia run 'my study.yaml'"},
    )


@pytest.fixture(scope="module")
def html(data: ReportData) -> str:
    """The report on `data`."""
    return render_report(data)


@pytest.fixture(scope="module")
def matrix(data: ReportData) -> ReportData:
    """Two architectures with two K, trained here with one training twice resumed, and tested for Table 2 in part."""
    models = [
        ModelInfo(f"{architecture}_K{k:03}", architecture, k, "a1" * 32, 50, 2_795_000 + k, 0.25)
        for architecture in ("RN50", "ViT-B-32")
        for k in (1, 25)
    ]
    names = [model.name for model in models]
    curve = [(name, 10 * e, float(e), 4.0 / e, 0.001, 100.0, 0.0) for name in names for e in (1, 2)]
    runs = [(name, 0, 1, 50, "done") for name in names[1:]]
    runs += [(names[0], 2, 4, 50, "done"), (names[0], 1, 4, 3, "stalled"), (names[0], 0, 1, 3, "rank 1 died")]
    return replace(
        data,
        models=models,
        verdicts=table(VERDICTS, [(name, who, 10, 0, 1, 1, True) for name in names for who in HOSTILE]),
        metrics=table(METRICS, [(name, "all", 1, 0, 2, 0, 2, 0) for name in names]),
        curves=table(tuple(CURVES.names), curve),
        runs=table(RUNS, runs),
        zeroshot=table(ZEROSHOT, [(name, 50_000, 2, 0.1731, 0.17, 0.176, 0.355, 0.35, 0.36) for name in names]),
        retrieval_rank=table(RETRIEVAL_RANK, [(names[3], 13_000, 0, 0.25, 0.24, 0.26, 0.5, 0.49, 0.51)]),
    )


@pytest.fixture(scope="module")
def matrix_html(matrix: ReportData) -> str:
    """The report on `matrix`."""
    return render_report(matrix)


class Page(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep the tag."""
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        """Keep the text."""
        self.text.append(data)


def flat(html: str) -> str:
    """The page's text in one line."""
    return " ".join("".join(Page(html).text).split())


def test_headline_tells_the_model_with_most_pictures(data: ReportData, html: str) -> None:
    """The answer counts the model that saw most pictures of each member, members first, then others."""
    expected = "With 25 pictures a person, the model gave away 2 of 2 members; 1 of 2 others was accused."
    assert headline(data) == expected
    assert f"<h1>{expected}</h1>" in html


def test_headline_names_the_model_where_several_saw_as_many(data: ReportData) -> None:
    """With two models at the same K the sentence says which one it speaks of; one picture is one picture."""
    models = [replace(model, images_per_member=1) for model in data.models]
    assert headline(replace(data, models=models)) == (
        "With 1 picture a person, model K001 gave away 0 of 2 members; 0 of 2 others were accused."
    )


def test_each_verdict_says_in_words_whether_it_is_right(html: str) -> None:
    """A cell holds score, verdict and right or wrong, not by colour alone; failed pictures are counted."""
    rows = [flat(row) for row in re.findall(r"<tr data-role.*?</tr>", html, re.DOTALL)]
    by_name = {name: next(row for row in rows if " ".join(name.split()) in row) for name in HOSTILE}
    assert by_name[HOSTILE[0]].endswith("member 0/21 not a member, wrong 21/21 member, right")
    assert by_name[HOSTILE[2]].endswith("not a member 0/21 not a member, right 2/21 member, wrong")
    assert "10 pictures, 1 unusable · in 0 captions" in by_name[HOSTILE[3]]


def test_a_person_whom_a_model_did_not_test_is_shown_as_such(data: ReportData) -> None:
    """A missing verdict is no verdict."""
    html = render_report(replace(data, verdicts=data.verdicts.slice(1)))
    assert html.count(">not tested<") == 1


def test_hostile_names_are_text_and_nothing_else(html: str) -> None:
    """Names appear as written; they add no tag, no attribute and no script."""
    page = Page(html)
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert not [attrs for _, attrs in page.tags if any(name.startswith("on") for name in attrs)]
    shown = {attrs["data-value"] for tag, attrs in page.tags if tag == "th" and "data-value" in attrs}
    assert shown == set(HOSTILE)
    assert html.count("<bdi>") >= len(HOSTILE)


def test_the_page_refers_to_nothing_outside_itself(html: str) -> None:
    """Every source, link and url() is a data: URI or an anchor, and every anchor is there."""
    page = Page(html)
    links = [str(attrs[name]) for _, attrs in page.tags for name in ("src", "href", "xlink:href") if name in attrs]
    links += re.findall(r"url\(([^)]*)\)", html)
    assert links
    assert [link for link in links if not link.startswith(("data:", "#"))] == []
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)
    assert "@import" not in html


def test_the_page_can_be_read_with_a_screen_reader(html: str) -> None:
    """The page has a language, headers have a scope, pictures an alternative, figures a label."""
    page = Page(html)
    assert ("html", {"lang": "en"}) in page.tags
    assert all(attrs.get("scope") in {"row", "col"} for tag, attrs in page.tags if tag == "th")
    assert [attrs["alt"] for tag, attrs in page.tags if tag == "img"] == [
        HOSTILE[1],
        HOSTILE[0],
        HOSTILE[3],
        HOSTILE[2],
    ]
    assert (
        sum(bool(attrs.get("aria-label")) for tag, attrs in page.tags if tag == "svg" and attrs.get("role") == "img")
        == 6
    )


def test_how_it_was_made_is_told(html: str) -> None:
    """Stages, counts, reasons, fingerprints, checkpoints, argv and the sentence about leakage are on the page."""
    text = flat(html)
    for part in ("c3c3c3c3c3c3", "1 min 01 s", "1 broken jpeg", "1,041", "train.checkpoints", "a1a1a1a1a1a1a1a1",
                 "idia run 'my study.yaml'", "Kept apart by folder.", "1,040 ", "among 1,000 names"):  # fmt: skip
        assert part in text


def section(html: str, name: str) -> str:
    """A section's content."""
    (found,) = re.findall(rf'<section id="{name}".*?</section>', html, re.DOTALL)
    return str(found)


def table_rows(html: str) -> list[str]:
    """The text of each row in the bodies of a page's tables."""
    bodies = re.findall(r"<tbody>(.*?)</tbody>", html, re.DOTALL)
    return [flat(row.replace("<", " <")) for body in bodies for row in re.findall(r"<tr.*?</tr>", body, re.DOTALL)]


def test_the_trainings_are_told_with_their_restarts(matrix_html: str) -> None:
    """The loss has a figure; each training has its length, its last loss, and why it was taken up again."""
    part = section(matrix_html, "loss")
    assert part.count('role="img"') == 2
    assert "At the end, RN50_K001: 2.00" in part
    assert table_rows(part) == [
        "RN50_K001 RN50 1 50 2,795,001 0.25 2 after epoch 3: rank 1 died before the end of epoch 4: stalled",
        "RN50_K025 RN50 25 50 2,795,025 0.25 none",
        "ViT-B-32_K001 ViT-B-32 1 50 2,795,001 0.25 none",
        "ViT-B-32_K025 ViT-B-32 25 50 2,795,025 0.25 none",
    ]


def test_table_2_has_each_models_rates_with_their_intervals(matrix_html: str) -> None:
    """In percent; what was not measured is said to be so, and how ties count is told."""
    part = section(matrix_html, "abilities")
    zeroshot = "17.3 17.0 to 17.6 35.5 35.0 to 36.0"
    rows = table_rows(part)
    assert rows[0] == f"RN50_K001 RN50 1 {zeroshot} not measured"
    assert rows[3] == f"ViT-B-32_K025 ViT-B-32 25 {zeroshot} 25.0 24.0 to 26.0 50.0 49.0 to 51.0"
    text = flat(part)
    assert "50,000 pictures, and 2 more that could not be used. Retrieval" in text
    assert "13,000 pairs that no model was trained on." in text
    assert "Ties count by expectation" in text


def test_table_2_has_the_columns_that_were_measured(data: ReportData) -> None:
    """Of a study that ranks captions alone there is no word of zero-shot."""
    ranked = table(RETRIEVAL_RANK, [("K001", 9, 0, 0.25, 0.24, 0.26, 0.5, 0.49, 0.51)])
    part = section(render_report(replace(data, retrieval_rank=ranked)), "abilities")
    assert table_rows(part) == ["K001 vit 1 25.0 24.0 to 26.0 50.0 49.0 to 51.0"]
    assert "Zero-shot" not in flat(part)


def test_a_study_that_trained_nothing_here_has_neither_part(html: str) -> None:
    """Nor does the page lead to them."""
    assert 'id="loss"' not in html
    assert 'id="abilities"' not in html
    assert "Table 2" not in html


def test_architectures_are_kept_apart(matrix: ReportData, matrix_html: str, html: str) -> None:
    """Of several architectures each has its own figures of attack pictures and matrices; one alone needs no heading."""
    for name in ("attack", "matrices"):
        part = section(matrix_html, name)
        assert re.findall(r"<h3[^>]*>(.*?)</h3>", part) == ["RN50", "ViT-B-32"]
        labels = re.findall(r'aria-label="([^"]*)"', part)
        assert ["RN50" in label for label in labels] == [True, True, False, False]
        assert ["ViT-B-32" in label for label in labels] == [False, False, True, True]
        assert "<h3" not in section(html, name)
    assert "model RN50_K025 gave away" in headline(matrix)


def test_the_whole_page_of_a_matrix_asks_for_nothing(matrix_html: str) -> None:
    """The added parts keep to what holds of the page: no id twice, no link to nowhere, headers with a scope."""
    page = Page(matrix_html)
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    links = [str(attrs[name]) for _, attrs in page.tags for name in ("src", "href", "xlink:href") if name in attrs]
    assert len(ids) == len(set(ids))
    assert [link for link in links if not link.startswith(("data:", "#"))] == []
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)
    assert all(attrs.get("scope") in {"row", "col"} for tag, attrs in page.tags if tag == "th")


def test_a_page_is_the_same_each_time(data: ReportData, html: str) -> None:
    """Equal data, equal bytes."""
    assert render_report(data) == html


def test_large_pictures_are_left_out_and_counted(data: ReportData) -> None:
    """The page stays small: one picture each where three do not fit, and none where not even one does."""
    eighth, half = (b"\xff" * (PICTURE_BYTES // part) for part in (8, 2))
    three = [replace(person, thumbnails=[eighth] * 3) for person in data.people]
    rows, left_out = _rows(replace(data, people=three), {})
    assert ([len(row.pictures) for row in rows], left_out) == ([2, 2, 2, 2], 4)
    page = render_report(replace(data, people=[replace(person, thumbnails=[half]) for person in data.people]))
    assert page.count("data:image/jpeg") == 2
    assert "2 pictures are not shown here" in page
    assert len(page) < 12_000_000


def test_data_that_do_not_fit_together_are_refused(data: ReportData) -> None:
    """A missing column, a stranger, a name twice and a study without models are typed errors that name them."""
    with pytest.raises(InvalidInputError, match="no column score"):
        render_report(replace(data, verdicts=data.verdicts.drop_columns("score")))
    with pytest.raises(InvalidInputError, match="is not in the study"):
        render_report(replace(data, people=data.people[1:]))
    with pytest.raises(InvalidInputError, match="'K025' has a row"):
        render_report(replace(data, models=data.models[:1]))
    with pytest.raises(DuplicateNameError, match="comes twice"):
        render_report(replace(data, people=[*data.people, data.people[0]]))
    with pytest.raises(DuplicateNameError, match="table verdicts"):
        render_report(replace(data, verdicts=pa.concat_tables([data.verdicts, data.verdicts.slice(0, 1)])))
    with pytest.raises(InvalidInputError, match="needs models"):
        render_report(replace(data, models=[]))


@pytest.mark.browser
@pytest.mark.skipif(not shutil.which("chromium"), reason="no Chromium on the PATH")
def test_the_script_runs_under_the_pages_own_policy(html: str, tmp_path: Path) -> None:
    """In a browser the filter comes alive, which only the script can do, and only if its digest is right."""
    page = tmp_path / "report.html"
    page.write_text(html, encoding="utf-8")
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync")
    quiet = ("--disable-background-networking", "--disable-component-update", f"--user-data-dir={tmp_path / 'profile'}")
    command = [str(shutil.which("chromium")), *flags, *quiet, "--dump-dom", page.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert re.search(r'id="shown"[^>]*>4 of 4 people<', dom)
    assert re.search(r'<div class="tools" id="tools" role="search">', dom)
