"""Outputs of operators by prefix and item, bounded in bytes."""

from __future__ import annotations

from collections import OrderedDict


class PrefixCache:
    """Keeps packed outputs, the least recently used out first.

    Every output is asked for through `get`, and everything that a run would have had to compute without the cache is
    reported through `saved`, so that the account is exact.
    """

    def __init__(self, limit_bytes: int) -> None:
        """Begin empty; together the outputs take at most `limit_bytes`."""
        self.limit_bytes = limit_bytes
        self.hits = 0
        self.misses = 0
        self.evictions = 0
        self.saved_s = 0.0
        """Seconds of processing that were not needed."""
        self._outputs: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._size_bytes = 0

    def get(self, prefix: str, item: str) -> bytes | None:
        """The output of a prefix for an item, by their addresses."""
        found = self._outputs.get((prefix, item))
        if found is None:
            self.misses += 1
            return None
        self.hits += 1
        self._outputs.move_to_end((prefix, item))
        return found

    def put(self, prefix: str, item: str, output: bytes) -> None:
        """Keep an output. One that is larger than the whole cache is not kept."""
        replaced = self._outputs.pop((prefix, item), None)
        if replaced is not None:
            self._size_bytes -= len(replaced)
        if len(output) > self.limit_bytes:
            return
        self._outputs[prefix, item] = output
        self._size_bytes += len(output)
        while self._size_bytes > self.limit_bytes:
            _, oldest = self._outputs.popitem(last=False)
            self._size_bytes -= len(oldest)
            self.evictions += 1

    def saved(self, seconds: float) -> None:
        """Add processing that a run would have needed without the cache."""
        self.saved_s += seconds

    @property
    def size_bytes(self) -> int:
        """What the outputs take together."""
        return self._size_bytes

    def __len__(self) -> int:
        return len(self._outputs)
