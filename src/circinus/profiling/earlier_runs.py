"""What operators took elsewhere under prefixes that a pipeline has too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from circinus.profiling.addresses import CodeVersions, MeasurementKeys
from circinus.profiling.machine import Machine
from circinus.profiling.profile import FloatArray, IntArray
from circinus.profiling.store import ProfileStore
from circinus.profiling.stored import StoredReplica, read_allocations, read_machines, read_replicas, read_services
from circinus.profiling.variants import PipelineVersion
from circinus.spec import Configuration, KnobValues


@dataclass(frozen=True, eq=False)
class SourceRuns:
    """r prefixes on the n items of the scores; all on one machine."""

    prefixes: tuple[tuple[str, Configuration], ...]
    """(r,) operator, and its own knob values and those of all its ancestors."""
    service_s: FloatArray
    """(r, n) NaN where nothing was measured."""
    output_bytes: FloatArray
    """(r, n)"""
    input_bytes: FloatArray
    """(n,) size of the pipeline's input as it is sent."""
    replicas: Mapping[tuple[str, KnobValues], StoredReplica]
    """Of every operator configuration that occurs in `prefixes` and was loaded there."""
    allocations: Mapping[tuple[str, KnobValues], Mapping[tuple[float, int], float]]
    """Ratios that were measured, by (CPUs, batch size)."""


def load_source_runs(
    store: ProfileStore,
    addresses: MeasurementKeys,
    variant: PipelineVersion,
    shared: Sequence[str],
    configurations: Sequence[Configuration],
    dataset: int,
    items: IntArray,
    scores: FloatArray,
) -> SourceRuns:
    """What a variant's operators took, found by the addresses they had in it.

    Only where all ancestors are shared too and joined in the same way: else the address is another. On the pipeline's
    own machine if anything was measured on it, else on the one that measured last.

    Args:
        store: has it.
        addresses: of the pipeline.
        variant: which was scored.
        shared: operators that both have.
        configurations: (k,) of the variant.
        dataset: number of that which it was scored on.
        items: (n,) numbers of their addresses.
        scores: (k, n) NaN where a configuration has none: what its operators took there was measured for others.
    """
    pipeline = addresses.pipeline
    names = [name for name in shared if set(pipeline.ancestors(name)) <= set(shared)]
    alike = pipeline.model_copy(update={"operators": tuple(o for o in pipeline.operators if o.name in names)})
    code = CodeVersions(
        operators={pipeline.operator(name).uses: variant.operators[name][1] for name in names},
        metric=variant.metric_version,
        dataset=addresses.code.dataset,
    )
    lineages = {name: (*alike.ancestors(name), name) for name in names}
    measured: dict[tuple[str, Configuration], list[int]] = {}
    for row, configuration in enumerate(configurations):
        values = dict(configuration.operators)
        for name, lineage in lineages.items():
            of = Configuration.of({each: values[each] for each in lineage})
            measured.setdefault((name, of), []).append(row)
    # Nothing that measuring the pipeline itself adds is in it, so that it stays the same meanwhile.
    known = np.array([~np.isnan(scores[rows]).all(axis=0) for rows in measured.values()]).reshape(-1, len(items))
    machines: dict[Machine | None, None] = dict.fromkeys((addresses.machine, *read_machines(store), None))
    for machine in machines:
        there = MeasurementKeys(alike, code, machine=machine, origin=variant.origin)
        wanted = [there.service(name, of) for name, of in measured]
        numbers = store.existing_ids(wanted)
        subjects = [numbers.get(address, 0) for address in wanted]  # 0 is no number of an address
        service_s, output_bytes = read_services(store, subjects, items)
        service_s[~known] = np.nan
        if np.isfinite(service_s).any():
            break
    rows = np.flatnonzero(np.isfinite(service_s).any(axis=1)) if len(service_s) else np.zeros(0, dtype=np.int64)
    prefixes = tuple(list(measured)[row] for row in rows.tolist())
    own = {(name, of[name]): there.replica(name, of[name]) for name, of in prefixes}
    numbers = store.existing_ids(list(own.values()))
    subject_of = {key: numbers[address] for key, address in own.items() if address in numbers}
    replicas = read_replicas(store, list(subject_of.values()))
    allocations = read_allocations(store, list(subject_of.values()))
    return SourceRuns(
        prefixes=prefixes,
        service_s=service_s[rows],
        output_bytes=np.where(known, output_bytes, np.nan)[rows],
        input_bytes=_input_bytes(store, dataset, items),
        replicas={key: replicas[number] for key, number in subject_of.items() if number in replicas},
        allocations={key: allocations.get(number, {}) for key, number in subject_of.items()},
    )


def _input_bytes(store: ProfileStore, dataset: int, items: IntArray) -> FloatArray:
    rows = store.rows("SELECT item, input_bytes FROM dataset_item WHERE dataset = ?", dataset)
    size = dict(rows)
    return np.array([size[item] for item in items.tolist()], dtype=np.float64)
