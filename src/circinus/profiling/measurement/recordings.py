"""What was recorded of each item, to answer from instead of computing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from circinus.errors import ProfileError
from circinus.profiling.batch_time_ratios import batch_ratios
from circinus.profiling.measurement.pickling import unpickle_value
from circinus.profiling.store.profile_store import ProfileStore
from circinus.profiling.store.store_queries import (
    StoredDataset,
    read_allocations,
    read_outputs,
    read_recorded_dataset,
    read_services,
)
from circinus.profiling.store.store_writer import prefix_label
from circinus.specification import Configuration, KnobValues

_T = TypeVar("_T")


@dataclass(frozen=True)
class RecordedRun:
    """One operator's work on one item, alone, with the fewest CPUs it may be given."""

    service_s: float
    output_bytes: float


@dataclass(frozen=True)
class Recordings:
    """What the profile store holds of one pipeline, by prefix and item."""

    pipeline: str
    items: tuple[str, ...]
    """Keys of the items for which every prefix asked for was recorded, held-out ones first."""
    input_bytes: Mapping[str, float]
    """Item key -> size of the pipeline's input as it is sent."""
    runs: Mapping[Configuration, Mapping[str, RecordedRun]]
    """Prefix -> item key -> run."""
    outputs: Mapping[Configuration, Mapping[str, bytes]]
    """Prefix of a sink -> item key -> its output, packed."""
    batch_ratios: Mapping[tuple[str, KnobValues], Mapping[tuple[float, int], float]]
    """(operator, its own knob values) -> `OperatorProfile.batch_ratio`."""

    def run(self, prefix: Configuration, item_key: str) -> RecordedRun:
        """How the last operator of `prefix` did on an item.

        Raises:
            ProfileError: it was not recorded.
        """
        return self._found(self.runs, prefix, item_key)

    def output(self, prefix: Configuration, item_key: str) -> Any:
        """What the sink at the end of `prefix` answered for an item.

        Raises:
            ProfileError: it was not recorded.
        """
        return unpickle_value(self._found(self.outputs, prefix, item_key))

    def _found(self, recorded: Mapping[Configuration, Mapping[str, _T]], prefix: Configuration, item_key: str) -> _T:
        try:
            return recorded[prefix][item_key]
        except KeyError:
            raise ProfileError(
                f"pipeline {self.pipeline}: found no recording of item {item_key} under {prefix}; record it first"
            ) from None


def load_recordings(store: Path, pipeline_name: str, prefixes: Iterable[Configuration]) -> Recordings:
    """Read what the latest measurements of a pipeline recorded under `prefixes` (`RouteStage.prefix`).

    Needs neither the specification nor the user's modules, so that an engine can call it.

    Raises:
        ProfileError: there is no store, a prefix has no recording, the prefixes were recorded on different versions of
            the data set, or no item was recorded under all of them.
    """
    wanted = list(dict.fromkeys(prefixes))
    with ProfileStore(store) as opened:
        rows = [_recording(opened, pipeline_name, prefix) for prefix in wanted]
        datasets = {(number, seed) for *_, number, seed in rows}
        if not datasets:
            return Recordings(pipeline_name, (), {}, {}, {}, {})
        if len(datasets) > 1:
            raise ProfileError(
                f"{store}: the recordings of pipeline {pipeline_name} were made on different data sets or orders; "
                "record the configurations again, together"
            )
        dataset = read_recorded_dataset(opened, *datasets.pop())
        runs, outputs, ratios = {}, {}, {}
        for prefix, (operator, allowed, service, output, replica, _, _) in zip(wanted, rows, strict=True):
            runs[prefix] = _runs(opened, service, dataset)
            found = {dataset.keys[i]: data for i, data in read_outputs(opened, output, dataset.numbers).items()}
            if found:
                outputs[prefix] = found
            measured = read_allocations(opened, [replica]).get(replica, {})
            pairs = [(float(cpus), int(size)) for cpus, size in json.loads(allowed)]
            ratios[operator, prefix[operator]] = batch_ratios(pairs, measured)
    backwards = [dataset.keys[i] for i in reversed(dataset.order)]
    items = tuple(key for key in backwards if all(key in runs[p] and key in outputs.get(p, runs[p]) for p in wanted))
    if not items:
        raise ProfileError(
            f"{store}: no item of pipeline {pipeline_name} was recorded under all of {len(wanted)} prefixes"
        )
    sizes = dict(zip(dataset.keys, dataset.input_bytes.tolist(), strict=True))
    return Recordings(pipeline_name, items, sizes, runs, outputs, ratios)


def _recording(store: ProfileStore, pipeline_name: str, prefix: Configuration) -> tuple[Any, ...]:
    found = store.rows(
        "SELECT operator, allowed, service, output, replica, dataset, seed FROM recording "
        "WHERE pipeline = ? AND prefix = ?",
        pipeline_name,
        prefix_label(prefix),
    )
    if not found:
        raise ProfileError(
            f"{store.path}: found no recording of pipeline {pipeline_name} under {prefix}; record it first"
        )
    row: tuple[Any, ...] = found[0]
    return row


def _runs(store: ProfileStore, service: int, dataset: StoredDataset) -> Mapping[str, RecordedRun]:
    service_s, output_bytes = read_services(store, [service], dataset.numbers)
    return {
        dataset.keys[i]: RecordedRun(float(service_s[0, i]), float(output_bytes[0, i]))
        for i in np.flatnonzero(np.isfinite(service_s[0]))
    }
