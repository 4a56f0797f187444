"""What may be known of configurations, at random: what they take, and which objectives they keep."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from circinus.profiling.race.race_state import RaceState
from circinus.profiling.race.resource_usage import ResourceUsage
from circinus.profiling.race.run_confidence import RunConfidence
from circinus.profiling.race.slo_requirements import PipelineSlos
from circinus.specification import AccuracySlo, MetricSpec, Slos
from circinus.statistics.covariates import Covariates, one_hot_strata

ALL_ITEMS = 40
LATENCY_ITEMS = 16
SLOS = tuple(Slos(accuracy=AccuracySlo(threshold=threshold)) for threshold in (0.9, 0.8, 0.7, 0.6))
_CONFIDENCE = RunConfidence(
    MetricSpec(name="close", uses="sample_data:close", direction="maximize"),
    ALL_ITEMS,
    Covariates.of(one_hot_strata([{}] * ALL_ITEMS)),
    side_risk=0.001,
)


def race_state(
    usage: ResourceUsage, requirements: tuple[Slos, ...], weights: np.ndarray | None = None, **arrays: object
) -> RaceState:
    """A state without measurements, but for the arrays that are given."""
    ones = np.ones(len(requirements)) if weights is None else weights
    slos = PipelineSlos(requirements, tuple(ones.tolist()), 0.05)
    blank = RaceState.blank(len(usage.items), slos, _CONFIDENCE, latency_items=LATENCY_ITEMS)
    return replace(blank, usage=usage, **arrays)  # type: ignore[arg-type]


def random_footprints(rng: np.random.Generator, count: int, *, levels: int = 4) -> ResourceUsage:
    """Of few levels a quarter of the tolerance apart, so that many configurations stand in for each other.

    Some have no item, others not all of them.
    """
    operators, most = int(rng.integers(1, 4)), 3
    items = rng.choice([0, 1, 2, 3, 3, 3], count)
    shape = (count, operators, most)
    cpu_s, output_bytes = (1.0 + 0.0125 * rng.integers(0, levels * 4, shape) for _ in range(2))
    if rng.random() < 0.5:  # configurations that are alike on every item
        cpu_s[:] = cpu_s[:, :, :1]
    unknown = np.arange(most)[None, None, :] >= items[:, None, None]
    memory_bytes = 1000.0 * (1 + rng.integers(0, levels, (count, operators)) * rng.choice([0.0, 0.02]))
    return ResourceUsage(
        cpu_s=np.where(unknown, np.nan, cpu_s),
        output_bytes=np.where(unknown, np.nan, output_bytes),
        memory_bytes=np.where((items == 0)[:, None] | (rng.random((count, operators)) < 0.05), np.nan, memory_bytes),
        items=items.astype(np.int64),
        knob_ids=rng.integers(0, 3, (count, operators)),
    )


def random_state(rng: np.random.Generator, footprints: ResourceUsage, objectives: int) -> RaceState:
    """A state that is right of some true scores: what is surely kept is kept, who outdoes is as accurate."""
    count = len(footprints.items)
    means, thresholds = rng.integers(0, 6, count), rng.integers(1, 6, objectives)
    known = footprints.items > 0
    items = np.where(known, rng.choice([8, LATENCY_ITEMS, 24, ALL_ITEMS], count), 0)
    told = known[:, None] & ((items == ALL_ITEMS)[:, None] | (rng.random((count, objectives)) < 0.5))
    late = told & (rng.random((count, objectives)) < 0.2)
    keeps = (means[:, None] >= thresholds[None, :]) & ~late
    references = footprints.references()
    as_good = (references >= 0) & (means[references] >= means)
    return race_state(
        footprints,
        SLOS[:objectives],
        accurate=told & keeps,
        inaccurate=told & ~keeps & ~late,
        slow=late,
        items=items.astype(np.int64),
        means=rng.uniform(0.0, 1.0, count),
        variances=rng.uniform(0.01, 0.25, count),
        references=references,
        reference_no_costlier=rng.random(count) < 0.6,
        no_more_accurate=as_good,
        pruned=rng.random((count, objectives)) < 0.1,
    )
