"""Jinja as all of idia's pages use it."""

import base64
import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def page_engine(filters: Mapping[str, Any], finalize: Callable[[Any], Any] | None = None) -> Environment:
    """Templates of idia_core: everything is escaped, and what is missing is an error.

    `filters` come to `number` and to `sha256`, by which a page's Content-Security-Policy knows its own script;
    `finalize` is what every value goes through before it is written.
    """
    engine = Environment(
        loader=PackageLoader("idia_core", ""),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    engine.filters |= {"number": lambda value: f"{value:,}", "sha256": _sha256, **filters}
    return engine


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
