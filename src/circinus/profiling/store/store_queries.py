"""Queries of the store: data sets, and measurements by their content hashes (`MeasurementKeys`)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from circinus.arrays import FloatArray, IntArray
from circinus.profiling.hardware.machine import Machine
from circinus.profiling.item_runs import ItemRuns
from circinus.profiling.profile import FailedConfiguration, disturbance
from circinus.profiling.race.configuration_order import in_prefix_order, prefix_order
from circinus.profiling.settings import PROFILING
from circinus.profiling.store.measurement_keys import MeasurementKeys
from circinus.profiling.store.profile_store import ProfileStore, as_json, content_errors_as_damage
from circinus.specification import Configuration, KnobValues, Pipeline, configuration_count, has_knob_values

_FEW_ITEMS = 32
"""Number of items up to which rows are looked up by item; for more, all rows of a subject are read."""


@dataclass(frozen=True, eq=False)
class StoredDataset:
    """Stored data set of N items."""

    fingerprint: str
    keys: tuple[str, ...]
    addresses: tuple[str, ...]
    """(N,) content hashes of the items."""
    item_ids: IntArray
    """(N,) ids of the items' content hashes."""
    input_bytes: FloatArray
    """(N,) serialized sizes of the pipeline's inputs."""
    order: IntArray
    """(N,) indexes in measurement order."""
    strata: tuple[Mapping[str, str], ...]
    """(N,) conditions of the items by name; empty if they were not recorded."""

    def profiling_items(self, pipeline: Pipeline) -> IntArray:
        """Return the indexes of the items that are not held out, in measurement order."""
        return self.order[: len(self.order) - pipeline.dataset.held_out_items(len(self.order))]

    def traffic_items(self, pipeline: Pipeline, count: int | None = None) -> IntArray:
        """Return the indexes of at most `count` items for generated traffic; see `Dataset.traffic_items`."""
        held_out = self.order[::-1][: pipeline.dataset.held_out_items(len(self.order)) or None]
        return held_out[:count]


class StoredRuns(NamedTuple):
    """Stored runs of an operator under one prefix on n items; NaN if not measured."""

    service_s: FloatArray
    """(n,) service times of unbatched items, with the fewest allowed CPUs."""
    output_bytes: FloatArray
    """(n,) serialized sizes of the outputs."""


@dataclass(frozen=True)
class StoredReplica:
    """Stored statistics of an operator's replicas."""

    load_s: float
    """Mean load time."""
    peak_memory_bytes: float
    startup_s: float | None = None
    """Mean start-up time, or None if there was no start."""
    batch_ratio: Mapping[tuple[float, int], float] = field(default_factory=dict)
    """(CPUs, batch size) -> time of a full batch relative to one item on the fewest CPUs; measured allocations only."""

    @property
    def effective_startup_s(self) -> float:
        """Start-up time in seconds; the load time if there was no start."""
        return self.load_s if self.startup_s is None else self.startup_s


@dataclass(frozen=True)
class PipelineVersion:
    """Pipeline as it was when it was scored: its name, metric and operators, with the versions of their code."""

    number: int
    """Id in the store."""
    pipeline: str
    metric: str
    """`uses` reference."""
    metric_version: str
    direction: str
    """`maximize` or `minimize`."""
    score_range: tuple[float, float]
    operators: Mapping[str, tuple[str, str]]
    """Name -> `uses` reference and version of the code."""
    origin: str
    """Origin if it was scored from a trace; empty if the operators were run."""


@content_errors_as_damage
def read_dataset(store: ProfileStore, source: str, seed: int) -> StoredDataset | None:
    """Return the data set that its code and arguments built at the last measurement, or None."""
    rows = store.rows(
        "SELECT s.dataset FROM address a JOIN dataset_source s ON s.source = a.id "
        "JOIN dataset_order o ON o.dataset = s.dataset WHERE a.address = ? AND o.seed = ?",
        source,
        seed,
    )
    return read_recorded_dataset(store, rows[0][0], seed) if rows else None


