"""Cache of operators' outputs by prefix and item, bounded in bytes."""

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
    """GreedyDual-Size eviction of keys with sizes and costs, bounded in bytes.

    A key's credit is L + cost / size when it is added or accessed; the key with the lowest credit is evicted, and its
    credit becomes L (Cao & Irani, Cost-aware WWW proxy caching algorithms, USENIX Symposium on Internet Technologies
    and Systems, 1997). With equal costs per byte this is least recently used. An operation takes time logarithmic in
    the number of keys.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.size_bytes = 0
        """Total size of all keys."""
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
        """Return whether a key is cached, and renew its credit."""
        entry = self._entries.get(key)
        if entry is None:
            return False
        self._insert(key, entry.size_bytes, entry.cost_s)
        return True

    def cost_s(self, key: K) -> float:
        """Return the cost that a cached key was added with."""
        return self._entries[key].cost_s

    def add(self, key: K, size_bytes: int, cost_s: float) -> list[tuple[K, float]] | None:
        """Add a key, or replace it.

        Args:
            key: key to add.
            size_bytes: size of the value.
            cost_s: seconds to compute the value again.

        Returns:
            The evicted keys, which may include `key` itself, with their costs; None if it exceeds the capacity and was
            not added.
        """
        self.remove(key)
        if size_bytes > self.limit_bytes:
            return None
        self._insert(key, size_bytes, cost_s)
        self.size_bytes += size_bytes
        evicted = []
        while self.size_bytes > self.limit_bytes:
            credit, serial, victim = heapq.heappop(self._heap)
            if self._serials.get(victim) == serial:
                self._age = credit
                evicted.append((victim, self._entries[victim].cost_s))
                self.remove(victim)
        return evicted

    def remove(self, key: K) -> None:
        """Remove a key, if it is cached."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.size_bytes -= entry.size_bytes
            del self._serials[key]

    def _insert(self, key: K, size_bytes: int, cost_s: float) -> None:
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
    """Cache in files of its own folder, which is removed by `close` (and at the regular end of the process)."""

    def __init__(self, limit_bytes: int, parent: Path | None = None) -> None:
        """Create an empty cache.

        Args:
            limit_bytes: capacity of the files.
            parent: parent of the folder; default: the system's temporary folder.
        """
        self._folder = tempfile.TemporaryDirectory(prefix="circinus-outputs-", dir=parent, ignore_cleanup_errors=True)
        self._index: GreedyDualSize[Key] = GreedyDualSize(limit_bytes)
        self._files: dict[Key, Path] = {}
        self._written = 0

    @property
    def folder(self) -> Path:
        """Folder of the files."""
        return Path(self._folder.name)

    @property
    def size_bytes(self) -> int:
        """Total size of the files."""
        return self._index.size_bytes

    def put(self, key: Key, output: bytes, cost_s: float) -> None:
        """Cache an output, if there is space for it; on a full disk nothing is cached."""
        evicted = self._index.add(key, len(output), cost_s)
        self._delete(key)
        if evicted is None:
            return
        for evicted_key, _ in evicted:
            self._delete(evicted_key)
        if key not in self._index:
            return
        path = self.folder / str(self._written)
        self._written += 1
        try:
            path.write_bytes(output)
        except OSError:  # outputs that are not cached are computed again
            path.unlink(missing_ok=True)
            self._index.remove(key)
            return
        self._files[key] = path

    def take(self, key: Key) -> tuple[bytes, float] | None:
        """Remove an output, and return it with its cost; None if it is not cached."""
        if key not in self._index:
            return None
        cost_s = self._index.cost_s(key)
        try:
            output = self._files[key].read_bytes()
        except OSError:  # the file was deleted from outside
            output = None
        self.remove(key)
        return None if output is None else (output, cost_s)

    def remove(self, key: Key) -> None:
        """Remove an output, if it is cached."""
        self._index.remove(key)
        self._delete(key)

    def close(self) -> None:
        """Delete the folder with its files. Idempotent."""
        self._folder.cleanup()

    def _delete(self, key: Key) -> None:
        path = self._files.pop(key, None)
        if path is not None:
            path.unlink(missing_ok=True)


