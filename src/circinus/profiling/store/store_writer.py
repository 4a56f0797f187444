"""Writer of measurements to the store, one transaction per increment."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from circinus.profiling.batch_time_ratios import allowed_allocations
from circinus.profiling.dataset.items import Dataset
from circinus.profiling.measurement.runner import AllocationMeasurement, Measurement, OperatorRuns, ReplicaStats
from circinus.profiling.profile import FailedConfiguration, disturbance
from circinus.profiling.store.measurement_keys import MeasurementKeys
from circinus.profiling.store.profile_store import ProfileStore
from circinus.profiling.store.store_queries import read_disturbances
from circinus.profiling.store.stored_outputs import write_outputs
from circinus.specification import Configuration, KnobValues, prefix_configuration


class StoreWriter:
    """Writer of the measurements of one pipeline on one data set."""

    def __init__(self, store: ProfileStore, keys: MeasurementKeys, dataset: Dataset) -> None:
        """Write into `store`; the data set is written immediately."""
        self._store = store
        self._keys = keys
        self._pipeline = keys.pipeline
        self._seed = dataset.seed
        self._declared: set[Configuration] = set()
        """Configurations whose keys were committed."""
        with store.transaction():
            if keys.machine is not None and not keys.origin:
                machine = keys.machine.cpu_model, keys.machine.cores
                store.write("INSERT OR IGNORE INTO machine (cpu_model, cores) VALUES (?, ?)", [machine])
            self.item_ids = store.ids(dataset.addresses)
            self._dataset = _write_dataset(store, keys, dataset, self.item_ids)
            self._version = _write_version(store, keys)

    def measured(
        self, configuration: Configuration, items: Sequence[str], measurement: Measurement, *, counted: bool
    ) -> None:
        """Commit one increment.

        Values stored before are retained, as they were measured first, except for disturbed service times and, if this
        user has a key, outputs without its seal.

        Args:
            items: (n,) content hashes of the items.
            counted: whether the run belongs to profiling (as opposed to recording for a replay). Only then does it
                clear a failure of the configuration: other items say nothing about the failed one.
        """
        store, keys = self._store, self._keys
        item_ids = [self.item_ids[item] for item in items]
        operators = [operator.name for operator in self._pipeline.operators]
        with store.transaction():
            services = {name: keys.service(name, configuration) for name in operators}
            outputs = {name: keys.output(name, configuration) for name in self._pipeline.sinks()}
            score, effort = keys.score(configuration), keys.profiling_time(configuration)
            ids = store.ids([*services.values(), *outputs.values(), score, effort])
            for name, runs in measurement.runs.items():
                write_services(store, ids[services[name]], item_ids, runs)
            for name, packed in measurement.outputs.items():
                write_outputs(store, ids[outputs[name]], item_ids, packed)
            self._write_scores(ids[score], item_ids, measurement.scores)
            for name, stats in measurement.replicas.items():
                write_replica(store, keys.replica(name, configuration[name]), stats)
            if counted:
                write_effort(store, ids[effort], measurement.compute_s, measurement.saved_s)
                store.write("DELETE FROM failure WHERE subject = ?", [(ids[score],)])
            is_new = configuration not in self._declared
            if is_new:
                self._write_scored(configuration, ids[score])
                self._write_recordings(configuration)
        if is_new:
            self._declared.add(configuration)

    def declare(self, configurations: Sequence[Configuration]) -> None:
        """Commit that the scores and prefixes of these configurations have their current keys."""
        new = [configuration for configuration in configurations if configuration not in self._declared]
        if not new:
            return
        with self._store.transaction():
            ids = self._store.ids([self._keys.score(configuration) for configuration in new])
            for configuration in new:
                self._write_scored(configuration, ids[self._keys.score(configuration)])
                self._write_recordings(configuration)
        self._declared.update(new)

    def scored(self, configuration: Configuration, items: Sequence[str], scores: Sequence[float]) -> None:
        """Commit scores of stored outputs."""
        with self._store.transaction():
            score = self._keys.score(configuration)
            subject = self._store.ids([score])[score]
            self._write_scores(subject, [self.item_ids[item] for item in items], scores)
            self._write_scored(configuration, subject)

    def allocations(self, operator: str, knobs: KnobValues, measurement: AllocationMeasurement) -> None:
        """Commit the batch time ratios of an operator."""
        content_hash = self._keys.replica(operator, knobs)
        with self._store.transaction():
            subject = self._store.ids([content_hash])[content_hash]
            self._store.write(
                "INSERT OR REPLACE INTO allocation VALUES (?, ?, ?, ?)",
                [(subject, cpus, size, ratio) for (cpus, size), ratio in measurement.ratios.items()],
            )
            write_replica(self._store, content_hash, measurement.replica)
            write_effort(self._store, subject, measurement.compute_s)

    def failed(self, failure: FailedConfiguration) -> None:
        content_hash = self._keys.score(failure.configuration)
        with self._store.transaction():
            subject = self._store.ids([content_hash])[content_hash]
            self._store.write(
                "INSERT OR REPLACE INTO failure VALUES (?, ?, ?)", [(subject, failure.item_key, failure.reason)]
            )
            self._write_scored(failure.configuration, subject)

    def _write_scored(self, configuration: Configuration, subject: int) -> None:
        self._store.write(
            "INSERT OR IGNORE INTO scored VALUES (?, ?, ?)", [(self._version, subject, prefix_label(configuration))]
        )

    def _write_scores(self, subject: int, items: Sequence[int], scores: Sequence[float]) -> None:
        self._store.write(
            "INSERT OR IGNORE INTO score VALUES (?, ?, ?)",
            [(subject, item, score) for item, score in zip(items, scores, strict=True)],
        )

    def _write_recordings(self, configuration: Configuration) -> None:
        """Write the current keys of a configuration's prefixes; traces have no outputs to replay."""
        if self._keys.origin:
            return
        rows = []
        for spec in self._pipeline.operators:
            hashes = (
                self._keys.service(spec.name, configuration),
                self._keys.output(spec.name, configuration),
                self._keys.replica(spec.name, configuration[spec.name]),
            )
            ids = self._store.ids(hashes)
            rows.append(
                (
                    self._pipeline.name,
                    prefix_label(prefix_configuration(self._pipeline, configuration, spec.name)),
                    spec.name,
                    json.dumps(allowed_allocations(spec)),
                    *(ids[content_hash] for content_hash in hashes),
                    self._dataset,
                    self._seed,
                )
            )
        self._store.write("INSERT OR REPLACE INTO recording VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)


def write_services(store: ProfileStore, subject: int, items: Sequence[int], runs: OperatorRuns) -> None:
    """Write an operator's service times on (n,) items. Call it inside a transaction.

    A stored value is retained, unless it was disturbed and the new one is less so.
    """
    disturbances = read_disturbances(store, subject, items)
    missing = (None,) * len(items)
    rows = [
        (item, service_s, size, its_times, its_runs)
        for item, service_s, size, its_times, its_runs in zip(
            items, runs.service_s, runs.output_bytes, runs.times or missing, runs.items or missing, strict=True
        )
        if item not in disturbances
        or (its_times and disturbance(its_times.waited_share, its_times.worker_waited_share) < disturbances[item] > 1)
    ]
    store.write("INSERT OR REPLACE INTO service VALUES (?, ?, ?, ?)", [(subject, *row[:3]) for row in rows])
    store.write(
        "INSERT OR REPLACE INTO run_times (subject, item, elapsed_s, wait_s, worker_wait_s) VALUES (?, ?, ?, ?, ?)",
        [(subject, item, t.elapsed_s, t.wait_s, t.worker_wait_s) for item, _, _, t, _ in rows if t],
    )
    store.write(
        "INSERT OR REPLACE INTO item_runs VALUES (?, ?, ?)",
        [(subject, item, r.as_json()) for item, *_, r in rows if r and not r.is_single],
    )


def write_effort(store: ProfileStore, subject: int, ran_s: float, saved_s: float = 0.0) -> None:
    """Add processing seconds, and those saved by the prefix cache, to the stored ones. Call it inside a transaction."""
    store.write(
        "INSERT INTO effort VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET ran_s = ran_s + excluded.ran_s, "
        "saved_s = saved_s + excluded.saved_s",
        [(subject, ran_s, saved_s)],
    )


def write_replica(store: ProfileStore, content_hash: str, stats: ReplicaStats) -> None:
    """Add statistics of an operator's replicas to the stored ones. Call it inside a transaction."""
    subject = store.ids([content_hash])[content_hash]
    store.write(
        "INSERT INTO replica (subject, loads, load_s, startup_s, peak_memory_bytes) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT DO UPDATE SET loads = loads + excluded.loads, load_s = load_s + excluded.load_s, "
        "startup_s = startup_s + excluded.startup_s, "
        "peak_memory_bytes = max(peak_memory_bytes, excluded.peak_memory_bytes)",
        [(subject, len(stats.load_s), sum(stats.load_s), sum(stats.startup_s), stats.peak_memory_bytes)],
    )


def prefix_label(prefix: Configuration) -> str:
    """Return the name of a prefix in the store."""
    return json.dumps({name: prefix[name].as_dict() for name in prefix}, sort_keys=True)


def _write_dataset(store: ProfileStore, keys: MeasurementKeys, dataset: Dataset, items: Mapping[str, int]) -> int:
    """Write everything needed to read a data set's profile without building it, and return its id."""
    source = keys.dataset()
    store.write("INSERT OR IGNORE INTO dataset (fingerprint) VALUES (?)", [(dataset.fingerprint,)])
    dataset_id = int(store.rows("SELECT id FROM dataset WHERE fingerprint = ?", dataset.fingerprint)[0][0])
    store.write(
        # Also adds the strata to a data set from an earlier schema.
        "INSERT INTO dataset_item VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET strata = excluded.strata",
        [
            (dataset_id, position, items[content_hash], item.key, size, json.dumps(dict(item.strata), sort_keys=True))
            for position, (item, content_hash, size) in enumerate(
                zip(dataset.items, dataset.addresses, dataset.input_bytes, strict=True)
            )
        ],
    )
    store.write(
        "INSERT OR REPLACE INTO dataset_order VALUES (?, ?, ?)", [(dataset_id, dataset.seed, json.dumps(dataset.order))]
    )
    store.write("INSERT OR REPLACE INTO dataset_source VALUES (?, ?)", [(store.ids([source])[source], dataset_id)])
    return dataset_id


def _write_version(store: ProfileStore, keys: MeasurementKeys) -> int:
    """Return the id of the pipeline version of `keys`, inserting it if needed."""
    pipeline, code = keys.pipeline, keys.code
    description = json.dumps(
        {
            "pipeline": pipeline.name,
            "metric": pipeline.metric.uses,
            "metric_version": code.metric,
            "direction": pipeline.metric.direction,
            "score_range": list(pipeline.metric.range),
            "operators": {o.name: [o.uses, code.operators[o.uses]] for o in pipeline.operators},
            "origin": keys.origin,
        },
        sort_keys=True,
    )
    store.write("INSERT OR IGNORE INTO variant (description) VALUES (?)", [(description,)])
    return int(store.rows("SELECT id FROM variant WHERE description = ?", description)[0][0])
