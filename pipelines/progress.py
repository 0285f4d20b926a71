"""A live progress bar on a terminal, a line now and then in a log file."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

LOG_SECONDS = 10.0


class Progress:
    """How far the present phase is: splits done, rows a second, time left."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(file=sys.stderr)
        self._bar: RichProgress | None = None
        self._title, self._total, self._before, self._done, self._rows = "", 0, 0, 0, 0
        self._fraction, self._note = 0.0, ""
        self._began = self._logged = 0.0

    @contextmanager
    def phase(self, title: str, total: int, done: int) -> Iterator[None]:
        """Show a phase of `total` splits of which `done` were done by an earlier run."""
        self._title, self._total, self._before, self._done, self._rows = title, total, done, done, 0
        self._fraction, self._note = 0.0, ""
        self._began = self._logged = time.monotonic()
        if self.console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            rest = TextColumn("{task.fields[rest]}")
            with RichProgress(*columns, rest, console=self.console, transient=True) as self._bar:
                self._bar.add_task(title, total=total, completed=done, rest="")
                yield
            self._bar = None
        else:
            if done:
                self.console.print(f"{title}: {done} of {total} splits are done already", soft_wrap=True)
            yield

    def advance(self, rows: int) -> None:
        """One more split is done, of `rows` rows."""
        self._done += 1
        self._rows += rows
        self._show()

    def notes(self, notes: Sequence[tuple[float, str]]) -> None:
        """What the workers say of their present splits: the fraction done and a few words."""
        self._fraction = sum(fraction for fraction, _ in notes)
        self._note = next((text for _, text in notes if text), "")
        self._show()

    def rest(self) -> str:
        """Rate, time left and the workers' words: ` 1,200 rows/s  0:00:40 left  epoch 3/20`."""
        seconds = max(time.monotonic() - self._began, 1e-6)
        ended = self._done - self._before + self._fraction
        parts = []
        if self._rows:
            parts.append(f"{self._rows / seconds:,.0f} rows/s")
        elif ended:
            parts.append(f"{ended / seconds:.2g} splits/s")
        if ended and self._done < self._total:
            left = (self._total - self._before - ended) * seconds / ended
            parts.append(f"{timedelta(seconds=round(left))} left")
        if self._note and self._done < self._total:
            parts.append(self._note)
        return "  ".join(parts)

    def _show(self) -> None:
        if self._bar:
            task = self._bar.task_ids[0]
            self._bar.update(task, completed=min(self._done + self._fraction, self._total), rest=self.rest())
        elif time.monotonic() - self._logged >= LOG_SECONDS:
            self._logged = time.monotonic()
            self.console.print(f"{self._title}: {self._done} of {self._total} splits  {self.rest()}", soft_wrap=True)
