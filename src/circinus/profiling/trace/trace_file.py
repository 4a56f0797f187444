"""Trace files: profile stores with the measurements of one pipeline, which are read without its code."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Collection
from pathlib import Path

import numpy as np

from circinus.errors import ProfileError
from circinus.profiling.measurement.runner import AllocationMeasurement, ReplicaStats
from circinus.profiling.profile import FailedConfiguration
from circinus.profiling.store.measurement_keys import CodeVersions, MeasurementKeys
from circinus.profiling.store.profile_loader import read_profile
from circinus.profiling.store.profile_store import ProfileStore
from circinus.profiling.store.store_queries import (
    StoredDataset,
    failed_configurations,
    read_dataset,
    read_item_runs,
    read_machines,
    read_replicas,
    read_scores,
    read_service_table,
    scored_configurations,
)
from circinus.profiling.store.store_writer import StoreWriter, write_services
from circinus.profiling.trace.measurement_trace import MeasurementTrace, prefix_rows
from circinus.profiling.trace.trace_runner import TraceBackend
from circinus.specification import Pipeline, Specification
from circinus.specification.json_dump import parse_json

_SEED = 0
"""Seed of the stored order of items; a run from the trace has its own."""


def save_trace(trace: MeasurementTrace, path: Path) -> None:
    """Write a trace; an existing file is replaced atomically.

    Raises:
        ProfileError: the file cannot be written.
    """
    code = CodeVersions.recorded(trace.pipeline, trace.code_versions)
    keys = MeasurementKeys(trace.pipeline, code, machine=trace.machine)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            with ProfileStore(Path(folder) / path.name, create=True) as store:
                _write_trace(store, keys, trace)
                store.rows("PRAGMA journal_mode = DELETE")  # readers then need no other file, nor any right to write
            os.replace(Path(folder) / path.name, path)
    except OSError as error:
        raise ProfileError(f"cannot write the trace: {error}", code="trace.not_writable", location=str(path)) from error


def load_trace(path: Path) -> MeasurementTrace:
    """Read a trace.

    Raises:
        ProfileError: the file is missing, no trace of this or an earlier version of Circinus, or damaged.
    """
    try:
        with ProfileStore(path, immutable=True) as store:
            return _load_trace(store)
    except ProfileError as error:
        raise ProfileError(
            error.message,
            code=error.code,
            location=str(path),
            hint="Record a trace with `circinus profile --show --record`.",
        ) from error


def _load_trace(store: ProfileStore) -> MeasurementTrace:
    rows = store.rows("SELECT pipeline, code_versions FROM trace")
    if not rows:
        raise ProfileError("the profile store is no trace", code="trace.wrong_kind")
    try:
        pipeline, versions = Pipeline.model_validate_json(rows[0][0]), parse_json(rows[0][1])
        machine = next(iter(read_machines(store)), None)
        keys = MeasurementKeys(pipeline, CodeVersions.recorded(pipeline, versions), machine=machine)
        dataset = read_dataset(store, keys.dataset(), _SEED)
        if dataset is None:
            raise ValueError("the data set is missing")
        failures = failed_configurations(store, keys, scored_configurations(store, keys))
        return _read_trace(store, keys, dataset, failures)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise ProfileError(
            f"the trace is incomplete or inconsistent ({type(error).__name__}: {error})", code="trace.inconsistent"
        ) from error


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
        if opened.rows(
            "SELECT 1 FROM dataset d JOIN dataset_item i ON i.dataset = d.id WHERE fingerprint = ? AND strata IS NULL",
            loaded.dataset.fingerprint,
        ):
            raise ProfileError(
                "the strata of the items are not stored",
                code="store.no_strata",
                location=str(store),
                hint="Run `circinus profile` again, which reuses all measurements, and then record the trace.",
            )
        return _read_trace(opened, loaded.addresses, loaded.dataset, loaded.profile.failed)


def _write_trace(store: ProfileStore, keys: MeasurementKeys, trace: MeasurementTrace) -> None:
    writer = StoreWriter(store, keys, TraceBackend(trace).dataset(trace.pipeline, _SEED))
    item_ids = np.array([writer.item_ids[address] for address in trace.item_addresses])
    failed, topological = {failure.configuration for failure in trace.failures}, trace.pipeline.topological_order()
    services: dict[str, int] = {}
    for configuration, rows, scores in zip(trace.configurations, trace.rows.tolist(), trace.scores, strict=True):
        if configuration not in failed:
            services |= {keys.service(o.name, configuration): row for o, row in zip(topological, rows, strict=True)}
            items = np.flatnonzero(np.isfinite(scores))
            writer.scored(configuration, [trace.item_addresses[i] for i in items], scores[items].tolist())
    with store.transaction():
        ids = store.ids(list(services))
        for service, row in services.items():
            items = np.flatnonzero(np.isfinite(trace.service_s[row] + trace.output_bytes[row]))
            write_services(store, ids[service], item_ids[items].tolist(), trace.runs(row, items))
    for (operator, knobs), replica in trace.replicas.items():
        stats = ReplicaStats((replica.load_s,), (replica.effective_startup_s,), int(replica.peak_memory_bytes))
        writer.allocations(operator, knobs, AllocationMeasurement(replica.batch_ratio, stats, compute_s=0.0))
    for failure in trace.failures:
        writer.failed(failure)
    with store.transaction():
        content = trace.pipeline.model_dump_json(), json.dumps(dict(trace.code_versions))
        store.write("INSERT INTO trace VALUES (?, ?)", [content])


def _read_trace(
    store: ProfileStore, keys: MeasurementKeys, dataset: StoredDataset, failures: Collection[FailedConfiguration]
) -> MeasurementTrace:
    failed, pipeline = {failure.configuration for failure in failures}, keys.pipeline
    recorded = [c for c in scored_configurations(store, keys) if c not in failed]
    own = {(name, c[name]): keys.replica(name, c[name]) for c in recorded for name in c}
    stored = read_replicas(store, own.values())
    replicas = {key: stored[content_hash] for key, content_hash in own.items() if content_hash in stored}
    configurations = tuple(c for c in recorded if all((name, c[name]) in replicas for name in c))
    rows, owners = prefix_rows(pipeline, configurations)
    services = [keys.service(name, configuration) for name, configuration in owners]
    runs = read_service_table(store, services, dataset.item_ids)
    several = read_item_runs(store, services, dataset.item_ids) if pipeline.has_fan_outs else {}
    by_score = read_scores(store, map(keys.score, configurations), dataset.item_ids)
    scores = [by_score[keys.score(configuration)] for configuration in configurations]
    return MeasurementTrace(
        pipeline=pipeline,
        configurations=configurations,
        rows=rows,
        service_s=runs.service_s,
        output_bytes=runs.output_bytes,
        scores=np.array(scores).reshape(len(scores), len(dataset.keys)),
        replicas=replicas,
        item_keys=dataset.keys,
        item_addresses=dataset.addresses,
        strata=dataset.strata,
        input_bytes=dataset.input_bytes,
        dataset_fingerprint=dataset.fingerprint,
        code_versions=keys.versions(),
        failures=tuple(failures),
        machine=keys.machine,
        item_runs={row: several[service] for row, service in enumerate(services) if service in several},
    )
