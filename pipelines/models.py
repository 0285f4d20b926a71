"""`models`: the models of an audit, each named by a reference and known by the hash of its weights."""

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
from pydantic import field_validator

from idia_core.config import StageConfig
from idia_core.errors import DuplicateNameError
from idia_core.model_reference import ModelReference
from idia_core.models import weights_sha256
from pipelines.stage import Phase, Split, SplitWriter, Stage, StageContext

MODELS = pa.schema(
    [
        pa.field("model", pa.string(), nullable=False),  # a short name
        pa.field("reference", pa.string(), nullable=False),  # with a local path made absolute
        pa.field("architecture", pa.string(), nullable=False),
        pa.field("sha256", pa.string()),  # of the file of weights; null for a black box
    ]
)


class ModelsConfig(StageConfig):
    """Settings of `models`."""

    models: tuple[str, ...]
    """ARCHITECTURE:PRETRAINED, ARCHITECTURE:CHECKPOINT.pt, local-dir:FOLDER, hf-hub:OWNER/NAME or a URL."""

    @field_validator("models")
    @classmethod
    def _some(cls, models: tuple[str, ...]) -> tuple[str, ...]:
        if not models:
            raise ValueError("no model is named; `idia audit --model` does it")
        return models


def _references(config: ModelsConfig) -> dict[str, ModelReference]:
    found: dict[str, ModelReference] = {}
    for text in config.models:
        reference = ModelReference.parse(text)
        if reference.default_name in found:
            what = f"two models would be called '{reference.default_name}'"
            raise DuplicateNameError(what, "stage models, models", "Give each once; rename a file or folder.")
        found[reference.default_name] = reference
    return found


def _named_files(config: ModelsConfig) -> Mapping[str, str]:
    return {
        f"models.{name}.{place}": str(path)
        for name, reference in _references(config).items()
        for place, path in enumerate(reference.files())
    }


def _each(context: StageContext) -> Iterable[Split]:
    for name, reference in _references(context.config).items():
        yield {"model": name, "reference": str(reference)}


class _Registrar:
    """Finds a model's weights, which may fetch them, and hashes them."""

    def __init__(self, context: StageContext) -> None:
        del context

    def __call__(self, split: Split, out: SplitWriter) -> None:
        reference = ModelReference.parse(split["reference"])
        row: dict[str, Any] = dict(split) | {
            "architecture": reference.architecture,
            "sha256": weights_sha256(reference),
        }
        out.table("models", pa.Table.from_pylist([row], MODELS))
        out.count(rows_in=1, rows_kept=1)


STAGE = Stage(
    name="models",
    version=1,
    summary="find the models' weights and hash them",
    config=ModelsConfig,
    inputs={},
    phases=(Phase("find", _each, _Registrar),),
    tables=("models",),
    named_files=_named_files,
)
