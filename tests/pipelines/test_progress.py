"""The progress of a phase reads well in a log file."""

import io

import pytest
from rich.console import Console

from pipelines.progress import Progress


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
            progress.advance(10)
    assert log.getvalue() == ""


def test_the_rate_counts_rows_of_this_run_and_the_time_left_the_running_splits(progress: Progress) -> None:
    """Splits done before do not flatter the rate; a half-done split counts half."""
    with progress.phase("train models", 4, 2):
        assert progress.rest() == ""
        progress.notes([(0.5, "K025 epoch 10/20")])
        assert progress.rest().endswith("left  K025 epoch 10/20")
        progress.advance(0)
        assert "rows/s" not in progress.rest()
        progress.advance(1000)
        assert "rows/s" in progress.rest()
        assert "left" not in progress.rest()


def test_a_terminal_gets_a_bar_that_goes_away() -> None:
    """The bar is transient: what stays on the screen are the stages' own lines."""
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100)
    with Progress(console).phase("scan match", 3, 1):
        pass
    assert "scan match" in screen.getvalue()
    assert "1/3" in screen.getvalue()
