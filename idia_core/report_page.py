"""How the report's page is made: its templates, how numbers are written, and figures for wide and narrow pages."""

from collections.abc import Callable, Sequence
from typing import Any

from jinja2 import Template
from markupsafe import Markup

from idia_core import figures
from idia_core.figures import ModelCounts
from idia_core.page_engine import page_engine
from idia_core.statistics import wilson_interval


def template(name: str) -> Template:
    """A template of idia_core, with what it writes numbers by; text is escaped, and a missing name is an error."""
    numbers = {"rate": _rate, "percent": _percent, "duration": _duration, "interval": _interval}
    return page_engine(numbers).get_template(name)


def each_architecture(
    draw: Callable[..., Any], content: Sequence[Any], models: Sequence[ModelCounts]
) -> dict[str, dict[str, Markup]]:
    """A figure for each architecture: eighteen models in one could not be told apart."""
    architectures = {model.model: model.architecture for model in models}
    own = dict[str, list[Any]]()
    for item in content:
        own.setdefault(architectures[item.model], []).append(item)
    return {architecture: both_widths(draw, own[architecture]) for architecture in sorted(own)}


def both_widths(draw: Callable[..., Any], *content: Any) -> dict[str, Markup]:
    """The figure for wide and for narrow pages; to_svg has escaped what it holds."""
    return {
        width: Markup(figures.to_svg(draw(*content, stacked=stacked)))  # noqa: S704
        for width, stacked in (("wide", False), ("narrow", True))
    }


def _rate(value: float) -> str:
    return "–" if value != value else f"{value:.2f}"  # noqa: PLR0124 - NaN alone differs from itself


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _interval(hits: int, total: int) -> str:
    low, high = wilson_interval(hits, total)
    return f"{low:.2f} to {high:.2f}"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
