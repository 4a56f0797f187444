"""From what a store holds to a trace."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from circinus.arrays import FloatArray
from circinus.errors import ProfileError
from circinus.profiling.store.measurement_keys import MeasurementKeys
from circinus.profiling.store.pipeline_versions import scored_configurations
from circinus.profiling.store.profile_loader import read_profile
from circinus.profiling.store.profile_store import ProfileStore, as_json
from circinus.profiling.store.store_queries import (
    StoredDataset,
    read_allocations,
    read_replicas,
    read_scores,
    read_services,
)
from circinus.profiling.trace.measurement_trace import MeasurementTrace, TraceOperator, TraceReplica, prefix_rows
from circinus.specification import Configuration, KnobValues, Specification


def export_trace(specification: Specification, pipeline_name: str, store: Path, *, seed: int = 0) -> MeasurementTrace:
    """Everything per item that a store holds of a pipeline as it is now, on the machine that `load_profile` reads.

    Configurations that are known on no item are left out, those that failed are in it as failures.

    Raises:
        ProfileError: as `load_profile`; or a version of Circinus that did not store the strata wrote the data set.
        OperatorError: as `load_profile`.
    """
    with ProfileStore(store) as opened:
        found = read_profile(opened, specification, pipeline_name, seed)
        addresses, dataset, pipeline = found.addresses, found.dataset, found.addresses.pipeline
        failed = {failure.configuration for failure in found.profile.failed}
        recorded = [c for c in scored_configurations(opened, addresses) if c not in failed]
        subjects = opened.existing_ids([addresses.score(configuration) for configuration in recorded])
        scores = read_scores(opened, [subjects[addresses.score(c)] for c in recorded], dataset.numbers)
        replicas = _replicas(opened, addresses, recorded)
        kept = [i for i, c in enumerate(recorded) if all((name, c[name]) in replicas for name in c)]
        configurations = tuple(recorded[i] for i in kept)
        rows, owners = prefix_rows(pipeline, configurations)
        service_s, output_bytes = _services(opened, addresses, owners, dataset)
        return MeasurementTrace(
            pipeline=pipeline_name,
            operators=tuple(TraceOperator(o.name, o.after, min(o.cpus)) for o in pipeline.topological_order()),
            configurations=configurations,
            rows=rows,
            service_s=service_s,
            output_bytes=output_bytes,
            scores=scores[kept],
            replicas=replicas,
            metric=pipeline.metric.name,
            direction=pipeline.metric.direction,
            item_keys=dataset.keys,
            item_addresses=_item_addresses(opened, dataset),
            strata=_strata(opened, dataset),
            input_bytes=dataset.input_bytes,
            dataset_fingerprint=dataset.fingerprint,
            code_versions=found.profile.code_versions,
            failures=found.profile.failed,
            machine=found.profile.machine,
        )


def _replicas(
    store: ProfileStore, addresses: MeasurementKeys, configurations: Sequence[Configuration]
) -> dict[tuple[str, KnobValues], TraceReplica]:
    keys = dict.fromkeys((name, c[name]) for c in configurations for name in c)
    numbers = store.existing_ids([addresses.replica(*key) for key in keys])
    known = read_replicas(store, list(numbers.values()))
    ratios = read_allocations(store, list(numbers.values()))
    found = {}
    for key in keys:
        number = numbers.get(addresses.replica(*key))
        if number is not None and number in known:
            replica = known[number]
            found[key] = TraceReplica(
                replica.load_s, int(replica.peak_memory_bytes), dict(ratios.get(number, {})), replica.startup_s
            )
    return found


def _services(
    store: ProfileStore, addresses: MeasurementKeys, owners: Sequence[tuple[str, Configuration]], dataset: StoredDataset
) -> tuple[FloatArray, FloatArray]:
    """(prefixes, items) seconds and sizes."""
    wanted = [addresses.service(name, configuration) for name, configuration in owners]
    numbers = store.existing_ids(wanted)
    service_s, output_bytes = read_services(store, list(numbers.values()), dataset.numbers)
    row = {address: i for i, address in enumerate(numbers)}
    missing = np.full((1, len(dataset.numbers)), np.nan)
    places = [row.get(address, -1) for address in wanted]
    return np.concatenate([service_s, missing])[places], np.concatenate([output_bytes, missing])[places]


def _item_addresses(store: ProfileStore, dataset: StoredDataset) -> tuple[str, ...]:
    numbers = dataset.numbers.tolist()
    query = "SELECT id, address FROM address WHERE id IN (SELECT value FROM json_each(?))"
    found = dict(store.rows(query, as_json(numbers)))
    return tuple(found[number] for number in numbers)


def _strata(store: ProfileStore, dataset: StoredDataset) -> tuple[dict[str, str], ...]:
    rows = store.rows(
        "SELECT i.strata FROM dataset d JOIN dataset_item i ON i.dataset = d.id WHERE d.fingerprint = ? "
        "ORDER BY i.position",
        dataset.fingerprint,
    )
    if any(strata is None for (strata,) in rows):
        raise ProfileError(
            f"{store.path}: the conditions of the items were not stored when they were measured; profile again, which "
            "measures nothing twice, and then record"
        )
    return tuple(json.loads(strata) for (strata,) in rows)
