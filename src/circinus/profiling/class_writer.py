"""What measurements on nodes of hardware classes write to the store: times alone; outputs are the same everywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from circinus.profiling import machine as machines
from circinus.profiling.addresses import LOCAL, MeasurementKeys
from circinus.profiling.machine import Machine
from circinus.profiling.runner import OperatorsMeasurement
from circinus.profiling.store import ProfileStore
from circinus.profiling.writer import write_replica, write_services
from circinus.spec import Configuration


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
