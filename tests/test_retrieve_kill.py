"""The search for people's pairs, here and by a service, ends with the same bytes whatever is killed on the way."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.kills import kill_at_random, undisturbed
from tests.knn_service import KnnService, knn_service
from tests.retrieval_base import clip, write_index
from tests.soak import soak_count

pytestmark = pytest.mark.soak
STAGES = ("retrieve",)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> Path:  # noqa: ARG001 - makes the index
    """The base."""
    root = tmp_path_factory.mktemp("base")
    write_index(root)
    return root


@pytest.fixture(scope="module")
def service(root: Path) -> Iterator[KnnService]:
    """A service over the same index."""
    with knn_service(root / "made/index", clip(root)) as made:
        yield made


def study(root: Path, name: str, inputs: dict[str, str], **fields: Any) -> Path:
    """A study of that stage, with small pieces of work."""
    people = {table: f"{root}/people/{table}" for table in ("identities", "pictures")}
    settings = {"model": f"idia-rn-tiny:{root}/tiny.pt", "neighbours": 150, "wanted": 30} | fields
    settings |= {"inputs": people | inputs, "people_per_split": 1, "shards_per_split": 1}
    settings["resources"] = {"retries": 100} | settings.get("resources", {})
    path = root / f"{name}.yaml"
    document = {"name": name, "out": "out", "stages": {"retrieve": settings}}
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


def test_killed_drivers_change_nothing(root: Path, service: KnnService, tmp_path: Path) -> None:
    """SIGKILL at five random moments of each, each followed by another run: every byte is as it should be."""
    index = study(root, "index", {"index": f"{root}/made/index/shards"})
    slowly = {"connections": 1, "requests_per_second": 4}
    asked = {"service": {"url": service.url, "index_name": "base"}, "resources": {"service": slowly}}
    expected = None
    for path in (index, study(root, "service", {}, **asked)):
        words = ["run", str(path), "--set"]
        alone = undisturbed(lambda out, words=words: [*words, f"out={out}"], tmp_path / path.stem / "alone", STAGES)
        expected = expected or alone.contents
        assert alone.contents == expected
        for found in kill_at_random(alone, tmp_path / path.stem, soak_count(5), random.Random(71)):
            assert found == expected
