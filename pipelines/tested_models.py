"""What `zeroshot` and `retrieval_rank` share: each model is a piece of work, and makes a row of Table 2."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pyarrow as pa
from pydantic import Field

from idia_core.config import StageConfig
from idia_core.errors import UsageError
from idia_core.models import ClipModel
from idia_core.picture_stream import PictureStream
from idia_core.ranks import rate_columns
from pipelines.asking import is_black_box, reference_of
from pipelines.stage import Split, SplitWriter, StageContext

MODELS = pa.schema(
    [
        pa.field("model", pa.string(), nullable=False),
        pa.field("architecture", pa.string(), nullable=False),
        pa.field("reference", pa.string(), nullable=False),
        pa.field("images_per_member", pa.int64()),  # null for a model that was not trained here
        pa.field("sha256", pa.string()),
    ]
)
ABOUT = ("model", "architecture", "images_per_member")


class DeviceConfig(StageConfig):
    """Where models are run."""

    device: str = Field(default="cpu", pattern=r"^(cpu|mps|cuda(:\d+)?)$")
    """Where the models run: cpu, cuda, cuda:1."""


class TestedModelsConfig(DeviceConfig):
    """How models are run."""

    __test__ = False  # no test, whatever its name begins with

    batch_size: int | None = Field(default=None, ge=1)
    """Pictures that a model encodes at a time, 8 on a CPU and 256 on a GPU when not given; decides the last bits."""


def each_model(context: StageContext) -> Iterable[Split]:
    """A split for each model, in the order of their names; `UsageError` for a black box, which embeds nothing."""
    models = sorted(context.inputs["models"].read_as(MODELS).to_pylist(), key=lambda model: str(model["model"]))
    for model in models:
        if is_black_box(context, model):
            fix = "Leave it out: a black box is asked for names only."
            raise UsageError("a black box gives no embeddings", f"stage {context.stage}, model {model['model']}", fix)
        yield model


def load_model(context: StageContext, split: Split) -> tuple[ClipModel, PictureStream]:
    """A split's model, and the stream of pictures that it is shown; as many threads decode as a worker has CPUs."""
    config: TestedModelsConfig = context.config
    model = ClipModel(reference_of(context, split), config.device, config.batch_size)
    return model, PictureStream(model, max(1, int(config.resources.cpus)))


def telling(split: Split, out: SplitWriter) -> Callable[[float, str], None]:
    """What tells how far a split is, after its model's name."""
    return lambda done, words: out.report(done, f"{split['model']}: {words}")


def row_of(schema: pa.Schema, split: Split, hits: Mapping[str, float], stream: PictureStream) -> pa.Table:
    """A split's row of a table: the model, how many pictures it was shown, and its rates, given the hits of each."""
    row: dict[str, Any] = {name: split[name] for name in ABOUT}
    row |= {schema.names[len(ABOUT)]: stream.shown, "failed": stream.failed.total()}
    for name, expected in hits.items():
        row |= rate_columns(name, expected, stream.shown)
    return pa.Table.from_pylist([row], schema)
