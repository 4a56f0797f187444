"""Reading measurements from the store, as arrays over the items of a data set."""

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
    """What the store knows of a data set of N items."""

    fingerprint: str
    keys: tuple[str, ...]
    numbers: IntArray
    """(N,) numbers of the items' addresses."""
    input_bytes: FloatArray
    """(N,) size of the pipeline's input as it is sent."""
    order: IntArray
    """(N,) indexes in the order of measuring."""
    strata: tuple[Mapping[str, str], ...]
    """(N,) conditions of the items by name; none where they were not recorded."""


@dataclass(frozen=True)
class StoredReplica:
    """What the store knows of an operator's replicas."""

    load_s: float
    """Mean of all loads."""
    peak_memory_bytes: float
    startup_s: float | None = None
    """Mean of all start-ups; None: there was none."""


def read_dataset(store: ProfileStore, source: str, seed: int) -> StoredDataset | None:
    """The data set that code and arguments (`dataset_source`) made when it was last measured on."""
    found = store.rows(
        "SELECT d.id, d.fingerprint, o.positions FROM address a JOIN dataset_source s ON s.source = a.id "
        "JOIN dataset d ON d.id = s.dataset JOIN dataset_order o ON o.dataset = d.id "
        "WHERE a.address = ? AND o.seed = ?",
        source,
        seed,
    )
    return _dataset(store, *found[0]) if found else None


def read_recorded_dataset(store: ProfileStore, number: int, seed: int) -> StoredDataset:
    """The data set with a number of the store's own."""
    found = store.rows(
        "SELECT d.id, d.fingerprint, o.positions FROM dataset d JOIN dataset_order o ON o.dataset = d.id "
        "WHERE d.id = ? AND o.seed = ?",
        number,
        seed,
    )
    return _dataset(store, *found[0])


def _dataset(store: ProfileStore, number: int, fingerprint: str, positions: str) -> StoredDataset:
    items = store.rows(
        "SELECT key, item, input_bytes, strata FROM dataset_item WHERE dataset = ? ORDER BY position", number
    )
    return StoredDataset(
        fingerprint=fingerprint,
        keys=tuple(key for key, _, _, _ in items),
        numbers=np.array([item for _, item, _, _ in items], dtype=np.int64),
        input_bytes=np.array([size for _, _, size, _ in items], dtype=np.float64),
        order=np.array(json.loads(positions), dtype=np.int64),
        strata=tuple(json.loads(strata or "{}") for _, _, _, strata in items),
    )


def read_machines(store: ProfileStore) -> tuple[Machine, ...]:
    """All that have measured into the store, the newest first."""
    return tuple(Machine(*row) for row in store.rows("SELECT cpu_model, cores FROM machine ORDER BY id DESC"))


def read_services(store: ProfileStore, subjects: Sequence[int], numbers: IntArray) -> tuple[FloatArray, FloatArray]:
    """(subjects, items) service seconds and output bytes; NaN where nothing was measured."""
    rows = _rows(store, "SELECT subject, item, service_s, output_bytes FROM service", subjects)
    return _dense(rows, subjects, numbers, 2), _dense(rows, subjects, numbers, 3)


def read_scores(store: ProfileStore, subjects: Sequence[int], numbers: IntArray) -> FloatArray:
    """(subjects, items) scores; NaN where nothing was measured."""
    return _dense(_rows(store, "SELECT subject, item, score FROM score", subjects), subjects, numbers, 2)


def read_replicas(store: ProfileStore, subjects: Sequence[int]) -> Mapping[int, StoredReplica]:
    """What is known of replicas, by subject."""
    query = "SELECT subject, loads, load_s, startup_s, peak_memory_bytes FROM replica"
    return {
        subject: StoredReplica(load_s / max(1, loads), float(peak), startup_s / loads if loads else None)
        for subject, loads, load_s, startup_s, peak in _rows(store, query, subjects)
    }


