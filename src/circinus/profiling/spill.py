"""A bounded folder of outputs that memory has no room for."""

from __future__ import annotations

import tempfile
from pathlib import Path

from circinus.profiling.greedy_dual import GreedyDualSize

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
