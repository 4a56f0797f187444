"""What may be known of configurations, at random: what they take, and which objectives they keep."""

from __future__ import annotations

import numpy as np

from circinus.profiling.race.resource_usage import ResourceUsage
from circinus.profiling.race.verdicts import RaceSnapshot

ALL_ITEMS = 40
LATENCY_ITEMS = 16


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


def random_standing(rng: np.random.Generator, footprints: ResourceUsage, objectives: int) -> RaceSnapshot:
    """A standing that is right of some true scores: what is surely kept is kept, who outdoes is as accurate."""
    count = len(footprints.items)
    means, thresholds = rng.integers(0, 6, count), rng.integers(1, 6, objectives)
    known = footprints.items > 0
    items = np.where(known, rng.choice([8, LATENCY_ITEMS, 24, ALL_ITEMS], count), 0)
    told = known[:, None] & ((items == ALL_ITEMS)[:, None] | (rng.random((count, objectives)) < 0.5))
    late = told & (rng.random((count, objectives)) < 0.2)
    keeps = (means[:, None] >= thresholds[None, :]) & ~late
    references = footprints.references()
    as_good = (references >= 0) & (means[references] >= means)
    return RaceSnapshot(
        meets=told & keeps,
        fails=told & ~keeps,
        slow=late,
        items=items.astype(np.int64),
        latency_items=np.full(count, LATENCY_ITEMS),
        all_items=ALL_ITEMS,
        dominated_on_accuracy=as_good & (rng.random(count) < 0.6),
        references=references,
        pruned=rng.random((count, objectives)) < 0.1,
    )
