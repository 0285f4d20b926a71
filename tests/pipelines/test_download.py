"""`download`: every URL has its row, every good one its picture, and nothing is fetched twice."""

import hashlib
import io
import itertools
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from idia_core.config import Study
from idia_core.download import LEDGER, FetchStatus
from idia_core.errors import InvalidInputError
from idia_core.fetch_status import may_change
from idia_core.retrieval import CANDIDATE_PAIRS
from jobs.cli import app
from jobs.plan import State
from jobs.run import KEPT, run_study
from tests.picture_server import KINDS, LARGE, SLOW, TRUTHS, PictureServer, picture, served
from tests.pipelines.audits import QUIET
from tests.pipelines.shard_inputs import contents

pytestmark = pytest.mark.usefixtures("local_ray")

PATIENT = (*SLOW, *LARGE)
"""Kinds of which a test that should be quick has few."""


@pytest.fixture
def server() -> Iterator[PictureServer]:
    """The misbehaving server."""
    with served() as running:
        yield running


def write_candidates(folder: Path, urls: Sequence[str], **statuses: str) -> None:
    """A table as `retrieve` writes it: the URLs in their order, those of `statuses` with another one than `kept`."""
    rows = [
        {
            "identity": f"person {place // 20}",
            "place": place % 20,
            "picture": "0.jpg",
            "rank": place % 20 + 1,
            "similarity": 0.3,
            "url": url,
            "caption": f"caption {place}",
            "status": statuses.get(f"at_{place}", "kept"),
        }
        for place, url in enumerate(urls)
    ]
    (folder / "candidates").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, CANDIDATE_PAIRS), folder / "candidates/part.parquet")


def mixed(server: PictureServer, count: int, kinds: Sequence[str]) -> list[tuple[str, str]]:
    """So many kinds with their URLs, all kinds in turn; the patient ones once each, then good ones in their place."""
    turns = itertools.islice(itertools.cycle(kinds), count)
    found, seen = list[tuple[str, str]](), Counter[str]()
    for number, kind in enumerate(turns):
        own = kind if kind not in PATIENT or not seen[kind] else "good"
        seen[kind] += 1
        found.append((own, server.url(own, number)))
    return found


def study(folder: Path, server: PictureServer, out: str = "out", **fields: Any) -> Study:
    """The stage alone, with little patience."""
    config: dict[str, Any] = {
        "inputs": {"candidates": str(folder / "candidates")},
        "allow_private_addresses": [server.place],
        "timeout_seconds": 4,
        "total_seconds": 6,
        "max_bytes": 1_000_000,
        "resources": {"workers": 1},
    }
    return Study(name="test", out=str(folder / out), stages={"download": config | fields})


def download(
    folder: Path, server: PictureServer, out: str = "out", *, retry_failed: bool = False, **fields: Any
) -> dict[str, int]:
    """Run it; returns what the seal counts."""
    plans = run_study(study(folder, server, out, **fields), QUIET, retry_failed=retry_failed)
    return plans["download"].seal().counts


def ledger(folder: Path, out: str = "out") -> pl.DataFrame:
    """The table, whose rows must be in the order of their numbers."""
    table = pq.read_table(folder / out / "download/ledger")
    assert table.schema.equals(LEDGER)
    frame = pl.DataFrame(table)
    assert frame["number"].to_list() == list(range(frame.height))
    return frame


def samples(folder: Path, out: str = "out") -> dict[str, tuple[bytes, str]]:
    """Picture and caption of every sample, by key; the keys must be in order within each tar."""
    found = dict[str, tuple[bytes, str]]()
    for path in sorted((folder / out / "download/tars").iterdir()):
        with tarfile.open(path) as tar:
            files = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
        keys = [name.removesuffix(".jpg") for name in files if name.endswith(".jpg")]
        assert keys == sorted(keys)
        assert list(files) == [f"{key}.{suffix}" for key in keys for suffix in ("jpg", "txt")]
        found |= {key: (files[f"{key}.jpg"], files[f"{key}.txt"].decode()) for key in keys}
    return found


