"""What was scored elsewhere: the same pipeline on other items or in other versions, pipelines that share operators.

None of it is a measurement of the pipeline as it is now; it says what to expect of one. What the store has of the
pipeline itself is no part of it, so that it stays the same while the pipeline is measured; but for what replicas take
where both share an operator, as the store keeps that only once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from circinus.profiling.addresses import MeasurementKeys
from circinus.profiling.earlier_names import numbered_names, source_name
from circinus.profiling.earlier_runs import SourceRuns, load_source_runs
from circinus.profiling.profile import FloatArray, IntArray
from circinus.profiling.store import ProfileStore, as_json
from circinus.profiling.stored import StoredDataset, read_failures
from circinus.profiling.variants import PipelineVersion, read_scored, read_variants
from circinus.spec import Configuration, Pipeline

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
