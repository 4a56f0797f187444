"""What was scored elsewhere: the same pipeline on other items or in other versions, pipelines that share operators.

None of it is a measurement of the pipeline as it is now; it says what to expect of one. What the store has of the
pipeline itself is no part of it, so that it stays the same while the pipeline is measured; but for what replicas take
where both share an operator, as the store keeps that only once.
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


def source_name(variant: PipelineVersion, addresses: MeasurementKeys, *, items: int, current: int) -> str:
    """Such as "the same pipeline on 120 other items" or "pipeline meeting (operator denoise changed)".

    Args:
        variant: whose scores.
        addresses: of the pipeline as it is now.
        items: on how many.
        current: how many of them the data set of the pipeline has too. Of another pipeline's nothing is said: that its
            items are others goes without saying.
    """
    pipeline, changes = addresses.pipeline, _changes(variant, addresses)
    if variant.pipeline != pipeline.name:
        found = f"pipeline {variant.pipeline}"
    elif changes:
        found = f"pipeline {variant.pipeline} ({', '.join(changes)})"
    else:
        found = "the same pipeline"
    if variant.origin != addresses.origin:
        found += " as traced" if variant.origin else " as run"
    if current == items or variant.pipeline != pipeline.name:
        return found
    noun = "item" if items == 1 else "items"
    return (
        f"{found} on {items} {noun}, {items - current} of them other" if current else f"{found} on {items} other {noun}"
    )


def numbered_names(names: Sequence[str]) -> tuple[str, ...]:
    """The same with numbers behind those that occurred before."""
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        seen[name] += 1
        found.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return tuple(found)


def _changes(variant: PipelineVersion, addresses: MeasurementKeys) -> list[str]:
    """What of the variant's code differs from the pipeline's, in the pipeline's order."""
    pipeline, code = addresses.pipeline, addresses.code
    found = []
    for operator in pipeline.operators:
        if operator.name not in variant.operators:
            found.append(f"without operator {operator.name}")
        elif variant.operators[operator.name] != (operator.uses, code.operators[operator.uses]):
            found.append(f"operator {operator.name} changed")
    own = {operator.name for operator in pipeline.operators}
    found += [f"with operator {name}" for name in sorted(variant.operators) if name not in own]
    if variant.metric_version != code.metric:
        found.append("metric changed")
    return found


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


MOST_SOURCES = 8
"""Sources that are read, the newest: what is older was likely measured again since."""


@dataclass(frozen=True, eq=False)
class SourceScores:
    """Scores of k configurations on n items by the same metric, which may be of another version."""

    name: str
    """For people; that of no other source."""
    configurations: tuple[Configuration, ...]
    """(k,) of the operators that the pipeline has too; two may be equal if others made them different."""
    scores: FloatArray
    """(k, n) NaN where nothing was measured; of each item one configuration has at least a score."""
    runs: SourceRuns
    """What the operators took under prefixes that the pipeline has too."""


def load_source_scores(
    store: ProfileStore, addresses: MeasurementKeys, dataset: StoredDataset
) -> tuple[SourceScores, ...]:
    """What was scored elsewhere that is like a pipeline, the newest first: a source for each variant and data set.

    A variant is like the pipeline if it has the same metric, direction and range, and an operator of the same name and
    `uses`. Configurations that failed are left out. If all of a variant's code is the pipeline's, scores on items of
    the pipeline's data set are its own, whatever they were measured for: they belong to no source.

    Args:
        store: has them.
        addresses: of the pipeline as it is now.
        dataset: of the pipeline.
    """
    found: list[SourceScores] = []
    for variant in reversed(read_variants(store)):
        shared = shared_operators(variant, addresses.pipeline)
        if not shared or not _same_metric(variant, addresses.pipeline):
            continue
        left_out = frozenset(dataset.numbers.tolist()) if _same_code(variant, addresses) else frozenset()
        for scored in _scored_items(store, variant, left_out):
            found.append(_source(store, addresses, dataset, variant, shared, scored))
            if len(found) == MOST_SOURCES:
                return _named(found)
    return _named(found)


@dataclass(frozen=True, eq=False)
class _Scored:
    """Scores of a variant on a data set."""

    configurations: tuple[Configuration, ...]
    scores: FloatArray
    """(k, n)"""
    dataset: int
    items: IntArray
    """(n,) numbers of their addresses, ascending."""


def shared_operators(variant: PipelineVersion, pipeline: Pipeline) -> tuple[str, ...]:
    """Names of the operators of `pipeline` that a variant has too, with the same `uses`."""
    uses = {name: reference for name, (reference, _) in variant.operators.items()}
    return tuple(operator.name for operator in pipeline.operators if uses.get(operator.name) == operator.uses)


def _same_metric(variant: PipelineVersion, pipeline: Pipeline) -> bool:
    metric = pipeline.metric
    return (variant.metric, variant.direction, variant.score_range) == (metric.uses, metric.direction, metric.range)


def _same_code(variant: PipelineVersion, addresses: MeasurementKeys) -> bool:
    """Whether the pipeline's scores may stand where the variant's do: addresses know no names."""
    code = addresses.code
    own = sorted((operator.uses, code.operators[operator.uses]) for operator in addresses.pipeline.operators)
    theirs = sorted(variant.operators.values())
    return (theirs, variant.metric_version, variant.origin) == (own, code.metric, addresses.origin)


def _scored_items(store: ProfileStore, variant: PipelineVersion, left_out: Collection[int]) -> Iterator[_Scored]:
    """A variant's scores by data set, the newest first; a data set all of whose items another one has is none."""
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
    alive = np.array([subject not in failures for subject in subjects.tolist()], dtype=bool)
    wanted = np.array([item not in left_out for item in items.tolist()], dtype=bool)
    members = _members(store, items[wanted].tolist())
    for number, those in members.items():
        if any(those < other or (those == other and number < later) for later, other in members.items()):
            continue
        columns = np.array([item in those for item in items.tolist()], dtype=bool)
        known = ~np.isnan(scores) & alive[:, None] & columns
        kept, columns = known.any(axis=1), known.any(axis=0)
        if kept.any():
            configurations = tuple(configuration_of[subject] for subject in subjects[kept].tolist())
            yield _Scored(configurations, scores[np.ix_(kept, columns)], number, items[columns])


def _members(store: ProfileStore, items: Sequence[int]) -> Mapping[int, frozenset[int]]:
    """Number of each data set that has any of the items -> which, the newest first."""
    found: dict[int, set[int]] = {}
    query = "SELECT dataset, item FROM dataset_item WHERE item IN (SELECT value FROM json_each(?))"
    for number, item in store.rows(f"{query} ORDER BY dataset DESC", as_json(list(items))):
        found.setdefault(number, set()).add(item)
    return {number: frozenset(those) for number, those in found.items()}


def _source(
    store: ProfileStore,
    addresses: MeasurementKeys,
    dataset: StoredDataset,
    variant: PipelineVersion,
    shared: Sequence[str],
    scored: _Scored,
) -> SourceScores:
    here = int(np.isin(scored.items, dataset.numbers).sum())
    return SourceScores(
        name=source_name(variant, addresses, items=len(scored.items), current=here),
        configurations=tuple(Configuration.of({o: c[o] for o in shared}) for c in scored.configurations),
        scores=scored.scores,
        runs=load_source_runs(
            store, addresses, variant, shared, scored.configurations, scored.dataset, scored.items, scored.scores
        ),
    )


def _named(found: Sequence[SourceScores]) -> tuple[SourceScores, ...]:
    names = numbered_names([source.name for source in found])
    return tuple(replace(source, name=name) for source, name in zip(found, names, strict=True))
