"""The study behind `idia audit`: people and models in, findings out."""

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from upath import UPath

from idia_core.config import Study, load_study
from idia_core.storage import as_path

PANEL_INPUTS = ("panel_identities", "panel_pictures")


def audit_study(
    models: Sequence[str], people: str, panel: str | None, fields: Mapping[str, Any], settings: Sequence[str]
) -> Study:
    """The study `audit.yaml` for those models and people; `fields` are settings by name, `settings` come last.

    Without a panel the stage that reads one is left out.
    """
    given: dict[str, Any] = {"models.models": list(models), "people.inputs.people": str(as_path(people))} | dict(fields)
    if panel:
        given["panel.inputs.people"] = str(as_path(panel))
    shipped = UPath(str(resources.files("jobs") / "studies" / "audit.yaml"))
    study = load_study(shipped, [*(f"{key}={json.dumps(value)}" for key, value in given.items()), *settings])
    return study if panel else _without_panel(study)


def _without_panel(study: Study) -> Study:
    stages = {name: fields for name, fields in study.stages.items() if name != "panel"}
    attack = stages["attack"]
    inputs = {field: source for field, source in attack["inputs"].items() if field not in PANEL_INPUTS}
    return study.model_copy(update={"stages": stages | {"attack": attack | {"inputs": inputs}}})
