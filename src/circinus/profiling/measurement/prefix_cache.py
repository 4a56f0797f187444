"""Cache of operators' outputs by prefix and item, bounded in bytes."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, NamedTuple, TypeVar

from circinus.operators.host import Outputs
from circinus.specification import OperatorSpec
from circinus.specification.dataflow import RunPath, output_scope, scopes

RunOutputs = tuple[tuple[RunPath, Outputs], ...]
"""Path and outputs of each run of an operator for one item, in the order of their paths."""

K = TypeVar("K", bound=Hashable)


class _Entry(NamedTuple):
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

    def add(self, key: K, size_bytes: int, cost_s: float) -> list[K]:
        """Add a key with the seconds to compute its value again, or replace it; return the evicted keys.

        These may include `key` itself, and are `key` alone if the value exceeds the capacity.
        """
        self.remove(key)
        if size_bytes > self.limit_bytes:
            return [key]
        self._insert(key, size_bytes, cost_s)
        self.size_bytes += size_bytes
        evicted = []
        while self.size_bytes > self.limit_bytes:
            credit, serial, victim = heapq.heappop(self._heap)
            if self._serials.get(victim) == serial:
                self._age = credit
                evicted.append(victim)
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


class PrefixCache:
    """Cache of pickled outputs that evicts those with the fewest saved seconds per byte (`GreedyDualSize`).

    The saved seconds of an output are those of its own operator; its inputs have their own.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.hits = 0
        self.misses = 0
        self.evictions = 0
        self._index: GreedyDualSize[tuple[str, str]] = GreedyDualSize(limit_bytes)
        self._outputs: dict[tuple[str, str], RunOutputs] = {}

    def get(self, prefix: str, item: str) -> RunOutputs | None:
        """Return the outputs of a prefix for an item, by content hash and item key, or None."""
        if not self._index.touch((prefix, item)):
            self.misses += 1
            return None
        self.hits += 1
        return self._outputs[prefix, item]

    def put(self, prefix: str, item: str, outputs: RunOutputs, cost_s: float) -> None:
        """Cache outputs that took `cost_s` seconds to compute, unless they exceed the capacity."""
        size_bytes = sum(len(output) for _, its_outputs in outputs for _, output in its_outputs)
        evicted = self._index.add((prefix, item), size_bytes, cost_s)
        self._outputs[prefix, item] = outputs
        for key in evicted:
            del self._outputs[key]
        self.evictions += len(evicted)

    @property
    def size_bytes(self) -> int:
        """Total size of the outputs."""
        return self._index.size_bytes

    def __len__(self) -> int:
        return len(self._outputs)


def operators_to_run(
    topological: Sequence[OperatorSpec], names: Sequence[str], is_cached: Callable[[str], bool]
) -> tuple[str, ...]:
    """Return the operators that must run on an item to get the outputs of `names`, in topological order.

    With an output the lists that it is an element of are needed, too.

    `is_cached` is called once per operator, and only if its output is needed.
    """
    nodes = tuple(operator.flow for operator in topological)
    around = {node.name: output_scope(node, scope) for node, scope in zip(nodes, scopes(nodes).values(), strict=True)}
    needed = set(names).union(*(around[name] for name in names))
    to_run = []
    for node in reversed(nodes):
        if node.name in needed and not is_cached(node.name):
            to_run.append(node.name)
            needed.update(node.parents, *(around[parent] for parent in node.parents))
    return tuple(reversed(to_run))
