"""Measuring a profile's operators on a node of another hardware class: the least that tells how fast they are there."""

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
"""Items that are committed at once."""
_MOST_FAILURES = 2
"""Configurations that an operator with its knobs is tried under before it is taken to fail on the class."""


@dataclass(frozen=True)
class HardwareClassReport:
    """What a run measured on one hardware class."""

    hardware_class: str
    machine: Machine | None
    """The one that was measured on; None: none, the declared speed stands."""
    ran_s: float = 0.0
    """Seconds of processing in this run."""
    missing: int = 0
    """Operators with their knobs whose speed there is declared, not measured: they failed, or the budget ended."""
    failed: tuple[FailedConfiguration, ...] = ()


class HardwareClassProfiler:
    """Measures the operators of one pipeline on one class, each with each of its knob values that a profile has."""

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
        """Prepare.

        Args:
            store: gets what is measured.
            class_keys: addresses of measurements on the class.
            hardware_class: its name.
            machine: that is measured on.
            items: the items by key.
            dataset: as the store knows it.
            operators: those that may run on the class; of the others only what has to run before these.
        """
        self._store, self._there, self._dataset, self._items = store, class_keys, dataset, items
        self._class, self._machine = hardware_class, machine
        self._operators = [o.name for o in class_keys.pipeline.topological_order() if o.name in operators]
        self._writer = HardwareClassWriter(store, class_keys, hardware_class, machine)
        self._failed: dict[Configuration, FailedConfiguration] = {}
        self._failures: Counter[OwnKnobs] = Counter()
        self._ran_s = 0.0

    def missing(self, profile: PipelineProfile) -> dict[OwnKnobs, int]:
        """Operators with their knobs that have to be measured yet -> items known of them."""
        listed = [found.configuration for found in profile.usable]
        times = HardwareClassTimes(self._store, self._there, listed, self._numbers)
        return _wanting(profile.usable, self._operators, times)

    def measure(
        self, profile: PipelineProfile, runner: OperatorRunner, budget: TimeBudget, observer: ProfileObserver
    ) -> bool:
        """Measure what is wanting, the most telling configurations first, until the budget is spent.

        Every increment is committed at once, so that an interrupt loses at most one.

        Returns:
            Whether anything was measured.
        """
        any_measured, begin_s = False, budget.elapsed_s
        wanting, tried = self.missing(profile), set[Configuration]()
        all_of_them = len(wanting)
        while budget.remaining_s > 0:
            candidates = [found for found in profile.usable if found.configuration not in tried]
            hopeful = [own for own in wanting if self._failures[own] < _MOST_FAILURES]
            chosen = _most_telling(self._there.pipeline, candidates, hopeful)
            if chosen is None:
                break
            found, operators = chosen
            tried.add(found.configuration)
            any_measured |= self._measure(found, operators, runner, budget, observer)
            wanting = self.missing(profile)
            done = all_of_them - len(wanting)
            expected_s = (budget.elapsed_s - begin_s) / max(done, 1) * len(wanting)
            observer.progressed(
                ProfileProgress(
                    phase=f"operators on {self._class}",
                    configuration=found.configuration,
                    done=done,
                    total=all_of_them,
                    elapsed_s=budget.elapsed_s,
                    remaining_s=min(budget.remaining_s, expected_s),
                )
            )
        return any_measured

    def report(self, profile: PipelineProfile) -> HardwareClassReport:
        """What was measured until now."""
        return HardwareClassReport(
            self._class, self._machine, self._ran_s, len(self.missing(profile)), tuple(self._failed.values())
        )

    @property
    def _numbers(self) -> IntArray:
        return self._dataset.numbers

    def _measure(
        self,
        found: ConfigurationProfile,
        operators: Sequence[str],
        runner: OperatorRunner,
        budget: TimeBudget,
        observer: ProfileObserver,
    ) -> bool:
        configuration, any_measured = found.configuration, False
        times = HardwareClassTimes(self._store, self._there, [configuration], self._numbers)
        there_s = np.stack([times.service_s(name, configuration) for name in operators])
        known = np.asarray(np.isfinite(there_s).all(axis=0))
        missing = [int(index) for index in _first(found) if not known[index]]
        for begin in range(0, len(missing), _INCREMENT):
            if begin and budget.remaining_s <= 0:
                break
            indexes = missing[begin : begin + _INCREMENT]
            items = [self._items[self._dataset.keys[index]] for index in indexes]
            try:
                measured = runner.measure_operators(configuration, items, operators)
            except MeasurementError as error:
                self._failed[configuration] = error.failure
                self._failures.update(own for own in _owns(found) if own[0] in operators)
                observer.failed(error.failure)
                break
            self._writer.measured(configuration, [int(self._numbers[index]) for index in indexes], measured)
            self._ran_s += measured.compute_s
            any_measured = True
        return any_measured


def _owns(found: ConfigurationProfile) -> set[OwnKnobs]:
    return {(name, found.configuration[name]) for name in found.operators}


def _first(found: ConfigurationProfile) -> Sequence[int]:
    """Indexes of the items that a configuration is compared on."""
    return [int(index) for index in found.items[:CALIBRATION_ITEMS]]


def _wanting(
    profiles: Sequence[ConfigurationProfile], operators: Sequence[str], times: HardwareClassTimes
) -> dict[OwnKnobs, int]:
    most: dict[OwnKnobs, int] = {}
    known: dict[OwnKnobs, set[int]] = {}
    for found in profiles:
        for name in operators:
            own = name, found.configuration[name]
            first = _first(found)
            most[own] = max(most.get(own, 0), len(first))
            there_s = times.service_s(name, found.configuration)
            known.setdefault(own, set()).update(index for index in first if np.isfinite(there_s[index]))
    return {own: len(known[own]) for own, n in most.items() if len(known[own]) < n}


def _most_telling(
    pipeline: Pipeline, profiles: Sequence[ConfigurationProfile], wanting: Collection[OwnKnobs]
) -> tuple[ConfigurationProfile, tuple[str, ...]] | None:
    """The configuration that has most of what is wanting for the seconds it takes, and which operators these are.

    Of those with an operator's knobs at all only such as are known on most items: fewer would have to be done twice.
    """
    best: tuple[float, ConfigurationProfile, tuple[str, ...]] | None = None
    longest: dict[OwnKnobs, int] = {}
    for found in profiles:
        for own in _owns(found) & set(wanting):
            longest[own] = max(longest.get(own, 0), len(_first(found)))
    for found in profiles:
        operators = tuple(
            name
            for name in found.operators
            if (own := (name, found.configuration[name])) in wanting and len(_first(found)) == longest[own]
        )
        if operators:
            worth = len(operators) / max(_seconds(pipeline, found, operators), 1e-9)
            if best is None or worth > best[0]:
                best = worth, found, operators
    return None if best is None else best[1:]


def _seconds(pipeline: Pipeline, found: ConfigurationProfile, operators: Sequence[str]) -> float:
    """Of processing an item until these operators have run, at speed 1."""
    lineages = {name for operator in operators for name in (*pipeline.ancestors(operator), operator)}
    return sum(float(found.operators[name].service_s.mean()) for name in lineages)