@content_errors_as_damage
def read_recorded_dataset(store: ProfileStore, dataset_id: int, seed: int) -> StoredDataset:
    """Return the data set with an id of the store."""
    ((fingerprint, positions),) = store.rows(
        "SELECT d.fingerprint, o.positions FROM dataset d JOIN dataset_order o ON o.dataset = d.id "
        "WHERE d.id = ? AND o.seed = ?",
        dataset_id,
        seed,
    )
    items = store.rows(
        "SELECT key, address, item, input_bytes, strata FROM dataset_item JOIN address ON id = item WHERE dataset = ? "
        "ORDER BY position",
        dataset_id,
    )
    keys, addresses, item_ids, input_bytes, strata = zip(*items, strict=True)
    return StoredDataset(
        fingerprint=fingerprint,
        keys=keys,
        addresses=addresses,
        item_ids=np.array(item_ids, dtype=np.int64),
        input_bytes=np.array(input_bytes, dtype=np.float64),
        order=np.array(json.loads(positions), dtype=np.int64),
        strata=tuple(json.loads(conditions or "{}") for conditions in strata),
    )


@content_errors_as_damage
def read_machines(store: ProfileStore) -> tuple[Machine, ...]:
    """Return all machines that have measured into the store, the newest first."""
    return tuple(Machine(*row) for row in store.rows("SELECT cpu_model, cores FROM machine ORDER BY id DESC"))


@content_errors_as_damage
def read_services(store: ProfileStore, hashes: Iterable[str], item_ids: IntArray) -> Mapping[str, StoredRuns]:
    """Return the runs on (items,) by content hash; hashes that the store does not have are missing."""
    table = _by_item(store, "service", ("service_s", "output_bytes"), hashes, item_ids)
    return {content_hash: StoredRuns(*arrays) for content_hash, arrays in table.items()}


@content_errors_as_damage
def read_disturbances(store: ProfileStore, subject: int, items: Sequence[int]) -> Mapping[int, float]:
    """Return stored item -> `disturbance` of its run of an operator, 0 where it was not recorded, of some items."""
    rows = store.rows(
        "SELECT service.item, coalesce(wait_s / elapsed_s, 0), coalesce(worker_wait_s / elapsed_s, 0) "
        "FROM service LEFT JOIN run_times "
        "ON run_times.subject = service.subject AND run_times.item = service.item "
        "WHERE service.subject = ? AND service.item IN (SELECT value FROM json_each(?))",
        subject,
        as_json(list(items)),
    )
    return {item: disturbance(*shares) for item, *shares in rows}


@content_errors_as_damage
def read_run_times(store: ProfileStore, hashes: Iterable[str], item_ids: IntArray) -> Mapping[str, FloatArray]:
    """Return (3, items) elapsed seconds of runs, and how long they and their workers waited for a CPU.

    Seconds that were not recorded are 0.
    """
    table = _by_item(store, "run_times", ("elapsed_s", "wait_s", "worker_wait_s"), hashes, item_ids)
    return {content_hash: np.nan_to_num(seconds) for content_hash, seconds in table.items()}


@content_errors_as_damage
def read_item_runs(
    store: ProfileStore, hashes: Iterable[str], item_ids: IntArray
) -> Mapping[str, Mapping[int, ItemRuns]]:
    """Return the runs of items by content hash and index of the item, without those of a single run.

    Raises:
        ProfileError: the store is damaged.
    """
    index = {int(item_id): i for i, item_id in enumerate(item_ids)}
    found: dict[str, dict[int, ItemRuns]] = {}
    for content_hash, item, text in _rows(store, "item_runs", "item, runs", hashes):
        if item in index:
            try:
                found.setdefault(content_hash, {})[index[item]] = ItemRuns.from_json(text)
            except (ValueError, TypeError) as error:
                raise store.damaged(f"runs of an item ({error})") from error
    return found


@content_errors_as_damage
def read_service_table(store: ProfileStore, hashes: Sequence[str], item_ids: IntArray) -> StoredRuns:
    """Return the runs as (hashes, items) arrays."""
    runs, missing = read_services(store, hashes, item_ids), np.full((2, len(item_ids)), np.nan)
    table = np.array([runs.get(h, missing) for h in hashes]).reshape(len(hashes), 2, len(item_ids))
    return StoredRuns(table[:, 0], table[:, 1])


