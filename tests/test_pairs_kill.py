"""Making pairs ends with the same bytes whatever is killed on the way."""

import random
from pathlib import Path

import pytest
import yaml

from tests.kills import kill_at_random, undisturbed
from tests.pipelines.pair_inputs import (
    BOB,
    EVERYBODY,
    IDA,
    ZOE,
    study,
    write_candidates,
    write_download,
    write_pictures,
)
from tests.pipelines.shard_inputs import picture
from tests.soak import soak_count

pytestmark = pytest.mark.soak
STAGES = ("pairs",)
URLS = 60


def test_killed_drivers_change_nothing(tmp_path: Path) -> None:
    """SIGKILL at ten random moments, each followed by another run: every byte is as it should be."""
    urls = {f"http://x/{number}": picture(f"picture {number % 50}", size=64) for number in range(URLS)}
    write_download(tmp_path, urls)
    write_candidates(tmp_path, {who: [*urls][start:] for start, who in enumerate((BOB, IDA, ZOE))})
    pictures = write_pictures(tmp_path, [(who, picture(f"picture {i}")) for i, who in enumerate(EVERYBODY)])
    made = study(tmp_path, inputs={"pictures": pictures}, people_per_split=1, resources={"retries": 100})
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(made.model_dump(mode="json", exclude_none=True)), encoding="utf-8")

    def words(out: Path) -> list[str]:
        return ["run", str(path), "--set", f"out={out}"]

    alone = undisturbed(words, tmp_path / "undisturbed/out", STAGES)
    assert len([name for name in alone.contents if name.startswith("pairs/pairs/")]) == len(EVERYBODY)
    for found in kill_at_random(alone, tmp_path, soak_count(10), random.Random(83)):
        assert found == alone.contents
