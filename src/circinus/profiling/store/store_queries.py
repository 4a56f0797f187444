"""Queries of measurements in the store, as arrays over the items of a data set."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circinus.arrays import FloatArray, IntArray
from circinus.profiling.hardware.machine import Machine
from circinus.profiling.store.measurement_keys import MeasurementKeys
from circinus.profiling.store.profile_store import ProfileStore, as_json
from circinus.specification import Configuration


@dataclass(frozen=True, eq=False)
class StoredDataset:
    """Stored data set of N items."""

    fingerprint: str
    keys: tuple[str, ...]
    item_ids: IntArray
    """(N,) ids of the items' content hashes."""
    input_bytes: FloatArray
    """(N,) serialized sizes of the pipeline's inputs."""
    order: IntArray
    """(N,) indexes in measurement order."""
    strata: tuple[Mapping[str, str], ...]
    """(N,) conditions of the items by name; empty if they were not recorded."""


@dataclass(frozen=True)
class StoredReplica:
    """Stored statistics of an operator's replicas."""

    load_s: float
    """Mean load time."""
    peak_memory_bytes: float
    startup_s: float | None = None
    """Mean start-up time, or None if there was no start."""


def read_dataset(store: ProfileStore, source: str, seed: int) -> StoredDataset | None:
    """Return the data set that its code and arguments built at the last measurement, or None."""
    rows = store.rows(
        "SELECT d.id, d.fingerprint, o.positions FROM address a JOIN dataset_source s ON s.source = a.id "
        "JOIN dataset d ON d.id = s.dataset JOIN dataset_order o ON o.dataset = d.id "
        "WHERE a.address = ? AND o.seed = ?",
        source,
        seed,
    )
    return _dataset(store, *rows[0]) if rows else None


def read_recorded_dataset(store: ProfileStore, dataset_id: int, seed: int) -> StoredDataset:
    """Return the data set with an id of the store."""
    rows = store.rows(
        "SELECT d.id, d.fingerprint, o.positions FROM dataset d JOIN dataset_order o ON o.dataset = d.id "
        "WHERE d.id = ? AND o.seed = ?",
        dataset_id,
        seed,
    )
    return _dataset(store, *rows[0])


def _dataset(store: ProfileStore, dataset_id: int, fingerprint: str, positions: str) -> StoredDataset:
    items = store.rows(
        "SELECT key, item, input_bytes, strata FROM dataset_item WHERE dataset = ? ORDER BY position", dataset_id
    )
    return StoredDataset(
        fingerprint=fingerprint,
        keys=tuple(key for key, _, _, _ in items),
        item_ids=np.array([item for _, item, _, _ in items], dtype=np.int64),
        input_bytes=np.array([size for _, _, size, _ in items], dtype=np.float64),
        order=np.array(json.loads(positions), dtype=np.int64),
        strata=tuple(json.loads(strata or "{}") for _, _, _, strata in items),
    )


def read_machines(store: ProfileStore) -> tuple[Machine, ...]:
    """Return all machines that have measured into the store, the newest first."""
    return tuple(Machine(*row) for row in store.rows("SELECT cpu_model, cores FROM machine ORDER BY id DESC"))


def read_services(store: ProfileStore, subjects: Sequence[int], item_ids: IntArray) -> tuple[FloatArray, FloatArray]:
    """Return (subjects, items) service times and output bytes; NaN if not measured."""
    rows = _rows(store, "SELECT subject, item, service_s, output_bytes FROM service", subjects)
    return _dense(rows, subjects, item_ids, 2), _dense(rows, subjects, item_ids, 3)


def read_scores(store: ProfileStore, subjects: Sequence[int], item_ids: IntArray) -> FloatArray:
    """Return (subjects, items) scores; NaN if not measured."""
    return _dense(_rows(store, "SELECT subject, item, score FROM score", subjects), subjects, item_ids, 2)


def read_replicas(store: ProfileStore, subjects: Sequence[int]) -> Mapping[int, StoredReplica]:
    """Return the statistics of replicas by subject."""
    query = "SELECT subject, loads, load_s, startup_s, peak_memory_bytes FROM replica"
    return {
        subject: StoredReplica(load_s / max(1, loads), float(peak), startup_s / loads if loads else None)
        for subject, loads, load_s, startup_s, peak in _rows(store, query, subjects)
    }


