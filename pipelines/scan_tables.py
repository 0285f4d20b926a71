"""What a scan says in the end: how often each name occurs, as a table, a CSV and a histogram."""

import polars as pl
import pyarrow as pa
import pyarrow.dataset

from idia_core.captions import MATCHES
from idia_core.figures import to_pdf, to_png
from idia_core.histogram import draw_histogram, histogram
from idia_core.occurrences import occurrences
from pipelines.stage import SplitWriter, StageContext


def write_tables(context: StageContext, out: SplitWriter) -> None:
    """Count the matches that the splits have written, and write `occurrences`, `histogram`, `csv` and `figures`."""
    table = occurrences(context.table("names")["name"].to_pylist(), _matches(context))
    out.table("occurrences", table)
    out.csv("occurrences", table)
    counted = histogram(table)
    out.table("histogram", counted)
    figure = draw_histogram(counted)
    out.write("figures/occurrences.png", to_png(figure))
    out.write("figures/occurrences.pdf", to_pdf(figure))


def _matches(context: StageContext) -> pl.LazyFrame:
    folder = context.folder / "matches"
    parts = [part.path for part in sorted(folder.glob("*.parquet"), key=str)]
    dataset = pa.dataset.dataset(parts, schema=MATCHES, format="parquet", filesystem=folder.fs)
    return pl.scan_pyarrow_dataset(dataset)
