"""Transfer sources: scores of the pipeline on other items or in other versions, and of pipelines that share operators.

None of them is a measurement of the current pipeline; they are prior information about it. Stored measurements of the
pipeline itself are excluded, so that the sources stay the same while the pipeline is measured, except for replica
statistics of shared operators, which the store keeps only once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.profiling.hardware.machine import Machine
from circinus.profiling.store.measurement_keys import CodeVersions, MeasurementKeys
from circinus.profiling.store.pipeline_versions import PipelineVersion, read_scored, read_variants
from circinus.profiling.store.profile_store import ProfileStore, as_json
from circinus.profiling.store.store_queries import (
    StoredDataset,
    StoredReplica,
    read_allocations,
    read_failures,
    read_machines,
    read_replicas,
    read_services,
)
from circinus.specification import Configuration, KnobValues, Pipeline


def source_name(variant: PipelineVersion, keys: MeasurementKeys, *, items: int, current: int) -> str:
    """Return a name such as "the same pipeline on 120 other items" or "pipeline meeting (operator denoise changed)".

    Args:
        variant: scored variant.
        keys: keys of the current pipeline.
        items: number of scored items.
        current: number of these items that are in the pipeline's data set. Irrelevant for other pipelines, whose items
            differ anyway.
    """
    pipeline, changes = keys.pipeline, _changes(variant, keys)
    if variant.pipeline != pipeline.name:
        name = f"pipeline {variant.pipeline}"
    elif changes:
        name = f"pipeline {variant.pipeline} ({', '.join(changes)})"
    else:
        name = "the same pipeline"
    if variant.origin != keys.origin:
        name += " as traced" if variant.origin else " as run"
    if current == items or variant.pipeline != pipeline.name:
        return name
    noun = "item" if items == 1 else "items"
    return (
        f"{name} on {items} {noun}, {items - current} of them other" if current else f"{name} on {items} other {noun}"
    )


def numbered_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names, with a number appended to repeated ones."""
    counts: Counter[str] = Counter()
    numbered = []
    for name in names:
        counts[name] += 1
        numbered.append(name if counts[name] == 1 else f"{name} ({counts[name]})")
    return tuple(numbered)


def _changes(variant: PipelineVersion, keys: MeasurementKeys) -> list[str]:
    """Return the differences of the variant's code from the pipeline's, in the pipeline's order."""
    pipeline, code = keys.pipeline, keys.code
    changes = []
    for operator in pipeline.operators:
        if operator.name not in variant.operators:
            changes.append(f"without operator {operator.name}")
        elif variant.operators[operator.name] != (operator.uses, code.operators[operator.uses]):
            changes.append(f"operator {operator.name} changed")
    own = {operator.name for operator in pipeline.operators}
    changes += [f"with operator {name}" for name in sorted(variant.operators) if name not in own]
    if variant.metric_version != code.metric:
        changes.append("metric changed")
    return changes


