"""Recorded outputs and service times of items, for replay."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from circinus.arrays import BoolArray, IntArray
from circinus.errors import ProfileError
from circinus.operators.pickling import unpickle_value
from circinus.profiling.batch_time_ratios import batch_ratios
from circinus.profiling.item_runs import ItemRuns
from circinus.profiling.profile import disturbance, waited_shares
from circinus.profiling.store.profile_store import ProfileStore, content_errors_as_damage
from circinus.profiling.store.store_queries import (
    StoredDataset,
    read_item_runs,
    read_recorded_dataset,
    read_replicas,
    read_run_times,
    read_services,
)
from circinus.profiling.store.store_writer import prefix_label
from circinus.profiling.store.stored_outputs import read_outputs
from circinus.specification import Configuration, KnobValues, Pipeline, prefix_configuration

_T = TypeVar("_T")
_RECORD_HINT = "Run `circinus apply --mode replay` to record it."


@dataclass(frozen=True)
class Recordings:
    """Recordings of one pipeline from the profile store, by prefix and item."""

    pipeline: str
    items: tuple[str, ...]
    """Keys of the items recorded under every requested prefix, held-out ones first."""
    input_bytes: Mapping[str, float]
    """Item key -> serialized size of the pipeline's input."""
    runs: Mapping[Configuration, Mapping[str, ItemRuns]]
    """Prefix -> item key -> unbatched runs of its last operator, with the fewest allowed CPUs."""
    outputs: Mapping[Configuration, Mapping[str, bytes]]
    """Prefix of a sink -> item key -> its pickled output."""
    batch_ratios: Mapping[tuple[str, KnobValues], Mapping[tuple[float, int], float]]
    """(operator, its own knob values) -> `OperatorProfile.batch_ratio`."""

    def run(self, prefix: Configuration, item_key: str) -> ItemRuns:
        """Return the recorded runs of the last operator of `prefix` on an item.

        Raises:
            ProfileError: it was not recorded.
        """
        return self._recorded(self.runs, prefix, item_key)

    def output(self, prefix: Configuration, item_key: str) -> Any:
        """Return the recorded output of the sink at the end of `prefix` for an item.

        Raises:
            ProfileError: it was not recorded.
        """
        return unpickle_value(self._recorded(self.outputs, prefix, item_key))

    def _recorded(self, recorded: Mapping[Configuration, Mapping[str, _T]], prefix: Configuration, item_key: str) -> _T:
        try:
            return recorded[prefix][item_key]
        except KeyError:
            raise ProfileError(
                f"item {item_key} is not recorded under {prefix}",
                code="recording.missing",
                location=f"pipeline {self.pipeline}",
                hint=_RECORD_HINT,
            ) from None


def load_recordings(store: Path, pipeline_name: str, prefixes: Iterable[Configuration]) -> Recordings:
    """Read the recordings of a pipeline's latest measurements under `prefixes` (`RouteStage.prefix`).

    Needs neither the specification nor the user's modules, so that engines can call it.

    Raises:
        ProfileError: the store is missing, a prefix has no recording, the prefixes were recorded on different versions
            of the data set, or no item was recorded under all of them.
    """
    distinct = list(dict.fromkeys(prefixes))
    with ProfileStore(store) as opened:
        rows = [_recording(opened, pipeline_name, prefix) for prefix in distinct]
        datasets = {(dataset_id, seed) for *_, dataset_id, seed in rows}
        if not datasets:
            return Recordings(pipeline_name, (), {}, {}, {}, {})
        if len(datasets) > 1:
            raise ProfileError(
                f"the recordings of pipeline {pipeline_name} have different data sets or measurement orders",
                code="recording.inconsistent",
                location=str(store),
                hint="Record the configurations again in one run.",
            )
        dataset = read_recorded_dataset(opened, *datasets.pop())
        runs, outputs, ratios = {}, {}, {}
        for prefix, (operator, allowed, service, output, replica, _, _) in zip(distinct, rows, strict=True):
            runs[prefix] = _runs(opened, service, dataset)
            by_item = {dataset.keys[i]: data for i, data in read_outputs(opened, output, dataset.item_ids).items()}
            if by_item:
                outputs[prefix] = by_item
            replicas = read_replicas(opened, [replica])
            measured = replicas[replica].batch_ratio if replica in replicas else {}
            pairs = [(float(cpus), int(size)) for cpus, size in json.loads(allowed)]
            ratios[operator, prefix[operator]] = batch_ratios(pairs, measured)
    backwards = [dataset.keys[i] for i in reversed(dataset.order)]
    items = tuple(key for key in backwards if all(key in runs[p] and key in outputs.get(p, runs[p]) for p in distinct))
    if not items:
        raise ProfileError(
            f"no item of pipeline {pipeline_name} is recorded under all of {len(distinct)} prefixes",
            code="recording.no_common_item",
            location=str(store),
            hint="Record the configurations again in one run.",
        )
    sizes = dict(zip(dataset.keys, dataset.input_bytes.tolist(), strict=True))
    return Recordings(pipeline_name, items, sizes, runs, outputs, ratios)