def read_allocations(store: ProfileStore, subjects: Sequence[int]) -> Mapping[int, Mapping[tuple[float, int], float]]:
    """Measured ratios by subject and (CPUs, batch size)."""
    found: dict[int, dict[tuple[float, int], float]] = {}
    for subject, cpus, size, ratio in _rows(store, "SELECT subject, cpus, batch_size, ratio FROM allocation", subjects):
        found.setdefault(subject, {})[cpus, size] = ratio
    return found


def read_failures(store: ProfileStore, subjects: Sequence[int]) -> Mapping[int, tuple[str | None, str]]:
    """(item key, reason) by subject."""
    rows = _rows(store, "SELECT subject, item_key, reason FROM failure", subjects)
    return {subject: (item_key, reason) for subject, item_key, reason in rows}


def read_effort(store: ProfileStore, subjects: Iterable[int]) -> tuple[float, float]:
    """Seconds that ran and that were saved."""
    rows = _rows(store, "SELECT ran_s, saved_s FROM effort", sorted(subjects))
    return sum(ran for ran, _ in rows), sum(saved for _, saved in rows)


def read_outputs(store: ProfileStore, subject: int, numbers: IntArray) -> Mapping[int, bytes]:
    """Packed outputs by index of the item."""
    index = {int(number): i for i, number in enumerate(numbers)}
    rows = store.rows("SELECT item, packed FROM output WHERE subject = ?", subject)
    return {index[item]: data for item, data in rows if item in index}


def coverage(
    store: ProfileStore, addresses: MeasurementKeys, configuration: Configuration, numbers: IntArray
) -> tuple[NDArray[np.bool_], FloatArray]:
    """(items,) whether all but the score is known of a configuration on an item, and the scores (NaN: unknown)."""
    services = [addresses.service(operator.name, configuration) for operator in addresses.pipeline.operators]
    outputs = [addresses.output(sink, configuration) for sink in addresses.pipeline.sinks()]
    score = addresses.score(configuration)
    known = store.existing_ids([*services, *outputs, score])
    scores = read_scores(store, [known[score]], numbers)[0] if score in known else np.full(len(numbers), np.nan)
    if not all(address in known for address in (*services, *outputs)):
        return np.zeros(len(numbers), dtype=bool), scores
    service_s, _ = read_services(store, [known[address] for address in services], numbers)
    measured: NDArray[np.bool_] = np.asarray(np.isfinite(service_s).all(axis=0))
    for address in outputs:
        rows = store.rows("SELECT item FROM output WHERE subject = ?", known[address])
        measured &= np.isin(numbers, [item for (item,) in rows])
    return measured, scores


def _rows(store: ProfileStore, query: str, subjects: Sequence[int]) -> list[Any]:
    return store.rows(f"{query} WHERE subject IN (SELECT value FROM json_each(?))", as_json(list(subjects)))


def _dense(rows: list[Any], subjects: Sequence[int], numbers: IntArray, column: int) -> FloatArray:
    """Spread (subject, item, ...) rows over (subjects, items); rows of items that are not in `numbers` are left out."""
    found = np.full((len(subjects), len(numbers)), np.nan)
    if rows:
        table = np.array(rows, dtype=np.float64)
        row, is_subject = _positions(table[:, 0].astype(np.int64), np.asarray(subjects, dtype=np.int64))
        item, is_item = _positions(table[:, 1].astype(np.int64), numbers)
        kept = is_subject & is_item
        found[row[kept], item[kept]] = table[kept, column]
    return found


def _positions(wanted: IntArray, among: IntArray) -> tuple[IntArray, NDArray[np.bool_]]:
    """Index of each of `wanted` in `among`, and whether it is there."""
    if not len(among):
        return np.zeros(len(wanted), dtype=np.int64), np.zeros(len(wanted), dtype=bool)
    by_size: IntArray = np.argsort(among)
    place = np.minimum(np.searchsorted(among, wanted, sorter=by_size), len(among) - 1)
    index: IntArray = by_size[place]
    present: NDArray[np.bool_] = among[index] == wanted
    return index, present
