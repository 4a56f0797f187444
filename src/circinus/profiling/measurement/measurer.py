"""Measuring a configuration on items: only what the store lacks, committed at once."""

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
from circinus.profiling.store.store_queries import coverage, read_outputs
from circinus.profiling.store.store_writer import StoreWriter
from circinus.specification import Configuration, Pipeline


class Measurer:
    """Ties a runner to a store, for one pipeline and one data set."""

    def __init__(
        self, store: ProfileStore, addresses: MeasurementKeys, dataset: Dataset, runner: Runner, scorer: ItemScorer
    ) -> None:
        self._store = store
        self._addresses = addresses
        self._dataset = dataset
        self._runner = runner
        self._scorer = scorer
        self._address = {item.key: a for item, a in zip(dataset.items, dataset.addresses, strict=True)}
        self._writer = StoreWriter(store, addresses, dataset)
        self._numbers: IntArray = np.array([self._writer.item_numbers[a] for a in dataset.addresses], dtype=np.int64)

    def known_scores(self, configuration: Configuration) -> FloatArray:
        """(N,) scores of the items, by index in the data set, on which everything is known; NaN elsewhere."""
        measured, scores = coverage(self._store, self._addresses, configuration, self._numbers)
        return np.where(measured, scores, np.nan)

    def measured_prefix(self, configuration: Configuration, order: IntArray) -> FloatArray:
        """(n,) scores of the longest gap-free beginning of an order, indexes of items, on which everything is known."""
        scores = self.known_scores(configuration)[order]
        missing = np.isnan(scores)
        return scores[: int(np.argmax(missing))] if missing.any() else scores

    @property
    def pipeline(self) -> Pipeline:
        """Which one is measured."""
        return self._addresses.pipeline

    @property
    def cpus(self) -> float:
        """CPUs that an operator can be given while it is measured."""
        return self._runner.cpus

    def measure(
        self, configuration: Configuration, indexes: Sequence[int], *, counted: bool = True
    ) -> Measurement | None:
        """Measure a configuration on items, given by index in the data set, and commit it in one transaction.

        Items that are known already are left out. Where only the score is missing (another metric), it is computed
        from the stored outputs.

        Args:
            configuration: what to measure.
            indexes: of the items.
            counted: whether this is part of profiling and not of recording for a replay.

        Returns:
            What ran; None when nothing had to.

        Raises:
            MeasurementError: an operator or the metric failed; nothing of this call was committed but scores and, of
                an `UnrecordedError`, what could be measured.
            ProfileError: a score contradicts the metric's declaration.
        """
        wanted = np.asarray(indexes, dtype=np.int64)
        measured, scores = coverage(self._store, self._addresses, configuration, self._numbers[wanted])
        self._score(configuration, wanted[measured & np.isnan(scores)])
        missing = wanted[~measured]
        if not len(missing):
            self._writer.declare([configuration])  # somebody else may have measured it under other names
            return None
        try:
            return self._measure(configuration, self._items(missing), counted)
        except NotRecordedError as error:
            # What there is of it counts, and that there is no more is no failure of the configuration.
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
        """Measure allocations of one operator and commit them.

        Raises:
            MeasurementError: it failed under one of them; nothing was committed.
        """
        found = self._runner.measure_allocations(configuration, operator, allocations, self._items(indexes))
        self._writer.allocations(operator, configuration[operator], found)
        return found

    def record_failure(self, failure: FailedConfiguration) -> None:
        """Commit that a configuration failed."""
        self._writer.failed(failure)

    def register(self, configurations: Sequence[Configuration]) -> None:
        """Commit that recordings of these configurations are those of the code as it is now."""
        self._writer.declare(configurations)

    def _measure(self, configuration: Configuration, items: Sequence[Item], counted: bool) -> Measurement:
        found = self._runner.measure(configuration, items)
        self._writer.measured(configuration, [self._address[item.key] for item in items], found, counted=counted)
        return found

    def _items(self, indexes: Sequence[int] | IntArray) -> list[Item]:
        return [self._dataset.items[i] for i in indexes]

    def _score(self, configuration: Configuration, indexes: IntArray) -> None:
        if not len(indexes):
            return
        sinks = self._addresses.pipeline.sinks()
        known = self._store.existing_ids([self._addresses.output(sink, configuration) for sink in sinks])
        outputs = {
            sink: read_outputs(self._store, known[self._addresses.output(sink, configuration)], self._numbers)
            for sink in sinks
        }
        scores = [
            self._scorer.score(configuration, self._dataset.items[i], {sink: outputs[sink][int(i)] for sink in sinks})
            for i in indexes
        ]
        self._writer.scored(configuration, [self._dataset.addresses[i] for i in indexes], scores)
