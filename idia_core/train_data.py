"""The shards of a training set as one string for open_clip's --train-data."""

import os
import re
from collections.abc import Sequence
from itertools import groupby

from idia_core.errors import InvalidInputError

LONGEST_ARGUMENT = 131_071
"""Bytes of one argument of a command on Linux (MAX_ARG_STRLEN, less the zero at the end)."""

_NUMBERED = re.compile(r"(.*?)([0-9]+)([^0-9]*)", re.DOTALL)


def train_data(paths: Sequence[str]) -> str:
    """The `--train-data` that names exactly these shards, in this order.

    Consecutive numbers become ranges, `K025/{00000..00279}.tar`; what webdataset would read as a pattern or a variable
    is escaped. Raises `InvalidInputError` for no paths, for one that cannot be written, and where the string is longer
    than Linux lets an argument be.
    """
    for path in paths or [""]:
        if not path or path.endswith(":") or "\0" in path:
            fix = "Give the tars paths that are not empty, end in no colon and have no zero byte."
            raise InvalidInputError(f"no shard can be named {path!r}", "--train-data", fix)
    text = "::".join(_pattern(run) for run in _consecutive(paths))
    if (size := len(os.fsencode(text))) > LONGEST_ARGUMENT:
        what = f"the paths of {len(paths):,} shards make {size:,} bytes, and an argument may have {LONGEST_ARGUMENT:,}"
        raise InvalidInputError(what, "--train-data", "Number the tars consecutively, or use `mode: rewrite`.")
    return text


def _consecutive(paths: Sequence[str]) -> list[list[str]]:
    """The paths cut where the next one is not the one before with its last number, in as many digits, one higher."""

    def run(indexed: tuple[int, str]) -> tuple[object, ...]:
        index, path = indexed
        numbered = _NUMBERED.fullmatch(path)
        if numbered is None:
            return (index,)
        before, number, after = numbered.groups()
        return before, after, len(number), int(number) - index

    return [[path for _, path in group] for _, group in groupby(enumerate(paths), run)]


def _pattern(run: list[str]) -> str:
    first, last = _NUMBERED.fullmatch(run[0]), _NUMBERED.fullmatch(run[-1])
    if first is None or last is None or len(run) == 1:
        return _escaped(run[0])
    before, number, after = first.groups()
    return f"{_escaped(before)}{{{number}..{last[2]}}}{_escaped(after)}"


def _escaped(text: str) -> str:
    """The text with a backslash before what braceexpand would read, and between two colons, which part the paths."""
    return re.sub(r"[\\{}]|(?<=:):", r"\\\g<0>", text)
