"""How often names occur (paper, Section 5.1 and Figure 9), and how far their hits can be trusted to mean them."""

from collections.abc import Sequence

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from idia_core.captions import NameMatcher

COUNTS = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("count_paper", pa.int64(), nullable=False),
        pa.field("count_strict", pa.int64(), nullable=False),
    ]
)
OCCURRENCES = pa.schema(
    [
        *COUNTS,
        pa.field("ambiguous", pa.bool_(), nullable=False),
        pa.field("ambiguity", pa.string(), nullable=False),  # the reasons, comma-separated; empty where there is none
        pa.field("share_affected", pa.float64()),  # of the name's matches that may mean another; null where it has none
        pa.field("bin", pa.string(), nullable=False),
    ]
)
SINGLE_WORD, INSIDE_OTHER, IN_LONGER = "single_word", "inside_other_name", "in_longer_names"
"""The reasons: a name of one word; a name that is found in another of the names; one whose matches are mostly part of
longer names, be it a longer word ("Jon Hammond") or another capitalised word beside it ("Jon Hamm Smith")."""

BIN_WIDTH, BIN_END = 25, 300
BINS: tuple[str, ...] = ("0", *(f"{low}-{low + BIN_WIDTH - 1}" for low in range(1, BIN_END, BIN_WIDTH)), f">{BIN_END}")
"""The paper's bins of occurrences: none, 25 wide up to 300, more."""


def count_matches(matches: pa.Table, names: Sequence[str]) -> pa.Table:
    """How many of the captions in `matches` hold each name under either rule, as COUNTS: a row for every name."""
    index = pc.index_in(matches["name"], value_set=pa.array(names, pa.string())).to_numpy()
    counts = [np.bincount(index[matches[rule].to_numpy()], minlength=len(names)) for rule in ("paper", "strict")]
    return pa.table([pa.array(names, pa.string()), *(pa.array(c, pa.int64()) for c in counts)], schema=COUNTS)


def names_inside(names: Sequence[str]) -> pl.DataFrame:
    """The names that either rule finds in another of the names, as pairs `name`, `other`."""
    found = NameMatcher(names).scan(pa.array(names, pa.string())).matches
    pairs = pl.DataFrame(found.select(["name", "caption"])).rename({"caption": "other"})
    return pairs.filter(pl.col("name") != pl.col("other"))


def occurrences(names: Sequence[str], matches: pl.LazyFrame) -> pa.Table:
    """OCCURRENCES of every name, in the given order, from all MATCHES of a scan for them.

    `bin` is the paper's bin (one of BINS) of `count_paper`. A match may mean another name when only the paper's rule
    holds, when it seems part of a longer name, or when its caption holds a tested name that this one is inside of.
    """
    inside = names_inside(names)
    where = ["source", "row"]
    inner = matches.select("name", *where).join(inside.lazy(), on="name")
    outer = matches.select(pl.col("name").alias("other"), *where)
    beside = (
        inner.join(outer, on=["other", *where]).select("name", *where).unique().with_columns(inside=pl.lit(value=True))
    )
    affected = ~pl.col("strict") | pl.col("longer") | pl.col("inside").is_not_null()
    counted = matches.join(beside, on=["name", *where], how="left").group_by("name")
    sums = counted.agg(
        pl.col("paper").sum().alias("count_paper"),
        pl.col("strict").sum().alias("count_strict"),
        (~pl.col("strict") | pl.col("longer")).mean().alias("longer"),
        affected.mean().alias("share_affected"),
    )
    table = pl.DataFrame({"name": names}).lazy().join(sums, on="name", how="left", maintain_order="left").collect()
    table = table.with_columns(pl.col("count_paper", "count_strict").fill_null(0).cast(pl.Int64))
    reasons = {
        SINGLE_WORD: pl.col("name").str.split(" ").list.len() == 1,
        INSIDE_OTHER: pl.col("name").is_in(inside["name"].implode()),
        IN_LONGER: pl.col("longer").fill_null(0) > 0.5,
    }
    texts = [pl.when(holds).then(pl.lit(reason)) for reason, holds in reasons.items()]
    table = table.with_columns(ambiguity=pl.concat_str(texts, separator=", ", ignore_nulls=True))
    bins = pl.min_horizontal((pl.col("count_paper") + BIN_WIDTH - 1) // BIN_WIDTH, pl.lit(len(BINS) - 1))
    table = table.with_columns(
        ambiguous=pl.col("ambiguity") != "", bin=bins.replace_strict(range(len(BINS)), BINS, return_dtype=pl.String)
    )
    return table.select(OCCURRENCES.names).to_arrow().cast(OCCURRENCES)


def people_in_bins(counts: Sequence[int]) -> list[int]:
    """How many of the counts fall in each of BINS (paper, Figure 9)."""
    bins = np.minimum(-(-np.asarray(counts, dtype=np.int64) // BIN_WIDTH), len(BINS) - 1)
    return [int(people) for people in np.bincount(bins, minlength=len(BINS))]
