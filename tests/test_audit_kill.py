"""An audit whose driver or workers are killed at any moment ends with the bytes of one that was left alone."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from idia_core.drawing import draw_face, invent_people
from idia_core.names import invent_names
from tests.kills import Phase, Undisturbed, kill_amid, kill_at_random, undisturbed
from tests.soak import soak_count
from tests.tiny_models import write_model

pytestmark = pytest.mark.soak
STAGES = ("people", "panel", "models", "attack", "judge", "evidence")
PEOPLE, BYSTANDERS, PICTURES, SIDE = 10, 6, 4, 1500
"""Pictures of this size take long enough to decode that an attack can be killed amid its votes."""
VOTES = Phase("attack", "votes", 2 * PEOPLE, seconds=0.2)


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], list[str]]:
    """The words after `idia` that audit two models, written to a folder, with prompts that no run has embedded yet."""
    root = tmp_path_factory.mktemp("inputs")
    for seed, (group, number) in enumerate((("people", PEOPLE), ("panel", BYSTANDERS))):
        sexes = ["FM"[place % 2] for place in range(number)]
        people = zip(invent_names(number, seed), invent_people(number, seed, sexes), strict=True)
        for place, (name, person) in enumerate(people):
            folder = root / group / name.replace(" ", "_")
            folder.mkdir(parents=True)
            for i in range(PICTURES):
                face = Image.fromarray(draw_face(person, [seed, place, i])).resize((SIDE, SIDE))
                face.save(folder / f"{i}.jpg")
    models = [f"idia-rn-tiny:{write_model(root / f'm{seed}.pt', seed)}" for seed in range(2)]

    def of(out: Path) -> list[str]:
        settings = {
            "attack.people_per_split": 1,
            "attack.resources.text_cache": out.with_suffix(".texts"),
            "attack.resources.retries": 100,
            "evidence.people_per_split": 2,
        }
        options = {"--people": root / "people", "--panel": root / "panel", "--out": out, "--candidates": 600}
        return [
            *("audit", *(word for model in models for word in ("--model", model))),
            *(str(word) for option in options.items() for word in option),
            *(word for key, value in settings.items() for word in ("--set", f"{key}={value}")),
        ]

    return of


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, words: Callable[[Path], list[str]]) -> Undisturbed:
    """An audit to which nothing happens."""
    run = undisturbed(words, tmp_path_factory.mktemp("undisturbed") / "out", STAGES)
    assert len([path for path in run.contents if path.startswith("attack/votes/")]) == VOTES.splits
    assert "evidence/page/audit.json" in run.contents
    return run


def test_killed_audits_change_nothing(tmp_path: Path, alone: Undisturbed) -> None:
    """SIGKILL at ten random moments, each followed by another run: every byte is as it should be."""
    for found in kill_at_random(alone, tmp_path, soak_count(10), random.Random(9)):
        assert found == alone.contents


@pytest.mark.parametrize("seed", range(soak_count(4)))
def test_kills_amid_the_votes_change_nothing(seed: int, tmp_path: Path, alone: Undisturbed) -> None:
    """A worker and the driver die, then a worker of the next run, which ends well with every byte as it should be."""
    assert kill_amid(alone, tmp_path, VOTES, random.Random(seed)) == alone.contents
