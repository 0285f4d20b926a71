"""Studies in strict YAML: what is not known is an error, with the name that was probably meant."""

import difflib
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from upath import UPath

from idia_core.errors import ConfigError, MissingInputError

ConfigT = TypeVar("ConfigT", bound=BaseModel)
MERGE_TAG = "tag:yaml.org,2002:merge"
"""Of the key `<<`, which takes in the fields of another mapping."""
KIND = "stage"
"""The field of a stage of a study that says what it runs, where that is not what it is called."""
SERVE = "serve"


class Strict(BaseModel):
    """A frozen config that refuses fields it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Resources(Strict):
    """How fast a stage runs; never what it writes, so none of it is in the fingerprint."""

    workers: Annotated[int, Field(ge=1)] | None = None
    """Worker processes; as many as the cluster's CPUs allow when not given."""
    cpus: Annotated[float, Field(gt=0)] = 1
    """CPUs reserved for each worker."""
    gpus: Annotated[float, Field(ge=0)] = 0
    """GPUs reserved for each worker."""
    retries: Annotated[int, Field(ge=0)] = 3
    """How often a split is started again when its worker dies."""
    straggler_seconds: Annotated[float, Field(gt=0)] | None = 60
    """A split that runs longer than this, and five times as long as half of those that have ended, is started once more
    on another node, and the first to end counts; never when null."""


class StageConfig(Strict):
    """What every stage's config holds besides its own fields."""

    inputs: dict[str, str] = {}
    """Input name -> `stage.table` of this study, or a path, glob or fsspec URL."""
    resources: Resources = Resources()
    """Speed-only settings."""


class SeededConfig(StageConfig):
    """A stage that draws random numbers."""

    seed: Annotated[int, Field(ge=0)] | None = None
    """Seed of its random numbers; the study's when not given."""


class Serve(Strict):
    """A web site on this machine, there while some stages run."""

    table: str
    """`stage.table` whose files it has."""
    port: Annotated[int, Field(ge=1, le=65535)]
    """The port of 127.0.0.1 at which it is."""
    to: Annotated[tuple[str, ...], Field(min_length=1)]
    """The stages that it is there for."""


class Study(Strict):
    """A study: named stages, where their inputs come from, and where all of it is written."""

    name: str
    """What the study is called in reports."""
    out: str
    """Folder or fsspec URL that every stage writes below; relative to the working directory."""
    seed: Annotated[int, Field(ge=0)] = 0
    """The seed of every stage that does not set its own."""
    stages: dict[str, dict[str, Any]]
    """Stage name -> its config, checked against the stage's own fields. With `stage: OTHER` in it, it runs the stage
    OTHER under this name."""
    serve: Serve | None = None
    """What stages fetch from a server that the run itself starts."""

    def kind(self, name: str) -> str:
        """What the stage of that name runs."""
        return str(self.stages[name].get(KIND, name))


class _UniqueKeyLoader(yaml.SafeLoader):
    """A YAML loader that refuses a key given twice, which plain YAML silently overwrites."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.tag != MERGE_TAG]
        for key in keys:
            if keys.count(key) > 1:
                mark = node.start_mark
                raise ConfigError(
                    f"'{key}' is given twice", f"{mark.name}, mapping at line {mark.line + 1}", "Keep one."
                )
        return super().construct_mapping(node, deep)


def parse_yaml(text: str, source: str) -> Any:
    """The value of a YAML document; `ConfigError` with line and column where it cannot be read."""
    try:
        loader = _UniqueKeyLoader(text)
        loader.name = source
        return loader.get_single_data()
    except (yaml.YAMLError, ValueError) as error:  # ValueError: something like a date that is none, 2024-13-01
        mark = getattr(error, "problem_mark", None)
        where = f"{source}, line {mark.line + 1}, column {mark.column + 1}" if mark else source
        raise ConfigError(f"not valid YAML: {getattr(error, 'problem', error)}", where) from None


def load_study(path: UPath, settings: Sequence[str] = ()) -> Study:
    """Read a study and apply `stage.field=value` settings (or `seed=`, `out=`, `name=`) on top of it.

    Raises `MissingInputError` when there is no such file and `ConfigError` for anything it does not understand.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"not UTF-8 text: {error.reason} at byte {error.start}", str(path)) from None
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise MissingInputError(f"no study at '{path}'", fix="Give the path of a study's YAML file.") from None
    document = parse_yaml(text, str(path))
    if not isinstance(document, dict):
        raise ConfigError("a study is a mapping with name, out and stages", str(path))
    for setting in settings:
        _apply(document, setting)
    if isinstance(document.get("stages"), dict):
        document["stages"] = {name: {} if fields is None else fields for name, fields in document["stages"].items()}
    return validate(Study, document, f"study {path}")


def _apply(document: dict[str, Any], setting: str) -> None:
    key, equals, text = setting.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError(f"'{setting}' is no setting", "--set", "Write stage.field=value.")
    stages = document.get("stages")
    if len(parts) > 1 and parts[0] != SERVE:
        if not isinstance(stages, dict) or parts[0] not in stages:
            known = sorted(map(str, stages)) if isinstance(stages, dict) else []
            raise ConfigError(f"the study has no stage '{parts[0]}'", "--set", suggest(parts[0], known))
        parts = ["stages", *parts]
    target = document
    for part in parts[:-1]:
        if target.get(part) is None:
            target[part] = {}
        target = target[part]
        if not isinstance(target, dict):
            raise ConfigError(f"'{part}' in '{key}' has no fields below it", "--set")
    target[parts[-1]] = parse_yaml(text, f"--set {key}")


def validate(model: type[ConfigT], value: Any, where: str) -> ConfigT:
    """`value` as a `model`; pydantic's first complaint becomes a one-line `ConfigError` that names the field.

    A field that is not known comes first: it is often why another one is missing.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        complaints = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
        first = complaints[0]
    field = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        fix = "Remove it, or check its spelling."
        if len(first["loc"]) == 1:
            fix = suggest(field, [*model.model_fields])
        raise ConfigError(f"unknown field '{field}'", where, fix)
    if first["type"] == "missing":
        raise ConfigError(f"field '{field}' is missing", where, "Add it.")
    raise ConfigError(f"field '{field}': {first['msg'].lower()}", where, f"It was {first['input']!r}.")


def suggest(name: str, known: Sequence[str]) -> str:
    """A sentence with the known name nearest to `name`, or with all of them."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean '{near[0]}'?" if near else f"Known are: {', '.join(known) or 'none'}."
