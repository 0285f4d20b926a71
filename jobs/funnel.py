"""The funnel of people's pairs on the terminal, as `idia run` ends the stage `pairs`."""

import pyarrow as pa
from rich.console import Console
from rich.table import Table
from rich.text import Text

from idia_core.evidence import visible
from idia_core.pair_funnel import fewest_first, largest_k, totals
from jobs.findings import SHOWN, say

HEADERS = {
    "retrieved": "near",
    "name_in_caption": "named",
    "unique": "unique",
    "kept": "wanted",
    "downloaded": "fetched",
    "distinct_pictures": "distinct",
    "not_attack_pictures": "no attack",
    "face_verified": "face",
    "achieved_k": "pairs",
}


def print_funnel(funnel: pa.Table, members: set[str] | None, console: Console) -> None:
    """Print what was left at each step for those with the fewest pairs, for all together, and the K that can be built.

    The last is what the pairs of the `members` allow, if it is known who these are.
    """
    summed = totals(funnel)
    table = Table(box=None, pad_edge=False, collapse_padding=True)
    table.add_column("person", overflow="fold")
    for name in summed:
        table.add_column(HEADERS[name], justify="right", no_wrap=True)
    rows = fewest_first(funnel)
    for row in rows[:SHOWN]:
        # As text, so that brackets are no markup, and without characters that could steer the terminal.
        table.add_row(Text(str(visible(row["identity"]))), *(f"{row[name] or 0:,}" for name in summed))
    people = f"{funnel.num_rows:,} {'person' if funnel.num_rows == 1 else 'people'}"
    table.add_section()
    table.add_row(f"all {people}", *(f"{count:,}" for count in summed.values()), style="bold")
    if len(rows) > SHOWN:
        table.caption = f"the {SHOWN} with the fewest pairs; and {len(rows) - SHOWN:,} more"
    console.print(table)
    say(console, largest_k(funnel, members))