@content_errors_as_damage
def read_scores(store: ProfileStore, hashes: Iterable[str], item_ids: IntArray) -> Mapping[str, FloatArray]:
    """Return (items,) scores, NaN if not measured, by content hash; hashes that the store does not have are missing."""
    return {h: scores for h, (scores,) in _by_item(store, "score", ("score",), hashes, item_ids).items()}


@content_errors_as_damage
def read_replicas(store: ProfileStore, hashes: Iterable[str]) -> Mapping[str, StoredReplica]:
    """Return the statistics of replicas by content hash."""
    hashes = list(hashes)
    ratios: dict[str, dict[tuple[float, int], float]] = {}
    for content_hash, cpus, size, ratio in _rows(store, "allocation", "cpus, batch_size, ratio", hashes):
        ratios.setdefault(content_hash, {})[cpus, size] = ratio
    return {
        content_hash: StoredReplica(
            load_s / max(1, loads), float(peak), startup_s / loads if loads else None, ratios.get(content_hash, {})
        )
        for content_hash, loads, load_s, startup_s, peak in _rows(
            store, "replica", "loads, load_s, startup_s, peak_memory_bytes", hashes
        )
    }


@content_errors_as_damage
def read_failures(store: ProfileStore, hashes: Iterable[str]) -> Mapping[str, tuple[str | None, str]]:
    """Return (item key, reason) by content hash of scores."""
    return {h: (item_key, reason) for h, item_key, reason in _rows(store, "failure", "item_key, reason", hashes)}


@content_errors_as_damage
def failed_configurations(
    store: ProfileStore, keys: MeasurementKeys, configurations: Iterable[Configuration]
) -> tuple[FailedConfiguration, ...]:
    """Return those of the configurations that failed."""
    score_of = {configuration: keys.score(configuration) for configuration in configurations}
    failures = read_failures(store, score_of.values())
    return tuple(FailedConfiguration(c, *failures[score]) for c, score in score_of.items() if score in failures)


@content_errors_as_damage
def read_effort(store: ProfileStore, hashes: Iterable[str]) -> tuple[float, float]:
    """Return the processing seconds that ran, and those saved by the prefix cache."""
    rows = sorted(row[1:] for row in _rows(store, "effort", "subject, ran_s, saved_s", hashes))
    return sum(ran_s for _, ran_s, _ in rows), sum(saved_s for _, _, saved_s in rows)


@content_errors_as_damage
def coverage(
    store: ProfileStore, keys: MeasurementKeys, configuration: Configuration, item_ids: IntArray
) -> tuple[NDArray[np.bool_], FloatArray]:
    """Return (items,) whether everything but the score is measured, and the scores (NaN if missing).

    Without a measured item no score is read.
    """
    measured, scores = np.ones(len(item_ids), dtype=bool), np.full(len(item_ids), np.nan)
    for sink in keys.pipeline.sinks():
        rows = _rows(store, "output", "item", [keys.output(sink, configuration)])
        measured &= np.isin(item_ids, [item for _, item in rows])
    if not measured.any():
        return measured, scores
    services = [keys.service(operator.name, configuration) for operator in keys.pipeline.operators]
    runs = read_services(store, services, item_ids)
    measured &= len(runs) == len(set(services))
    for service_s, _ in runs.values():
        measured &= np.isfinite(service_s)
    score = keys.score(configuration)
    return measured, read_scores(store, [score], item_ids).get(score, scores)


@content_errors_as_damage
def read_versions(store: ProfileStore) -> tuple[PipelineVersion, ...]:
    """Return all scored versions of pipelines, in the order of their first measurement."""
    return tuple(
        _version(number, json.loads(description))
        for number, description in store.rows("SELECT id, description FROM variant ORDER BY id")
    )


