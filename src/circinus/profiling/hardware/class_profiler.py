"""Measurement of a profile's operators on a node of another hardware class, limited to what their speeds need."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from circinus.arrays import IntArray
from circinus.operators import Item
from circinus.profiling.budget import TimeBudget
from circinus.profiling.hardware.calibration import CALIBRATION_ITEMS
from circinus.profiling.hardware.class_times import HardwareClassTimes, HardwareClassWriter, OwnKnobs
from circinus.profiling.hardware.machine import Machine
from circinus.profiling.measurement.runner import MeasurementError, OperatorRunner
from circinus.profiling.observer import ProfileObserver, ProfileProgress
from circinus.profiling.profile import ConfigurationProfile, FailedConfiguration, PipelineProfile
from circinus.profiling.store.measurement_keys import MeasurementKeys
from circinus.profiling.store.profile_store import ProfileStore
from circinus.profiling.store.store_queries import StoredDataset
from circinus.specification import Configuration, Pipeline

_INCREMENT = 8
"""Number of items committed at once."""
_MAX_FAILURES = 2
"""Number of configurations under which an operator with its knob values may fail before it is given up on the class."""


@dataclass(frozen=True)
class HardwareClassReport:
    """Result of a run on one hardware class."""

    hardware_class: str
    machine: Machine | None
    """Machine that was measured on; None if none was, and the declared speed applies."""
    ran_s: float = 0.0
    """Processing seconds of this run."""
    missing: int = 0
    """Number of operators with knob values whose speed is declared, not measured: they failed, or the budget was
    spent."""
    failed: tuple[FailedConfiguration, ...] = ()


class HardwareClassProfiler:
    """Profiler of one pipeline's operators on one hardware class, with each of their knob values in a profile."""

    def __init__(
        self,
        store: ProfileStore,
        class_keys: MeasurementKeys,
        hardware_class: str,
        machine: Machine,
        items: Mapping[str, Item],
        dataset: StoredDataset,
        operators: Collection[str],
    ) -> None:
        """Prepare the measurement.

        Args:
            store: store of the measurements.
            class_keys: keys of measurements on the class.
            hardware_class: name of the class.
            machine: machine of the node.
            items: items by key.
            dataset: stored data set.
            operators: operators that may run on the class; others run only if these depend on them.
        """
        self._store, self._class_keys, self._dataset, self._items = store, class_keys, dataset, items
        self._class, self._machine = hardware_class, machine
        self._operators = [o.name for o in class_keys.pipeline.topological_order() if o.name in operators]
        self._writer = HardwareClassWriter(store, class_keys, hardware_class, machine)
        self._failed: dict[Configuration, FailedConfiguration] = {}
        self._failures: Counter[OwnKnobs] = Counter()
        self._ran_s = 0.0

    def missing(self, profile: PipelineProfile) -> dict[OwnKnobs, int]:
        """Return the operators with knob values that remain to be measured, with their number of measured items."""
        configurations = [measured.configuration for measured in profile.usable]
        times = HardwareClassTimes(self._store, self._class_keys, configurations, self._item_ids)
        return _missing(profile.usable, self._operators, times)

    def measure(
        self, profile: PipelineProfile, runner: OperatorRunner, budget: TimeBudget, observer: ProfileObserver
    ) -> bool:
        """Measure the missing operators, the most informative configurations first, until the budget is spent.

        Every increment is committed at once, so that an interrupt loses at most one.

        Returns:
            Whether anything was measured.
        """
        any_measured, start_s = False, budget.elapsed_s
        missing, tried = self.missing(profile), set[Configuration]()
        total = len(missing)
        while budget.remaining_s > 0:
            candidates = [measured for measured in profile.usable if measured.configuration not in tried]
            eligible = [own for own in missing if self._failures[own] < _MAX_FAILURES]
            best = _most_informative(self._class_keys.pipeline, candidates, eligible)
            if best is None:
                break
            measured, operators = best
            tried.add(measured.configuration)
            any_measured |= self._measure(measured, operators, runner, budget, observer)
            missing = self.missing(profile)
            done = total - len(missing)
            expected_s = (budget.elapsed_s - start_s) / max(done, 1) * len(missing)
            observer.progressed(
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

    def report(self, profile: PipelineProfile) -> HardwareClassReport:
        """Return the result so far."""
        return HardwareClassReport(
            self._class, self._machine, self._ran_s, len(self.missing(profile)), tuple(self._failed.values())
        )

    @property
    def _item_ids(self) -> IntArray:
        return self._dataset.item_ids

    def _measure(
        self,
        reference: ConfigurationProfile,
        operators: Sequence[str],
        runner: OperatorRunner,
        budget: TimeBudget,
        observer: ProfileObserver,
    ) -> bool:
        configuration, any_measured = reference.configuration, False
        times = HardwareClassTimes(self._store, self._class_keys, [configuration], self._item_ids)
        class_s = np.stack([times.service_s(name, configuration) for name in operators])
        is_measured = np.asarray(np.isfinite(class_s).all(axis=0))
        missing = [int(index) for index in _compared_items(reference) if not is_measured[index]]
        for begin in range(0, len(missing), _INCREMENT):
            if begin and budget.remaining_s <= 0:
                break
            indexes = missing[begin : begin + _INCREMENT]
            items = [self._items[self._dataset.keys[index]] for index in indexes]
            try:
                measurement = runner.measure_operators(configuration, items, operators)
            except MeasurementError as error:
                self._failed[configuration] = error.failure
                self._failures.update(own for own in _owns(reference) if own[0] in operators)
                observer.failed(error.failure)
                break
            self._writer.measured(configuration, [int(self._item_ids[index]) for index in indexes], measurement)
            self._ran_s += measurement.compute_s
            any_measured = True
        return any_measured


def _owns(profile: ConfigurationProfile) -> set[OwnKnobs]:
    return {(name, profile.configuration[name]) for name in profile.operators}


def _compared_items(profile: ConfigurationProfile) -> Sequence[int]:
    """Return the indexes of the items that a configuration is compared on."""
    return [int(index) for index in profile.items[:CALIBRATION_ITEMS]]


def _missing(
    profiles: Sequence[ConfigurationProfile], operators: Sequence[str], times: HardwareClassTimes
) -> dict[OwnKnobs, int]:
    required: dict[OwnKnobs, int] = {}
    measured: dict[OwnKnobs, set[int]] = {}
    for profile in profiles:
        for name in operators:
            own = name, profile.configuration[name]
            items = _compared_items(profile)
            required[own] = max(required.get(own, 0), len(items))
            class_s = times.service_s(name, profile.configuration)
            measured.setdefault(own, set()).update(index for index in items if np.isfinite(class_s[index]))
    return {own: len(measured[own]) for own, n in required.items() if len(measured[own]) < n}


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
