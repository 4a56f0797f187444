"""What the store knows of operators on nodes of hardware classes, and how it compares with a profile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.profiling.hardware import machine as machines
from circinus.profiling.hardware.calibration import median_bounds
from circinus.profiling.hardware.machine import Machine, MeasuredSpeed, Speeds
from circinus.profiling.measurement.runner import OperatorsMeasurement
from circinus.profiling.race.slo_requirements import MIN_ITEMS
from circinus.profiling.store.measurement_keys import LOCAL, MeasurementKeys
from circinus.profiling.store.profile_store import ProfileStore
from circinus.profiling.store.store_queries import read_replicas, read_services
from circinus.profiling.store.store_writer import write_replica, write_services
from circinus.specification import Configuration, KnobValues


class HardwareClassWriter:
    """Writes what was measured of one pipeline on a node of one hardware class."""

    def __init__(self, store: ProfileStore, there: MeasurementKeys, hardware_class: str, machine: Machine) -> None:
        """Write into `store`; from now on the machine is the one that counts for its class."""
        self._store, self._there = store, there
        with store.transaction():
            _write_class_machine(store, hardware_class, machine)

    def measured(self, configuration: Configuration, numbers: Sequence[int], found: OperatorsMeasurement) -> None:
        """Commit one increment; what the store has already of an item stays.

        Args:
            configuration: what was measured.
            numbers: (n,) of the items' addresses.
            found: what was measured on them.
        """
        store, there = self._store, self._there
        with store.transaction():
            services: Mapping[str, str] = {name: there.service(name, configuration) for name in found.runs}
            effort = there.class_effort(configuration)
            ids = store.ids([*services.values(), effort])
            for name, runs in found.runs.items():
                write_services(store, ids[services[name]], numbers, runs)
            for name, facts in found.replicas.items():
                write_replica(store, there.replica(name, configuration[name]), facts)
            store.write(
                "INSERT INTO effort VALUES (?, ?, 0) ON CONFLICT DO UPDATE SET ran_s = ran_s + excluded.ran_s",
                [(ids[effort], found.compute_s)],
            )


def write_profiling_machine(store: ProfileStore, addresses: MeasurementKeys) -> None:
    """Say whether the machine of a profile is a node of a pool, or the one that this process runs on."""
    machine = addresses.machine
    if machine is None or addresses.origin:
        return
    with store.transaction():
        if machine == machines.current_machine():
            store.write("DELETE FROM class_machine WHERE hardware_class = ?", [(LOCAL,)])
        else:
            _write_class_machine(store, LOCAL, machine)


def _write_class_machine(store: ProfileStore, hardware_class: str, machine: Machine) -> None:
    store.write(
        "INSERT OR REPLACE INTO class_machine (hardware_class, cpu_model, cores) VALUES (?, ?, ?)",
        [(hardware_class, machine.cpu_model, machine.cores)],
    )


SPEED_RISK = 0.05
"""With which the speed of any operator of one configuration on one class may lie outside its bounds."""
_SHORTEST_S = 1e-9

OwnKnobs = tuple[str, KnobValues]
"""An operator and its own knob values: what has one speed on a class."""


class HardwareClassTimes:
    """Service times of a pipeline's operators on one class, of some configurations on some items."""

    def __init__(
        self, store: ProfileStore, there: MeasurementKeys, listed: Sequence[Configuration], numbers: IntArray
    ) -> None:
        """Read them.

        Args:
            store: has them.
            there: of measurements on the class.
            listed: the configurations.
            numbers: (items,) of the items' addresses.
        """
        names = [operator.name for operator in there.pipeline.operators]
        services = store.existing_ids([there.service(name, c) for c in listed for name in names])
        self._there, self._items = there, len(numbers)
        self._row = {address: row for row, address in enumerate(services)}
        self._service_s, _ = read_services(store, list(services.values()), numbers)
        replicas = store.existing_ids([there.replica(name, c[name]) for c in listed for name in names])
        startups = {n: found.startup_s for n, found in read_replicas(store, list(replicas.values())).items()}
        self._startup_s = {address: startups.get(number) for address, number in replicas.items()}

    def __bool__(self) -> bool:
        return bool(self._row)

    def service_s(self, operator: str, configuration: Configuration) -> FloatArray:
        """(items,) seconds for each item alone with the fewest CPUs; NaN where it was not measured."""
        row = self._row.get(self._there.service(operator, configuration))
        return np.full(self._items, np.nan) if row is None else self._service_s[row]

    def startup_s(self, operator: str, knobs: KnobValues) -> float | None:
        """Seconds until a replica could take work there; None: none was started."""
        return self._startup_s.get(self._there.replica(operator, knobs))


