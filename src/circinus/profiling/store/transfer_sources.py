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
from circinus.profiling.settings import PROFILING
from circinus.profiling.store.measurement_keys import CodeVersions, MeasurementKeys
from circinus.profiling.store.profile_store import ProfileStore, as_json, content_errors_as_damage
from circinus.profiling.store.store_queries import (
    PipelineVersion,
    StoredDataset,
    StoredReplica,
    read_failures,
    read_machines,
    read_replicas,
    read_scored,
    read_scores,
    read_service_table,
    read_versions,
)
from circinus.specification import Configuration, KnobValues, Pipeline, prefix_configuration


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


@content_errors_as_damage
def load_source_scores(store: ProfileStore, keys: MeasurementKeys, dataset: StoredDataset) -> tuple[SourceScores, ...]:
    """Return the transfer sources of a pipeline, the newest first: one for each version and data set.

    A version qualifies if it has the same metric, direction and range, and an operator with the same name and `uses`.
    Failed configurations are excluded. If all of a version's code equals the pipeline's, scores on items of the
    pipeline's data set are its own measurements and belong to no source.

    Args:
        store: store of the scores.
        keys: keys of the current pipeline.
        dataset: data set of the pipeline.
    """
    sources: list[SourceScores] = []
    for version in reversed(read_versions(store)):
        shared = _shared_operators(version, keys.pipeline)
        if not shared or not _same_metric(version, keys.pipeline):
            continue
        excluded = frozenset(dataset.item_ids.tolist()) if _same_code(version, keys) else frozenset()
        for scored in _scored_items(store, version, excluded):
            sources.append(
                SourceScores(
                    name=_source_name(version, keys, scored.items, dataset),
                    configurations=tuple(Configuration.of({o: c[o] for o in shared}) for c in scored.configurations),
                    scores=scored.scores,
                    runs=_source_runs(store, keys, version, shared, scored),
                )
            )
            if len(sources) == PROFILING.max_sources:
                return _with_unique_names(sources)
    return _with_unique_names(sources)


@dataclass(frozen=True, eq=False)
class _Scored:
    """Scores of a version on a data set."""

    configurations: tuple[Configuration, ...]
    scores: FloatArray
    """(k, n) scores."""
    dataset: int
    items: IntArray
    """(n,) ids of the items' content hashes, ascending."""


def _shared_operators(version: PipelineVersion, pipeline: Pipeline) -> tuple[str, ...]:
    """Return the names of the operators of `pipeline` that a version has too, with the same `uses`."""
    uses = {name: reference for name, (reference, _) in version.operators.items()}
    return tuple(operator.name for operator in pipeline.operators if uses.get(operator.name) == operator.uses)


def _same_metric(version: PipelineVersion, pipeline: Pipeline) -> bool:
    metric = pipeline.metric
    return (version.metric, version.direction, version.score_range) == (metric.uses, metric.direction, metric.range)


def _same_code(version: PipelineVersion, keys: MeasurementKeys) -> bool:
    """Return whether the version's scores are valid for the pipeline; keys do not depend on names."""
    code = keys.code
    own = sorted((operator.uses, code.operators[operator.uses]) for operator in keys.pipeline.operators)
    theirs = sorted(version.operators.values())
    return (theirs, version.metric_version, version.origin) == (own, code.metric, keys.origin)


def _scored_items(store: ProfileStore, version: PipelineVersion, excluded: Collection[int]) -> Iterator[_Scored]:
    """Yield a version's scores by data set, the newest first; data sets covered by another one are skipped."""
    scored = read_scored(store, version)
    rows = store.rows(
        "SELECT DISTINCT item FROM score JOIN scored ON scored.subject = score.subject WHERE variant = ? ORDER BY item",
        version.number,
    )
    items = np.array([item for (item,) in rows], dtype=np.int64)
    by_score, failures = read_scores(store, scored, items), read_failures(store, scored)
    successful = [score for score in scored if score not in failures]
    scores = np.array([by_score[score] for score in successful]).reshape(len(successful), len(items))
    included = np.array([item not in excluded for item in items.tolist()], dtype=bool)
    by_dataset = _items_by_dataset(store, items[included].tolist())
    for dataset_id, own in by_dataset.items():
        if any(own < other or (own == other and dataset_id < later) for later, other in by_dataset.items()):
            continue
        columns = np.array([item in own for item in items.tolist()], dtype=bool)
        has_score = ~np.isnan(scores) & columns
        selected, columns = np.flatnonzero(has_score.any(axis=1)), has_score.any(axis=0)
        if len(selected):
            configurations = tuple(scored[successful[i]] for i in selected)
            yield _Scored(configurations, scores[np.ix_(selected, columns)], dataset_id, items[columns])


def _items_by_dataset(store: ProfileStore, items: Sequence[int]) -> Mapping[int, frozenset[int]]:
    """Return the subset of the items in each data set that has any, the newest first."""
    by_dataset: dict[int, set[int]] = {}
    query = "SELECT dataset, item FROM dataset_item WHERE item IN (SELECT value FROM json_each(?))"
    for dataset_id, item in store.rows(f"{query} ORDER BY dataset DESC", as_json(list(items))):
        by_dataset.setdefault(dataset_id, set()).add(item)
    return {dataset_id: frozenset(own) for dataset_id, own in by_dataset.items()}