_Key = tuple[str, str]


class PrefixCache:
    """Cache of pickled outputs that evicts those with the fewest saved seconds per byte (`GreedyDualSize`).

    Outputs evicted from memory are spilled to a folder, if it has a capacity, and return when they are accessed. The
    saved seconds of an output are those of its own operator; its inputs have their own. The total of savings is exact
    regardless of evictions, because every output is read through `get`, and every computation saved is reported through
    `record_savings`.
    """

    def __init__(self, limit_bytes: int, *, spill_bytes: int = 0, spill_parent: Path | None = None) -> None:
        """Create an empty cache.

        Args:
            limit_bytes: capacity in memory.
            spill_bytes: capacity on disk; 0 disables it.
            spill_parent: parent of the folder on disk; default: the system's temporary folder.
        """
        self.hits = 0
        self.misses = 0
        self.evictions = 0
        """Number of outputs evicted from memory, including those spilled to disk."""
        self.saved_s = 0.0
        """Processing seconds saved by the cache."""
        self._index: GreedyDualSize[_Key] = GreedyDualSize(limit_bytes)
        self._outputs: dict[_Key, bytes] = {}
        self._spill = DiskCache(spill_bytes, spill_parent) if spill_bytes > 0 else None

    def get(self, prefix: str, item: str) -> bytes | None:
        """Return the output of a prefix for an item, by content hash and item key, or None."""
        key = prefix, item
        if self._index.touch(key):
            self.hits += 1
            return self._outputs[key]
        spilled = self._spill.take(key) if self._spill is not None else None
        if spilled is None:
            self.misses += 1
            return None
        self.hits += 1
        self._store(key, *spilled)
        return spilled[0]

    def put(self, prefix: str, item: str, output: bytes, cost_s: float) -> None:
        """Cache an output that took `cost_s` seconds to compute, unless it exceeds the capacity."""
        if self._spill is not None:
            self._spill.remove((prefix, item))
        self._store((prefix, item), output, cost_s)

    def record_savings(self, seconds: float) -> None:
        """Record processing seconds that the cache saved."""
        self.saved_s += seconds

    @property
    def size_bytes(self) -> int:
        """Total size of the outputs in memory."""
        return self._index.size_bytes

    @property
    def spilled_bytes(self) -> int:
        """Total size of the outputs on disk."""
        return 0 if self._spill is None else self._spill.size_bytes

    def close(self) -> None:
        """Delete the files on disk. Idempotent."""
        if self._spill is not None:
            self._spill.close()

    def __len__(self) -> int:
        return len(self._outputs)

    def _store(self, key: _Key, output: bytes, cost_s: float) -> None:
        evicted = self._index.add(key, len(output), cost_s)
        self._outputs.pop(key, None)
        if evicted is None:
            if self._spill is not None:
                self._spill.put(key, output, cost_s)
            return
        self._outputs[key] = output
        for evicted_key, evicted_cost_s in evicted:
            self.evictions += 1
            evicted_output = self._outputs.pop(evicted_key)
            if self._spill is not None:
                self._spill.put(evicted_key, evicted_output, evicted_cost_s)


def operators_to_run(
    topological: Sequence[OperatorSpec], names: Sequence[str], is_cached: Callable[[str], bool]
) -> tuple[str, ...]:
    """Return the operators that must run on an item to get the outputs of `names`, in topological order.

    Args:
        topological: all operators of the pipeline, in topological order.
        names: names of the requested operators.
        is_cached: whether an operator's output is cached; called once per operator, and only if its output is needed.
    """
    needed = set(names)
    to_run = []
    for operator in reversed(topological):
        if operator.name in needed and not is_cached(operator.name):
            to_run.append(operator.name)
            needed.update(operator.after)
    return tuple(reversed(to_run))
