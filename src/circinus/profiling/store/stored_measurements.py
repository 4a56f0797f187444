"""Stored measurements of a pipeline's configurations, as arrays in measurement order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TypeVar

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.profiling.batch_time_ratios import min_batch_ratio
from circinus.profiling.hardware.class_times import measured_speeds
from circinus.profiling.hardware.machine import DECLARED, Speeds
from circinus.profiling.item_runs import ItemRuns, mean_element_s, runs_of_items
from circinus.profiling.profile import ConfigurationProfile, OperatorProfile, runs_by_item, waited_shares
from circinus.profiling.race.configuration_order import max_measured_configurations
from circinus.profiling.race.resource_usage import ResourceUsage, critical_path_s
from circinus.profiling.race.run_confidence import RunConfidence
from circinus.profiling.race.slo_requirements import PipelineSlos
from circinus.profiling.settings import PROFILING
from circinus.profiling.store.measurement_keys import MeasurementKeys
from circinus.profiling.store.profile_store import ProfileStore
from circinus.profiling.store.store_queries import (
    StoredDataset,
    read_item_runs,
    read_replicas,
    read_run_times,
    read_scores,
    read_services,
)
from circinus.specification import Configuration, HardwareClass, KnobValues, OperatorSpec, prefix_configuration
from circinus.statistics.interval import Interval

_Measurement = TypeVar("_Measurement")


class StoredMeasurements:
    """All stored measurements of some configurations, read at once, as arrays in measurement order."""

    def __init__(
        self,
        store: ProfileStore,
        keys: MeasurementKeys,
        dataset: StoredDataset,
        configurations: Sequence[Configuration],
        max_items: int | None = None,
    ) -> None:
        """Read the measurements of the first `max_items` profiling items, by default of all, and speeds on these."""
        self._keys = keys
        self._pipeline = keys.pipeline
        self._dataset = dataset
        ordered = dataset.item_ids[dataset.profiling_items(self._pipeline)][:max_items]
        self.max_items = len(ordered)
        """Number of profiling items; recordings of held-out items are ignored."""
        operators = [operator.name for operator in self._pipeline.operators]
        self._runs = read_services(
            store, (keys.service(name, c) for c in configurations for name in operators), ordered
        )
        self._store, self._ordered = store, ordered
        self._scores = read_scores(store, map(keys.score, configurations), ordered)
        self._replicas = read_replicas(
            store, (keys.replica(name, c[name]) for c in configurations for name in operators)
        )
        service_s = {content_hash: runs.service_s for content_hash, runs in self._runs.items()}
        self._speeds = measured_speeds(store, keys, configurations, ordered, service_s)
        self._operators: dict[tuple[str, str, int], OperatorProfile] = {}

    @cached_property
    def _run_times(self) -> Mapping[str, FloatArray]:
        return read_run_times(self._store, self._runs, self._ordered)  # resource usage does without them

    @cached_property
    def _item_runs(self) -> Mapping[str, Mapping[int, ItemRuns]]:
        if not self._pipeline.has_fan_outs:
            return {}
        return read_item_runs(self._store, self._runs, self._ordered)

    def measured_prefix(self, configuration: Configuration) -> int:
        """Return the length of the longest prefix of the order without a missing measurement."""
        runs = [self._runs.get(self._keys.service(o.name, configuration)) for o in self._pipeline.operators]
        missing = np.isnan(self._scores.get(self._keys.score(configuration), np.full(self.max_items, np.nan)))
        for its_runs in runs:
            missing |= True if its_runs is None else np.isnan(its_runs.service_s)
        return int(np.argmax(missing)) if missing.any() else len(missing)

    def scores(self, configuration: Configuration, items: int) -> FloatArray:
        return self._scores[self._keys.score(configuration)][:items]

    def profile(self, configuration: Configuration, items: int, accuracy: Interval) -> ConfigurationProfile:
        indexes: IntArray = self._dataset.order[:items]
        return ConfigurationProfile(
            configuration=configuration,
            items=indexes,
            scores=self.scores(configuration, items),
            accuracy=accuracy,
            input_bytes=self._dataset.input_bytes[indexes],
            operators={o.name: self._operator(o, configuration, items) for o in self._pipeline.operators},
        )

    def _stored(self, measurements: Mapping[str, _Measurement], content_hash: str) -> _Measurement:
        """Return what the store has for a content hash.

        Raises:
            ProfileError: it has nothing, though it has other measurements of the same runs.
        """
        if content_hash not in measurements:
            raise self._store.damaged(f"measurements with the content hash {content_hash} are missing")
        return measurements[content_hash]

    def _operator(self, spec: OperatorSpec, configuration: Configuration, items: int) -> OperatorProfile:
        """Return the profile of an operator, shared by configurations with the same prefix and number of items."""
        key = spec.name, self._keys.service(spec.name, configuration), items
        if key not in self._operators:
            self._operators[key] = self._read_operator(spec, configuration, items)
        return self._operators[key]

    def _read_operator(self, spec: OperatorSpec, configuration: Configuration, items: int) -> OperatorProfile:
        runs = self._stored(self._runs, self._keys.service(spec.name, configuration))
        replica = self._stored(self._replicas, self._keys.replica(spec.name, configuration[spec.name]))
        prefix = prefix_configuration(self._pipeline, configuration, spec.name)
        speeds = self._speeds.get((spec.name, configuration[spec.name]), DECLARED)
        seconds = self._stored(self._run_times, self._keys.service(spec.name, configuration))[:, :items]
        waited_share, worker_waited_share = waited_shares(seconds)
        content_hash = self._keys.service(spec.name, configuration)
        several = self._item_runs.get(content_hash)
        unloaded = OperatorProfile(
            *(spec.name, prefix, runs.service_s[:items], runs.output_bytes[:items], np.nan, np.nan, {}),
            speeds=speeds,
            waited_share=waited_share,
            worker_waited_share=worker_waited_share,
            runs=None if several is None else runs_of_items(several, runs.service_s[:items], runs.output_bytes[:items]),
        )
        return unloaded.with_replica(spec, replica)

    def resource_usage(
        self, configurations: Sequence[Configuration], hardware: Mapping[str, Sequence[HardwareClass]]
    ) -> ResourceUsage:
        """Return the resource usage of each configuration on the first few items, as far as measured.

        Without eligible hardware classes, the speed of an operator is unbounded.
        """
        operators, max_items = self._pipeline.operators, min(PROFILING.usage_items, self.max_items)
        items = np.array(
            [min(self.measured_prefix(configuration), max_items) for configuration in configurations], dtype=np.int64
        )
        cpu_s, output_bytes = (np.full((len(configurations), len(operators), max_items), np.nan) for _ in range(2))
        min_service_s = np.full_like(cpu_s, np.nan)
        memory_bytes, gpu_bytes = (np.full((len(configurations), len(operators)), np.nan) for _ in range(2))
        values: dict[tuple[str, KnobValues], int] = {}
        knob_ids = np.zeros((len(configurations), len(operators)), dtype=np.int64)
        for row, configuration in enumerate(configurations):
            element_s = self._element_s(configuration, int(items[row])) if items[row] else {}
            for column, spec in enumerate(operators):
                own, n = configuration[spec.name], items[row]
                knob_ids[row, column] = values.setdefault((spec.name, own), len(values))
                if n:
                    runs = self._stored(self._runs, self._keys.service(spec.name, configuration))
                    cpu_s[row, column, :n] = runs.service_s[:n] * min(spec.cpus)
                    output_bytes[row, column, :n] = runs.output_bytes[:n]
                    replica = self._stored(self._replicas, self._keys.replica(spec.name, own))
                    memory_bytes[row, column] = replica.peak_memory_bytes
                    gpu_bytes[row, column] = spec.replica_gpu_memory_bytes(own.as_dict())
                    speeds = self._speeds.get((spec.name, own), DECLARED)
                    ratio = min_batch_ratio(spec, replica.batch_ratio)
                    factor = min((_min_factor(speeds, ratio, h) for h in hardware.get(spec.name, ())), default=0.0)
                    min_service_s[row, column, :n] = element_s.get(spec.name, runs.service_s[:n]) * factor
        min_latency_s = critical_path_s(self._pipeline, min_service_s)
        return ResourceUsage(
            cpu_s, output_bytes, memory_bytes, items, knob_ids, min_latency_s, gpu_memory_bytes=gpu_bytes
        )

    def _element_s(self, configuration: Configuration, items: int) -> Mapping[str, FloatArray]:
        """Return (items,) seconds of each operator for a random element of an item; empty if none has elements."""
        if not self._item_runs:
            return {}
        profiles = {o.name: self._operator(o, configuration, items) for o in self._pipeline.operators}
        nodes = [operator.flow for operator in self._pipeline.topological_order()]
        rows = [mean_element_s(nodes, item) for item in runs_by_item(profiles)]
        return {name: np.array([row[name] for row in rows]) for name in profiles}


def _min_factor(speeds: Speeds, min_ratio: float, hardware: HardwareClass) -> float:
    """Return the shortest time of a batch on `hardware` over that of an item of the profile.

    Args:
        min_ratio: smallest batch time ratio where those of the profile apply.
    """
    batches = speeds.batches(hardware)
    return (min_ratio if batches is None else min(batches.ratio.values())) / speeds.guaranteed(hardware)


def run_confidence(
    keys: MeasurementKeys, dataset: StoredDataset, slos: PipelineSlos, configurations: int, *, with_references: bool
) -> RunConfidence:
    """Return the bounds of mean scores, at the risk of a run that has measured this many configurations."""
    pipeline = keys.pipeline
    return RunConfidence.of_run(
        pipeline.metric,
        [dataset.strata[index] for index in dataset.profiling_items(pipeline)],
        slos.risk,
        max(max_measured_configurations(pipeline), configurations),  # concurrent runs may exceed the maximum
        slos.latency_percentiles,
        with_references=with_references,
        population=pipeline.dataset.population,
    )
