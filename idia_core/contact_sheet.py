"""Contact sheets: the faces that were taken for a person, and near misses, for a human to check."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from jinja2 import Environment
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from idia_core.evidence import visible
from idia_core.figures import SERIES, STYLE
from idia_core.page_engine import page_engine
from idia_core.presence import FACE, PICTURE
from idia_core.report_page import both_widths

INDEX = "index.html"
SHOWN = pa.schema(
    [
        pa.field("identity", pa.string(), nullable=False),  # whose sheet it is on
        pa.field("key", pa.string(), nullable=False),
        pa.field("part", pa.int64(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("face", pa.int64(), nullable=False),
        pa.field("hit", pa.bool_(), nullable=False),  # the recogniser names the person
        pa.field("taken_for", pa.string()),  # whom it names; null: nobody it knows
        pa.field("score", pa.float64()),
        pa.field("rank", pa.int64()),  # the best among the person's pictures; null where no pictures were retrieved
    ]
)
CROP = ("identity", *FACE)
"""What tells crops apart."""


@dataclass(frozen=True)
class ShownFace:
    """A face on a sheet."""

    image: bytes | None
    """A small JPEG; None where the crop could not be read."""
    key: str
    taken_for: str | None
    """The name of whom the recogniser takes it for."""
    score: float | None
    rank: int | None


@dataclass(frozen=True)
class Sheet:
    """What the page of one person shows."""

    identity: str
    name: str
    presence: Mapping[str, Any]
    """The person's row of `PRESENCE`."""
    pictures: Sequence[bytes]
    """Small JPEGs of a few of the person's own pictures."""
    hits: Sequence[ShownFace]
    more_hits: int
    """Crops of hits that are not shown."""
    misses: Sequence[ShownFace]
    more_misses: int


def shown_faces(crops: pa.Table, faces: pa.Table, candidates: pa.Table | None) -> pa.Table:
    """`SHOWN`: each person's crops with what the recogniser says, hits first, the nearest picture first.

    `crops` need no images, `faces` are `SEEN`. A crop whose face is not among them was taken for nobody.
    """
    frame = pl.DataFrame(crops.select([*CROP, "key"])).unique(CROP, keep="first", maintain_order=True)
    said = pl.DataFrame(faces).rename({"identity": "taken_for", "identity_score": "score"})
    frame = frame.join(said, on=FACE, how="left").join(_ranks(candidates), on=("identity", *PICTURE), how="left")
    frame = frame.with_columns(hit=(pl.col("taken_for") == pl.col("identity")).fill_null(value=False))
    order = ["identity", "hit", "rank", "score", *FACE]
    falling = [column in ("hit", "score") for column in order]
    return frame.sort(order, descending=falling, nulls_last=True).select(SHOWN.names).to_arrow().cast(SHOWN)


def _ranks(candidates: pa.Table | None) -> pl.DataFrame:
    """The best rank of each picture among each person's candidates."""
    keys = ["identity", *PICTURE]
    if candidates is None:
        return pl.DataFrame(schema=dict.fromkeys(keys, pl.Int64) | {"identity": pl.String, "rank": pl.Int64})
    return pl.DataFrame(candidates).group_by(keys).agg(pl.col("rank").min())


def render_sheet(sheet: Sheet, *, full: bool) -> str:
    """A person's page; `full` where all of the base was looked at, not what is near to the person's pictures."""
    return _environment().get_template("contact_sheet.html").render(sheet=sheet, full=full)


def render_index(rows: Sequence[Mapping[str, Any]], *, full: bool) -> str:
    """The page of all people: rows of `PRESENCE` with each one's `name` and `page`."""
    rarest_first = by_rate(rows)
    rates = [row for row in rarest_first if row["hit_rate"] is not None]
    return _environment().get_template("contact_sheet_index.html").render(
        rows=rarest_first,
        full=full,
        most=max((row["hit_rate"] for row in rates), default=0.0),
        chart=both_widths(draw_rates, rates) if rates else None,
        by_clip=any(row["clip_hits"] is not None for row in rows),
    )  # fmt: skip


def by_rate(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rarest first, then by identity; last who has no candidates."""
    return sorted(rows, key=lambda row: (row["hit_rate"] is None, row["hit_rate"] or 0.0, row["identity"]))


def draw_rates(rows: Sequence[Mapping[str, Any]], *, stacked: bool = False) -> Figure:
    """The hit rate of each person, the rarest first, with its interval; `stacked` is for narrow pages."""
    places = np.arange(1, len(rows) + 1)
    rates = [row["hit_rate"] for row in rows]
    with rc_context(STYLE):
        figure = Figure(figsize=(3.5, 2.6) if stacked else (9.6, 2.9), layout="constrained")
        panel = figure.subplots()
        low, high = ([row[f"hit_rate_{end}"] for row in rows] for end in ("low", "high"))
        panel.vlines(places, low, high, color=SERIES[0], alpha=0.35, lw=max(0.6, min(4.0, 150 / len(rows))))
        panel.plot(places, rates, "o", color=SERIES[0], markersize=max(2.0, min(5.0, 200 / len(rows))))
        panel.set_xlim(0.5, len(rows) + 0.5)
        panel.set_ylim(bottom=-0.03 * max(row["hit_rate_high"] for row in rows))  # a dot at 0 is whole
        panel.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%" if value >= 0 else "")
        panel.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))
        panel.set(title="Hit rate", xlabel="people, the rarest first")
        figure.set_label(f"Hit rates of {len(rows)} people, from {share(rates[0])} to {share(rates[-1])}.")
    return figure


def share(value: float | None) -> str:
    """A share in percent with one decimal, or two digits that count where it is below a thousandth; a dash for None."""
    if value is None:
        return "–"
    if value == 0 or value >= 0.001:
        return f"{100 * value:.1f}%" if value else "0%"
    return f"{np.format_float_positional(100 * value, precision=2, fractional=False, trim='-')}%"


@cache
def _environment() -> Environment:
    """Jinja for these pages: everything is escaped, and what is hidden in names is written out."""
    filters = {
        "share": share,
        "score": lambda value: "–" if value is None else f"{value:.2f}",
        "jpeg": lambda content: f"data:image/jpeg;base64,{base64.b64encode(content).decode()}",
    }
    return page_engine(filters, finalize=visible)
