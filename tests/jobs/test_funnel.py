"""What the terminal says of people's pairs: the fewest first, all together, and the K that can be built."""

import io

import pyarrow as pa
from rich.console import Console

from idia_core.pair_funnel import FUNNEL
from jobs.findings import SHOWN
from jobs.funnel import print_funnel


def funnel(pairs: dict[str, int], verified: bool = False) -> pa.Table:
    """People's rows, each with so many pairs out of 1,500 rows near to their pictures."""
    rows = [(who, 1500, 40, 30, 20, k, k, k, k if verified else None, k) for who, k in pairs.items()]
    return pa.Table.from_pylist([dict(zip(FUNNEL.names, row, strict=True)) for row in rows], FUNNEL)


def printed(table: pa.Table, members: set[str] | None = None, width: int = 100) -> list[str]:
    """The lines, with one space between words."""
    out = io.StringIO()
    print_funnel(table, members, Console(file=out, width=width, force_terminal=False))
    lines = out.getvalue().splitlines()
    assert all(len(line) <= width for line in lines[:-1])
    return [" ".join(line.split()) for line in lines if line.strip()]


def test_everybody_is_shown_and_summed_up() -> None:
    """From the one with the fewest pairs on; a face is a step where somebody looked."""
    assert printed(funnel({"Bob": 19, "Ann Lee": 2, "Zoë": 20})) == [
        "person near named unique wanted fetched distinct no attack pairs",
        "Ann Lee 1,500 40 30 20 2 2 2 2",
        "Bob 1,500 40 30 20 19 19 19 19",
        "Zoë 1,500 40 30 20 20 20 20 20",
        "all 3 people 4,500 120 90 60 41 41 41 41",
        "Everybody has 2 pairs or more: K can be up to 2.",
    ]
    assert printed(funnel({"Bob": 19}, verified=True))[0].endswith("no attack face pairs")


def test_the_members_pairs_decide() -> None:
    """Where it is known who they are."""
    made = funnel({"Bob": 19, "Ann Lee": 2, "Zoë": 20})
    assert printed(made, {"Bob", "Zoë"})[-1] == "Every member has 19 pairs or more: K can be up to 19."


def test_of_many_people_the_first_are_shown_and_the_rest_counted() -> None:
    """Twenty of them, however many there are."""
    lines = printed(funnel({f"P{i:04d}": i + 1 for i in range(1020)}))
    assert [line.split()[0] for line in lines if line.startswith("P0")] == [f"P{i:04d}" for i in range(SHOWN)]
    assert "the 20 with the fewest pairs; and 1,000 more" in lines
    assert lines[-1] == "Everybody has 1 pair or more: K can be up to 1."


def test_names_are_no_markup_and_steer_nothing() -> None:
    """Brackets come out as they are, and hidden characters by number; the widest line fits a narrow terminal."""
    lines = printed(funnel({"[red]Ann[/red]": 3, "Bob\u202eRay": 4}, verified=True), width=80)
    assert lines[1].startswith("[red]Ann[/red] 1,500")
    assert lines[2].startswith("Bob‹U+202E›Ray")
