"""Sources of ground truth for audited items."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from circinus.errors import CircinusError, ServingError
from circinus.profiling import load_dataset
from circinus.specification import DatasetSpec, Specification
from circinus.specification.json_dump import parse_json


@dataclass(frozen=True)
class GroundTruth:
    """Available ground truth of one item, of any type."""

    value: Any


class GroundTruthSource(Protocol):
    """Source of ground truth."""

    def find(self, pipeline: str, item_key: str) -> GroundTruth | None:
        """Return the ground truth of an item, or None if it is not available."""
        ...


class DatasetGroundTruth:
    """Ground truth of data set items, for traffic generated from the data set: equal keys mean equal items.

    A data set is built when it is first used, and again if its specification changes.
    """

    def __init__(self, current_specification: Callable[[], Specification]) -> None:
        self._current_specification = current_specification
        self._cache: dict[str, tuple[DatasetSpec, Mapping[str, Any]]] = {}

    def find(self, pipeline: str, item_key: str) -> GroundTruth | None:
        """Implement `GroundTruthSource.find`. Blocks while the data set is built.

        Raises:
            ServingError: the data set cannot be built; raised once, and afterwards the pipeline has no ground truth.
        """
        specification = self._current_specification()
        if pipeline not in specification.pipelines:
            return None
        declared = specification.pipelines[pipeline]
        cached = self._cache.get(pipeline)
        if cached is None or cached[0] != declared.dataset:
            self._cache[pipeline] = cached = declared.dataset, {}
            try:
                items = load_dataset(declared, specification.module_paths).items
            except CircinusError as error:
                raise ServingError(
                    f"cannot load the ground truth of the data set: {error}",
                    code="dataset.no_ground_truths",
                    location=f"pipeline {pipeline}",
                ) from error
            self._cache[pipeline] = cached = declared.dataset, {item.key: item.truth for item in items}
        return GroundTruth(cached[1][item_key]) if item_key in cached[1] else None


class ChainedGroundTruth:
    """First available ground truth of several sources."""

    def __init__(self, *sources: GroundTruthSource) -> None:
        self._sources = sources

    def find(self, pipeline: str, item_key: str) -> GroundTruth | None:
        """Implement `GroundTruthSource.find`.

        Raises:
            ServingError: a source failed.
        """
        for source in self._sources:
            result = source.find(pipeline, item_key)
            if result is not None:
                return result
        return None


NO_GROUND_TRUTH = ChainedGroundTruth()
"""Source without any ground truth."""


class GroundTruthFile:
    """File to which another process appends lines of ground truth: `{"pipeline": .., "item": .., "truth": ..}`."""

    def __init__(self, path: Path, *, max_entries: int = 10_000) -> None:
        """Read the file as it grows; it need not exist yet. Beyond `max_entries`, the oldest entries are dropped."""
        self._path, self._max_entries = path, max_entries
        self._offset_bytes = 0
        self._values: dict[tuple[str, str], Any] = {}

    def find(self, pipeline: str, item_key: str) -> GroundTruth | None:
        """Implement `GroundTruthSource.find`.

        Raises:
            ServingError: the file cannot be read or has an invalid line; the next call continues after the line.
        """
        self._read()
        key = pipeline, item_key
        return GroundTruth(self._values[key]) if key in self._values else None

    def _read(self) -> None:
        try:
            if not self._path.exists() or self._path.stat().st_size == self._offset_bytes:
                return
            if self._path.stat().st_size < self._offset_bytes:
                self._offset_bytes = 0  # the file was replaced
            with self._path.open("rb") as file:
                file.seek(self._offset_bytes)
                lines = file.read().splitlines(keepends=True)
        except OSError as error:
            raise ServingError(
                f"cannot read ground truth: {error}", code="ground_truth.unreadable", location=str(self._path)
            ) from error
        for line in lines:
            if not line.endswith(b"\n"):
                return  # incomplete line
            self._offset_bytes += len(line)
            if line.strip():
                self._add(line)

    def _add(self, line: bytes) -> None:
        try:
            document = parse_json(line)
            key, truth = (str(document["pipeline"]), str(document["item"])), document["truth"]
        except (ValueError, KeyError, TypeError) as error:
            text = line.decode(errors="replace").strip()
            raise ServingError(
                f"line {text!r} is not a ground truth",
                code="ground_truth.invalid_line",
                location=str(self._path),
                hint='Write lines like {"pipeline": .., "item": .., "truth": ..}.',
            ) from error
        self._values.pop(key, None)
        self._values[key] = truth
        while len(self._values) > self._max_entries:
            del self._values[next(iter(self._values))]
