"""Truths of audited items, where and when they arrive."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from circinus.errors import CircinusError, ServingError
from circinus.profiling import load_dataset
from circinus.specification import DatasetSpec, Specification


@dataclass(frozen=True)
class GroundTruth:
    """One that is known, whatever it is."""

    value: Any


class GroundTruthSource(Protocol):
    """Where truths come from."""

    def find(self, pipeline: str, item_key: str) -> GroundTruth | None:
        """That of an item; None: it is not known yet, or never will be."""
        ...


class DatasetGroundTruth:
    """Of items that a data set has, for traffic that is made of it: whatever has the key of an item is that item.

    A data set is built when the first truth of it is asked for, and again where another is specified.
    """

    def __init__(self, specified: Callable[[], Specification]) -> None:
        """None is built yet.

        Args:
            specified: the specification as it is now.
        """
        self._specified = specified
        self._known: dict[str, tuple[DatasetSpec, Mapping[str, Any]]] = {}

    def find(self, pipeline: str, item_key: str) -> GroundTruth | None:
        """As `Truths.find`. Blocks while the data set is built.

        Raises:
            ServingError: it cannot be built; said once, and nothing is known of it from then on.
        """
        specification = self._specified()
        if pipeline not in specification.pipelines:
            return None
        specified = specification.pipelines[pipeline]
        known = self._known.get(pipeline)
        if known is None or known[0] != specified.dataset:
            self._known[pipeline] = known = specified.dataset, {}
            try:
                items = load_dataset(specified, specification.module_paths).items
            except CircinusError as error:
                raise ServingError(
                    f"the ground truths of the data set cannot be loaded: {error}",
                    code="dataset.no_ground_truths",
                    location=f"pipeline {pipeline}",
                ) from error
            self._known[pipeline] = known = specified.dataset, {item.key: item.truth for item in items}
        return GroundTruth(known[1][item_key]) if item_key in known[1] else None


class ChainedGroundTruth:
    """Of several sources, the first that knows one."""

    def __init__(self, *sources: GroundTruthSource) -> None:
        """In the order in which they are asked."""
        self._sources = sources

    def find(self, pipeline: str, item_key: str) -> GroundTruth | None:
        """As `Truths.find`.

        Raises:
            ServingError: as of the sources.
        """
        for source in self._sources:
            found = source.find(pipeline, item_key)
            if found is not None:
                return found
        return None


class GroundTruthFile:
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

    def find(self, pipeline: str, item_key: str) -> GroundTruth | None:
        """As `Truths.find`.

        Raises:
            ServingError: the file cannot be read, or a line is no such document; what is after it is read next time.
        """
        self._read()
        key = pipeline, item_key
        return GroundTruth(self._known[key]) if key in self._known else None

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
            raise ServingError(
                f"ground truths cannot be read: {error}", code="ground_truth.unreadable", location=str(self._path)
            ) from error
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
                f'found {shown!r}, expected a line {{"pipeline": .., "item": .., "truth": ..}}',
                code="ground_truth.invalid_line",
                location=str(self._path),
            ) from error
        self._known.pop(key, None)
        self._known[key] = truth
        while len(self._known) > self._most:
            del self._known[next(iter(self._known))]