def check(folder: Path, expected: Mapping[str, str], captions: Mapping[str, str], out: str = "out") -> None:
    """The ledger and the tars are what a server must lead to whose URLs, in their order, are of those kinds."""
    rows, pictures = ledger(folder, out), samples(folder, out)
    assert rows["url"].to_list() == list(expected)
    found = dict(zip(rows["url"], zip(rows["status"], rows["http_status"], strict=True), strict=True))
    assert found == {url: (str(TRUTHS[kind][0]), TRUTHS[kind][1]) for url, kind in expected.items()}
    for row in rows.iter_rows(named=True):
        if row["status"] != FetchStatus.OK:
            assert row["key"] is None
            continue
        content = picture(int(row["url"].rpartition("/")[2].partition(".")[0]))
        assert (row["sha256"], row["bytes"]) == (hashlib.sha256(content).hexdigest(), len(content))
        image, caption = pictures.pop(row["key"])
        assert row["key"] == f"{row['number']:09d}"
        assert caption == captions[row["url"]]
        with Image.open(io.BytesIO(image)) as opened:
            assert (opened.format, opened.size) == ("JPEG", (row["width"], row["height"]))
    assert not pictures


def test_the_ledger_is_what_the_server_did(tmp_path: Path, server: PictureServer) -> None:
    """To the row: every distinct URL that is wanted, in order, with its status; and every good one's picture."""
    listed = mixed(server, 260, list(KINDS))
    urls = [url for _, url in listed]
    urls[100:100] = ["", urls[3], urls[50]]  # rows that add no URL
    write_candidates(tmp_path, urls, at_0="spare", at_1="spare")
    counts = download(tmp_path, server, urls_per_split=90)
    wanted = {url: kind for kind, url in listed[2:]}
    captions = {url: f"caption {place}" for place, url in reversed(list(enumerate(urls)))}
    check(tmp_path, wanted, captions)
    statuses = Counter(str(TRUTHS[kind][0]) for kind in wanted.values())
    kept = statuses.pop("ok")
    assert counts == {"rows_in": 263, "rows_kept": kept, "not_kept": 2, "no_url": 1, "duplicate_url": 2, **statuses}
    assert len(list((tmp_path / "out/download/tars").iterdir())) == 3
    told = pl.read_csv(tmp_path / "out/download/csv/statuses.csv")
    assert told["urls"].sum() == len(wanted)
    assert told.row(0) == ("ok", 200, kept)


def test_the_bytes_depend_on_neither_threads_nor_workers(tmp_path: Path, server: PictureServer) -> None:
    """Nor on how the work was cut into tars, but for where they end."""
    kinds = [kind for kind in KINDS if kind not in (*PATIENT, "flaky")]
    write_candidates(tmp_path, [url for _, url in mixed(server, 120, kinds)])
    for out, resources in (("one", {"workers": 1, "threads": 1}), ("two", {"workers": 2, "threads": 50})):
        download(tmp_path, server, out, urls_per_split=50, retries=0, resources=resources)
    assert contents(tmp_path / "one/download") == contents(tmp_path / "two/download")
    download(tmp_path, server, "whole", retries=0)
    assert samples(tmp_path, "whole") == samples(tmp_path, "one")
    assert ledger(tmp_path, "whole").equals(ledger(tmp_path, "one"))


def test_a_server_that_went_away_is_asked_again(tmp_path: Path, server: PictureServer) -> None:
    """It stops half-way and comes back: with `--retry-failed` all is there, and nothing was fetched twice."""
    listed = mixed(server, 200, ["good", "not_found", "moved", "page"])
    expected = {url: kind for kind, url in listed}
    captions = {url: f"caption {place}" for place, url in enumerate(expected)}
    write_candidates(tmp_path, list(expected))
    fields = {"urls_per_split": 40, "retries": 0, "resources": {"workers": 1, "threads": 8}}
    server.stops_after = 120
    download(tmp_path, server, **fields)
    before, asked = ledger(tmp_path), Counter(server.asked)
    settled = before.filter(pl.Series([not may_change(FetchStatus(row[2]), row[3]) for row in before.iter_rows()]))
    assert 40 < settled.height < 160
    assert set(before["status"].unique()) >= {"connection", "ok", "http_error"}
    server.server_close()
    with served(server.server_port) as again:
        download(tmp_path, again, **fields)
        assert again.asked.total() == 0  # it is sealed
        download(tmp_path, again, retry_failed=True, **fields)
        check(tmp_path, expected, captions)
        paths = {url.removeprefix(f"http://{server.place}") for url in settled["url"]}
        assert not paths & set(again.asked)
        assert all(asked[path] == 1 for path in paths)
        once = Counter(again.asked)
        sealed = contents(tmp_path / "out/download")
        plans = run_study(study(tmp_path, again, **fields), QUIET)  # without the option, too, this is what there is
        assert plans["download"].why.startswith("sealed")
        download(tmp_path, again, retry_failed=True, **fields)  # nothing is left that could change
        assert again.asked == once
        assert contents(tmp_path / "out/download") == sealed
        download(tmp_path, again, "fresh", **fields)
    assert contents(tmp_path / "fresh/download") == sealed


