"""Operators that use a machine in different ways, for milliseconds an item."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache

import numpy as np

from circinus.operators import Item, operator

_NUMBERS = np.random.default_rng(0)
_MATRIX = _NUMBERS.random((320, 320))
_VECTOR = _NUMBERS.random(2_000_000)


@operator
def interpret(size: float) -> float:
    """Run Python bytecode."""
    total = 0.0
    for number in range(int(60_000 * size)):
        total += number * number
    return size


@operator
def allocate(size: float) -> float:
    """Fill and sort a dictionary of strings."""
    texts = {str(number): number for number in range(int(8_000 * size))}
    sorted(texts)
    return size


@operator
def multiply(size: float) -> float:
    """Multiply matrices on one CPU."""
    for _ in range(int(3 * size) + 1):
        _MATRIX @ _MATRIX
    return size


@operator
def multiply_on_two(size: float) -> float:
    """Multiply matrices on two CPUs."""
    for _ in range(int(3 * size) + 1):
        _MATRIX @ _MATRIX
    return size


@operator
def stream(size: float) -> float:
    """Read more memory than caches hold."""
    for _ in range(int(2 * size) + 1):
        (_VECTOR * 2.0).sum()
    return size


@operator
def wait(size: float) -> float:
    """Wait as for a network or a device."""
    time.sleep(4e-3 * size)
    return size


@operator
def compute_and_wait(size: float) -> float:
    """Compute, wait, and compute again."""
    interpret(size / 2)
    time.sleep(2e-3 * size)
    hashlib.sha256(_VECTOR[: int(200_000 * size)].tobytes()).digest()
    return size


@operator
def start_process(size: float) -> float:
    """Compute in a process of its own."""
    subprocess.run([sys.executable, "-S", "-c", f"sum(range(int(400_000 * {size})))"], check=True)
    return size


@operator
def compute_in_pool(size: float) -> float:
    """Compute in two processes that wait for work."""
    list(_pool().map(interpret_in_pool, [size] * 2))
    return size


@cache
def _pool() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(2)


def interpret_in_pool(size: float) -> None:
    """Run Python bytecode in a process of the pool."""
    for _ in range(int(200_000 * size)):
        pass


def items(count: int) -> Sequence[Item]:
    """Return items of log-normal sizes."""
    sizes = np.exp(0.4 * np.random.default_rng(1).standard_normal(count))
    return [Item(f"i{index:03d}", float(size), None) for index, size in enumerate(sizes)]


def score(output: float, truth: object) -> float:
    """Return the highest score."""
    return 1.0
