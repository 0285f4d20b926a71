"""A download whose workers or driver are killed at any moment ends with the bytes of one that was left alone."""

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from tests.kills import (
    Phase,
    Undisturbed,
    finish,
    kill_amid,
    kill_at_random,
    kill_driver,
    running,
    undisturbed,
    wait_for_splits,
)
from tests.picture_server import KINDS, LARGE, SLOW, PictureServer, served
from tests.soak import soak_count

pytestmark = pytest.mark.soak
PARTS, URLS = 24, 60
FETCH = Phase("download", "fetch", PARTS, seconds=1)
LATENCY_SECONDS = 0.08
SAME = [kind for kind in KINDS if kind not in (*SLOW, *LARGE, "flaky", "loop")]
"""Kinds that answer the same, and soon, whenever they are asked."""


@pytest.fixture(scope="module")
def server() -> Iterator[PictureServer]:
    """The server, which outlives all runs."""
    with served(latency_seconds=LATENCY_SECONDS) as running_server:
        yield running_server


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, server: PictureServer) -> Path:
    """A study of 24 parts of 60 URLs."""
    folder = tmp_path_factory.mktemp("study")
    urls = [server.url(SAME[number % len(SAME)], number) for number in range(PARTS * URLS)]
    (folder / "urls.csv").write_text("\n".join(["url", *urls]), encoding="utf-8")
    config = {
        "inputs": {"candidates": f"{folder}/urls.csv"},
        "allow_private_addresses": [server.place],
        "urls_per_split": URLS,
        "retries": 0,
        "resources": {"threads": 6, "retries": 100},
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({"name": "kill", "out": "out", "stages": {"download": config}}), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def alone(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """A run to which nothing happens."""

    def words(out: Path) -> list[str]:
        return ["run", str(study), "--set", f"out={out}"]

    run = undisturbed(words, tmp_path_factory.mktemp("undisturbed") / "out", ("download",))
    assert len([path for path in run.contents if path.startswith("download/tars/")]) == PARTS
    return run


def test_killed_drivers_change_nothing(tmp_path: Path, alone: Undisturbed) -> None:
    """SIGKILL at ten random moments, each followed by another run: every byte is as it should be."""
    for found in kill_at_random(alone, tmp_path, soak_count(10), random.Random(81)):
        assert found == alone.contents


@pytest.mark.parametrize("seed", range(soak_count(4)))
def test_kills_amid_the_fetching_change_nothing(seed: int, tmp_path: Path, alone: Undisturbed) -> None:
    """A worker and the driver die, then a worker of the next run, which ends well with every byte as it should be."""
    assert kill_amid(alone, tmp_path, FETCH, random.Random(seed)) == alone.contents


@pytest.mark.parametrize("parts", range(2, 2 + soak_count(4)))
def test_what_is_done_is_not_fetched_again(
    parts: int, tmp_path: Path, alone: Undisturbed, server: PictureServer
) -> None:
    """And no URL is lost: after a kill only the parts are fetched that had no receipt."""
    out = tmp_path / "out"
    server.asked.clear()
    with running(alone.words(out), tmp_path / "log") as driver:
        wait_for_splits(driver, out, FETCH, 3 * parts)
        assert kill_driver(driver)
    receipts = {path.stem for path in (out / "download/_receipts").glob("fetch-*.json")}
    done, all_paths = set[str](), set[str]()
    for part in range(PARTS):
        urls = pq.read_table(out / f"download/urls/part-{part:05d}.parquet")["url"].to_pylist()
        paths = {url.removeprefix(f"http://{server.place}") for url in urls}
        all_paths |= paths
        done |= paths if f"fetch-{part:06d}" in receipts else set()
    before = Counter(server.asked)
    assert done
    assert done < all_paths
    assert finish(out, alone.words(out), alone.parts) == alone.contents
    assert all(server.asked[path] == before[path] for path in done)
    assert all_paths <= set(server.asked)
