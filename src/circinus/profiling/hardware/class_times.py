"""Stored service times on hardware classes, measured on nodes or imported, and the speeds that follow from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.profiling.batch_time_ratios import allowed_allocations, bounded_batch_times_s
from circinus.profiling.hardware import machine as machine_module
from circinus.profiling.hardware.machine import ClassBatchRatios, Machine, MeasuredSpeed, Speeds
from circinus.profiling.race.slo_requirements import MIN_ITEMS
from circinus.profiling.settings import PROFILING
from circinus.profiling.store.imported_times import ImportedTime, read_imported_times
from circinus.profiling.store.measurement_keys import LOCAL, MeasurementKeys
from circinus.profiling.store.profile_store import ProfileStore
from circinus.profiling.store.store_queries import read_item_runs, read_replicas, read_services
from circinus.specification import Configuration, KnobValues
from circinus.statistics.counts import median_bounds
from circinus.statistics.interval import Interval


def write_profiling_machine(store: ProfileStore, keys: MeasurementKeys) -> None:
    """Store whether the machine of a profile is a node of a pool or the one that this process runs on."""
    machine = keys.machine
    if machine is None or keys.origin:
        return
    with store.transaction():
        if machine == machine_module.current_machine():
            store.write("DELETE FROM class_machine WHERE hardware_class = ?", [(LOCAL,)])
        else:
            write_class_machine(store, LOCAL, machine)


def write_class_machine(store: ProfileStore, hardware_class: str, machine: Machine) -> None:
    """Store the machine that was measured last on a hardware class."""
    store.write(
        "INSERT OR REPLACE INTO class_machine (hardware_class, cpu_model, cores) VALUES (?, ?, ?)",
        [(hardware_class, machine.cpu_model, machine.cores)],
    )


_MIN_S = 1e-9

OwnKnobs = tuple[str, KnobValues]
"""Operator with its own knob values, which determine its speed on a class."""


class HardwareClassTimes:
    """Service times of a pipeline's operators on one class, for some configurations and items."""

    def __init__(
        self,
        store: ProfileStore,
        class_keys: MeasurementKeys,
        configurations: Sequence[Configuration],
        item_ids: IntArray,
    ) -> None:
        """Read the service times; `item_ids` is (items,)."""
        names = [operator.name for operator in class_keys.pipeline.operators]
        self._class_keys, self._items = class_keys, len(item_ids)
        self._runs = read_services(store, (class_keys.service(n, c) for c in configurations for n in names), item_ids)
        self._replicas = read_replicas(store, (class_keys.replica(n, c[n]) for c in configurations for n in names))

    def __bool__(self) -> bool:
        return bool(self._runs)

    def service_s(self, operator: str, configuration: Configuration) -> FloatArray:
        """Return (items,) service times of unbatched items on the fewest CPUs; NaN if not measured."""
        runs = self._runs.get(self._class_keys.service(operator, configuration))
        return np.full(self._items, np.nan) if runs is None else runs.service_s

    def startup_s(self, operator: str, knobs: KnobValues) -> float | None:
        """Return the start-up time of a replica on the class, or None if none was started."""
        replica = self._replicas.get(self._class_keys.replica(operator, knobs))
        return None if replica is None else replica.startup_s


def class_machines(store: ProfileStore) -> Mapping[str, tuple[Machine, ...]]:
    """Return the measured machines of each hardware class, the last one first."""
    machines: dict[str, tuple[Machine, ...]] = {}
    rows = store.rows("SELECT hardware_class, cpu_model, cores FROM class_machine ORDER BY id DESC")
    for hardware_class, cpu_model, cores in rows:
        machines[hardware_class] = (*machines.get(hardware_class, ()), Machine(cpu_model, cores))
    return machines


def measured_speeds(
    store: ProfileStore,
    keys: MeasurementKeys,
    enumerated: Sequence[Configuration],
    item_ids: IntArray,
    service_s: Mapping[str, FloatArray],
) -> Mapping[OwnKnobs, Speeds]:
    """Return the speeds of a profile's operators on the measured classes, relative to the profile.

    For each class the machine measured last counts; machines are never mixed. The class of the profile itself has speed
    1. Imported times give the batch time ratios on their class, and the speed where no node was measured.

    Args:
        item_ids: (items,) ids of the items' content hashes, in measurement order.
        service_s: content hash of the profile's service -> (items,) seconds; NaN if not measured.
    """
    speeds: dict[OwnKnobs, dict[str, MeasuredSpeed]] = {}
    for hardware_class, machines in class_machines(store).items():
        if hardware_class == LOCAL:
            continue
        for machine in machines:
            times = HardwareClassTimes(store, keys.for_hardware_class(hardware_class, machine), enumerated, item_ids)
            if times:
                for own, speed in _speeds(times, keys, enumerated, service_s).items():
                    speeds.setdefault(own, {})[hardware_class] = speed
                break
    for own, by_class in imported_times(store, keys).items():
        services = {keys.service(own[0], c) for c in enumerated if c[own[0]] == own[1]} & service_s.keys()
        means_s = _mean_run_s(store, keys, {service: service_s[service] for service in services}, item_ids)
        for hardware_class, imported in by_class.items() if means_s else ():
            earlier = speeds.setdefault(own, {}).get(hardware_class)
            speeds[own][hardware_class] = _imported_speed(keys, imported, sum(means_s) / len(means_s), earlier)
    return {own: Speeds(by_class) for own, by_class in speeds.items()}


