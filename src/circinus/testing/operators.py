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
from circinus.operators.protocol import Branch

_HANG_LIMIT_S = 240.0
"""Time limit for a wait that only a hang can exceed, on a machine of any speed."""


@operator
def add(value: Any, *, amount: Any = 1, pause_s: float = 0.0) -> Any:
    """Return `value` plus `amount`, after a pause that takes no processor time."""
    time.sleep(pause_s)
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
def same(value: Any) -> Any:
    """Return `value`, for instance a list that `emits: many` splits."""
    return value


@operator
def by_size(value: float, *, limit: float) -> Branch:
    """Return `value` in the branch `small` if it is below the limit, else in the branch `large`."""
    return Branch("small" if value < limit else "large", value)


@operator
def each_by_size(values: Sequence[float], *, limit: float) -> list[Branch]:
    """Return the elements, each in the branch `small` if it is below the limit, else in the branch `large`."""
    return [Branch("small" if value < limit else "large", value) for value in values]


@operator
def up_to(value: float) -> list[int]:
    """Return the integers from 0 up to the rest of `value` divided by 3."""
    return list(range(int(value) % 3))


@operator
def visit(value: Mapping[str, Any]) -> Any:
    """Return the `name` of `value`, and leave files in its `folder`.

    The file `NAME.begun.*` of each call is created first. If `after` names files, the call waits for all of them. If
    `dies` is true, the first call then kills the replica's process with SIGKILL. The file `NAME` is created at the end.
    """
    folder, name = Path(value["folder"]), str(value["name"])
    descriptor, _ = tempfile.mkstemp(prefix=f"{name}.begun.", dir=folder)
    os.close(descriptor)
    deadline_s = time.monotonic() + _HANG_LIMIT_S
    while not all((folder / other).exists() for other in value.get("after", ())):
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"{name} waited for more than {_HANG_LIMIT_S:g} s")
        time.sleep(0.002)
    if value.get("dies") and len(list(folder.glob(f"{name}.begun.*"))) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    (folder / name).touch()
    return name


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


def list_items() -> list[Item]:
    """Return a data set of lists of numbers with zero, one and several elements."""
    lists = [[], [1], [20], [1, 2], [20, 1, 30], [3, 20, 2, 1]]
    return [
        Item(f"list-{number}-{'-'.join(map(str, values))}", values, values) for number in range(2) for values in lists
    ]


def exact_match(output: Any, truth: Any) -> float:
    """Return 1 if `output` equals the ground truth, else 0."""
    return float(output == truth)