def disturbed_recordings(
    store: Path, pipeline: Pipeline, configurations: Iterable[Configuration], items_count: int | None = None
) -> frozenset[str]:
    """Return the operators that other programs disturbed while held-out items were recorded.

    Args:
        store: store file.
        pipeline: pipeline of the configurations, which were recorded.
        configurations: configurations to look at.
        items_count: see `record_for_replay`.

    Raises:
        ProfileError: see `load_recordings`.
    """
    prefixes = {
        prefix_configuration(pipeline, configuration, operator.name)
        for configuration in configurations
        for operator in pipeline.operators
    }
    with ProfileStore(store) as opened:
        rows = [_recording(opened, pipeline.name, prefix) for prefix in prefixes]
        services = [service for _, _, service, *_ in rows]
        disturbed = set[str]()
        for dataset_id, seed in {(dataset_id, seed) for *_, dataset_id, seed in rows}:
            dataset = read_recorded_dataset(opened, dataset_id, seed)
            item_ids = dataset.item_ids[dataset.traffic_items(pipeline, items_count)]
            for service, seconds in read_run_times(opened, services, item_ids).items():
                if disturbance(*waited_shares(seconds)) > 1:
                    disturbed.add(service)
    return frozenset(operator for operator, _, service, *_ in rows if service in disturbed)


def disturbed_items(store: ProfileStore, services: Sequence[str], item_ids: IntArray) -> BoolArray:
    """Return (items,) whether a run of any service on the item waited for a CPU in a large share of its time."""
    disturbed = np.zeros(len(item_ids), dtype=bool)
    for seconds in read_run_times(store, services, item_ids).values():
        disturbed |= np.array([disturbance(*waited_shares(item)) > 1 for item in seconds.T[:, :, None]], dtype=bool)
    return disturbed


def _recording(store: ProfileStore, pipeline_name: str, prefix: Configuration) -> tuple[Any, ...]:
    rows = store.rows(
        "SELECT operator, allowed, s.address, o.address, r.address, dataset, seed FROM recording "
        "JOIN address s ON s.id = service JOIN address o ON o.id = output JOIN address r ON r.id = replica "
        "WHERE pipeline = ? AND prefix = ?",
        pipeline_name,
        prefix_label(prefix),
    )
    if not rows:
        raise ProfileError(
            f"pipeline {pipeline_name} has no recording under {prefix}",
            code="recording.missing",
            location=str(store.path),
            hint=_RECORD_HINT,
        )
    row: tuple[Any, ...] = rows[0]
    return row


@content_errors_as_damage
def _runs(store: ProfileStore, service: str, dataset: StoredDataset) -> Mapping[str, ItemRuns]:
    service_s, output_bytes = read_services(store, [service], dataset.item_ids)[service]
    several = read_item_runs(store, [service], dataset.item_ids).get(service, {})
    return {
        dataset.keys[i]: several.get(i) or ItemRuns.single(float(service_s[i]), float(output_bytes[i]))
        for i in np.flatnonzero(np.isfinite(service_s)).tolist()
    }
