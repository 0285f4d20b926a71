"""Loops over bytes, compiled by numba at their first call and cached beside their source."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


def jit(function: FunctionT) -> FunctionT:
    """Compile the function."""
    return cast("FunctionT", numba.njit(cache=True, nogil=True)(function))


def inline(function: FunctionT) -> FunctionT:
    """Compile the function into those that call it: a call in a hot loop costs more than what it does."""
    return cast("FunctionT", numba.njit(inline="always")(function))
