"""The whole CC3M study on the built-in world: one command, a report, and numbers that agree with what the web did."""

import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from idia_core.config import load_study
from idia_core.storage import as_path
from tests.servers import free_port
from tests.soak import WHOLE

pytestmark = [pytest.mark.soak, WHOLE]
IDIA = [sys.executable, "-c", "from jobs.cli import main; main()"]
ROOT = Path(__file__).parent.parent
STUDY = ROOT / "jobs/studies/cc3m_small.yaml"
MEMBERS = 12
ANSWERS = {"picture": "ok", "gone": "http_error", "page": "not_an_image", "opted_out": "opted_out"}
"""What the ledger says of a URL, by what the server had there."""


def run(out: Path) -> subprocess.CompletedProcess[str]:
    """The study as a user runs it, with its web at a port that is free."""
    port = free_port()
    place = f"127.0.0.1:{port}"
    fields = {"out": out, "serve.port": port, "world.web.site": f"http://{place}"}
    fields["download.allow_private_addresses"] = f"['{place}']"
    words = [
        "run",
        "cc3m_small.yaml",
        *(word for field in fields.items() for word in ("--set", "{}={}".format(*field))),
    ]
    return subprocess.run([*IDIA, *words], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of the study, run once for this file."""
    out: Path = tmp_path_factory.mktemp("cc3m_small") / "out"
    began = time.monotonic()
    done = run(out)
    assert done.returncode == 0, done.stderr
    print(f"the CC3M study took {time.monotonic() - began:.0f} s")  # noqa: T201 - shown by pytest -s
    assert f"Report: {out}/report/page/report.html" in done.stdout
    return out


def table(out: Path, name: str) -> pl.DataFrame:
    """A table, `stage/table`."""
    return pl.concat([pl.read_parquet(file) for file in sorted((out / name).glob("*.parquet"))])


def links(out: Path) -> pl.DataFrame:
    """What the web has, a row for each URL."""
    return table(out, "world/links").unique("url", keep="first", maintain_order=True)


def test_every_stage_is_sealed(out: Path) -> None:
    """And nothing else is there."""
    stages = load_study(as_path(str(STUDY))).stages
    assert sorted(path.name for path in out.iterdir()) == sorted([*stages, "logs"])
    assert all((out / stage / "manifest.json").exists() for stage in stages)
    assert not [path for path in out.rglob("*") if path.name.startswith((".", "_"))]


def test_the_rarest_are_chosen_and_half_of_them_are_members(out: Path) -> None:
    """By their faces in the base; whom pairs cannot be had of is not among them."""
    selection = table(out, "select/selection")
    assert dict(selection["role"].value_counts().rows()) == {"member": 12, "non_member": 12, "excluded": 6}
    chosen = selection.filter(pl.col("role") != "excluded")
    assert chosen["hit_rate"].max() <= 0.15  # type: ignore[operator]
    assert chosen["pairs"].min() >= 16  # type: ignore[operator]


def test_the_ledger_is_what_the_server_did(out: Path) -> None:
    """URL by URL: the members' candidates, each once, and nobody else's."""
    members = table(out, "select/selection").filter(pl.col("role") == "member")
    candidates = table(out, "retrieve/candidates").join(members, on="identity", how="semi")
    ledger = table(out, "download/ledger")
    assert sorted(ledger["url"]) == sorted(set(candidates["url"]))
    both = ledger.join(links(out), on="url")
    assert both.height == ledger.height
    assert both["status"].to_list() == [ANSWERS[answer] for answer in both["answers"]]
    assert set(both["answers"]) == set(ANSWERS)


def test_the_funnel_is_what_was_in_the_way(out: Path) -> None:
    """Each trap is found in its step, and no picture is lost that need not be but for faces that no detector finds."""
    funnel, rejected = table(out, "pairs/funnel"), table(out, "pairs/rejected").join(links(out), on="url")
    candidates = table(out, "retrieve/candidates").filter(pl.col("status") == "kept")
    members = candidates.join(funnel, on="identity", how="semi").join(links(out), on="url")
    assert funnel.height == MEMBERS

    def count(rows: pl.DataFrame, **values: str) -> dict[str, int]:
        found = rows.filter(**values).group_by("identity").len()
        return {who: dict(found.rows()).get(who, 0) for who in funnel["identity"]}

    def lost(first: str, then: str) -> dict[str, int]:
        return dict(funnel.select("identity", pl.col(first) - pl.col(then)).rows())

    retrieved = table(out, "retrieve/retrieved").join(funnel, on="identity", how="semi").sort("identity")
    for column in ("retrieved", "name_in_caption", "unique", "kept"):
        assert funnel.sort("identity")[column].to_list() == retrieved[column].to_list()
    assert dict(funnel.select("identity", "downloaded").rows()) == count(members, answers="picture")
    assert lost("downloaded", "distinct_pictures") == count(members, shows="copy")
    assert lost("distinct_pictures", "not_attack_pictures") == count(members, shows="attack_picture")
    strangers = rejected.filter(shows="somebody_else")
    assert set(strangers["reason"]) <= {"other_face", "no_face"}
    assert count(strangers) == count(members, shows="somebody_else")
    faces = rejected.filter(pl.col("reason").is_in(["other_face", "no_face"]), pl.col("shows") != "somebody_else")
    assert faces.height <= funnel["not_attack_pictures"].sum() * 15 // 100
    assert table(out, "pairs/pairs").height == funnel["achieved_k"].sum()


def test_the_more_pictures_the_more_members_are_found(out: Path) -> None:
    """Nearly all at the highest K, and far fewer at K = 1; nearly nobody is accused."""
    rates = table(out, "evaluate/rates").filter(group="all", images=15)
    found = dict(rates.select("model", "tpr_mean").rows())
    assert sorted(found) == ["K001", "K003", "K010"]
    assert found["K010"] >= found["K001"] + 0.3, found
    assert found["K010"] >= found["K003"] >= found["K001"], found
    assert found["K010"] >= 0.85, found
    assert rates["fpr_mean"].max() <= 1 / MEMBERS, rates  # type: ignore[operator]


def test_the_report_has_the_rates_and_the_funnel(out: Path) -> None:
    """With everybody's row, and the stages by the names that the study gives them."""
    page = (out / "report/page/report.html").read_text(encoding="utf-8")
    funnel = page.partition('<section id="funnel">')[2].partition("</section>")[0]
    assert all(identity in funnel for identity in table(out, "pairs/funnel")["identity"])
    assert "With 10 pictures a person" in " ".join(page.split())
    for name in ("index", "embed_web", "index_web", "retrieve", "download", "pairs"):
        assert f'<th scope="row">{name} ' in page, name
