"""The CLIP model of the stages that embed a base and ask it: named in the config, or made by another stage."""

from collections.abc import Mapping

from idia_core.errors import ConfigError, InvalidInputError
from idia_core.model_reference import ModelReference, named_files
from pipelines.stage import Input, StageContext

FIELD = "weights"
WEIGHTS = Input(
    "a checkpoint that another stage made; `model` is then its architecture alone", patterns=("*.pt",), optional=True
)


def given_model(context: StageContext) -> ModelReference:
    """The model that the config names, or of that architecture the one in the input `weights`.

    Raises `ConfigError` where both name weights, `InvalidInputError` for several checkpoints, and what
    `ModelReference.parse` does.
    """
    model = str(context.config.model)
    if FIELD not in context.inputs:
        return ModelReference.parse(model)
    files, where = context.inputs[FIELD].files, f"stage {context.stage}, input {FIELD}"
    if ":" in model:
        fix = f"Write model: {model.partition(':')[0]}, or leave the input out."
        raise ConfigError(f"'{model}' names other weights", where, fix)
    if len(files) != 1:
        raise InvalidInputError(f"{len(files)} files, and a model is in one", where, "Give the file.")
    return ModelReference.parse(f"{model}:{files[0]}")


def model_files(inputs: Mapping[str, str], model: str | None) -> Mapping[str, str]:
    """The files of the model that a config names; none where it is an input."""
    return {} if FIELD in inputs else named_files("model", model)
