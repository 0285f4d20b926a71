"""The pages of an audit: what they say, that it is no more than is known, and that no name can run or reach out."""

import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from idia_core.audit_json import AuditFile, Person, Pool, Votes, to_json
from idia_core.evidence import (
    FACES_BYTES,
    Answer,
    as_well,
    headline,
    p_text,
    page_of,
    read_answers,
    render_overview,
    render_person,
    visible,
)
from idia_core.redaction import Codes, redact
from tests.audits import PEOPLE, audit_file, tables

HOSTILE = ("<script>alert('x')</script>", '" onmouseover="alert(1)', "علي \u202eevil\u0007", "'; DROP TABLE people; --")


def jpeg(side: int = 8) -> bytes:
    """A small picture."""
    stream = io.BytesIO()
    Image.new("RGB", (side, side), (200, 120, 40)).save(stream, "JPEG")
    return stream.getvalue()


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
    """The page's text in one line, without style and script."""
    bare = re.sub(r"<(style|script)>.*?</\1>", "", html, flags=re.DOTALL)
    return " ".join("".join(Page(bare).text).split())


def pages(audit: AuditFile) -> dict[str, str]:
    """All pages of an audit, with a picture for everybody unless it is redacted."""
    faces = {} if audit.redacted else {person.identity: jpeg() for person in audit.people}
    found = {"index.html": render_overview(audit, faces)}
    for number, person in enumerate(audit.people, start=1):
        found[page_of(number)] = render_person(audit, person, page_of(number), list(faces.values())[:1])
    return found


@pytest.fixture(scope="module")
def audit() -> AuditFile:
    """One model that knows three of six people; a panel large enough for findings."""
    return audit_file(tables(panel=230))


@pytest.fixture(scope="module")
def hostile() -> AuditFile:
    """Names, models and file names that try to be code."""
    audit = audit_file(tables(HOSTILE, models=('m"><script>alert(2)</script>', "m' onload='alert(3)"), panel=230))
    (first, *rest) = audit.people
    pictures = tuple(
        p.model_copy(update={"picture": f"<img src=x onerror=alert(4)>{p.picture}"}) for p in first.pictures
    )
    provenance = {"command": "idia <b>&", "<i>key</i>": "</dd><script>alert(5)</script>"}
    update = {"people": (first.model_copy(update={"pictures": pictures}), *rest), "provenance": provenance}
    return audit.model_copy(update=update | {"title": "<title>\u2066"})


def with_verdict(audit: AuditFile, **changed: Any) -> str:
    """The text of the first person's page with another verdict."""
    first = audit.verdicts[0].model_copy(update=changed)
    return flat(render_person(audit.model_copy(update={"verdicts": (first,)}), audit.people[0], page_of(1), [jpeg()]))


def test_the_headline_counts_people_and_claims_no_more_than_it_can(audit: AuditFile) -> None:
    """Findings are counted once a person, over several models too; nothing found is not called innocent."""
    assert headline(audit) == (
        "3 of 6 people were in the training data of ViT-B-32_small, as far as this can tell; "
        "about 1 nothing can be concluded."
    )
    nothing = tuple(v.model_copy(update={"finding": "no evidence"}) for v in audit.verdicts)
    none_found = audit.model_copy(update={"verdicts": nothing})
    assert headline(none_found) == (
        "No evidence was found that any of 6 people was in the training data of ViT-B-32_small."
    )
    both = {"verdicts": (*nothing, audit.verdicts[0]), "models": audit.models * 2}
    assert headline(audit.model_copy(update=both)) == (
        "1 of 6 people was in the training data of at least one of 2 models, as far as this can tell."
    )