def _mean_run_s(
    store: ProfileStore, keys: MeasurementKeys, service_s: Mapping[str, FloatArray], item_ids: IntArray
) -> list[float]:
    """Return the mean seconds of a run for each service that ran, of which an item may have none or several."""
    several = read_item_runs(store, service_s, item_ids) if keys.pipeline.has_fan_outs else {}
    means_s = []
    for service, seconds in service_s.items():
        counts = np.isfinite(seconds).astype(np.int64)
        for item, runs in several.get(service, {}).items():
            counts[item] *= len(runs.paths)
        if counts.any():
            means_s.append(float(np.nansum(seconds) / counts.sum()))
    return means_s


def imported_times(
    store: ProfileStore, keys: MeasurementKeys
) -> Mapping[OwnKnobs, Mapping[str, Sequence[ImportedTime]]]:
    """Return the imported times of a pipeline's operators in their current version, by hardware class."""
    versions = {o.name: keys.code.operators[o.uses] for o in keys.pipeline.operators}
    current: dict[OwnKnobs, dict[str, list[ImportedTime]]] = {}
    for time in read_imported_times(store, pipeline=keys.pipeline.name):
        if versions.get(time.operator) == time.version:
            by_class = current.setdefault((time.operator, time.knobs), {})
            by_class.setdefault(time.hardware_class, []).append(time)
    return current


def _imported_speed(
    keys: MeasurementKeys, times: Sequence[ImportedTime], profiled_s: float, earlier: MeasuredSpeed | None
) -> MeasuredSpeed:
    """Return the speed with imported ratios: the one measured on nodes, else `profiled_s` over the imported time."""
    spec = keys.pipeline.operator(times[0].operator)
    measured, allowed = {(t.cpus, t.batch_size): t.batch_s for t in times}, allowed_allocations(spec)
    single = min(spec.cpus), 1
    times_s = bounded_batch_times_s([*allowed, single], measured)
    ratio = {allocation: times_s[allocation] / times_s[single] for allocation in allowed}
    has_time = measured.keys() if earlier is None else {*measured, single}
    origins = dict.fromkeys(time.origin or time.file for time in times)
    batches = ClassBatchRatios(ratio, frozenset(a for a in allowed if a in has_time), ", ".join(origins))
    if earlier is not None:
        return replace(earlier, batches=batches)
    return MeasuredSpeed(Interval.exact(max(profiled_s, _MIN_S) / times_s[single]), 0, batches=batches)


def _speeds(
    times: HardwareClassTimes,
    keys: MeasurementKeys,
    configurations: Sequence[Configuration],
    service_s: Mapping[str, FloatArray],
) -> Mapping[OwnKnobs, MeasuredSpeed]:
    logs: dict[OwnKnobs, dict[str, FloatArray]] = {}
    for configuration in configurations:
        for operator in keys.pipeline.operators:
            service = keys.service(operator.name, configuration)
            by_prefix = logs.setdefault((operator.name, configuration[operator.name]), {})
            if service in by_prefix or service not in service_s:
                continue
            reference_s, class_s = service_s[service], times.service_s(operator.name, configuration)
            log_ratios = np.log(np.maximum(reference_s, _MIN_S)) - np.log(np.maximum(class_s, _MIN_S))
            ran = (reference_s > 0) & (class_s > 0)  # an item without a run on a machine compares nothing
            by_prefix[service] = np.where(ran, log_ratios, np.nan)
    risk = PROFILING.speed_risk / len(keys.pipeline.operators)
    speeds = {}
    for own, by_prefix in logs.items():
        ratios = _by_item(list(by_prefix.values()))
        min_items = min(MIN_ITEMS, times.service_s(own[0], configurations[0]).size)
        if len(ratios) >= min_items > 0:
            speeds[own] = MeasuredSpeed(median_bounds(ratios, risk), len(ratios), times.startup_s(*own))
    return speeds


def _by_item(logs: Sequence[FloatArray]) -> FloatArray:
    """Return (n,) ratios of the items measured on both machines; an item counts once, however many prefixes it has."""
    if not logs:
        return np.zeros(0)
    table = np.stack(logs)
    is_measured = np.isfinite(table)
    counts = is_measured.sum(axis=0)
    sums = np.where(is_measured, table, 0.0).sum(axis=0)
    return np.asarray(np.exp(sums[counts > 0] / counts[counts > 0]))
