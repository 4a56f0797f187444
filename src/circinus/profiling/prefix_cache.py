"""Outputs of operators by prefix and item, bounded in bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from circinus.profiling.greedy_dual import GreedyDualSize
from circinus.profiling.spill import DiskCache
from circinus.spec import OperatorSpec

_Key = tuple[str, str]


class PrefixCache:
    """Keeps packed outputs, those out first that save the fewest seconds of computing a byte (`GreedyDualSize`).

    What memory has no room for goes to a folder where room on disk is granted, and comes back when it is asked for.
    The seconds that an output saves are those of its own operator: what computing its inputs takes is in theirs. Every
    output is asked for through `get`, and everything that a run would have had to compute without the cache is
    reported through `saved`, so that the account is exact whatever is evicted.
    """

    def __init__(self, limit_bytes: int, *, spill_bytes: int = 0, spill_parent: Path | None = None) -> None:
        """Begin empty.

        Args:
            limit_bytes: what the outputs in memory take together, at most.
            spill_bytes: the same for those on disk; 0: none are.
            spill_parent: where to make the folder for them; None: where the system keeps temporary files.
        """
        self.hits = 0
        self.misses = 0
        self.evictions = 0
        """Outputs that memory had no more room for, those that went to disk included."""
        self.saved_s = 0.0
        """Seconds of processing that were not needed."""
        self._index: GreedyDualSize[_Key] = GreedyDualSize(limit_bytes)
        self._outputs: dict[_Key, bytes] = {}
        self._spill = DiskCache(spill_bytes, spill_parent) if spill_bytes > 0 else None

    def get(self, prefix: str, item: str) -> bytes | None:
        """The output of a prefix for an item, by their addresses."""
        key = prefix, item
        if self._index.touch(key):
            self.hits += 1
            return self._outputs[key]
        spilled = self._spill.take(key) if self._spill is not None else None
        if spilled is None:
            self.misses += 1
            return None
        self.hits += 1
        self._keep(key, *spilled)
        return spilled[0]

    def put(self, prefix: str, item: str, output: bytes, cost_s: float) -> None:
        """Keep an output that took `cost_s` seconds to compute. One larger than the whole cache is not kept."""
        if self._spill is not None:
            self._spill.remove((prefix, item))
        self._keep((prefix, item), output, cost_s)

    def record_savings(self, seconds: float) -> None:
        """Add processing that a run would have needed without the cache."""
        self.saved_s += seconds

    @property
    def size_bytes(self) -> int:
        """What the outputs in memory take together."""
        return self._index.size_bytes

    @property
    def spilled_bytes(self) -> int:
        """What the outputs on disk take together."""
        return 0 if self._spill is None else self._spill.size_bytes

    def close(self) -> None:
        """Remove what is on disk. May be called more than once."""
        if self._spill is not None:
            self._spill.close()

    def __len__(self) -> int:
        return len(self._outputs)

    def _keep(self, key: _Key, output: bytes, cost_s: float) -> None:
        gone = self._index.add(key, len(output), cost_s)
        self._outputs.pop(key, None)
        if gone is None:
            if self._spill is not None:
                self._spill.put(key, output, cost_s)
            return
        self._outputs[key] = output
        for other, its_cost_s in gone:
            self.evictions += 1
            evicted = self._outputs.pop(other)
            if self._spill is not None:
                self._spill.put(other, evicted, its_cost_s)


def operators_to_run(
    topological: Sequence[OperatorSpec], wanted: Sequence[str], holds: Callable[[str], bool]
) -> tuple[str, ...]:
    """The operators that must run on an item to have the outputs of `wanted`, in topological order.

    Args:
        topological: all operators of the pipeline, in that order.
        wanted: names of operators.
        holds: whether the output of an operator is kept; asked once, and only of operators whose output is needed.
    """
    needed = set(wanted)
    found = []
    for operator in reversed(topological):
        if operator.name in needed and not holds(operator.name):
            found.append(operator.name)
            needed.update(operator.after)
    return tuple(reversed(found))