@dataclass(frozen=True, eq=False)
class SourceRuns:
    """Runs of r prefixes on the n scored items, all on one machine."""

    prefixes: tuple[tuple[str, Configuration], ...]
    """(r,) operator, and knob values of it and all its ancestors."""
    service_s: FloatArray
    """(r, n) service times; NaN if not measured."""
    output_bytes: FloatArray
    """(r, n) serialized sizes of the outputs."""
    input_bytes: FloatArray
    """(n,) serialized sizes of the pipeline's inputs."""
    replicas: Mapping[tuple[str, KnobValues], StoredReplica]
    """Statistics of every operator with knob values in `prefixes` that was loaded."""
    allocations: Mapping[tuple[str, KnobValues], Mapping[tuple[float, int], float]]
    """Measured ratios by (CPUs, batch size)."""


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
    """Return the runs of a variant's operators, by the keys that they had in it.

    Only prefixes with the same ancestors, connected in the same way, have the same keys. Runs on the pipeline's own
    machine are preferred, otherwise the last measuring machine is used.

    Args:
        store: store of the measurements.
        addresses: keys of the pipeline.
        variant: scored variant.
        shared: names of the shared operators.
        configurations: (k,) configurations of the variant.
        dataset: id of the scored data set.
        items: (n,) ids of the items' content hashes.
        scores: (k, n) scores; NaN if a configuration has none, where its runs were measured for others.
    """
    pipeline = addresses.pipeline
    names = [name for name in shared if set(pipeline.ancestors(name)) <= set(shared)]
    common = pipeline.model_copy(update={"operators": tuple(o for o in pipeline.operators if o.name in names)})
    code = CodeVersions(
        operators={pipeline.operator(name).uses: variant.operators[name][1] for name in names},
        metric=variant.metric_version,
        dataset=addresses.code.dataset,
    )
    lineages = {name: (*common.ancestors(name), name) for name in names}
    measured: dict[tuple[str, Configuration], list[int]] = {}
    for row, configuration in enumerate(configurations):
        values = dict(configuration.operators)
        for name, lineage in lineages.items():
            prefix = Configuration.of({ancestor: values[ancestor] for ancestor in lineage})
            measured.setdefault((name, prefix), []).append(row)
    # Without the measurements of the pipeline itself, so that the source stays the same while it is measured.
    scored = np.array([~np.isnan(scores[rows]).all(axis=0) for rows in measured.values()]).reshape(-1, len(items))
    machines: dict[Machine | None, None] = dict.fromkeys((addresses.machine, *read_machines(store), None))
    for machine in machines:
        keys = MeasurementKeys(common, code, machine=machine, origin=variant.origin)
        services = [keys.service(name, prefix) for name, prefix in measured]
        ids = store.existing_ids(services)
        subjects = [ids.get(service, 0) for service in services]  # 0 is no id
        service_s, output_bytes = read_services(store, subjects, items)
        service_s[~scored] = np.nan
        if np.isfinite(service_s).any():
            break
    rows = np.flatnonzero(np.isfinite(service_s).any(axis=1)) if len(service_s) else np.zeros(0, dtype=np.int64)
    prefixes = tuple(list(measured)[row] for row in rows.tolist())
    own = {(name, prefix[name]): keys.replica(name, prefix[name]) for name, prefix in prefixes}
    ids = store.existing_ids(list(own.values()))
    subject_of = {key: ids[replica] for key, replica in own.items() if replica in ids}
    replicas = read_replicas(store, list(subject_of.values()))
    allocations = read_allocations(store, list(subject_of.values()))
    return SourceRuns(
        prefixes=prefixes,
        service_s=service_s[rows],
        output_bytes=np.where(scored, output_bytes, np.nan)[rows],
        input_bytes=_input_bytes(store, dataset, items),
        replicas={key: replicas[subject] for key, subject in subject_of.items() if subject in replicas},
        allocations={key: allocations.get(subject, {}) for key, subject in subject_of.items()},
    )


def _input_bytes(store: ProfileStore, dataset: int, items: IntArray) -> FloatArray:
    rows = store.rows("SELECT item, input_bytes FROM dataset_item WHERE dataset = ?", dataset)
    size = dict(rows)
    return np.array([size[item] for item in items.tolist()], dtype=np.float64)


MAX_SOURCES = 8
"""Maximum number of sources, the newest first: older ones have likely been measured again."""


@dataclass(frozen=True, eq=False)
class SourceScores:
    """Scores of k configurations on n items with the same metric, possibly in another version."""

    name: str
    """Unique name for display."""
    configurations: tuple[Configuration, ...]
    """(k,) knob values of the shared operators; duplicates differ in other operators."""
    scores: FloatArray
    """(k, n) scores; NaN if not measured, with at least one score per item."""
    runs: SourceRuns
    """Runs of operators under prefixes that the pipeline shares."""


def load_source_scores(store: ProfileStore, keys: MeasurementKeys, dataset: StoredDataset) -> tuple[SourceScores, ...]:
    """Return the transfer sources of a pipeline, the newest first: one for each variant and data set.

    A variant qualifies if it has the same metric, direction and range, and an operator with the same name and `uses`.
    Failed configurations are excluded. If all of a variant's code equals the pipeline's, scores on items of the
    pipeline's data set are its own measurements and belong to no source.

    Args:
        store: store of the scores.
        keys: keys of the current pipeline.
        dataset: data set of the pipeline.
    """
    sources: list[SourceScores] = []
    for variant in reversed(read_variants(store)):
        shared = shared_operators(variant, keys.pipeline)
        if not shared or not _same_metric(variant, keys.pipeline):
            continue
        excluded = frozenset(dataset.item_ids.tolist()) if _same_code(variant, keys) else frozenset()
        for scored in _scored_items(store, variant, excluded):
            sources.append(_source(store, keys, dataset, variant, shared, scored))
            if len(sources) == MAX_SOURCES:
                return _named(sources)
    return _named(sources)