def _source_name(version: PipelineVersion, keys: MeasurementKeys, items: IntArray, dataset: StoredDataset) -> str:
    """Return a name such as "the same pipeline on 120 other items" or "pipeline meeting (operator denoise changed)".

    Args:
        version: scored version.
        keys: keys of the current pipeline.
        items: (n,) ids of the scored items.
        dataset: data set of the pipeline. Irrelevant for other pipelines, whose items differ anyway.
    """
    pipeline, changes = keys.pipeline, _changes(version, keys)
    if version.pipeline != pipeline.name:
        name = f"pipeline {version.pipeline}"
    elif changes:
        name = f"pipeline {version.pipeline} ({', '.join(changes)})"
    else:
        name = "the same pipeline"
    if version.origin != keys.origin:
        name += " as traced" if version.origin else " as run"
    others = int((~np.isin(items, dataset.item_ids)).sum())
    if not others or version.pipeline != pipeline.name:
        return name
    noun = "item" if len(items) == 1 else "items"
    name += f" on {len(items)} "
    return f"{name}other {noun}" if others == len(items) else f"{name}{noun}, {others} of them other"


def _with_unique_names(sources: Sequence[SourceScores]) -> tuple[SourceScores, ...]:
    """Append a number to repeated names."""
    counts: Counter[str] = Counter()
    numbered = []
    for source in sources:
        counts[source.name] += 1
        number = counts[source.name]
        numbered.append(source if number == 1 else replace(source, name=f"{source.name} ({number})"))
    return tuple(numbered)


def _changes(version: PipelineVersion, keys: MeasurementKeys) -> list[str]:
    """Return the differences of the version's code from the pipeline's, in the pipeline's order."""
    pipeline, code = keys.pipeline, keys.code
    changes = []
    for operator in pipeline.operators:
        if operator.name not in version.operators:
            changes.append(f"without operator {operator.name}")
        elif version.operators[operator.name] != (operator.uses, code.operators[operator.uses]):
            changes.append(f"operator {operator.name} changed")
    own = {operator.name for operator in pipeline.operators}
    changes += [f"with operator {name}" for name in sorted(version.operators) if name not in own]
    if version.metric_version != code.metric:
        changes.append("metric changed")
    return changes


def _source_runs(
    store: ProfileStore, keys: MeasurementKeys, version: PipelineVersion, shared: Sequence[str], scored: _Scored
) -> SourceRuns:
    """Return the runs of a version's operators, by the keys that they had in it.

    Only prefixes with the same ancestors, connected in the same way, have the same keys. Runs on the pipeline's own
    machine are preferred, otherwise the last measuring machine is used.

    Args:
        store: store of the measurements.
        keys: keys of the pipeline.
        version: scored version.
        shared: names of the shared operators.
        scored: scores; NaN if a configuration has none, where its runs were measured for others.
    """
    pipeline, items = keys.pipeline, scored.items
    names = [name for name in shared if set(pipeline.ancestors(name)) <= set(shared)]
    common = pipeline.model_copy(update={"operators": tuple(o for o in pipeline.operators if o.name in names)})
    code = CodeVersions(
        operators={pipeline.operator(name).uses: version.operators[name][1] for name in names},
        metric=version.metric_version,
        dataset=keys.code.dataset,
    )
    measured: dict[tuple[str, Configuration], list[int]] = {}
    for row, configuration in enumerate(scored.configurations):
        for name in names:
            measured.setdefault((name, prefix_configuration(common, configuration, name)), []).append(row)
    # Without the measurements of the pipeline itself, so that the source stays the same while it is measured.
    has_score = np.array([~np.isnan(scored.scores[rows]).all(axis=0) for rows in measured.values()])
    has_score = has_score.reshape(len(measured), len(items))
    for machine in dict.fromkeys((keys.machine, *read_machines(store), None)):
        own_keys = MeasurementKeys(common, code, machine=machine, origin=version.origin)
        runs = read_service_table(store, [own_keys.service(*prefix) for prefix in measured], items)
        service_s, output_bytes = (np.where(has_score, values, np.nan) for values in runs)
        if np.isfinite(service_s).any():
            break
    rows = np.flatnonzero(np.isfinite(service_s).any(axis=1))
    prefixes = tuple(list(measured)[row] for row in rows.tolist())
    own = {(name, prefix[name]): own_keys.replica(name, prefix[name]) for name, prefix in prefixes}
    stored = read_replicas(store, own.values())
    sizes = dict(store.rows("SELECT item, input_bytes FROM dataset_item WHERE dataset = ?", scored.dataset))
    return SourceRuns(
        prefixes=prefixes,
        service_s=service_s[rows],
        output_bytes=output_bytes[rows],
        input_bytes=np.array([sizes[item] for item in items.tolist()], dtype=np.float64),
        replicas={key: stored[content_hash] for key, content_hash in own.items() if content_hash in stored},
    )