def test_a_row_of_the_overview_holds_the_verdict(audit: AuditFile) -> None:
    """Finding, S, share, p-values, q, the paper's verdict, pictures and the unusable ones, strongest first."""
    rows = [flat(row) for row in re.findall(r"<tr data-model.*?</tr>", pages(audit)["index.html"], re.DOTALL)]
    assert len(rows) == 6
    assert [row.split(" evidence")[0].split(" inc")[0] for row in rows[:4]] == [
        "Béla Kun-Ray", "Cleo Starr", "Ada Moon", "Finn O'Hara"]  # fmt: skip
    assert rows[2] == "Ada Moon evidence 20 of 21 58% 0.0097 0.0085 0.016 member 81 unusable"
    assert rows[3].endswith("0 of 21 2% 0.13 0.47 – not a member 2")


def test_the_overview_leads_to_every_person_and_says_its_limits(audit: AuditFile) -> None:
    """Each name is a link to a page; favourites, the smallest p-value and the way to judge again are told."""
    html = pages(audit)["index.html"]
    links = {attrs["href"] for tag, attrs in Page(html).tags if tag == "a"}
    assert links == {*(page_of(number) for number in range(1, 7)), "audit.json"}
    text = flat(html)
    for part in (
        "148 of 235 other people",
        "Here that is 0.0097: there were 116 to 117 other people",
        "No evidence is not “was not in the data”",
        "idia judge audit.json",
        "c3c3c3",
        "d4d4d4",
        "idia audit --people 'Ada Moon'",
    ):
        assert part in text