def test_only_what_may_change_is_asked_again(tmp_path: Path, server: PictureServer) -> None:
    """Of each kind of failure."""
    kinds = [kind for kind in KINDS if kind not in LARGE]
    write_candidates(tmp_path, [server.url(kind, number) for number, kind in enumerate(kinds)])
    download(tmp_path, server, retries=0)
    before = Counter(server.asked)
    download(tmp_path, server, retries=0, retry_failed=True)
    again = {path.split("/")[1] for path in server.asked if server.asked[path] > before[path]}
    passing = {kind for kind in kinds if may_change(*TRUTHS[kind])}
    assert (
        again
        == passing | {"flaky"}
        == {*("broken", "busy", "hang", "drip", "slow_head", "long_promise", "cut_chunks", "reset", "flaky")}
    )
    rows = ledger(tmp_path)
    found = dict(zip(kinds, zip(rows["status"], rows["http_status"], strict=True), strict=True))
    assert found == {kind: (str(TRUTHS[kind][0]), TRUTHS[kind][1]) for kind in kinds}


def test_the_last_attempt_is_what_a_study_has(tmp_path: Path, server: PictureServer) -> None:
    """Whatever is run in between: other settings, a retry that was killed, or one of what is not done yet."""
    write_candidates(tmp_path, [server.url("good", 0), server.url("flaky", 0), server.url("busy", 0)])
    plan = study(tmp_path, server, retries=0)
    first = run_study(plan, QUIET, retry_failed=True)["download"]  # there is nothing yet to be retried
    assert ledger(tmp_path)["status"].to_list() == ["ok", "http_error", "http_error"]
    last = run_study(plan, QUIET, retry_failed=True)["download"]
    assert ledger(tmp_path)["status"].to_list() == ["ok", "ok", "http_error"]
    assert (first.seal().config["attempt"], last.seal().config["attempt"]) == (0, 1)
    asked = Counter(server.asked)
    run_study(study(tmp_path, server, retries=0, longest_side=64), QUIET)
    assert run_study(plan, QUIET)["download"].fingerprint == last.fingerprint
    (tmp_path / "out/download").rename(tmp_path / "out" / KEPT / f"download-{str(last.fingerprint)[:12]}")
    assert run_study(plan, QUIET)["download"].fingerprint == last.fingerprint  # after a kill between two renames
    (tmp_path / "out/download/manifest.json").unlink()
    (tmp_path / "out/download/_receipts").mkdir()
    (tmp_path / "out/download/_receipts/fingerprint").write_text(str(last.fingerprint))
    again = run_study(plan, QUIET, retry_failed=True)["download"]  # an interrupted retry is brought to its end
    assert again.fingerprint == last.fingerprint
    assert server.asked["/good/0.jpg"] == asked["/good/0.jpg"] + 1  # once for the other side
    explicit = run_study(study(tmp_path, server, retries=0, attempt=3), QUIET)["download"]
    assert explicit.seal().config["attempt"] == 3


def test_more_people_are_added_to_what_is_there(tmp_path: Path, server: PictureServer) -> None:
    """Other candidates, and another patience: what earlier runs have of a URL is used; other settings start afresh."""
    first = [server.url(kind, number) for number in range(12) for kind in ("good", "not_found", "cut")]
    more = [server.url(kind, number) for number in range(12, 18) for kind in ("good", "page")]
    write_candidates(tmp_path, first)
    download(tmp_path, server, urls_per_split=10, retries=0)
    write_candidates(tmp_path, [*more, *reversed(first)])
    download(tmp_path, server, urls_per_split=20, retries=0, timeout_seconds=5)
    assert len(list((tmp_path / "out" / KEPT).iterdir())) == 1
    assert set(server.asked.values()) == {1}
    assert server.asked.total() == len(first) + len(more)
    download(tmp_path, server, "fresh", urls_per_split=20, retries=0, timeout_seconds=5)
    assert contents(tmp_path / "out/download") == contents(tmp_path / "fresh/download")
    asked = Counter(server.asked)
    download(tmp_path, server, urls_per_split=20, retries=0, longest_side=100)
    assert server.asked.total() == asked.total() + len(first) + len(more)
    assert {max(picture_size(image)) for image, _ in samples(tmp_path).values()} == {100}


def picture_size(content: bytes) -> tuple[int, int]:
    """The width and height of a file."""
    with Image.open(io.BytesIO(content)) as opened:
        return opened.size


