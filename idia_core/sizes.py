"""How large tables and files are, as far as it is known before anything is read: counted, declared or estimated."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace

from upath import UPath

from idia_core.config import parse_yaml
from idia_core.errors import ConfigError, MissingInputError

UNKNOWN = math.nan
"""It goes through every calculation, so that what is made of something unknown is unknown."""
BYTES = {"B": 1.0, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "PB": 1e15}
COUNTS = ("rows", "files", "people", "members")
PART = re.compile(r"([\d_.]+(?:e[+-]?\d+)?)\s*([A-Za-z]+)")
FORM = f"Write '2.8e6 rows, 300 GB, 331 files': numbers of {', '.join(COUNTS)} and {', '.join(BYTES)}."


@dataclass(frozen=True)
class Size:
    """How large something is; what is not known is nan."""

    rows: float = UNKNOWN
    """Rows, pairs or pictures."""
    bytes: float = UNKNOWN
    files: float = UNKNOWN
    people: float = UNKNOWN
    """Identities that the rows are of; in a selection those who take part."""
    members: float = UNKNOWN
    """Identities of a selection whose pairs are trained on."""
    architectures: tuple[str, ...] = ()
    """Of a table of models, that of each."""
    sets: tuple[tuple[str, int, int], ...] = ()
    """Of training sets, each one's name, K and pairs."""

    def or_else(self, other: "Size") -> "Size":
        """What is known of this one, and what only the other one tells."""
        missing = {f.name: getattr(other, f.name) for f in fields(self) if not known(getattr(self, f.name))}
        return replace(self, **missing)


def known(value: object) -> bool:
    """Whether a field of a size holds something."""
    return not math.isnan(value) if isinstance(value, float) else value != ()


def parse_size(text: str, where: str) -> Size:
    """A size as people write it: `413_862_335 rows, 54 GB, 32 files`; `ConfigError` for anything else."""
    found = dict[str, float]()
    for part in re.split(r",(?!\d{3})", text):  # in 2,800,000 rows a comma parts no two sizes
        match = PART.fullmatch(part.strip().replace(",", ""))
        unit = match.group(2) if match else ""
        if match is None or (unit not in COUNTS and unit.upper() not in BYTES):
            raise ConfigError(f"'{part.strip()}' is no size", where, FORM)
        field, scale = (unit, 1.0) if unit in COUNTS else ("bytes", BYTES[unit.upper()])
        if field in found:
            raise ConfigError(f"the {field} are given twice", where, FORM)
        try:
            found[field] = float(match.group(1)) * scale
        except ValueError:
            raise ConfigError(f"'{match.group(1)}' is no number", where, FORM) from None
    return replace(Size(), **found)  # type: ignore[arg-type]  # its keys are those of numbers


def read_sizes(path: UPath) -> dict[str, Size]:
    """The sizes of a YAML file, `source: 2.8e6 rows, 300 GB`, by source: an input as studies name it, or STAGE.TABLE.

    Raises `MissingInputError` where there is no such file and `ConfigError` for what is not a size.
    """
    try:
        document = parse_yaml(path.read_text(encoding="utf-8"), str(path))
    except (FileNotFoundError, IsADirectoryError):
        raise MissingInputError(f"no sizes at '{path}'", "--sizes", "Give the path of a YAML file.") from None
    if not isinstance(document, Mapping):
        raise ConfigError("sizes are a mapping of sources to sizes", str(path), FORM)
    return {str(source): parse_size(str(text), f"{path}, {source}") for source, text in document.items()}


def given_sizes(texts: Iterable[str]) -> dict[str, Size]:
    """The sizes of options `SOURCE=2.8e6 rows, 300 GB`, by source."""
    found = dict[str, Size]()
    for text in texts:
        source, equals, size = text.rpartition("=")
        if not equals or not source:
            raise ConfigError(f"'{text}' is no size of anything", "--size", "Write --size 'SOURCE=2.8e6 rows, 300 GB'.")
        found[source] = parse_size(size, f"--size {source}")
    return found


def told_bytes(count: float) -> str:
    """Bytes in a unit that suits: `54.0 GB`; `?` for an unknown number."""
    if math.isnan(count):
        return "?"
    unit = next((unit for unit in reversed(BYTES) if count >= BYTES[unit]), "B")
    value = count / BYTES[unit]
    return f"{value:,.0f} B" if unit == "B" else f"{value:,.1f} {unit}" if value < 100 else f"{value:,.0f} {unit}"


def told_count(count: float) -> str:
    """A number of things with commas; `?` for an unknown one."""
    return "?" if math.isnan(count) else f"{math.ceil(count):,}"
