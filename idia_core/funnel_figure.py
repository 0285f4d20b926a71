"""The funnel of people's pairs as a picture: a flow that narrows from step to step, and branches of what is lost.

All is to scale but the first step where it is much larger than all others: of millions of rows near to people's
pictures only thousands have captions that name them. Both directions of the picture are drawn by one code: `along` runs
from step to step, `across` from the flow's straight edge to where the branches are.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from idia_core.figures import RIGHT, STYLE, WRONG

STEPS = {
    "retrieved": ("near to their\npictures", ""),
    "name_in_caption": ("captions\nname them", "caption does\nnot name them"),
    "unique": ("unique", "URL or caption\ncomes again"),
    "kept": ("wanted", "more than\nare wanted"),
    "downloaded": ("downloaded", "not\ndownloaded"),
    "distinct_pictures": ("distinct\npictures", "near-duplicate\nor unreadable"),
    "not_attack_pictures": ("no attack\npictures", "attack\npicture"),
    "face_verified": ("face\nverified", "no face, or\nanother's"),
}
"""What the steps of a funnel are called, and why something is lost on the way to each."""
PAIRS = "pairs"
NODE, BEND = 0.07, 0.62
"""How long a step is, and where a branch ends, in parts of the way to the next step."""
WIDEST, DROP, GAP = 1.3, 0.22, 0.07
"""Across, beside the largest step but the first: the most that is drawn of the first one, how far branches turn away,
and the distance of texts."""
NOT_TO_SCALE = "(not to scale)"
LINE = 0.085
"""Along, half a line of text, in a stacked picture."""
THINNEST = 0.006
"""Across, of what is not nothing."""

STRAIGHT: Any = [Path.MOVETO, *[Path.LINETO] * 4]
BENT: Any = [Path.MOVETO, *[Path.CURVE4] * 3, Path.LINETO, *[Path.CURVE4] * 3, Path.LINETO]
"""What joins the points of a rectangle, and of a branch."""


class Step(NamedTuple):
    """A step of the flow: what it is called, how many are left, and why those are lost that are not."""

    label: str
    left: int
    lost: str


def funnel_steps(totals: Mapping[str, int]) -> list[Step]:
    """The steps of a funnel, given the sums of its columns in their order; the last one gives the pairs."""
    steps = [Step(STEPS[name][0], count, STEPS[name][1]) for name, count in totals.items() if name in STEPS]
    return [*steps[:-1], steps[-1]._replace(label=PAIRS)]


def draw_funnel(steps: Sequence[Step], *, stacked: bool = False) -> Figure:
    """The flow from left to right with branches downward; `stacked` from top to bottom, for narrow pages."""
    told = [f"{step.left:,} {one_line(step.label)}" for step in steps]
    largest = max(1, *(step.left for step in steps[1:]))
    sizes = [min(max(step.left / largest, THINNEST), WIDEST) if step.left else 0.0 for step in steps]
    if steps[0].left / largest > WIDEST:
        steps = [steps[0]._replace(label=f"{steps[0].label}\n{NOT_TO_SCALE}"), *steps[1:]]
    with rc_context(STYLE):
        figure = Figure(figsize=(3.5, 0.85 * len(steps)) if stacked else (9.6, 3.6), layout="constrained")
        flow = _Flow(figure.subplots(), stacked=stacked)
        for place, (step, size) in enumerate(zip(steps, sizes, strict=True)):
            last = place == len(steps) - 1
            flow.node(place, size, step, strong=last)
            if not last:
                after, lost = sizes[place + 1], step.left - steps[place + 1].left
                flow.band(place, size, after)
                if lost:
                    flow.branch(place, (after, max(size, after + THINNEST)), f"{lost:,}", steps[place + 1].lost)
        flow.finish(len(steps))
        figure.set_label(f"What is left of all people's pairs at each step: {', '.join(told)}.")
    return figure


def one_line(text: str) -> str:
    """A label without its breaks."""
    return text.replace("\n", " ")


class _Flow:
    """Draws on an axis, whose directions it may swap."""

    def __init__(self, panel: Axes, *, stacked: bool) -> None:
        self._panel, self._stacked = panel, stacked

    def node(self, place: int, size: float, step: Step, *, strong: bool) -> None:
        """A step: a bar as wide as what is left, its count, and what it is called."""
        corners = [(place, 0), (place + NODE, 0), (place + NODE, size), (place, size), (place, 0)]
        if size:
            self._fill(corners, STRAIGHT, RIGHT, 1.0 if strong else 0.75, edge=True)
        if self._stacked:
            self._write(place + NODE / 2 - LINE, size + GAP, f"{step.left:,}", weight="bold")
            self._write(place + NODE / 2 + LINE, size + GAP, one_line(step.label))
            return
        self._write(place + NODE / 2, -GAP, f"{step.left:,}", weight="bold", above=True)
        self._write(place + NODE / 2, -2.6 * GAP, step.label, above=True)

    def band(self, place: int, before: float, after: float) -> None:
        """What goes on to the next step; what does not has left by then."""
        start, end = place + NODE, place + 1
        corners = [(start, 0), (end, 0), (end, after), (start, after), (start, 0)]
        self._fill(corners, STRAIGHT, RIGHT, 0.3)

    def branch(self, place: int, edges: tuple[float, float], count: str, reason: str) -> None:
        """What is lost, from one edge across to the other: it turns away and ends; the text is where it ends."""
        start, end = place + NODE, place + BEND
        near, far = edges
        middle = (start + end) / 2
        there = [(start, near), (middle, near), (middle, near + DROP), (end, near + DROP)]
        back = [(end, far + DROP), (middle, far + DROP), (middle, far), (start, far), (start, near)]
        self._fill([*there, *back], BENT, WRONG, 0.45, edge=True)
        if self._stacked:
            self._write(end, far + DROP + GAP, f"{count} lost:\n{one_line(reason)}")
        else:
            self._write((start + end) / 2 + NODE, far + DROP + GAP, f"{count} lost:\n{reason}")

    def finish(self, steps: int) -> None:
        """Set the limits, so that all texts fit, and take away what an axis has."""
        panel = self._panel
        if self._stacked:
            panel.set(xlim=(-0.02, 3.3), ylim=(steps - 0.7, -0.2))
        else:
            panel.set(xlim=(-0.35, steps - 0.35), ylim=(WIDEST + DROP + 0.45, -0.65))
        panel.set_axis_off()

    def _fill(
        self,
        points: Sequence[tuple[float, float]],
        kinds: Any,
        colour: str,
        alpha: float,
        *,
        edge: bool = False,
    ) -> None:
        turned = [(across, along) if self._stacked else (along, across) for along, across in points]
        line = {"edgecolor": colour, "linewidth": 0.8} if edge else {"linewidth": 0}
        self._panel.add_patch(PathPatch(Path(turned, kinds), facecolor=colour, alpha=alpha, **line))

    def _write(self, along: float, across: float, text: str, *, weight: str = "normal", above: bool = False) -> None:
        at = (across, along) if self._stacked else (along, across)
        align = ("left", "center") if self._stacked else ("center", "baseline" if above else "top")
        self._panel.text(*at, text, ha=align[0], va=align[1], fontsize=8, fontweight=weight, linespacing=1.15)
