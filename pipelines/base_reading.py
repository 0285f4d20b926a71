"""What the stages that read a base share: its input, how it is read, and the pieces that it is read in."""

from collections.abc import Iterable

from pydantic import Field

from idia_core.base_inputs import ListColumns, base_splits
from idia_core.config import StageConfig
from pipelines.stage import Input, Split, StageContext

BACKGROUND = Input(
    "base pairs: WebDataset tars, a list of pictures (TSV), or a table (key, caption, image)",
    patterns=("*.tar", "*.tsv", "*.parquet"),
)


class BaseConfig(StageConfig):
    """How a base is read."""

    lists: ListColumns = ListColumns()
    """Where a list of pictures (TSV) has its paths and captions."""
    images: str | None = None
    """Folder or URL of a list's pictures; the list's own folder when not given. A picture that changes there is not
    noticed by itself."""
    tolerate_failed_inputs: int = Field(default=0, ge=0)
    """Go on without up to this many damaged base files; what can be read of them is used."""


def splits_of(context: StageContext, field: str = "background") -> Iterable[Split]:
    """The pieces in which the pairs of an input are read."""
    config: BaseConfig = context.config
    return base_splits(context.inputs[field].files, config.lists, config.images)
