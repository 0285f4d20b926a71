"""What `idia names` prints: how each name will be searched for, and whether its matches may mean another."""

from collections import Counter
from collections.abc import Sequence

import pyarrow as pa
from rich.console import Console
from rich.table import Table

from idia_core.captions import check_searchable
from idia_core.errors import UsageError
from idia_core.name_lists import NAMES, PATTERNS, read_name_list
from idia_core.occurrences import INSIDE_OTHER, SINGLE_WORD, names_inside
from idia_core.storage import find_files
from idia_core.variants import examples


def print_names(given: Sequence[str], lists: Sequence[str], show: int, console: Console) -> None:
    """Print the names of the command line and of the lists: spellings, the paper's pattern, ambiguity.

    Raises `IdiaError` for a list that cannot be read or searched for, as `scan` would.
    """
    files = [file for url in lists for file in find_files(url, PATTERNS, "--list")]
    read = [read_name_list(file) for file in files]
    names = pa.concat_tables([pa.table([list(given), [[]] * len(given)], schema=NAMES), *(r.names for r in read)])
    if not len(names):
        raise UsageError("there is no name to look at", fix="Give names, or a list with --list FILE.")
    texts, aliases = names["name"].to_pylist(), names["aliases"].to_pylist()
    check_searchable(texts)
    reasons = _reasons(texts)
    table = Table(box=None, pad_edge=False, title_justify="left")
    for column in (
        "name",
        "strict rule: found in any letter case as",
        "paper's rule: this pattern",
        "may mean another",
    ):
        table.add_column(column, overflow="fold")
    for name, others in zip(texts[:show], aliases[:show], strict=True):
        table.add_row(name, "\n".join(examples(name, others)), _paper(name), reasons.get(name, ""))
    console.print(table)
    _print_total(len(texts), show, sum(found.blank for found in read), Counter(reasons.values()), console)


def _reasons(names: Sequence[str]) -> dict[str, str]:
    """Why a name's matches may mean another, as far as the names alone tell."""
    single = {name: SINGLE_WORD for name in names if len(name.split()) == 1}
    for name, other in names_inside(names).rows():
        single[name] = f"{INSIDE_OTHER} ({other})"
    return single


def _paper(name: str) -> str:
    return f"{name}  (each . is any character)" if "." in name else name


def _print_total(count: int, shown: int, blank: int, reasons: Counter[str], console: Console) -> None:
    parts = [f"{count:,} names can be searched for", f"{reasons.total():,} may mean another"]
    parts += [f"{blank:,} blank rows are left out"] * bool(blank)
    parts += [f"only the first {shown} are shown (--show)"] * (count > shown)
    console.print(f"\n{', '.join(parts)}.", soft_wrap=True, highlight=False)