@content_errors_as_damage
def read_scored(store: ProfileStore, version: PipelineVersion) -> Mapping[str, Configuration]:
    """Return the configuration of each content hash of scores, in the order of their first measurement."""
    rows = store.rows(
        "SELECT a.address, s.configuration FROM scored s JOIN address a ON a.id = s.subject WHERE s.variant = ? "
        "ORDER BY s.subject",
        version.number,
    )
    return {score: configuration_of(json.loads(content)) for score, content in rows}


@content_errors_as_damage
def scored_configurations(store: ProfileStore, keys: MeasurementKeys) -> tuple[Configuration, ...]:
    """Return the configurations of the current pipeline that have scores or failed, in the order of `prefix_order`."""
    if store.rows("SELECT since FROM undescribed") and configuration_count(keys.pipeline) <= PROFILING.max_enumerated:
        enumerated = prefix_order(keys.pipeline)
        ids = store.existing_ids([keys.score(configuration) for configuration in enumerated])
        return tuple(configuration for configuration in enumerated if keys.score(configuration) in ids)
    operators = keys.pipeline.operators
    names = {operator.name for operator in operators}
    scored: dict[str, Configuration] = {}
    for version in read_versions(store):
        if set(version.operators) == names and version.origin == keys.origin:
            scored |= read_scored(store, version)
    own = {score: c for score, c in scored.items() if all(has_knob_values(o, c[o.name]) for o in operators)}
    return in_prefix_order(keys.pipeline, (c for score, c in own.items() if keys.score(c) == score))


def configuration_of(content: Mapping[str, Mapping[str, Any]]) -> Configuration:
    """Return the configuration with these knob values by operator."""
    return Configuration.of({name: KnobValues.of(values) for name, values in content.items()})


def _version(number: int, content: dict[str, Any]) -> PipelineVersion:
    content["score_range"] = tuple(content["score_range"])
    content["operators"] = {name: tuple(code) for name, code in content["operators"].items()}
    return PipelineVersion(number, **content)


def _rows(store: ProfileStore, table: str, columns: str, hashes: Iterable[str]) -> list[Any]:
    """Return (content hash, columns) of the rows whose subject is one of the content hashes."""
    return store.rows(
        f"SELECT address, {columns} FROM address JOIN {table} ON subject = id "
        "WHERE address IN (SELECT value FROM json_each(?))",
        as_json(list(hashes)),
    )


def _by_item(
    store: ProfileStore, table: str, columns: tuple[str, ...], hashes: Iterable[str], item_ids: IntArray
) -> dict[str, FloatArray]:
    """Return (columns, items) values by content hash, NaN if not measured; rows of other items are ignored."""
    ids = store.existing_ids(list(hashes))
    parameters = [as_json(list(ids.values()))]
    of_items = ""
    if len(item_ids) <= _FEW_ITEMS:
        of_items = " AND item IN (SELECT value FROM json_each(?))"
        parameters.append(as_json(item_ids.tolist()))
    values = np.full((len(ids), len(columns), len(item_ids)), np.nan)
    rows = store.rows(
        f"SELECT subject, item, {', '.join(columns)} FROM {table} "
        f"WHERE subject IN (SELECT value FROM json_each(?)){of_items}",
        *parameters,
    )
    if rows:
        content = np.array(rows, dtype=np.float64)
        row, _ = _positions(content[:, 0].astype(np.int64), np.array(list(ids.values()), dtype=np.int64))
        item, is_item = _positions(content[:, 1].astype(np.int64), item_ids)
        values[row[is_item], :, item[is_item]] = content[is_item, 2:]
    return dict(zip(ids, values, strict=True))


def _positions(values: IntArray, candidates: IntArray) -> tuple[IntArray, NDArray[np.bool_]]:
    """Return the index of each of `values` in `candidates`, and whether it occurs there."""
    if not len(candidates):
        return np.zeros(len(values), dtype=np.int64), np.zeros(len(values), dtype=bool)
    by_size: IntArray = np.argsort(candidates)
    rank = np.minimum(np.searchsorted(candidates, values, sorter=by_size), len(candidates) - 1)
    index: IntArray = by_size[rank]
    present: NDArray[np.bool_] = candidates[index] == values
    return index, present
