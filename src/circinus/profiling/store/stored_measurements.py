"""What the store knows of a pipeline's configurations, as arrays in the order of measuring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.profiling.batch_time_ratios import (
    allowed_allocations,
    batch_ratios,
    measured_allocations,
    min_batch_ratio,
)
from circinus.profiling.hardware.class_times import measured_speeds
from circinus.profiling.hardware.machine import DECLARED
from circinus.profiling.interval import Interval
from circinus.profiling.profile import ConfigurationProfile, OperatorProfile
from circinus.profiling.race.latency_screening import critical_path_s
from circinus.profiling.race.resource_usage import ResourceUsage
from circinus.profiling.race.run_confidence import RunConfidence
from circinus.profiling.race.slo_requirements import PipelineSlos
from circinus.profiling.store.measurement_keys import MeasurementKeys
from circinus.profiling.store.profile_store import ProfileStore
from circinus.profiling.store.store_queries import (
    StoredDataset,
    read_allocations,
    read_replicas,
    read_scores,
    read_services,
)
from circinus.specification import Configuration, HardwareClass, KnobValues, OperatorSpec, prefix_configuration

_FOOTPRINT_ITEMS = 8
"""Items that configurations are compared on by what they take; the same for all, so that items make no difference."""


class StoredMeasurements:
    """Everything the store knows of some configurations, read at once, as arrays in the order of measuring."""

    def __init__(
        self,
        store: ProfileStore,
        addresses: MeasurementKeys,
        dataset: StoredDataset,
        listed: Sequence[Configuration],
    ) -> None:
        self._addresses = addresses
        self._pipeline = addresses.pipeline
        self._dataset = dataset
        self.most_items = len(dataset.order) - self._pipeline.dataset.held_out_items(len(dataset.order))
        """Items that may be profiled; what was recorded of the others is not looked at."""
        ordered = dataset.numbers[dataset.order[: self.most_items]]
        operators = [operator.name for operator in self._pipeline.operators]
        services = store.existing_ids([addresses.service(name, c) for c in listed for name in operators])
        self._service_row = {address: row for row, address in enumerate(services)}
        self._service_s, self._output_bytes = read_services(store, list(services.values()), ordered)
        scores = store.existing_ids([addresses.score(c) for c in listed])
        self._score_row = {address: row for row, address in enumerate(scores)}
        self._scores = read_scores(store, list(scores.values()), ordered)
        self._replica = store.existing_ids([addresses.replica(name, c[name]) for c in listed for name in operators])
        self._replicas = read_replicas(store, list(self._replica.values()))
        self._allocations = read_allocations(store, list(self._replica.values()))
        self._speeds = measured_speeds(
            store,
            addresses,
            listed,
            ordered,
            {address: self._service_s[row] for address, row in self._service_row.items()},
        )
        self._operators: dict[tuple[str, int, int], OperatorProfile] = {}

    def measured_prefix(self, configuration: Configuration) -> int:
        """Length of the longest gap-free beginning of the order on which everything is known."""
        services = [self._addresses.service(o.name, configuration) for o in self._pipeline.operators]
        rows = [self._service_row[address] for address in services if address in self._service_row]
        score = self._score_row.get(self._addresses.score(configuration))
        if score is None or len(rows) < len(services):
            return 0
        missing = np.isnan(self._service_s[rows]).any(axis=0) | np.isnan(self._scores[score])
        return int(np.argmax(missing)) if missing.any() else len(missing)

    def scores(self, configuration: Configuration, items: int) -> FloatArray:
        """(items,) scores of the first items."""
        return self._scores[self._score_row[self._addresses.score(configuration)], :items]

    def confidence(self, objectives: PipelineSlos, configurations: int, *, comparing: bool) -> RunConfidence:
        """What bounds mean scores, at the risk of a run over so many configurations."""
        strata = [self._dataset.strata[index] for index in self._dataset.order[: self.most_items]]
        return RunConfidence.of_run(
            self._pipeline.metric,
            strata,
            objectives.risk,
            configurations,
            objectives.latency_percentiles,
            comparing=comparing,
        )

    def profile(self, configuration: Configuration, items: int, accuracy: Interval) -> ConfigurationProfile:
        """The profile of a configuration on the first items."""
        indexes: IntArray = self._dataset.order[:items]
        return ConfigurationProfile(
            configuration=configuration,
            items=indexes,
            scores=self.scores(configuration, items),
            accuracy=accuracy,
            input_bytes=self._dataset.input_bytes[indexes],
            operators={o.name: self._operator(o, configuration, items) for o in self._pipeline.operators},
        )

    def _operator(self, spec: OperatorSpec, configuration: Configuration, items: int) -> OperatorProfile:
        """Configurations that share a prefix, on equally many items, share the very object."""
        row = self._service_row[self._addresses.service(spec.name, configuration)]
        key = spec.name, row, items
        if key not in self._operators:
            self._operators[key] = self._read_operator(spec, configuration, row, items)
        return self._operators[key]

    def _read_operator(self, spec: OperatorSpec, configuration: Configuration, row: int, items: int) -> OperatorProfile:
        number = self._replica[self._addresses.replica(spec.name, configuration[spec.name])]
        replica, measured = self._replicas[number], self._allocations.get(number, {})
        ratios = batch_ratios(allowed_allocations(spec), measured)
        return OperatorProfile(
            operator=spec.name,
            prefix=prefix_configuration(self._pipeline, configuration, spec.name),
            service_s=self._service_s[row, :items],
            output_bytes=self._output_bytes[row, :items],
            peak_memory_bytes=replica.peak_memory_bytes,
            load_s=replica.load_s,
            batch_ratio=ratios,
            measured_allocations=measured_allocations(ratios, measured),
            startup_s=replica.startup_s,
            speeds=self._speeds.get((spec.name, configuration[spec.name]), DECLARED),
        )

    def footprints(
        self, listed: Sequence[Configuration], hardware: Mapping[str, Sequence[HardwareClass]]
    ) -> ResourceUsage:
        """What the first few items take under each configuration, as far as they are known.

        Args:
            listed: the configurations.
            hardware: that each operator may run on; where it has none, nothing is said of how fast it may be.
        """
        operators, most = self._pipeline.operators, min(_FOOTPRINT_ITEMS, self.most_items)
        items = np.array([min(self.measured_prefix(configuration), most) for configuration in listed], dtype=np.int64)
        cpu_s, output_bytes = (np.full((len(listed), len(operators), most), np.nan) for _ in range(2))
        least_service_s, memory_bytes = np.full_like(cpu_s, np.nan), np.full((len(listed), len(operators)), np.nan)
        values: dict[tuple[str, KnobValues], int] = {}
        changes = np.zeros((len(listed), len(operators)), dtype=np.int64)
        for row, configuration in enumerate(listed):
            for column, spec in enumerate(operators):
                own, known = configuration[spec.name], items[row]
                changes[row, column] = values.setdefault((spec.name, own), len(values))
                if known:
                    service = self._service_row[self._addresses.service(spec.name, configuration)]
                    cpu_s[row, column, :known] = self._service_s[service, :known] * min(spec.cpus)
                    output_bytes[row, column, :known] = self._output_bytes[service, :known]
                    number = self._replica[self._addresses.replica(spec.name, own)]
                    memory_bytes[row, column] = self._replicas[number].peak_memory_bytes
                    speeds = self._speeds.get((spec.name, own), DECLARED)
                    fastest = max(map(speeds.guaranteed, hardware.get(spec.name, ())), default=np.inf)
                    factor = min_batch_ratio(spec, self._allocations.get(number, {})) / fastest
                    least_service_s[row, column, :known] = self._service_s[service, :known] * factor
        least_latency_s = critical_path_s(self._pipeline, least_service_s)
        return ResourceUsage(cpu_s, output_bytes, memory_bytes, items, changes, least_latency_s)
