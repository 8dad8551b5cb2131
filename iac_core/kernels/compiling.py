"""How loops are compiled: on first use, with the machine code kept beside the source."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])

_REORDERED: dict[str, Any] = {
    "fastmath": {"reassoc", "contract", "arcp", "nsz"},
    "error_model": "numpy",
    "nogil": True,
}


def compiled(function: Function) -> Function:
    """Compile loops whose sums may run in vector lanes.

    The order of a sum is then another than in the text, but always the same on one machine.
    Infinities and NaN are kept, so that a diverged loss is seen.
    """
    return _kept(function, _REORDERED)


def compiled_as_written(function: Function) -> Function:
    """Compile loops that decide: every sum runs in the order of the text."""
    return _kept(function, {"error_model": "numpy", "nogil": True})


def _kept(function: Function, options: dict[str, Any]) -> Function:
    try:
        return cast(Function, numba.njit(cache=True, **options)(function))
    except RuntimeError:  # no folder that the cache could be written to
        return cast(Function, numba.njit(**options)(function))
