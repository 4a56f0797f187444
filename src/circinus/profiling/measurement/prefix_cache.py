"""Outputs of operators by prefix and item, bounded in bytes."""

from __future__ import annotations

import heapq
import tempfile
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from circinus.specification import OperatorSpec

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class _Entry:
    size_bytes: int
    cost_s: float
    credit: float


class GreedyDualSize(Generic[K]):
    """Keys with sizes and costs, bounded in bytes; the least cost per byte goes first, and what is not asked for ages.

    GreedyDual-Size (Cao & Irani, Cost-aware WWW proxy caching algorithms, USENIX Symposium on Internet Technologies
    and Systems, 1997): a key's credit is L + cost / size when it is added or asked for; the least credit is evicted and
    becomes L. With equal costs per byte this is least recently used. An operation takes time logarithmic in the
    number of keys.
    """

    def __init__(self, limit_bytes: int) -> None:
        """Begin empty."""
        self.limit_bytes = limit_bytes
        self.size_bytes = 0
        """What all keys take together."""
        self._age = 0.0
        self._entries: dict[K, _Entry] = {}
        self._heap: list[tuple[float, int, K]] = []  # outdated entries are skipped when they come up
        self._serial = 0
        self._serials: dict[K, int] = {}

    def __contains__(self, key: K) -> bool:
        return key in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def touch(self, key: K) -> bool:
        """Whether a key is kept; its credit is renewed."""
        entry = self._entries.get(key)
        if entry is None:
            return False
        self._place(key, entry.size_bytes, entry.cost_s)
        return True

    def cost_s(self, key: K) -> float:
        """The cost that a kept key was added with."""
        return self._entries[key].cost_s

    def add(self, key: K, size_bytes: int, cost_s: float) -> list[tuple[K, float]] | None:
        """Keep a key, anew where it is kept already.

        Args:
            key: what to keep.
            size_bytes: room it takes.
            cost_s: seconds to get it back.

        Returns:
            The keys that had to go, which may include `key` itself, with their costs; None: it is larger than all the
            room and was not taken.
        """
        self.remove(key)
        if size_bytes > self.limit_bytes:
            return None
        self._place(key, size_bytes, cost_s)
        self.size_bytes += size_bytes
        evicted = []
        while self.size_bytes > self.limit_bytes:
            credit, serial, first = heapq.heappop(self._heap)
            if self._serials.get(first) == serial:
                self._age = credit
                evicted.append((first, self._entries[first].cost_s))
                self.remove(first)
        return evicted

    def remove(self, key: K) -> None:
        """Forget a key, if it is kept."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.size_bytes -= entry.size_bytes
            del self._serials[key]

    def _place(self, key: K, size_bytes: int, cost_s: float) -> None:
        credit = self._age + cost_s / max(1, size_bytes)
        self._serial += 1
        self._entries[key] = _Entry(size_bytes, cost_s, credit)
        self._serials[key] = self._serial
        heapq.heappush(self._heap, (credit, self._serial, key))
        if len(self._heap) > 4 * len(self._entries) + 64:
            self._heap = [(self._entries[k].credit, serial, k) for k, serial in self._serials.items()]
            heapq.heapify(self._heap)


Key = tuple[str, str]


class DiskCache:
    """Outputs in files of a folder of its own, which is gone after `close` (and when the process ends in order)."""

    def __init__(self, limit_bytes: int, parent: Path | None = None) -> None:
        """Begin empty.

        Args:
            limit_bytes: what the files take together, at most.
            parent: where to make the folder; None: where the system keeps temporary files.
        """
        self._folder = tempfile.TemporaryDirectory(prefix="circinus-outputs-", dir=parent, ignore_cleanup_errors=True)
        self._index: GreedyDualSize[Key] = GreedyDualSize(limit_bytes)
        self._files: dict[Key, Path] = {}
        self._written = 0

    @property
    def folder(self) -> Path:
        """Where the files are."""
        return Path(self._folder.name)

    @property
    def size_bytes(self) -> int:
        """What the files take together."""
        return self._index.size_bytes

    def put(self, key: Key, output: bytes, cost_s: float) -> None:
        """Keep an output, as far as there is room for it; a full disk keeps nothing and harms nothing."""
        gone = self._index.add(key, len(output), cost_s)
        self._delete(key)
        if gone is None:
            return
        for other, _ in gone:
            self._delete(other)
        if key not in self._index:
            return
        path = self.folder / str(self._written)
        self._written += 1
        try:
            path.write_bytes(output)
        except OSError:  # it is a cache: what it does not hold is computed again
            path.unlink(missing_ok=True)
            self._index.remove(key)
            return
        self._files[key] = path

    def take(self, key: Key) -> tuple[bytes, float] | None:
        """An output and its cost, which is not kept here any more; None where there is none."""
        if key not in self._index:
            return None
        cost_s = self._index.cost_s(key)
        try:
            output = self._files[key].read_bytes()
        except OSError:  # somebody has cleaned up
            output = None
        self.remove(key)
        return None if output is None else (output, cost_s)

    def remove(self, key: Key) -> None:
        """Forget an output, if it is kept."""
        self._index.remove(key)
        self._delete(key)

    def close(self) -> None:
        """Remove the folder and all that is in it. May be called more than once."""
        self._folder.cleanup()

    def _delete(self, key: Key) -> None:
        path = self._files.pop(key, None)
        if path is not None:
            path.unlink(missing_ok=True)


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
