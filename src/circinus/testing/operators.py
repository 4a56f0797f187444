"""Operators that expose the behaviour of an engine, for `circinus.testing.engine_conformance`.

The module is part of the package, so that replicas on other machines can import it.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from circinus.operators import Item, operator

_HANG_LIMIT_S = 240.0
"""Time limit for a wait that only a hang can exceed, on a machine of any speed."""


@operator
def add(value: Any, *, amount: Any = 1) -> Any:
    """Return `value` plus `amount`."""
    return value + amount


@operator
def pair(left: Any, right: Any) -> list[Any]:
    """Return both inputs in order."""
    return [left, right]


@operator
def process_id(value: Any) -> int:
    """Return the id of the replica's process."""
    return os.getpid()


@operator
def refuse_negative(value: float) -> float:
    """Return `value`, or raise ValueError if it is negative."""
    if value < 0:
        raise ValueError(f"{value} is negative")
    return value


@operator
def die_on_negative(value: float) -> float:
    """Return `value`, or kill the replica's process with SIGKILL if it is negative."""
    if value < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return value


@operator
class Barrier:
    """Barrier across batches, which exposes concurrency and batching.

    Each item `{"folder": path, "parties": n}` creates a file in the folder. The batch continues when the folders of
    all its items have `n` files. Outputs are `[process id, batch size]`.
    """

    def process(self, values: Sequence[Mapping[str, Any]]) -> list[list[int]]:
        for value in values:
            signal_barrier(Path(value["folder"]))
        deadline_s = time.monotonic() + _HANG_LIMIT_S
        while not all(len(os.listdir(value["folder"])) >= value["parties"] for value in values):
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"the barrier did not open within {_HANG_LIMIT_S:g} s")
            time.sleep(0.002)
        return [[os.getpid(), len(values)]] * len(values)


def signal_barrier(folder: Path) -> None:
    """Create a file in the `folder` of a barrier."""
    descriptor, _ = tempfile.mkstemp(dir=folder)
    os.close(descriptor)


@operator
class Unloadable:
    """Operator that fails while loading."""

    def __init__(self) -> None:
        raise RuntimeError("its model is missing")

    def process(self, values: Sequence[Any]) -> Sequence[Any]:
        return values


@operator
class Gated:
    """Operator that loads unless the file `closed` exists."""

    def __init__(self, *, closed: str) -> None:
        if Path(closed).exists():
            raise RuntimeError("its gate is closed")

    def process(self, values: Sequence[Any]) -> list[int]:
        return [os.getpid()] * len(values)


def number_items(count: int = 12) -> list[Item]:
    """Return a data set of numbers, each with its successor as ground truth."""
    return [Item(f"number-{value}", float(value), float(value + 1)) for value in range(count)]


def exact_match(output: Any, truth: Any) -> float:
    """Return 1 if `output` equals the ground truth, else 0."""
    return float(output == truth)
