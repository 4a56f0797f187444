"""What measurements write to the store: every increment in one transaction."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from circinus.profiling.batch_time_ratios import allowed_allocations
from circinus.profiling.dataset.items import Dataset
from circinus.profiling.measurement.runner import AllocationMeasurement, Measurement, OperatorRuns, ReplicaStats
from circinus.profiling.profile import FailedConfiguration
from circinus.profiling.store.measurement_keys import MeasurementKeys
from circinus.profiling.store.pipeline_versions import write_variant
from circinus.profiling.store.profile_store import ProfileStore
from circinus.specification import Configuration, KnobValues, prefix_configuration


class StoreWriter:
    """Writes what was measured of one pipeline on one data set."""

    def __init__(self, store: ProfileStore, addresses: MeasurementKeys, dataset: Dataset) -> None:
        """Write into `store`; the data set is written at once."""
        self._store = store
        self._addresses = addresses
        self._pipeline = addresses.pipeline
        self._seed = dataset.seed
        with store.transaction():
            if addresses.machine is not None and not addresses.origin:
                machine = addresses.machine.cpu_model, addresses.machine.cores
                store.write("INSERT OR IGNORE INTO machine (cpu_model, cores) VALUES (?, ?)", [machine])
            self.item_numbers = store.ids(dataset.addresses)
            self._dataset = _write_dataset(store, addresses, dataset, self.item_numbers)
            self._variant = write_variant(store, addresses)

    def measured(
        self, configuration: Configuration, items: Sequence[str], found: Measurement, *, counted: bool
    ) -> None:
        """Commit one increment.

        What the store has already of an item stays: it was measured first.

        Args:
            configuration: what was measured.
            items: (n,) addresses of the items.
            found: what was measured on them.
            counted: whether the effort is one of profiling (and not one of recording for a replay). Only then does a
                success undo that the configuration failed: other items say nothing about the one it failed on.
        """
        store, addresses = self._store, self._addresses
        numbers = [self.item_numbers[item] for item in items]
        operators = [operator.name for operator in self._pipeline.operators]
        with store.transaction():
            services = {name: addresses.service(name, configuration) for name in operators}
            outputs = {name: addresses.output(name, configuration) for name in self._pipeline.sinks()}
            score, effort = addresses.score(configuration), addresses.profiling_time(configuration)
            ids = store.ids([*services.values(), *outputs.values(), score, effort])
            for name, runs in found.runs.items():
                write_services(store, ids[services[name]], numbers, runs)
            for name, packed in found.outputs.items():
                store.write(
                    "INSERT OR IGNORE INTO output VALUES (?, ?, ?)",
                    [(ids[outputs[name]], item, data) for item, data in zip(numbers, packed, strict=True)],
                )
            self._write_scores(ids[score], numbers, found.scores)
            for name, facts in found.replicas.items():
                write_replica(store, addresses.replica(name, configuration[name]), facts)
            if counted:
                self._write_effort(ids[effort], found.compute_s, found.saved_s)
                store.write("DELETE FROM failure WHERE subject = ?", [(ids[score],)])
            self._write_scored(configuration, ids[score])
            self._write_recordings(configuration)

    def declare(self, configurations: Sequence[Configuration]) -> None:
        """Commit that the scores and prefixes of these configurations have the addresses they have now."""
        with self._store.transaction():
            ids = self._store.ids([self._addresses.score(configuration) for configuration in configurations])
            for configuration in configurations:
                self._write_scored(configuration, ids[self._addresses.score(configuration)])
                self._write_recordings(configuration)

    def scored(self, configuration: Configuration, items: Sequence[str], scores: Sequence[float]) -> None:
        """Commit scores of outputs that the store had."""
        with self._store.transaction():
            score = self._addresses.score(configuration)
            number = self._store.ids([score])[score]
            self._write_scores(number, [self.item_numbers[item] for item in items], scores)
            self._write_scored(configuration, number)

    def allocations(self, operator: str, knobs: KnobValues, found: AllocationMeasurement) -> None:
        """Commit the gains of an operator's allocations."""
        address = self._addresses.replica(operator, knobs)
        with self._store.transaction():
            number = self._store.ids([address])[address]
            self._store.write(
                "INSERT OR REPLACE INTO allocation VALUES (?, ?, ?, ?)",
                [(number, cpus, size, ratio) for (cpus, size), ratio in found.ratios.items()],
            )
            write_replica(self._store, address, found.replica)
            self._write_effort(number, found.compute_s, 0.0)

    def failed(self, failure: FailedConfiguration) -> None:
        """Commit that a configuration failed."""
        address = self._addresses.score(failure.configuration)
        with self._store.transaction():
            number = self._store.ids([address])[address]
            self._store.write(
                "INSERT OR REPLACE INTO failure VALUES (?, ?, ?)", [(number, failure.item_key, failure.reason)]
            )
            self._write_scored(failure.configuration, number)

    def _write_scored(self, configuration: Configuration, subject: int) -> None:
        self._store.write(
            "INSERT OR IGNORE INTO scored VALUES (?, ?, ?)", [(self._variant, subject, prefix_label(configuration))]
        )

    def _write_scores(self, subject: int, items: Sequence[int], scores: Sequence[float]) -> None:
        self._store.write(
            "INSERT OR IGNORE INTO score VALUES (?, ?, ?)",
            [(subject, item, score) for item, score in zip(items, scores, strict=True)],
        )

    def _write_effort(self, subject: int, ran_s: float, saved_s: float) -> None:
        self._store.write(
            "INSERT INTO effort VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET ran_s = ran_s + excluded.ran_s, "
            "saved_s = saved_s + excluded.saved_s",
            [(subject, ran_s, saved_s)],
        )

    def _write_recordings(self, configuration: Configuration) -> None:
        """Say which addresses the prefixes of a configuration have now; a trace has nothing to answer from."""
        if self._addresses.origin:
            return
        rows = []
        for spec in self._pipeline.operators:
            addresses = (
                self._addresses.service(spec.name, configuration),
                self._addresses.output(spec.name, configuration),
                self._addresses.replica(spec.name, configuration[spec.name]),
            )
            ids = self._store.ids(addresses)
            rows.append(
                (
                    self._pipeline.name,
                    prefix_label(prefix_configuration(self._pipeline, configuration, spec.name)),
                    spec.name,
                    json.dumps(allowed_allocations(spec)),
                    *(ids[address] for address in addresses),
                    self._dataset,
                    self._seed,
                )
            )
        self._store.write("INSERT OR REPLACE INTO recording VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)


def write_services(store: ProfileStore, subject: int, items: Sequence[int], runs: OperatorRuns) -> None:
    """Write what an operator took on (n,) items; what is there stays. Call it inside a transaction."""
    store.write(
        "INSERT OR IGNORE INTO service VALUES (?, ?, ?, ?)",
        [
            (subject, item, service_s, size)
            for item, service_s, size in zip(items, runs.service_s, runs.output_bytes, strict=True)
        ],
    )


def write_replica(store: ProfileStore, address: str, facts: ReplicaStats) -> None:
    """Add what was seen of an operator's replicas to what is there. Call it inside a transaction."""
    number = store.ids([address])[address]
    store.write(
        "INSERT INTO replica (subject, loads, load_s, startup_s, peak_memory_bytes) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT DO UPDATE SET loads = loads + excluded.loads, load_s = load_s + excluded.load_s, "
        "startup_s = startup_s + excluded.startup_s, "
        "peak_memory_bytes = max(peak_memory_bytes, excluded.peak_memory_bytes)",
        [(number, len(facts.load_s), sum(facts.load_s), sum(facts.startup_s), facts.peak_memory_bytes)],
    )


def prefix_label(prefix: Configuration) -> str:
    """A prefix as the store names it."""
    return json.dumps({name: prefix[name].as_dict() for name in prefix}, sort_keys=True)


def _write_dataset(store: ProfileStore, addresses: MeasurementKeys, dataset: Dataset, items: Mapping[str, int]) -> int:
    """Write what has to be known of a data set to read its profile without making it; gives its number."""
    source = addresses.dataset()
    store.write("INSERT OR IGNORE INTO dataset (fingerprint) VALUES (?)", [(dataset.fingerprint,)])
    number = int(store.rows("SELECT id FROM dataset WHERE fingerprint = ?", dataset.fingerprint)[0][0])
    store.write(
        # A store of an earlier schema learns the strata here.
        "INSERT INTO dataset_item VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET strata = excluded.strata",
        [
            (number, position, items[address], item.key, size, json.dumps(dict(item.strata), sort_keys=True))
            for position, (item, address, size) in enumerate(
                zip(dataset.items, dataset.addresses, dataset.input_bytes, strict=True)
            )
        ],
    )
    store.write(
        "INSERT OR REPLACE INTO dataset_order VALUES (?, ?, ?)", [(number, dataset.seed, json.dumps(dataset.order))]
    )
    store.write("INSERT OR REPLACE INTO dataset_source VALUES (?, ?)", [(store.ids([source])[source], number)])
    return number