def test_large_overviews_go_without_faces(audit: AuditFile) -> None:
    """With more bytes of faces than the page should carry there are none, and the table is whole."""
    faces = {person.identity: b"\xff" * (FACES_BYTES // 5) for person in audit.people}
    html = render_overview(audit, faces)
    assert "data:image" not in html
    assert html.count("<tr data-model") == 6


def test_a_members_page_says_what_it_means_and_on_what_it_rests(audit: AuditFile) -> None:
    """The finding, what was asked, the answers and both p-values as counts stand there in words."""
    text = flat(pages(audit)[page_of(1)])
    for part in (
        "There is evidence that Ada Moon was in the training data of ViT-B-32_small.",
        "It does not say which pictures those were, how many, or where they came from",
        "asked which of 206 names fits it best",
        "1 picture could not be used: 1 broken.",
        "Ada Moon won 20 of 21 questions, and got 58% of all answers.",
        "a person named … 5 of 8 Ada Moon 5",
        "Of 102 other names for a woman, none did as well on these pictures: p = 1/103 = 0.0097.",
        "Of 117 other people’s faces of the same sex, or of unknown sex, none drew this name as strongly: p = 1/118",
        "Few pictures. 8 pictures could be used.",
        "Few people to compare with.",
        "A name that the model likes. The model let Ada Moon win for 76 of 234 other people too.",
    ):
        assert part in text


def test_no_evidence_is_not_called_innocence(audit: AuditFile) -> None:
    """Each reason has its sentence, and none says that somebody was not in the data."""
    numbers = {"finding": "no evidence", "p_name": 3 / 103, "p_face": 2 / 118, "q_value": 0.2}
    for reason, sentence in {
        "below_threshold": "won only 20 of 21 questions",
        "other_names_do_as_well": "but other names did as well on the same pictures",
        "other_faces_do_as_well": "but the model gives it to other people’s faces too",
        "expected_among_so_many": "1 case was tested here, and among so many this is to be expected",
    }.items():
        text = with_verdict(audit, reason=reason, **numbers)
        assert sentence in text
        assert "No evidence was found that Ada Moon was in the training data" in text
        assert "This does not mean that Ada Moon was not in the data." in text
        assert "2 did as well on these pictures: p = 3/103 = 0.029" in text
        assert "1 drew this name as strongly: p = 2/118 = 0.017" in text
        assert "There is evidence" not in text


def test_inconclusive_says_what_was_too_few(audit: AuditFile) -> None:
    """Pictures, names or people: the page says which, and that this speaks neither for nor against."""
    for reason, sentence in {
        "too_few_pictures": "Only 8 pictures could be used; at least 3 are needed",
        "too_few_decoys": "102 other names are too few to compare it with",
        "too_few_others": "117 other people are too few to compare with",
    }.items():
        text = with_verdict(audit, finding="inconclusive", reason=reason)
        assert "Nothing can be concluded about Ada Moon and ViT-B-32_small." in text
        assert sentence in text
        assert "neither for nor against" in text


def test_a_person_without_a_readable_picture_has_a_page(audit: AuditFile) -> None:
    """There is no answer and no p-value to show, and the page says so."""
    fields = ("share", "member", "decoys", "p_name", "others", "p_face", "p_value", "q_value")
    empty: dict[str, Any] = dict.fromkeys(fields) | {"images_used": 0, "score": 0}
    changed = {"finding": "inconclusive", "reason": "too_few_pictures", **empty}
    verdict = audit.verdicts[0].model_copy(update=changed)
    bare = audit.model_copy(update={"verdicts": (verdict,), "votes": audit.votes[1:]})
    text = flat(render_person(bare, bare.people[0], page_of(1), []))
    assert "Only 0 pictures could be used" in text
    assert "No picture could be used, so nothing was asked." in text
    assert "0 people" not in flat(render_overview(bare, {}))


def test_answers_count_pictures_and_a_tie_is_nobodys() -> None:
    """Two for the real name and two for another tie; a lone leader wins; what was not answered is not counted."""
    pool = Pool(pool="all", names=("Al", "Bo", "Cy"), sexes=(None,) * 3, tested=(True, False, False))
    person = Person(identity="a", name="Al", sex=None, pool="all", pictures=())
    votes = Votes(
        model="m", identity="a", pictures=(), votes=((0, 0, 1, -1), (0, 0, 1, -1), (1, 2, 1, -1), (1, 0, 0, -1))
    )
    tie, own, other, nothing = read_answers(votes, person, pool, ["w", "x", "y", "z"])
    assert tie == Answer("w", 4, 2, None, 2, "Bo", 2, won=False)
    assert own == Answer("x", 4, 3, "Al", 3, "Cy", 1, won=True)
    assert other == Answer("y", 4, 1, "Bo", 3, "Al", 1, won=False)
    assert nothing == Answer("z", 0, 0, None, 0, None, 0, won=False)


def test_counts_come_back_from_p_values() -> None:
    """(1 + them) / (1 + all) gives them, for every count among 999."""
    assert [as_well((1 + count) / 1000, 999) for count in range(1000)] == list(range(1000))
    assert [p_text(p) for p in (None, 1.0, 0.5, 1 / 206, 1e-6)] == ["–", "1", "0.5", "0.0049", "0.000001"]


def test_what_controls_or_reorders_text_is_written_out() -> None:
    """Bidi controls, bells and private characters become their numbers; every script, and line breaks, stay."""
    assert visible("a\u202eb\u2066c\x00\x1b[31m") == "a‹U+202E›b‹U+2066›c‹U+0000›‹U+001B›[31m"
    plain = "Zoë 李 علي क्षि\u200d O'Brien\n"
    assert visible(plain) == plain
    assert visible(3) == 3


def test_hostile_names_are_text_and_nothing_else(hostile: AuditFile) -> None:
    """No page gets a tag, an attribute or a script from a name, a file, a model or the provenance."""
    for path, html in pages(hostile).items():
        page = Page(html)
        assert [tag for tag, _ in page.tags].count("script") == (path == "index.html")
        assert not [attrs for _, attrs in page.tags if any(name.startswith("on") for name in attrs)]
        assert [tag for tag, _ in page.tags].count("b") == (path == "index.html")
        assert not [c for c in "\u202e\u2066\u0007" if c in html]
    text = flat(pages(hostile)["index.html"])
    for name in (HOSTILE[0], HOSTILE[1], "علي ‹U+202E›evil‹U+0007›", HOSTILE[3], 'm"><script>alert(2)</script>'):
        assert name in text
    assert "<img src=x onerror=alert(4)>" in flat(pages(hostile)[page_of(1)])


def test_pages_refer_to_nothing_outside_the_audit(hostile: AuditFile) -> None:
    """Sources are data: URIs, links are the audit's own pages, and the policy allows no more."""
    for path, html in pages(hostile).items():
        tags = Page(html).tags
        links = {str(attrs[name]) for _, attrs in tags for name in ("src", "href") if name in attrs}
        own = {"audit.json", "../audit.json", "../index.html", "../index.html#made", *map(page_of, range(1, 5))}
        assert {link for link in links if not link.startswith("data:")} <= own
        assert not re.findall(r"url\(|@import", html)
        policy = next(str(a["content"]) for _, a in tags if a.get("http-equiv") == "Content-Security-Policy")
        scripts = "'sha256-" if path == "index.html" else "'none'"
        expected = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {scripts}"
        assert policy.startswith(expected)


def test_pages_can_be_read_with_a_screen_reader(audit: AuditFile) -> None:
    """Pages have a language, headers a scope, pictures an alternative, graphics a label."""
    for html in pages(audit).values():
        tags = Page(html).tags
        assert ("html", {"lang": "en"}) in tags
        assert all(attrs.get("scope") in {"row", "col"} for tag, attrs in tags if tag == "th")
        assert all("alt" in attrs for tag, attrs in tags if tag == "img")
        assert all(attrs.get("aria-label") for _, attrs in tags if attrs.get("role") == "img")


def test_a_page_is_the_same_each_time(audit: AuditFile) -> None:
    """Equal data, equal bytes."""
    assert pages(audit) == pages(audit.model_copy(deep=True))


def test_redacted_pages_name_nobody(audit: AuditFile) -> None:
    """No tested name, identity, file name, other name, hash of a picture, path or command is on any page."""
    coded = redact(audit, Codes.draw(audit.people, audit.pools, audit.models, "a secret"))
    found = "".join(pages(coded).values()) + to_json(coded)
    secrets = [*PEOPLE, "Moon", "Starr", *(p.identity for p in audit.people), "ab" * 32, "/home/ada_moon", "idia audit"]
    secrets += [picture.picture for person in audit.people for picture in person.pictures]
    secrets += audit.pools[0].names
    spelled = {form for secret in secrets for form in (secret, secret.replace("'", "&#39;"), json.dumps(secret)[1:-1])}
    assert [secret for secret in spelled if secret.lower() in found.lower()] == []
    assert "data:image" not in found
    assert "Person 0001" in found
    assert "names and pictures are replaced by codes" in found


def html_text(text: str) -> str:
    """The text as a document's source has it between tags."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def chromium(page: Path, profile: Path) -> str:
    """The page's document as Chromium has it after its scripts."""
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync")
    quiet = ("--disable-background-networking", "--disable-component-update", f"--user-data-dir={profile}")
    command = [str(shutil.which("chromium")), *flags, *quiet, "--dump-dom", page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.mark.browser
@pytest.mark.skipif(not shutil.which("chromium"), reason="no Chromium on the PATH")
def test_in_a_browser_hostile_names_show_and_do_not_run(hostile: AuditFile, tmp_path: Path) -> None:
    """The pages' own script runs, so its digest is right; nothing in a name does, and the names are there as text."""
    # A name that ran would change the title, which is seen in the document; `alert` would only stop the page.
    for path, html in pages(hostile).items():
        file = tmp_path / path
        file.parent.mkdir(exist_ok=True)
        file.write_text(html.replace("alert(", "document.title=("), encoding="utf-8")
    overview = chromium(tmp_path / "index.html", tmp_path / "profile")
    assert re.search(r'id="shown"[^>]*>8 of 8 rows<', overview)
    assert '<div class="tools" id="tools" role="search">' in overview
    person = chromium(tmp_path / page_of(1), tmp_path / "profile")
    for dom, title in ((overview, "<title>‹U+2066›"), (person, f"{HOSTILE[0].replace('alert', 'document.title=')} – ")):
        assert f"<title>{html_text(title)}" in dom
        assert dom.count("<script") == (dom is overview)
    for name in HOSTILE:
        assert str(visible(name)).replace("alert(", "document.title=(") in Page(overview).text
