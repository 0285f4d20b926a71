"""What `idia status` and `idia watch` show: every stage, and of those that are begun how far they are."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.live import Live as Screen
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from idia_core.config import Study
from idia_core.manifest import MANIFEST, read_manifest
from idia_core.progress_record import read_record
from jobs.findings import say
from jobs.live import Live, live
from jobs.plan import PlannedStage, State, describe, plan_loosely

REFRESH_SECONDS = 2.0
BAR = 24
MOST_REASONS = 6
COLOURS = {"done": "green", "running": "bold cyan", "stopped": "yellow", "changed": "yellow"}
NOT_CHECKED = "its inputs are not here to be compared with"


@dataclass(frozen=True)
class Shown:
    """A stage as it is shown."""

    name: str
    state: str
    words: str
    live: Live | None = None


def shown(plan: PlannedStage) -> Shown:
    """How a stage is: from its seal, its receipts and the record beside them."""
    if plan.state is State.DONE:
        return Shown(plan.name, "done", f"{describe(plan.seal())}  {plan.why}")
    if found := live(plan):
        return Shown(plan.name, "running" if found.alive else "stopped", found.told(), found)
    if plan.state in (State.LACKS, State.WAITS) and (seal := read_manifest(plan.folder)):
        return Shown(plan.name, "sealed", f"{describe(seal)}  {NOT_CHECKED}")
    return Shown(plan.name, str(plan.state), plan.why)


def print_status(study: Study, console: Console) -> None:
    """Print how far a study is, once."""
    plans = plan_loosely(study)
    stages = [shown(plan) for plan in plans.values()]
    say(console, f"{study.name} in {study.out}")
    console.print(_table(stages))
    for stage in stages:
        for line in _about(stage):
            console.print(line, soft_wrap=True, highlight=False)


def watch_study(study: Study, console: Console) -> None:
    """Show how a study gets on until all of it is done; once where nobody can look on."""
    if not console.is_terminal:
        print_status(study, console)
        return
    watched = _Watched(study)
    with Screen(console=console, screen=False, auto_refresh=False) as screen:
        while True:
            stages = watched.look()
            screen.update(_view(study, stages), refresh=True)
            if all(stage.state == "done" for stage in stages):
                return
            time.sleep(REFRESH_SECONDS)


class _Watched:
    """A study that is looked at again and again: what costs much is only read anew when something has changed."""

    def __init__(self, study: Study) -> None:
        self._study = study
        self._plans: Mapping[str, PlannedStage] = plan_loosely(study)
        self._seen = self._signs()
        self._sealed = dict[str, Shown]()

    def look(self) -> list[Shown]:
        if (signs := self._signs()) != self._seen:
            self._plans, self._seen, self._sealed = plan_loosely(self._study), signs, {}
        return [self._shown(plan) for plan in self._plans.values()]

    def _shown(self, plan: PlannedStage) -> Shown:
        if plan.name in self._sealed:
            return self._sealed[plan.name]
        stage = shown(plan)
        if stage.live is None:
            self._sealed[plan.name] = stage  # until there is a sign that it changed
        return stage

    def _signs(self) -> list[tuple[bool, str]]:
        """Of each stage whether it is sealed, and the phase that it is in."""
        signs = list[tuple[bool, str]]()
        for plan in self._plans.values():
            record = read_record(plan.folder)
            signs.append(((plan.folder / MANIFEST).exists(), record.phase if record else ""))
        return signs


def _table(stages: list[Shown]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("stage", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("", overflow="fold")
    for stage in stages:
        table.add_row(stage.name, Text(stage.state, style=COLOURS.get(stage.state, "dim")), Text(stage.words))
    return table


def _view(study: Study, stages: list[Shown]) -> RenderableType:
    """The whole screen."""
    table = Table(box=None, pad_edge=False)
    for column in ("stage", "state", ""):
        table.add_column(column, no_wrap=True)
    table.add_column("", overflow="fold", ratio=1)
    for stage in stages:
        bar = ProgressBar(total=1.0, completed=stage.live.share, width=BAR) if stage.live else ""
        state = Text(stage.state, style=COLOURS.get(stage.state, "dim"))
        words = Text(stage.words) if stage.live else Text(stage.words, style="dim", no_wrap=True, overflow="ellipsis")
        table.add_row(stage.name, state, bar, words)
    done = sum(stage.state == "done" for stage in stages)
    lines = [line for stage in stages for line in _about(stage)]
    end = Text(
        f"{done} of {len(stages)} stages are done; {time.strftime('%H:%M:%S')}; Ctrl-C ends this view, not the run."
    )
    return Group(Text(f"{study.name} in {study.out}"), table, Text(""), *lines, end)


def _about(stage: Shown) -> list[Text]:
    """Who works on a stage, what the workers say, and what kept rows out."""
    if stage.live is None:
        return []
    lines = [Text(f"{stage.name}: {stage.live.driver()}", style="" if stage.live.alive else "yellow")]
    if stage.live.alive and stage.live.record.words:
        lines.append(Text(f"{stage.name}: {stage.live.record.words}", overflow="ellipsis"))
    if counts := stage.live.counted():
        said = [f"{count:,} {reason}" for reason, count in list(counts.items())[:MOST_REASONS]]
        lines.append(Text(f"{stage.name}: {', '.join(said)}"))
    return lines