def read_allocations(store: ProfileStore, subjects: Sequence[int]) -> Mapping[int, Mapping[tuple[float, int], float]]:
    """Return the measured ratios by subject and (CPUs, batch size)."""
    ratios: dict[int, dict[tuple[float, int], float]] = {}
    for subject, cpus, size, ratio in _rows(store, "SELECT subject, cpus, batch_size, ratio FROM allocation", subjects):
        ratios.setdefault(subject, {})[cpus, size] = ratio
    return ratios


def read_failures(store: ProfileStore, subjects: Sequence[int]) -> Mapping[int, tuple[str | None, str]]:
    """Return (item key, reason) by subject."""
    rows = _rows(store, "SELECT subject, item_key, reason FROM failure", subjects)
    return {subject: (item_key, reason) for subject, item_key, reason in rows}


def read_effort(store: ProfileStore, subjects: Iterable[int]) -> tuple[float, float]:
    """Return the processing seconds that ran, and those saved by the prefix cache."""
    rows = _rows(store, "SELECT ran_s, saved_s FROM effort", sorted(subjects))
    return sum(ran for ran, _ in rows), sum(saved for _, saved in rows)


def read_outputs(store: ProfileStore, subject: int, item_ids: IntArray) -> Mapping[int, bytes]:
    """Return pickled outputs by index of the item."""
    index = {int(item_id): i for i, item_id in enumerate(item_ids)}
    rows = store.rows("SELECT item, packed FROM output WHERE subject = ?", subject)
    return {index[item]: data for item, data in rows if item in index}


def coverage(
    store: ProfileStore, keys: MeasurementKeys, configuration: Configuration, item_ids: IntArray
) -> tuple[NDArray[np.bool_], FloatArray]:
    """Return (items,) whether everything but the score is measured, and the scores (NaN if missing)."""
    services = [keys.service(operator.name, configuration) for operator in keys.pipeline.operators]
    outputs = [keys.output(sink, configuration) for sink in keys.pipeline.sinks()]
    score = keys.score(configuration)
    ids = store.existing_ids([*services, *outputs, score])
    scores = read_scores(store, [ids[score]], item_ids)[0] if score in ids else np.full(len(item_ids), np.nan)
    if not all(key in ids for key in (*services, *outputs)):
        return np.zeros(len(item_ids), dtype=bool), scores
    service_s, _ = read_services(store, [ids[service] for service in services], item_ids)
    measured: NDArray[np.bool_] = np.asarray(np.isfinite(service_s).all(axis=0))
    for output in outputs:
        rows = store.rows("SELECT item FROM output WHERE subject = ?", ids[output])
        measured &= np.isin(item_ids, [item for (item,) in rows])
    return measured, scores


def _rows(store: ProfileStore, query: str, subjects: Sequence[int]) -> list[Any]:
    return store.rows(f"{query} WHERE subject IN (SELECT value FROM json_each(?))", as_json(list(subjects)))


def _dense(rows: list[Any], subjects: Sequence[int], item_ids: IntArray, column: int) -> FloatArray:
    """Spread (subject, item, ...) rows over (subjects, items); rows of other items are ignored."""
    values = np.full((len(subjects), len(item_ids)), np.nan)
    if rows:
        table = np.array(rows, dtype=np.float64)
        row, is_subject = _positions(table[:, 0].astype(np.int64), np.asarray(subjects, dtype=np.int64))
        item, is_item = _positions(table[:, 1].astype(np.int64), item_ids)
        selected = is_subject & is_item
        values[row[selected], item[selected]] = table[selected, column]
    return values


def _positions(values: IntArray, candidates: IntArray) -> tuple[IntArray, NDArray[np.bool_]]:
    """Return the index of each of `values` in `candidates`, and whether it occurs there."""
    if not len(candidates):
        return np.zeros(len(values), dtype=np.int64), np.zeros(len(values), dtype=bool)
    by_size: IntArray = np.argsort(candidates)
    rank = np.minimum(np.searchsorted(candidates, values, sorter=by_size), len(candidates) - 1)
    index: IntArray = by_size[rank]
    present: NDArray[np.bool_] = candidates[index] == values
    return index, present
