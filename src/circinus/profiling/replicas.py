"""Loaded operators, kept while they fit in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from circinus.profiling.memory import available_bytes
from circinus.profiling.replica import OperatorProcess, OperatorProcessKey

_MEMORY_SHARE = 0.5


class OperatorProcessPool:
    """Replicas by key; the least recently used are closed when together they take too much memory."""

    def __init__(
        self, load: Callable[[OperatorProcessKey], OperatorProcess], memory_limit_bytes: float | None = None
    ) -> None:
        """Begin with none.

        Args:
            load: makes a replica.
            memory_limit_bytes: resident memory that all may take together, one in use excepted; by default half of
                what the machine has available now.
        """
        self._load = load
        self._limit_bytes = memory_limit_bytes if memory_limit_bytes is not None else _MEMORY_SHARE * available_bytes()
        self._loaded: OrderedDict[OperatorProcessKey, OperatorProcess] = OrderedDict()

    def get(self, key: OperatorProcessKey) -> OperatorProcess:
        """The replica, loaded if it is not. Others may be closed to make room for it.

        Raises:
            ReplicaError: it cannot be loaded.
        """
        present = self._loaded.get(key)
        if present is not None:
            self._loaded.move_to_end(key)
            return present
        replica = self._load(key)
        self._loaded[key] = replica
        self._make_room()
        return replica

    def discard(self, key: OperatorProcessKey) -> None:
        """Close a replica that failed: what it is in now is unknown."""
        replica = self._loaded.pop(key, None)
        if replica is not None:
            replica.close()

    def close(self) -> None:
        """Close all."""
        for key in list(self._loaded):
            self.discard(key)

    def __len__(self) -> int:
        return len(self._loaded)

    def _make_room(self) -> None:
        taken = {key: replica.memory_bytes() for key, replica in self._loaded.items()}
        while len(self._loaded) > 1 and sum(taken.values()) > self._limit_bytes:
            oldest = next(iter(self._loaded))
            self.discard(oldest)
            del taken[oldest]
