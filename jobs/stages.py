"""The stages of a study: what each of them runs, and with which config, as far as the study alone tells."""

import re

from idia_core.config import KIND, SERVE, SeededConfig, StageConfig, Study, suggest, validate
from idia_core.errors import ConfigError
from pipelines.registry import STAGES
from pipelines.split_log import LOGS
from pipelines.stage import Stage

KEPT = "kept"
"""Folder of a study's output for what was made under another fingerprint, of which the first digits are the name."""
ERASING = ".erasing-"
"""With this begins the name of the file of an erasure that is not done."""
STAGE_NAME = re.compile("[A-Za-z][A-Za-z0-9_]*")
"""What a stage may be called: its folder is, and the names of its tables begin with it."""


def stage_configs(study: Study) -> dict[str, StageConfig]:
    """Every stage's config, checked: known stage, known fields, inputs that name an earlier stage's table or a path."""
    configs: dict[str, StageConfig] = {}
    for name, given in study.stages.items():
        fields = {field: value for field, value in given.items() if field != KIND}
        config = validate(stage_of(study, name).config, fields, f"study {study.name}, stage {name}")
        if isinstance(config, SeededConfig) and config.seed is None:
            config = config.model_copy(update={"seed": study.seed})
        _check_inputs(study, name, config)
        configs[name] = config
    _check_served(study)
    return configs


def stage_of(study: Study, name: str) -> Stage:
    """What a stage of the study runs; `ConfigError` where there is none such, or where it cannot be called so."""
    kind = study.kind(name)
    if kind not in STAGES:
        fix = suggest(kind, list(STAGES))
        if kind == name:
            fix += f" One that is called otherwise says which it is: `{KIND}: NAME`."
        raise ConfigError(f"there is no stage '{kind}'", f"study {study.name}", fix)
    if kind != name and name in STAGES:
        what = f"'{name}' is a stage, and here it would run '{kind}'"
        raise ConfigError(what, f"study {study.name}", "Call it otherwise.")
    if not STAGE_NAME.fullmatch(name) or name in (KEPT, LOGS):
        fix = f"Take letters, digits and '_', a letter first; '{KEPT}' and '{LOGS}' are taken."
        raise ConfigError(f"no stage can be called '{name}'", f"study {study.name}", fix)
    return STAGES[kind]


def _check_served(study: Study) -> None:
    """Raise `ConfigError` unless the served table is made by a stage before those that it is served to."""
    if study.serve is None:
        return
    where, order = f"study {study.name}, {SERVE}", list(study.stages)
    maker, _, table = study.serve.table.partition(".")
    for name in (maker, *study.serve.to):
        if name not in order:
            raise ConfigError(f"the study has no stage '{name}'", where, suggest(name, order))
    if too_early := [name for name in study.serve.to if order.index(name) <= order.index(maker)]:
        what = f"'{too_early[0]}' does not come after '{maker}', which makes what is served"
        raise ConfigError(what, where, f"Move '{maker}' up.")
    if table not in (tables := stage_of(study, maker).tables):
        raise ConfigError(f"stage '{maker}' has no table '{table}'", where, suggest(table, tables))


def _check_inputs(study: Study, name: str, config: StageConfig) -> None:
    where, declared = f"study {study.name}, stage {name}, inputs", stage_of(study, name).inputs
    for field, source in config.inputs.items():
        if field not in declared:
            raise ConfigError(f"unknown input '{field}'", where, suggest(field, list(declared)))
        upstream, table = upstream_of(source), source.partition(".")[2]
        if upstream not in study.stages:
            continue
        if list(study.stages).index(upstream) >= list(study.stages).index(name):
            raise ConfigError(f"'{source}' is made by a stage that comes later", where, f"Move '{upstream}' up.")
        if table not in (tables := stage_of(study, upstream).tables):
            raise ConfigError(f"stage '{upstream}' has no table '{table}'", where, suggest(table, tables))
    for field, wanted in declared.items():
        if field not in config.inputs and not wanted.optional:
            raise ConfigError(f"input '{field}' is not given", where, f"It holds {wanted.holds}.")


def upstream_of(source: str) -> str:
    """The stage that `stage.table` names; nothing where the source has no dot and can only be a path."""
    stage, dot, _ = source.partition(".")
    return stage if dot else ""
