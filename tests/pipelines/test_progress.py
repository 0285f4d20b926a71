"""The progress of a phase reads well on a terminal and in a log file."""

import io
import re

import pytest
from rich.console import Console

from pipelines import progress as progress_module
from pipelines.progress import Note, Progress

NOTES = [
    Note(0.4, "K075 runs", {"run": "K075", "epoch": "3/50", "loss": "2.31", "pairs/s": "11,200", "left": "1:02:11"}),
    Note(0.0, "K001 starts", {}),
    Note(0.1, "K005 runs", {"run": "K005", "epoch": "12/50", "loss": "1.9", "pairs/s": "900", "left": ""}),
]


@pytest.fixture
def log() -> io.StringIO:
    """What goes to a log file."""
    return io.StringIO()


@pytest.fixture
def progress(log: io.StringIO) -> Progress:
    """A progress that writes there, and is no terminal."""
    return Progress(Console(file=log, width=40))


def test_a_resumed_phase_says_how_much_was_done(progress: Progress, log: io.StringIO) -> None:
    """The line is one line however narrow the console is."""
    with progress.phase("scan match, over many files with long names", 10, 4):
        pass
    assert log.getvalue() == "scan match, over many files with long names: 4 of 10 splits are done already\n"


def test_a_short_phase_is_silent_in_a_log(progress: Progress, log: io.StringIO) -> None:
    """Lines come every ten seconds, not at every split."""
    with progress.phase("scan match", 100, 0):
        for _ in range(100):
            progress.advance({"rows_in": 10})
    assert log.getvalue() == ""


def test_the_rate_counts_rows_of_this_run_and_the_time_left_the_running_splits(progress: Progress) -> None:
    """Splits done before do not flatter the rate; a half-done split counts half."""
    with progress.phase("train models", 4, 2):
        assert progress.rest() == ""
        progress.notes([Note(0.5, "K025 epoch 10/20", {})])
        assert progress.rest().endswith("left  K025 epoch 10/20")
        progress.advance({})
        assert "rows/s" not in progress.rest()
        progress.advance({"rows_in": 1000})
        assert "rows/s" in progress.rest()
        assert "left" not in progress.rest()


def test_the_time_left_waits_for_a_twentieth_of_a_split_and_is_never_less_than_none(progress: Progress) -> None:
    """What starts slowly would seem to take hours; two that do one split may have done more than there is."""
    with progress.phase("train models", 1, 0):
        progress.notes([Note(0.04, "starts", {})])
        assert "left" not in progress.rest()
        progress.notes([Note(0.05, "epoch 1/20", {})])
        assert "left" in progress.rest()
        progress.notes([Note(0.9, "", {}), Note(0.9, "", {})])
        assert "  0:00:00 left" in progress.rest()


def test_a_terminal_gets_a_bar_that_goes_away() -> None:
    """The bar is transient: what stays on the screen are the stages' own lines."""
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100)
    with Progress(console).phase("scan match", 3, 1):
        pass
    assert "scan match" in screen.getvalue()
    assert "1/3" in screen.getvalue()


def test_a_terminal_gets_a_table_of_what_runs_under_the_bar() -> None:
    """A line for each run, by name, whatever the workers' order; it goes with the bar, and what was said stays."""
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, color_system=None, width=100)
    progress = Progress(console)
    with progress.phase("train models", 18, 1):
        progress.say("TrainingError: K025 [no space left]")
        progress.notes(NOTES)
    assert "TrainingError: K025 [no space left]\n" in screen.getvalue()
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue()).rstrip().splitlines()[-4:]
    assert re.match(r"train models ━.* left  K001 starts$", last[0].rstrip())
    assert [line.rstrip() for line in last[1:]] == [
        "run   epoch  loss  pairs/s     left",
        "K005  12/50   1.9      900",
        "K075   3/50  2.31   11,200  1:02:11",
    ]
    assert screen.getvalue().endswith("\x1b[1A\x1b[2K" * 4)


def test_a_log_gets_a_line_for_each_run_with_the_phases(
    progress: Progress, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every ten seconds; a line is one line, and what a run does not know yet is left out."""
    monkeypatch.setattr(progress_module, "LOG_SECONDS", 0.0)
    with progress.phase("train models", 18, 0):
        progress.notes(NOTES)
        progress.notes([])
    first, *rows, last = log.getvalue().splitlines()
    assert re.fullmatch(r"train models: 0 of 18 splits  \S+ splits/s  \S+ left  K001 starts", first)
    assert rows == [
        "  K005  epoch 12/50  loss 1.9  900 pairs/s",
        "  K075  epoch 3/50  loss 2.31  11,200 pairs/s  1:02:11 left",
    ]
    assert last.rstrip() == "train models: 0 of 18 splits"


def test_a_log_tells_at_once_of_all_runs_that_are_in_one_state(
    progress: Progress, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those with figures have their own lines, above; a single run in a state is named."""
    monkeypatch.setattr(progress_module, "LOG_SECONDS", 0.0)
    waits = "waits for 8 GPUs on 1 node; the cluster has 16 on 2 nodes, which are in use"
    states = {"K025": waits, "K010": "starts", "K005": waits, "K075": "", "K001": waits}
    figures = {run: "" if state else "3/50" for run, state in states.items()}
    with progress.phase("train models", 18, 0):
        progress.notes([Note(0, run, {"run": run, "epoch": figures[run], "state": states[run]}) for run in states])
    assert log.getvalue().splitlines()[1:] == ["  K075  epoch 3/50", f"  3 others  {waits}", "  K010  starts"]
