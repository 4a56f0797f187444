"""Operators that make an engine's behaviour visible, for `circinus.testing.engine_conformance`.

Importable wherever Circinus is, so that replicas on other machines find them too.
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

_PATIENCE_S = 60.0


@operator
def add(value: Any, *, amount: Any = 1) -> Any:
    """The value plus `amount`."""
    return value + amount


@operator
def pair(left: Any, right: Any) -> list[Any]:
    """Both inputs, in order."""
    return [left, right]


@operator
def process_id(value: Any) -> int:
    """The process that answers."""
    return os.getpid()


@operator
def refuse_negative(value: float) -> float:
    """The value, or an error where it is below zero."""
    if value < 0:
        raise ValueError(f"{value} is negative")
    return value


@operator
def die_on_negative(value: float) -> float:
    """The value; where it is below zero, the replica's process ends as if the kernel had killed it."""
    if value < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return value


@operator
class Barrier:
    """Holds its batch until enough others have come: shows what is processed at the same time, and together.

    Each item `{"folder": path, "parties": n}` puts a file into the folder; the batch goes on when every item's folder
    has `n` files. Answers `[process id, size of the batch]`.
    """

    def process(self, values: Sequence[Mapping[str, Any]]) -> list[list[int]]:
        """Process a batch."""
        for value in values:
            signal_barrier(Path(value["folder"]))
        deadline_s = time.monotonic() + _PATIENCE_S
        while not all(len(os.listdir(value["folder"])) >= value["parties"] for value in values):
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"the others did not come within {_PATIENCE_S:g} s")
            time.sleep(0.002)
        return [[os.getpid(), len(values)]] * len(values)


def signal_barrier(folder: Path) -> None:
    """Put one more file into `folder`."""
    descriptor, _ = tempfile.mkstemp(dir=folder)
    os.close(descriptor)


@operator
class Unloadable:
    """Fails while it loads."""

    def __init__(self) -> None:
        raise RuntimeError("its model is missing")

    def process(self, values: Sequence[Any]) -> Sequence[Any]:
        """Never reached."""
        return values


def number_items(count: int = 12) -> list[Item]:
    """The data set: numbers, the truth being one more."""
    return [Item(f"number-{value}", float(value), float(value + 1)) for value in range(count)]


def exact_match(output: Any, truth: Any) -> float:
    """The metric: 1 for the right answer."""
    return float(output == truth)