def class_machines(store: ProfileStore) -> Mapping[str, tuple[Machine, ...]]:
    """Hardware class -> the machines that were measured on as such, the last one first."""
    found: dict[str, tuple[Machine, ...]] = {}
    rows = store.rows("SELECT hardware_class, cpu_model, cores FROM class_machine ORDER BY id DESC")
    for hardware_class, cpu_model, cores in rows:
        found[hardware_class] = (*found.get(hardware_class, ()), Machine(cpu_model, cores))
    return found


def measured_speeds(
    store: ProfileStore,
    addresses: MeasurementKeys,
    listed: Sequence[Configuration],
    numbers: IntArray,
    service_s: Mapping[str, FloatArray],
) -> Mapping[OwnKnobs, Speeds]:
    """Speeds of a profile's operators on the classes that were measured, relative to the profile.

    Of each class the machine counts that was measured on last: two are never mixed. The class of the profile itself
    has speed 1.

    Args:
        store: has the measurements.
        addresses: of the profile.
        listed: its configurations.
        numbers: (items,) of the items' addresses, in the order of measuring.
        service_s: address of the profile's service -> (items,) seconds; NaN where it was not measured.
    """
    found: dict[OwnKnobs, dict[str, MeasuredSpeed]] = {}
    for hardware_class, machines in class_machines(store).items():
        if hardware_class == LOCAL:
            continue
        for machine in machines:
            times = HardwareClassTimes(store, addresses.for_hardware_class(hardware_class, machine), listed, numbers)
            if times:
                for own, speed in _speeds(times, addresses, listed, service_s).items():
                    found.setdefault(own, {})[hardware_class] = speed
                break
    return {own: Speeds(by_class) for own, by_class in found.items()}


def _speeds(
    times: HardwareClassTimes,
    addresses: MeasurementKeys,
    listed: Sequence[Configuration],
    service_s: Mapping[str, FloatArray],
) -> Mapping[OwnKnobs, MeasuredSpeed]:
    logs: dict[OwnKnobs, dict[str, FloatArray]] = {}
    for configuration in listed:
        for operator in addresses.pipeline.operators:
            address = addresses.service(operator.name, configuration)
            by_prefix = logs.setdefault((operator.name, configuration[operator.name]), {})
            if address in by_prefix or address not in service_s:
                continue
            here_s, there_s = service_s[address], times.service_s(operator.name, configuration)
            by_prefix[address] = np.log(np.maximum(here_s, _SHORTEST_S)) - np.log(np.maximum(there_s, _SHORTEST_S))
    risk = SPEED_RISK / len(addresses.pipeline.operators)
    found = {}
    for own, by_prefix in logs.items():
        ratios = _by_item(list(by_prefix.values()))
        least = min(MIN_ITEMS, times.service_s(own[0], listed[0]).size)
        if len(ratios) >= least > 0:
            found[own] = MeasuredSpeed(median_bounds(ratios, risk), len(ratios), times.startup_s(*own))
    return found


def _by_item(logs: Sequence[FloatArray]) -> FloatArray:
    """(n,) ratios of the items that any prefix was measured on in both places: an item counts once, however often."""
    if not logs:
        return np.zeros(0)
    table = np.stack(logs)
    known = np.isfinite(table)
    counts = known.sum(axis=0)
    sums = np.where(known, table, 0.0).sum(axis=0)
    return np.asarray(np.exp(sums[counts > 0] / counts[counts > 0]))
