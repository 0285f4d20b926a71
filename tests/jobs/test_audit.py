"""The study behind `idia audit`: what its options become."""

from pathlib import Path

import pytest

from idia_core.config import Study
from idia_core.errors import ConfigError
from jobs.audit import audit_study
from jobs.stages import stage_configs

MODELS = ["ViT-B-32:laion400m_e32", "http://127.0.0.1:8000"]


def study(*settings: str, panel: str | None = "panel", **fields: object) -> Study:
    """An audit of two models about the people in `people`."""
    return audit_study(MODELS, "people", panel, fields, settings)


def test_models_people_and_fields_are_filled_in() -> None:
    """Options become fields of the stages; relative paths are taken from where the command is typed."""
    made = study(out="there", seed=3, **{"attack.candidates": 50, "judge.rules.threshold": 2})
    configs = stage_configs(made)
    assert (made.out, made.seed) == ("there", 3)
    assert list(configs["models"].models) == MODELS  # type: ignore[attr-defined]
    assert configs["people"].inputs == {"people": str(Path("people").absolute())}
    assert configs["panel"].inputs == {"people": str(Path("panel").absolute())}
    attack, judge = configs["attack"].model_dump(), configs["judge"].model_dump()
    assert (attack["candidates"], attack["seed"]) == (50, 3)
    assert (judge["rules"]["threshold"], judge["seed"]) == (2, 3)


def test_settings_come_last() -> None:
    """`--set` decides over an option of the same field."""
    made = study("attack.candidates=70", "people.facescrub_pictures=images", **{"attack.candidates": 50})
    configs = stage_configs(made)
    assert configs["attack"].model_dump()["candidates"] == 70
    assert configs["people"].model_dump()["facescrub_pictures"] == "images"


def test_the_stages_without_a_panel() -> None:
    """No stage reads a panel and `attack` asks none; the rest is as with one."""
    with_panel, without = study(), study(panel=None)
    assert list(with_panel.stages) == ["people", "panel", "models", "attack", "judge", "evidence"]
    assert list(without.stages) == ["people", "models", "attack", "judge", "evidence"]
    wired = without.stages["attack"]["inputs"]
    assert wired == {"models": "models.models", "identities": "people.identities", "pictures": "people.pictures"}
    for stage in ("people", "models", "judge", "evidence"):
        assert without.stages[stage] == with_panel.stages[stage]
    stage_configs(without)  # which finds that every input is there


@pytest.mark.parametrize("path", ["my people, 2024/Zoë's", "a: b", "[x]", "null", "{p}", "s3://bucket/people", "#1"])
def test_a_path_is_not_read_as_anything_else(path: str) -> None:
    """What YAML would take for a list, a comment or nothing stays the path that was given."""
    made = audit_study(["x:y"], path, path, {"out": path}, [])
    given = made.stages["people"]["inputs"]["people"]
    assert given == (path if "://" in path else str(Path(path).absolute()))
    assert made.stages["panel"]["inputs"]["people"] == given
    assert made.out == path


def test_a_field_that_is_not_there_is_refused() -> None:
    """A wrong `--set` is a config error that says which field or stage there is not."""
    with pytest.raises(ConfigError, match=r"unknown field 'rules\.treshold' \(study audit, stage judge\)"):
        stage_configs(study("judge.rules.treshold=2"))
    with pytest.raises(ConfigError, match=r"'jugde'.*Did you mean 'judge'"):
        stage_configs(study("jugde.rules.threshold=2"))
