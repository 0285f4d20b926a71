"""The stage `report` reads what other stages write."""

from idia_core.loss_curves import CURVES
from idia_core.pair_funnel import FUNNEL
from idia_core.retrieval_rank import RETRIEVAL_RANK
from idia_core.zeroshot import ZEROSHOT
from pipelines import train
from pipelines.report import MODELS, OPTIONAL, STAGE


def test_the_optional_tables_have_the_columns_that_the_page_shows() -> None:
    """A column that is renamed in one place and not in the other would end a study at its very last stage."""
    written = {"curves": CURVES, "runs": train.RUNS, "zeroshot": ZEROSHOT, "retrieval_rank": RETRIEVAL_RANK}
    written |= {"funnel": FUNNEL}
    assert written.keys() == OPTIONAL.keys()
    assert {name: set(OPTIONAL[name]) - set(schema.names) for name, schema in written.items()} == {
        name: set() for name in written
    }
    assert all(STAGE.inputs[name].optional for name in OPTIONAL)


def test_the_models_are_those_that_train_writes() -> None:
    """Names and types fit, what must not be null included."""
    assert all(train.MODELS.field(field.name).type == field.type for field in MODELS)
    assert all(not train.MODELS.field(field.name).nullable for field in MODELS if not field.nullable)