def test_a_hash_that_is_told_later_counts(tmp_path: Path, server: PictureServer) -> None:
    """What was fetched is used where it has the hash; where it has another one the URL is asked again."""
    urls, right = [server.url("good", number) for number in range(3)], hashlib.sha256(picture(1)).hexdigest()
    (tmp_path / "candidates").mkdir()
    listed = tmp_path / "candidates/list.csv"
    listed.write_text("\n".join(["url", *urls]), encoding="utf-8")
    download(tmp_path, server)
    listed.write_text(
        "\n".join(["url,sha256", f"{urls[0]},", *(f"{url},{right}" for url in urls[1:])]), encoding="utf-8"
    )
    download(tmp_path, server)
    assert ledger(tmp_path)["status"].to_list() == ["ok", "ok", "wrong_hash"]
    assert [server.asked[f"/good/{number}.jpg"] for number in range(3)] == [1, 1, 2]
    download(tmp_path, server, timeout_seconds=2)  # the verdict stays
    assert [server.asked[f"/good/{number}.jpg"] for number in range(3)] == [1, 1, 2]


def test_a_list_of_ones_own_is_a_training_set(tmp_path: Path, server: PictureServer) -> None:
    """The tars read as WebDataset, captions and all."""
    (tmp_path / "candidates").mkdir()
    lines = [
        "caption\turl",
        *(f"Ann with a {thing}\t{server.url('good', i)}" for i, thing in enumerate(("cat", "dog"))),
    ]
    (tmp_path / "candidates/mine.tsv").write_text("\n".join(lines), encoding="utf-8")
    download(tmp_path, server)
    assert [caption for _, caption in samples(tmp_path).values()] == ["Ann with a cat", "Ann with a dog"]


def test_a_run_without_a_good_url_ends_well(tmp_path: Path, server: PictureServer) -> None:
    """Its rows say why; only a list without URLs is an error."""
    write_candidates(tmp_path, [server.url("not_found", 0)])
    assert download(tmp_path, server)["rows_kept"] == 0
    assert samples(tmp_path) == {}
    write_candidates(tmp_path, [server.url("good", 0)], at_0="spare")
    with pytest.raises(InvalidInputError, match="no URL to fetch"):
        download(tmp_path, server)


def test_a_dry_run_tells_what_there_is_to_fetch(
    tmp_path: Path, server: PictureServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """URLs, hosts and tars; and that a retry is one, which needs a stage that fetches."""
    monkeypatch.setenv("COLUMNS", "200")
    urls = [*(server.url("not_found", number) for number in range(3)), "http://a.example/1", "http://[::1/", ""]
    write_candidates(tmp_path, urls)
    config = study(tmp_path, server, urls_per_split=2)
    file = tmp_path / "study.json"
    file.write_text(config.model_dump_json(), encoding="utf-8")
    said = CliRunner().invoke(app, ["run", str(file), "--dry-run"]).output
    assert [line.split() for line in said.splitlines() if line.strip()[:1].isdigit()] == [["5", "3", "3"]]
    assert "Most of one host: 3 URLs of 127.0.0.1." in said
    assert "Rows that add no URL: 1 no_url." in said
    assert server.asked.total() == 0
    write_candidates(tmp_path, urls[:3])
    run_study(config, Console(quiet=True))
    assert (
        "what failed is tried anew" in CliRunner().invoke(app, ["run", str(file), "--dry-run", "--retry-failed"]).output
    )
    assert str(State.DONE) in CliRunner().invoke(app, ["run", str(file), "--dry-run"]).output


@pytest.mark.slow
def test_three_thousand_urls(tmp_path: Path, server: PictureServer) -> None:
    """As the short test, with more of every kind, also of those that take long; then a retry of all."""
    turns = itertools.islice(itertools.cycle([*KINDS, *["good"] * 12, *["double"] * 4]), 3000)
    expected = {server.url(kind, number): kind for number, kind in enumerate(turns)}
    captions = {url: f"caption {place}" for place, url in enumerate(expected)}
    write_candidates(tmp_path, list(expected))
    fields = {"urls_per_split": 500, "timeout_seconds": 3, "total_seconds": 4}
    download(tmp_path, server, **fields)
    check(tmp_path, expected, captions)
    before = Counter(server.asked)
    download(tmp_path, server, retry_failed=True, **fields)
    check(tmp_path, expected, captions)
    again = {path.split("/")[1] for path in server.asked if server.asked[path] > before[path]}
    assert again == {kind for kind in KINDS if may_change(*TRUTHS[kind])}
