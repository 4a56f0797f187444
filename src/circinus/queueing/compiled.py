"""Decorators of functions that are compiled with Numba."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba.core.caching import FunctionCache

_F = TypeVar("_F", bound=Callable[..., object])


def compiled(function: _F) -> _F:
    """Compile a function of numbers and arrays at its first call; later processes load it from the cache."""
    return _compiled(function)


def inlined(function: _F) -> _F:
    """Compile a function into its callers, which makes them a third faster. Python cannot call it.

    Without wrappers for calls from Python, the first process on a machine compiles for a third less time.
    """
    return _compiled(function, forceinline=True, no_cpython_wrapper=True)


def _compiled(function: _F, **options: Any) -> _F:
    """Compile a function that borrows its arrays and allocates none.

    Counting references to arrays at each call takes ten times as long as the rest, so that it is off (`_nrt`).
    """
    config: Any = numba.config
    options |= {"_nrt": False, "nogil": True, "no_cfunc_wrapper": True}
    user_folder = config.CACHE_DIR
    result: Any = numba.njit(**options)(function)
    kernel: _F = result
    try:
        config.CACHE_DIR = user_folder or _cache_folder()
        result._cache = _KernelCache(function)  # type: ignore[no-untyped-call]  # Numba has no types
    except (OSError, RuntimeError):  # no folder is writable: every process compiles
        pass
    finally:
        config.CACHE_DIR = user_folder
    return kernel


class _KernelCache(FunctionCache):
    """Cache that loads machine code without Numba's implementations of NumPy and SciPy.

    Only a compilation needs them, which imports them itself. Without them, a process loads all kernels in 0.05 s of
    processor time instead of 0.38. The method that it calls is private to Numba, and unchanged in 0.61 to 0.68.
    """

    def load_overload(self, sig: object, target_context: object) -> Any:
        with self._guard_against_spurious_io_errors():
            return self._load_overload(sig, target_context)  # type: ignore[no-untyped-call]  # as above


@cache
def _cache_folder() -> str:
    """Return the cache folder of these sources: Numba compares a function's file, but not those of its callees."""
    folder = Path(__file__).parent
    sources = b"".join(file.read_bytes() for file in sorted(folder.glob("*.py")))
    base = folder if os.access(folder, os.W_OK) else Path.home() / ".cache" / "circinus"
    return str(base / "__pycache__" / f"kernels-{hashlib.sha256(sources).hexdigest()[:16]}")
