"""Measurement of a profile's operators on a node of another hardware class, limited to what their speeds need."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import numpy as np

from circinus.arrays import IntArray
from circinus.profiling.dataset.items import Dataset
from circinus.profiling.hardware.class_times import HardwareClassTimes, OwnKnobs, write_class_machine
from circinus.profiling.hardware.machine import Machine
from circinus.profiling.measurement.runner import (
    MeasurementError,
    NodeLostError,
    OperatorRunner,
    OperatorsMeasurement,
)
from circinus.profiling.observer import ProfileObserver, ProfileProgress, TimeBudget
from circinus.profiling.profile import ConfigurationProfile, HardwareClassReport, PipelineProfile
from circinus.profiling.race.slo_requirements import operator_hardware
from circinus.profiling.settings import PROFILING
from circinus.profiling.store.measurement_keys import LOCAL, MeasurementKeys
from circinus.profiling.store.profile_store import ProfileStore
from circinus.profiling.store.store_writer import write_effort, write_replica, write_services
from circinus.specification import Configuration, Pipeline, Specification


class HardwareClassBackend(Protocol):
    """Measurement backend on a node of one hardware class."""

    @property
    def machine(self) -> Machine: ...

    def operator_runner(self, keys: MeasurementKeys, *, timeout_s: float) -> AbstractContextManager[OperatorRunner]:
        """Return the runner on the node. An operator that takes longer than `timeout_s` fails."""
        ...


class HardwareClassProfiler:
    """Profiler of one pipeline's operators on one hardware class, with each of their knob values in a profile.

    Every increment is committed at once, so that an interrupt loses at most one. Stored measurements are reused.
    """

    def __init__(
        self,
        store: ProfileStore,
        keys: MeasurementKeys,
        hardware_class: str,
        backend: HardwareClassBackend,
        dataset: Dataset,
        item_ids: IntArray,
        operators: Collection[str],
        timeout_s: float,
        budget: TimeBudget,
        observer: ProfileObserver,
        *,
        skip_lost_nodes: bool,
        earlier: HardwareClassReport | None = None,
    ) -> None:
        """Prepare the measurement; from now on the machine of the node determines the speeds of its class.

        `operators` may run on the class; others run only if these depend on them. Failures of an earlier part of the
        run are not tried again.
        """
        self._store, self._dataset, self._item_ids = store, dataset, item_ids
        self._class, self._backend, self._timeout_s = hardware_class, backend, timeout_s
        self._budget, self._observer, self._skip_lost_nodes = budget, observer, skip_lost_nodes
        self._class_keys = keys.for_hardware_class(hardware_class, backend.machine)
        self._operators = [o.name for o in keys.pipeline.topological_order() if o.name in operators]
        self._failed = {} if earlier is None else {failure.configuration: failure for failure in earlier.failed}
        self._failures: Counter[OwnKnobs] = Counter()
        self._ran_s, self._is_lost = 0.0 if earlier is None else earlier.ran_s, False
        with store.transaction():
            write_class_machine(store, hardware_class, backend.machine)

    def measure(self, profile: PipelineProfile) -> bool:
        """Measure what is missing, as far as the budget allows, and return whether anything was measured.

        Raises:
            NodeLostError: the last node of the class was lost, unless such classes are to be skipped.
        """
        missing = self._missing(profile)
        if self._is_lost or not missing or self._budget.remaining_s <= 0:
            return False
        try:
            with self._backend.operator_runner(self._class_keys, timeout_s=self._timeout_s) as runner:
                return self._measure_missing(profile, missing, runner)
        except NodeLostError:
            if not self._skip_lost_nodes:
                raise
            self._is_lost = True
            return False

    def report(self, profile: PipelineProfile) -> HardwareClassReport:
        """Return the result so far."""
        missing = len(self._missing(profile))
        return HardwareClassReport(
            self._class, self._backend.machine, self._ran_s, missing, tuple(self._failed.values())
        )

    def _measure_missing(self, profile: PipelineProfile, missing: Collection[OwnKnobs], runner: OperatorRunner) -> bool:
        """Measure the most informative configurations first."""
        budget = self._budget
        any_measured, start_s = False, budget.elapsed_s
        total, tried = len(missing), set(self._failed)
        while budget.remaining_s > 0:
            candidates = [measured for measured in profile.usable if measured.configuration not in tried]
            eligible = [own for own in missing if self._failures[own] < PROFILING.max_failures]
            best = _most_informative(self._class_keys.pipeline, candidates, eligible)
            if best is None:
                break
            measured, operators = best
            tried.add(measured.configuration)
            any_measured |= self._measure(measured, operators, runner)
            missing = self._missing(profile)
            done = total - len(missing)
            expected_s = (budget.elapsed_s - start_s) / max(done, 1) * len(missing)
            self._observer.progressed(
                ProfileProgress(
                    phase=f"operators on {self._class}",
                    configuration=measured.configuration,
                    done=done,
                    total=total,
                    elapsed_s=budget.elapsed_s,
                    remaining_s=min(budget.remaining_s, expected_s),
                )
            )
        return any_measured

    def _missing(self, profile: PipelineProfile) -> Collection[OwnKnobs]:
        """Return the operators with knob values that are measured on too few items."""
        configurations = [measured.configuration for measured in profile.usable]
        times = HardwareClassTimes(self._store, self._class_keys, configurations, self._item_ids)
        required: dict[OwnKnobs, int] = {}
        measured_items: dict[OwnKnobs, set[int]] = {}
        for measured in profile.usable:
            items = _compared_items(measured)
            for name in self._operators:
                own = name, measured.configuration[name]
                required[own] = max(required.get(own, 0), len(items))
                class_s = times.service_s(name, measured.configuration)
                measured_items.setdefault(own, set()).update(index for index in items if np.isfinite(class_s[index]))
        return [own for own, items in required.items() if len(measured_items[own]) < items]

    def _measure(self, reference: ConfigurationProfile, operators: Sequence[str], runner: OperatorRunner) -> bool:
        configuration, any_measured = reference.configuration, False
        times = HardwareClassTimes(self._store, self._class_keys, [configuration], self._item_ids)
        class_s = np.stack([times.service_s(name, configuration) for name in operators])
        is_measured = np.asarray(np.isfinite(class_s).all(axis=0))
        missing = [index for index in _compared_items(reference) if not is_measured[index]]
        for begin in range(0, len(missing), PROFILING.increment):
            if begin and self._budget.remaining_s <= 0:
                break
            indexes = missing[begin : begin + PROFILING.increment]
            items = [self._dataset.items[index] for index in indexes]
            try:
                measurement = runner.measure_operators(configuration, items, operators)
            except MeasurementError as error:
                self._failed[configuration] = error.failure
                self._failures.update(own for own in _owns(reference) if own[0] in operators)
                self._observer.failed(error.failure)
                break
            self._commit(configuration, self._item_ids[indexes].tolist(), measurement)
            self._ran_s += measurement.compute_s
            any_measured = True
        return any_measured

    def _commit(self, configuration: Configuration, item_ids: Sequence[int], measurement: OperatorsMeasurement) -> None:
        """Store one increment; values stored before are retained."""
        store, class_keys = self._store, self._class_keys
        with store.transaction():
            services = {name: class_keys.service(name, configuration) for name in measurement.runs}
            effort = class_keys.class_effort(configuration)
            ids = store.ids([*services.values(), effort])
            for name, runs in measurement.runs.items():
                write_services(store, ids[services[name]], item_ids, runs)
            for name, facts in measurement.replicas.items():
                write_replica(store, class_keys.replica(name, configuration[name]), facts)
            write_effort(store, ids[effort], measurement.compute_s)


def operators_by_class(specification: Specification, pipeline_name: str) -> dict[str, list[str]]:
    """Return the operators that may run on each hardware class, by its name."""
    by_class: dict[str, list[str]] = {}
    for operator, classes in operator_hardware(specification, pipeline_name).items():
        for hardware in classes:
            by_class.setdefault(hardware.name, []).append(operator)
    return {name: list(dict.fromkeys(operators)) for name, operators in by_class.items()}


def classes_with_declared_speed(profile: PipelineProfile, specification: Specification) -> tuple[str, ...]:
    """Return the hardware classes on which some operator of a profile may run with a declared speed only."""
    classes = []
    for name, operators in operators_by_class(specification, profile.pipeline).items():
        measured = [c.operators[operator].speeds.measured for c in profile.usable for operator in operators]
        all_measured = bool(measured) and all(name in speeds for speeds in measured)
        if not (profile.on_pool if name == LOCAL else all_measured):
            classes.append(name)
    return tuple(classes)


def _owns(profile: ConfigurationProfile) -> set[OwnKnobs]:
    return {(name, profile.configuration[name]) for name in profile.operators}


def _compared_items(profile: ConfigurationProfile) -> Sequence[int]:
    """Return the indexes of the items that a configuration is compared on."""
    return [int(index) for index in profile.items[: PROFILING.calibration_items]]


def _most_informative(
    pipeline: Pipeline, profiles: Sequence[ConfigurationProfile], missing: Collection[OwnKnobs]
) -> tuple[ConfigurationProfile, tuple[str, ...]] | None:
    """Return the configuration with the most missing operators per second of processing, and these operators.

    For each operator only configurations with the most items are eligible: fewer items would have to be measured twice.
    """
    best: tuple[float, ConfigurationProfile, tuple[str, ...]] | None = None
    longest: dict[OwnKnobs, int] = {}
    for profile in profiles:
        for own in _owns(profile) & set(missing):
            longest[own] = max(longest.get(own, 0), len(_compared_items(profile)))
    for profile in profiles:
        operators = tuple(
            name
            for name in profile.operators
            if (own := (name, profile.configuration[name])) in missing and len(_compared_items(profile)) == longest[own]
        )
        if operators:
            value = len(operators) / max(_seconds(pipeline, profile, operators), 1e-9)
            if best is None or value > best[0]:
                best = value, profile, operators
    return None if best is None else best[1:]


def _seconds(pipeline: Pipeline, profile: ConfigurationProfile, operators: Sequence[str]) -> float:
    """Return the seconds of processing an item until these operators have run, at speed 1."""
    lineages = {name for operator in operators for name in (*pipeline.ancestors(operator), operator)}
    return sum(float(profile.operators[name].service_s.mean()) for name in lineages)
