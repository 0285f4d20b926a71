"""Loops over bytes, compiled by numba at their first call and cached beside their source."""

import fcntl
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core.compiler import Compiler

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


def jit(function: FunctionT) -> FunctionT:
    """Compile the function."""
    return _compiled(function)


class _Apart(Compiler):
    """Tells the compiler that a function's arrays do not overlap."""

    def define_pipelines(self) -> Any:
        self.state.flags.noalias = True
        return super().define_pipelines()  # type: ignore[no-untyped-call]


def jit_apart(function: FunctionT) -> FunctionT:
    """Compile a function that returns nothing and whose arrays do not overlap: more of its loops become vector code."""
    return _compiled(function, pipeline_class=_Apart)


def inline(function: FunctionT) -> FunctionT:
    """Compile the function into those that call it: a call in a hot loop costs more than what it does."""
    return cast("FunctionT", numba.njit(inline="always")(function))


def _compiled(function: FunctionT, **options: Any) -> FunctionT:
    compiled: Any = numba.njit(cache=True, nogil=True, **options)(function)
    _save_one_at_a_time(compiled._cache)  # noqa: SLF001 - numba has no other door to it
    return cast("FunctionT", compiled)


def _save_one_at_a_time(cache: Any) -> None:
    """Let no two processes save to a function's cache at once.

    numba reads the index, chooses a name that is free there, and writes both: two processes that compile a function for
    other types would choose the same name, and a third would run the machine code of the wrong types.
    """
    save = cache.save_overload

    def save_alone(signature: Any, compiled: Any) -> None:
        with (Path(cache.cache_path) / "numba.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            save(signature, compiled)

    cache.save_overload = save_alone
