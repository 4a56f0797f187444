"""Decorators of functions that are compiled with Numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

_F = TypeVar("_F", bound=Callable[..., object])
_OPTIONS: dict[str, Any] = {"cache": True, "_nrt": False}
"""Functions only borrow their arrays, and allocate none. Counting references to arrays at each call takes ten times as
long as the rest, so that it is off (`_nrt`)."""


def compiled(function: _F) -> _F:
    """Compile a function of numbers and arrays at its first call; later processes load it from the cache."""
    result: _F = numba.njit(**_OPTIONS)(function)
    return result


def inlined(function: _F) -> _F:
    """Compile a function into its callers, which makes them a third faster."""
    result: _F = numba.njit(forceinline=True, **_OPTIONS)(function)
    return result
