"""Which of many kept values to give up first when there is no room for all."""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

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
