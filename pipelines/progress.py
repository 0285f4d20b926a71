"""A live progress bar on a terminal, with a table of what runs; a few lines now and then in a log file."""

import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import NamedTuple

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress
from rich.table import Table
from rich.text import Text
from upath import UPath

from idia_core.progress_record import EVERY_SECONDS, LEAST_PART, ProgressRecord, now, write_record

LOG_SECONDS = 10.0
WORDS = 400
"""Letters of what workers say that are recorded."""
UNITS = ("pairs/s", "left")  # columns whose names are said after their values
STATE = "state"  # the column of what a split does that has no figures yet
WAITS = "waits"  # how the state of a split begins that waits for the cluster: "waits for 8 GPUs"
Row = Mapping[str, str]
"""A line of the table, by column; the first column names the split that it tells of."""


class Note(NamedTuple):
    """What a worker says of its present split."""

    fraction: float
    """The part of it that is done, 0 to 1."""
    text: str
    """A few words for the bar."""
    row: Row
    """Its line of the table; empty where there is none."""


class Progress:
    """How far the present phase is: splits done, rows a second, time left; in a stage's `folder` it is recorded too."""

    def __init__(self, console: Console | None = None, folder: UPath | None = None) -> None:
        self.console = console or Console(file=sys.stderr)
        self._folder, self._counts, self._started, self._recorded = folder, Counter[str](), 0.0, 0.0
        self._bar: RichProgress | None = None
        self._title, self._total, self._before, self._done, self._rows = "", 0, 0, 0, 0
        self._fraction, self._note, self._table = 0.0, "", list[Row]()
        self._began = self._logged = 0.0

    @contextmanager
    def phase(self, title: str, total: int, done: int) -> Iterator[None]:
        """Show a phase of `total` splits of which `done` were done by an earlier run."""
        self._title, self._total, self._before, self._done, self._rows = title, total, done, done, 0
        self._fraction, self._note, self._table = 0.0, "", []
        self._began = self._logged = time.monotonic()
        self._started, self._counts = now(), Counter()
        self._record()
        with ExitStack() as unless_done:
            unless_done.callback(self._record, ended=True)
            with self._shown(title, total, done):
                yield
            unless_done.pop_all()

    @contextmanager
    def _shown(self, title: str, total: int, done: int) -> Iterator[None]:
        if self.console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            rest = TextColumn("{task.fields[rest]}", markup=False)
            self._bar = bar = RichProgress(*columns, rest)
            bar.add_task(title, total=total, completed=done, rest="")
            with Live(get_renderable=lambda: Group(bar, _table(self._table)), console=self.console, transient=True):
                yield
            self._bar = None
        else:
            if done:
                self.console.print(f"{title}: {done} of {total} splits are done already", soft_wrap=True)
            yield

    def advance(self, counts: Mapping[str, int]) -> None:
        """One more split is done, which counted so much."""
        self._done += 1
        self._rows += counts.get("rows_in", 0)
        self._counts.update(counts)
        self._show()

    def notes(self, notes: Sequence[Note]) -> None:
        """What the workers say of their present splits."""
        self._fraction = sum(note.fraction for note in notes)
        self._note = next((note.text for note in notes if note.text and not note.row), "")
        self._table = sorted((note.row for note in notes if note.row), key=lambda row: next(iter(row.values())))
        self._show()

    def say(self, words: str) -> None:
        """Print words that stay, above the bar if there is one."""
        self.console.print(Text(words), soft_wrap=True)

    def rest(self) -> str:
        """Rate, time left and the workers' words: ` 1,200 rows/s  0:00:40 left  epoch 3/20`."""
        seconds = max(time.monotonic() - self._began, 1e-6)
        ended = self._done - self._before + self._fraction
        parts = []
        if self._rows:
            parts.append(f"{self._rows / seconds:,.0f} rows/s")
        elif ended:
            parts.append(f"{ended / seconds:.2g} splits/s")
        if ended >= LEAST_PART and self._done < self._total:
            left = max(0.0, (self._total - self._before - ended) * seconds / ended)
            parts.append(f"{timedelta(seconds=round(left))} left")
        if self._note and self._done < self._total:
            parts.append(self._note)
        return "  ".join(parts)

    def _record(self, *, ended: bool = False) -> None:
        if self._folder is None:
            return
        self._recorded = time.monotonic()
        record = ProgressRecord(
            phase=self._title.rpartition(" ")[2],
            splits=self._total,
            before=self._before,
            done=self._done,
            fraction=self._fraction,
            rows=self._rows,
            counts=dict(self._counts),
            words=self._note or "; ".join(line.strip() for line in self._lines())[:WORDS],
            began=self._started,
            seen=now(),
            ended=ended,
        )
        write_record(self._folder, record)

    def _show(self) -> None:
        if time.monotonic() - self._recorded >= EVERY_SECONDS:
            self._record()
        if self._bar:
            task = self._bar.task_ids[0]
            self._bar.update(task, completed=min(self._done + self._fraction, self._total), rest=self.rest())
        elif time.monotonic() - self._logged >= LOG_SECONDS:
            self._logged = time.monotonic()
            self.say("\n".join([f"{self._title}: {self._done} of {self._total} splits  {self.rest()}", *self._lines()]))

    def _lines(self) -> Iterator[str]:
        """The table for a log file: a line for each split that has figures, and one for all that are in one state."""
        idle: dict[str, list[str]] = {}
        for row in self._table:
            if state := row.get(STATE):
                idle.setdefault(state, []).append(next(iter(row.values())))
            else:
                yield _line(row)
        for state, names in idle.items():
            yield f"  {names[0] if len(names) == 1 else f'{len(names)} others'}  {state}"


def _table(rows: Sequence[Row]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    columns = list(rows[0]) if rows else []
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(row.get(column, "")) for column in columns))
    return table


def _line(row: Row) -> str:
    """A row for a log file: `  K075  epoch 3/50  11,200 pairs/s`."""
    (_, name), *rest = row.items()
    parts = [f"{value} {column}" if column in UNITS else f"{column} {value}" for column, value in rest if value]
    return "  ".join(["", name, *parts])
