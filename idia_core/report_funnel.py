"""What the report says of how people's pairs were found, and what was lost on the way."""

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
from markupsafe import Markup

from idia_core.funnel_figure import PAIRS, STEPS, draw_funnel, funnel_steps, one_line
from idia_core.identities import Role
from idia_core.pair_funnel import fewest_first, largest_k, totals
from idia_core.report_page import both_widths


@dataclass(frozen=True)
class FunnelPart:
    """The funnel of everybody as a figure, and each person's as a row of counts under `columns`."""

    sentence: str
    """Up to which K training sets can be built."""
    figure: dict[str, Markup]
    columns: list[str]
    rows: list[tuple[str, str | None, list[int]]]
    """Identity, role (None for people who are not tested), and counts, from the person with the fewest pairs on."""


def funnel_part(funnel: pa.Table | None, roles: Mapping[str, str]) -> FunnelPart | None:
    """The funnel (FUNNEL) as the report shows it, given the roles of those who are tested; None without one."""
    if funnel is None or not funnel.num_rows:
        return None
    summed = totals(funnel)
    people = fewest_first(funnel)
    rows = [(row["identity"], roles.get(row["identity"]), [row[name] or 0 for name in summed]) for row in people]
    columns = [one_line(STEPS[name][0]) if name in STEPS else PAIRS for name in summed]
    members = {identity for identity, role in roles.items() if role == Role.MEMBER}
    return FunnelPart(largest_k(funnel, members), both_widths(draw_funnel, funnel_steps(summed)), columns, rows)
