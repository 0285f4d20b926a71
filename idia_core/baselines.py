"""What simpler attacks would have found on the same pictures: what the vote over templates buys.

'idia' is the attack itself, S >= tau; 'single: TEMPLATE' trusts the majority of one template; 'cosine' holds the plain
mean similarity of pictures and prompts with the real name against that of decoy names, which a black box does not tell.
"""

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from idia_core.roc import CELLS, RATES, rated, standings

IDIA, COSINE, SINGLE = "idia", "cosine", "single: "
BASELINES = pa.schema(
    [
        pa.field("model", pa.string(), nullable=False),
        pa.field("method", pa.string(), nullable=False),  # 'idia', 'cosine' or 'single: TEMPLATE'
        *CELLS,
        *RATES,
    ]
)


def baselines(
    wins: pa.Table, similarities: pa.Table | None, people: pa.Table, threshold: int, quantile: float
) -> pa.Table:
    """`BASELINES` of every model: the attack with tau = `threshold`, cosine similarity, and each template alone.

    `wins` is evaluation's WINS, `similarities` attack's SIMILARITIES, `people` has identity and role. A model without
    similarities has no row 'cosine'; its threshold is the `quantile` of all people's decoys' similarities.
    """
    standing = standings(wins, people)
    rows = []
    for (model,), own in standing.group_by("model", maintain_order=True):
        said = {IDIA: (own["score"] >= threshold, own["member"])}
        if similarities is not None:
            said |= _cosine(
                pl.DataFrame(similarities).filter(pl.col("model") == model).join(own, on="identity"), quantile
            )
        votes = pl.DataFrame(wins).filter(pl.col("model") == model).join(own, on="identity").sort("template")
        for (template,), alone in votes.group_by("template", maintain_order=True):
            said[f"{SINGLE}{template}"] = alone["won"], alone["member"]
        rows += [{"model": model, "method": method} | rated(*columns) for method, columns in said.items()]
    return pa.Table.from_pylist(rows, BASELINES)


def _cosine(people: pl.DataFrame, quantile: float) -> dict[str, tuple[pl.Series, pl.Series]]:
    """Who is a member by cosine similarity, and who is one; empty without a decoy to set the threshold on."""
    decoys = people["decoys"].explode().drop_nulls()
    if decoys.is_empty():
        return {}
    return {COSINE: (people["cosine"] > decoy_threshold(decoys.to_numpy(), quantile), people["member"])}


def decoy_threshold(cosines: npt.NDArray[np.float32], quantile: float) -> float:
    """The lowest of these similarities that at least this share of them do not exceed."""
    return float(np.quantile(cosines, quantile, method="inverted_cdf"))