@dataclass(frozen=True, eq=False)
class _Scored:
    """Scores of a variant on a data set."""

    configurations: tuple[Configuration, ...]
    scores: FloatArray
    """(k, n) scores."""
    dataset: int
    items: IntArray
    """(n,) ids of the items' content hashes, ascending."""


def shared_operators(variant: PipelineVersion, pipeline: Pipeline) -> tuple[str, ...]:
    """Return the names of the operators of `pipeline` that a variant has too, with the same `uses`."""
    uses = {name: reference for name, (reference, _) in variant.operators.items()}
    return tuple(operator.name for operator in pipeline.operators if uses.get(operator.name) == operator.uses)


def _same_metric(variant: PipelineVersion, pipeline: Pipeline) -> bool:
    metric = pipeline.metric
    return (variant.metric, variant.direction, variant.score_range) == (metric.uses, metric.direction, metric.range)


def _same_code(variant: PipelineVersion, keys: MeasurementKeys) -> bool:
    """Return whether the variant's scores are valid for the pipeline; keys do not depend on names."""
    code = keys.code
    own = sorted((operator.uses, code.operators[operator.uses]) for operator in keys.pipeline.operators)
    theirs = sorted(variant.operators.values())
    return (theirs, variant.metric_version, variant.origin) == (own, code.metric, keys.origin)


def _scored_items(store: ProfileStore, variant: PipelineVersion, excluded: Collection[int]) -> Iterator[_Scored]:
    """Yield a variant's scores by data set, the newest first; data sets covered by another one are skipped."""
    rows = store.rows(
        "SELECT s.subject, s.item, s.score FROM scored c JOIN score s ON s.subject = c.subject WHERE c.variant = ?",
        variant.number,
    )
    if not rows:
        return
    table = np.array(rows, dtype=np.float64)
    subjects, row = np.unique(table[:, 0].astype(np.int64), return_inverse=True)
    items, column = np.unique(table[:, 1].astype(np.int64), return_inverse=True)
    scores = np.full((len(subjects), len(items)), np.nan)
    scores[row.reshape(-1), column.reshape(-1)] = table[:, 2]
    failures = read_failures(store, subjects.tolist())
    configuration_of = read_scored(store, variant)
    successful = np.array([subject not in failures for subject in subjects.tolist()], dtype=bool)
    included = np.array([item not in excluded for item in items.tolist()], dtype=bool)
    by_dataset = _items_by_dataset(store, items[included].tolist())
    for dataset_id, own in by_dataset.items():
        if any(own < other or (own == other and dataset_id < later) for later, other in by_dataset.items()):
            continue
        columns = np.array([item in own for item in items.tolist()], dtype=bool)
        has_score = ~np.isnan(scores) & successful[:, None] & columns
        rows_with_score, columns = has_score.any(axis=1), has_score.any(axis=0)
        if rows_with_score.any():
            configurations = tuple(configuration_of[subject] for subject in subjects[rows_with_score].tolist())
            yield _Scored(configurations, scores[np.ix_(rows_with_score, columns)], dataset_id, items[columns])


def _items_by_dataset(store: ProfileStore, items: Sequence[int]) -> Mapping[int, frozenset[int]]:
    """Return the subset of the items in each data set that has any, the newest first."""
    by_dataset: dict[int, set[int]] = {}
    query = "SELECT dataset, item FROM dataset_item WHERE item IN (SELECT value FROM json_each(?))"
    for dataset_id, item in store.rows(f"{query} ORDER BY dataset DESC", as_json(list(items))):
        by_dataset.setdefault(dataset_id, set()).add(item)
    return {dataset_id: frozenset(own) for dataset_id, own in by_dataset.items()}


def _source(
    store: ProfileStore,
    keys: MeasurementKeys,
    dataset: StoredDataset,
    variant: PipelineVersion,
    shared: Sequence[str],
    scored: _Scored,
) -> SourceScores:
    current = int(np.isin(scored.items, dataset.item_ids).sum())
    return SourceScores(
        name=source_name(variant, keys, items=len(scored.items), current=current),
        configurations=tuple(Configuration.of({o: c[o] for o in shared}) for c in scored.configurations),
        scores=scored.scores,
        runs=load_source_runs(
            store, keys, variant, shared, scored.configurations, scored.dataset, scored.items, scored.scores
        ),
    )


def _named(sources: Sequence[SourceScores]) -> tuple[SourceScores, ...]:
    names = numbered_names([source.name for source in sources])
    return tuple(replace(source, name=name) for source, name in zip(sources, names, strict=True))
