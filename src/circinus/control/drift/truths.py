"""Truths of audited items, where and when they arrive."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from circinus.errors import ServingError
from circinus.operators import Item


@dataclass(frozen=True)
class Truth:
    """One that is known, whatever it is."""

    value: Any


class Truths(Protocol):
    """Where truths come from."""

    def find(self, pipeline: str, item_key: str) -> Truth | None:
        """That of an item; None: it is not known yet, or never will be."""
        ...


class DatasetTruths:
    """Of items that a data set has, for traffic that was made of it."""

    def __init__(self, items: Mapping[str, Sequence[Item]]) -> None:
        """Pipeline -> items."""
        self._known = {(name, item.key): item.truth for name, its in items.items() for item in its}

    def find(self, pipeline: str, item_key: str) -> Truth | None:
        """As `Truths.find`."""
        key = pipeline, item_key
        return Truth(self._known[key]) if key in self._known else None


class TruthFile:
    """A file to which somebody adds a line whenever a truth is known: `{"pipeline": .., "item": .., "truth": ..}`."""

    def __init__(self, path: Path, *, most: int = 10_000) -> None:
        """Read it as it grows; it need not be there yet.

        Args:
            path: of the file.
            most: truths that are kept; beyond, the oldest go.
        """
        self._path, self._most = path, most
        self._read_bytes = 0
        self._known: dict[tuple[str, str], Any] = {}

    def find(self, pipeline: str, item_key: str) -> Truth | None:
        """As `Truths.find`.

        Raises:
            ServingError: the file cannot be read, or a line is no such document; what is after it is read next time.
        """
        self._read()
        key = pipeline, item_key
        return Truth(self._known[key]) if key in self._known else None

    def _read(self) -> None:
        try:
            if not self._path.exists() or self._path.stat().st_size == self._read_bytes:
                return
            if self._path.stat().st_size < self._read_bytes:
                self._read_bytes = 0  # it was begun anew
            with self._path.open("rb") as file:
                file.seek(self._read_bytes)
                lines = file.read().splitlines(keepends=True)
        except OSError as error:
            raise ServingError(f"{self._path}: truths cannot be read: {error}") from error
        for line in lines:
            if not line.endswith(b"\n"):
                return  # it is still being written
            self._read_bytes += len(line)
            if line.strip():
                self._learn(line)

    def _learn(self, line: bytes) -> None:
        try:
            found = json.loads(line)
            key, truth = (str(found["pipeline"]), str(found["item"])), found["truth"]
        except (ValueError, KeyError, TypeError) as error:
            shown = line.decode(errors="replace").strip()
            raise ServingError(
                f'{self._path}: found {shown!r}, expected a line {{"pipeline": .., "item": .., "truth": ..}}'
            ) from error
        self._known.pop(key, None)
        self._known[key] = truth
        while len(self._known) > self._most:
            del self._known[next(iter(self._known))]
