"""Export of stored measurements to a trace."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from circinus.arrays import FloatArray
from circinus.errors import ProfileError
from circinus.profiling.store.measurement_keys import MeasurementKeys
from circinus.profiling.store.profile_loader import read_profile
from circinus.profiling.store.profile_store import ProfileStore, as_json
from circinus.profiling.store.store_queries import (
    StoredDataset,
    StoredRuns,
    read_replicas,
    read_scores,
    read_services,
    scored_configurations,
)
from circinus.profiling.trace.measurement_trace import MeasurementTrace, TraceOperator, TraceReplica, prefix_rows
from circinus.specification import Configuration, KnobValues, Specification


def export_trace(specification: Specification, pipeline_name: str, store: Path, *, seed: int = 0) -> MeasurementTrace:
    """Export all measurements per item of the current pipeline, from the machine that `load_profile` selects.

    Configurations without a measured item are excluded; failed ones are included as failures.

    Raises:
        ProfileError: see `load_profile`; or the data set was written by a version of Circinus that did not store
            strata.
        OperatorError: see `load_profile`.
    """
    with ProfileStore(store) as opened:
        loaded = read_profile(opened, specification, pipeline_name, seed)
        keys, dataset, pipeline = loaded.addresses, loaded.dataset, loaded.addresses.pipeline
        failed = {failure.configuration for failure in loaded.profile.failed}
        recorded = [c for c in scored_configurations(opened, keys) if c not in failed]
        by_score = read_scores(opened, map(keys.score, recorded), dataset.item_ids)
        scores = np.array([by_score[keys.score(c)] for c in recorded]).reshape(len(recorded), -1)
        replicas = _replicas(opened, keys, recorded)
        complete = [i for i, c in enumerate(recorded) if all((name, c[name]) in replicas for name in c)]
        configurations = tuple(recorded[i] for i in complete)
        rows, owners = prefix_rows(pipeline, configurations)
        service_s, output_bytes = _services(opened, keys, owners, dataset)
        return MeasurementTrace(
            pipeline=pipeline_name,
            operators=tuple(TraceOperator(o.name, o.after, min(o.cpus)) for o in pipeline.topological_order()),
            configurations=configurations,
            rows=rows,
            service_s=service_s,
            output_bytes=output_bytes,
            scores=scores[complete],
            replicas=replicas,
            metric=pipeline.metric.name,
            direction=pipeline.metric.direction,
            item_keys=dataset.keys,
            item_addresses=_item_addresses(opened, dataset),
            strata=_strata(opened, dataset),
            input_bytes=dataset.input_bytes,
            dataset_fingerprint=dataset.fingerprint,
            code_versions=loaded.profile.code_versions,
            failures=loaded.profile.failed,
            machine=loaded.profile.machine,
        )


def _replicas(
    store: ProfileStore, addresses: MeasurementKeys, configurations: Sequence[Configuration]
) -> dict[tuple[str, KnobValues], TraceReplica]:
    keys = dict.fromkeys((name, c[name]) for c in configurations for name in c)
    stored = read_replicas(store, (addresses.replica(*key) for key in keys))
    replicas = {}
    for key in keys:
        replica = stored.get(addresses.replica(*key))
        if replica is not None:
            replicas[key] = TraceReplica(
                replica.load_s, int(replica.peak_memory_bytes), replica.batch_ratio, replica.startup_s
            )
    return replicas


def _services(
    store: ProfileStore, keys: MeasurementKeys, owners: Sequence[tuple[str, Configuration]], dataset: StoredDataset
) -> tuple[FloatArray, FloatArray]:
    """Return (prefixes, items) service times and output sizes."""
    services = [keys.service(name, configuration) for name, configuration in owners]
    runs = read_services(store, services, dataset.item_ids)
    missing = StoredRuns(*np.full((2, len(dataset.item_ids)), np.nan))
    table = np.array([runs.get(service, missing) for service in services]).reshape(-1, 2, len(dataset.item_ids))
    return table[:, 0], table[:, 1]


def _item_addresses(store: ProfileStore, dataset: StoredDataset) -> tuple[str, ...]:
    ids = dataset.item_ids.tolist()
    query = "SELECT id, address FROM address WHERE id IN (SELECT value FROM json_each(?))"
    hash_of = dict(store.rows(query, as_json(ids)))
    return tuple(hash_of[item_id] for item_id in ids)


def _strata(store: ProfileStore, dataset: StoredDataset) -> tuple[dict[str, str], ...]:
    rows = store.rows(
        "SELECT i.strata FROM dataset d JOIN dataset_item i ON i.dataset = d.id WHERE d.fingerprint = ? "
        "ORDER BY i.position",
        dataset.fingerprint,
    )
    if any(strata is None for (strata,) in rows):
        raise ProfileError(
            "the strata of the items are not stored",
            code="store.no_strata",
            location=str(store.path),
            hint="Run `circinus profile` again, which reuses all measurements, and then record the trace.",
        )
    return tuple(json.loads(strata) for (strata,) in rows)
