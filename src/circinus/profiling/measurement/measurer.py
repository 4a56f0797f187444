"""Measurement of configurations on items: runs only what is not stored, and commits it at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.operators import Item
from circinus.profiling.dataset.items import Dataset
from circinus.profiling.dataset.scorer import ItemScorer
from circinus.profiling.measurement.runner import AllocationMeasurement, Measurement, NotRecordedError, Runner
from circinus.profiling.profile import FailedConfiguration
from circinus.profiling.store.measurement_keys import MeasurementKeys
from circinus.profiling.store.profile_store import ProfileStore
from circinus.profiling.store.store_queries import coverage, read_services
from circinus.profiling.store.store_writer import StoreWriter
from circinus.profiling.store.stored_outputs import read_outputs
from circinus.specification import Configuration, Pipeline


class Measurer:
    """Runner with a store, for one pipeline and one data set."""

    def __init__(
        self, store: ProfileStore, keys: MeasurementKeys, dataset: Dataset, runner: Runner, scorer: ItemScorer
    ) -> None:
        self._store = store
        self._keys = keys
        self._dataset = dataset
        self._runner = runner
        self._scorer = scorer
        self._content_hash = {item.key: a for item, a in zip(dataset.items, dataset.addresses, strict=True)}
        self._writer = StoreWriter(store, keys, dataset)
        self._item_ids: IntArray = np.array([self._writer.item_ids[a] for a in dataset.addresses], dtype=np.int64)

    def measured_prefix(self, configuration: Configuration, order: IntArray) -> FloatArray:
        """Return (n,) scores of the longest prefix of an order (indexes of items) without a missing measurement."""
        measured, scores = coverage(self._store, self._keys, configuration, self._item_ids[order])
        missing = ~measured | np.isnan(scores)
        return scores[: int(np.argmax(missing))] if missing.any() else scores

    @property
    def pipeline(self) -> Pipeline:
        return self._keys.pipeline

    @property
    def cpus(self) -> float:
        """Number of CPUs available to a measured operator."""
        return self._runner.cpus

    def measure(
        self, configuration: Configuration, indexes: Sequence[int], *, counted: bool = True
    ) -> Measurement | None:
        """Measure a configuration on items, given by index in the data set, and commit it in one transaction.

        Stored items are skipped. If only the score is missing (for another metric), it is computed from the stored
        outputs.

        Args:
            counted: whether the run belongs to profiling, as opposed to recording for a replay.

        Returns:
            The measurement, or None if nothing had to run.

        Raises:
            MeasurementError: an operator or the metric failed; this call has committed nothing but scores and, for a
                `NotRecordedError`, the recorded items.
            ProfileError: a score contradicts the metric's declaration.
        """
        requested = np.asarray(indexes, dtype=np.int64)
        measured, scores = coverage(self._store, self._keys, configuration, self._item_ids[requested])
        self._score(configuration, requested[measured & np.isnan(scores)])
        missing = requested[~measured]
        if not len(missing):
            self._writer.declare([configuration])  # another pipeline may have measured it under other names
            return None
        try:
            return self._measure(configuration, self._items(missing), counted)
        except NotRecordedError as error:
            # Recorded items count, and the end of the recording is no failure of the configuration.
            if error.recorded:
                self._measure(configuration, error.recorded, counted)
            raise

    def measure_allocations(
        self,
        configuration: Configuration,
        operator: str,
        allocations: Sequence[tuple[float, int]],
        indexes: Sequence[int],
    ) -> AllocationMeasurement:
        """Measure allocations of one operator, and commit them.

        Raises:
            MeasurementError: the operator failed under one of them; nothing was committed.
        """
        measurement = self._runner.measure_allocations(configuration, operator, allocations, self._items(indexes))
        self._writer.allocations(operator, configuration[operator], measurement)
        return measurement

    def reached(self, configuration: Configuration, operator: str, indexes: Sequence[int]) -> Sequence[int]:
        """Return the measured items, given by index in the data set, for which an operator ran."""
        if not self.pipeline.has_fan_outs:
            return indexes
        service = self._keys.service(operator, configuration)
        runs = read_services(self._store, [service], self._item_ids[np.asarray(indexes, dtype=np.int64)])[service]
        return [index for index, service_s in zip(indexes, runs.service_s.tolist(), strict=True) if service_s > 0]

    def repeat(self, configuration: Configuration, indexes: Sequence[int], *, counted: bool = True) -> None:
        """Measure a configuration again, where its runs were disturbed; see `store_writer.write_services`.

        Args:
            counted: see `measure`.

        Raises:
            MeasurementError: see `measure`.
        """
        self._measure(configuration, self._items(indexes), counted)

    def record_failure(self, failure: FailedConfiguration) -> None:
        self._writer.failed(failure)

    def register(self, configurations: Sequence[Configuration]) -> None:
        """Commit that the recordings of these configurations match the current code."""
        self._writer.declare(configurations)

    def _measure(self, configuration: Configuration, items: Sequence[Item], counted: bool) -> Measurement:
        measurement = self._runner.measure(configuration, items)
        hashes = [self._content_hash[item.key] for item in items]
        self._writer.measured(configuration, hashes, measurement, counted=counted)
        return measurement

    def _items(self, indexes: Sequence[int] | IntArray) -> list[Item]:
        return [self._dataset.items[i] for i in indexes]

    def _score(self, configuration: Configuration, indexes: IntArray) -> None:
        if not len(indexes):
            return
        outputs = {
            sink: read_outputs(self._store, self._keys.output(sink, configuration), self._item_ids)
            for sink in self._keys.pipeline.sinks()
        }
        items = [self._dataset.items[i] for i in indexes]
        selected = {sink: [by_item[int(i)] for i in indexes] for sink, by_item in outputs.items()}
        scores = self._scorer.scores(configuration, items, selected)
        self._writer.scored(configuration, [self._dataset.addresses[i] for i in indexes], scores)
