"""Number of measurements until transfer learning trusts or drops a source, on the published speech data sets.

Configurations are measured in random order on the first few items of a drawn population. After each measurement a
source is used or dropped (`select_prior`). The benchmark counts the measurements until that verdict is right and stays
right. A source should be used if it is the other data set, also at another level or measured on few items, and dropped
if its scores are shuffled or reversed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.harness.results import Figure
from benchmarks.search.arena import Arena
from benchmarks.search.comparison import SIMILAR
from circinus.arrays import FloatArray, IntArray
from circinus.planning.sampler.configuration_space import ConfigurationSpace
from circinus.planning.sampler.mean_estimation import estimate_mean_scores, two_way_row_means
from circinus.planning.sampler.prior_selection import select_prior
from circinus.planning.sampler.source_scores import SourceTask
from circinus.statistics.mean_decision import shrunk_variance

ITEMS = 8
"""Items of the first measurement of a configuration."""
FEW_ITEMS = 16
FEW_CONFIGURATIONS = 20
"""Number of configurations in a sparse source, as a search would leave it."""
MOST = 15
"""Number of measurements."""
GOOD, MISLEADING = ("as published", "another level", "sparse"), ("shuffled", "reversed")
WITHIN = 6
"""Number of measurements within which a misleading source is to be dropped."""


def transfer_figures(arenas: Sequence[Arena], seeds: Iterable[int]) -> tuple[list[Figure], list[Mapping[str, Any]]]:
    """Return the aims, and a row for each data set and kind of source.

    Args:
        arenas: arenas of `read_arenas`; those without similar data are ignored.
        seeds: seeds of populations, orders and sources.
    """
    by_name = {arena.space.name: arena for arena in arenas}
    verdicts: dict[tuple[str, str], list[tuple[bool, ...]]] = {}
    for seed in seeds:
        for name, similar in SIMILAR.items():
            for kind, right in _verdicts(by_name[name], by_name[similar], seed).items():
                verdicts.setdefault((name, kind), []).append(right)
    rows = [_row(name, kind, right) for (name, kind), right in verdicts.items()]
    return _figures(rows), rows


def _verdicts(target_arena: Arena, source_arena: Arena, seed: int) -> dict[str, tuple[bool, ...]]:
    """Return, per kind of source, whether its use is right after one, two, ... measurements."""
    rng = np.random.default_rng(seed)
    target, other = target_arena.drawn(rng), source_arena.drawn(rng)
    space = ConfigurationSpace.of(target_arena.space.pipeline)
    codes = space.encode(target_arena.space.configurations)
    order = rng.permutation(len(codes))[:MOST]
    beginnings = [order[: count + 1] for count in range(MOST)]
    return {
        source.name: tuple(_used(space, source, target, codes, rows) == (source.name in GOOD) for rows in beginnings)
        for source in _sources(space, other, rng)
    }


def _sources(space: ConfigurationSpace, other: Arena, rng: np.random.Generator) -> list[SourceTask]:
    low, high = other.space.pipeline.metric.range
    configurations, means = other.space.configurations, other.means
    chosen = rng.permutation(len(means))[:FEW_CONFIGURATIONS]
    few = two_way_row_means(other.scores[chosen, :FEW_ITEMS], shrunk_variance(0.0, 0, high - low))
    every = {
        "as published": means,
        "another level": low + 0.3 * (high - low) + 0.7 * (means - low),
        "shuffled": rng.permutation(means),
        "reversed": means.max() + means.min() - means,
    }
    sources = [SourceTask.of(kind, space, configurations, scores, (low, high)) for kind, scores in every.items()]
    sparse = [configurations[row] for row in chosen]
    sources.append(SourceTask.of("sparse", space, sparse, few.means, (low, high), variances=few.variances))
    return [source for source in sources if source is not None]


def _used(space: ConfigurationSpace, source: SourceTask, target: Arena, codes: IntArray, rows: IntArray) -> bool:
    low, high = target.space.pipeline.metric.range
    scores: list[FloatArray] = [target.scores[row, :ITEMS] for row in rows]
    evidence = estimate_mean_scores(scores, target.space.items, high - low)
    prior = select_prior(space, [source], codes[rows], evidence.means, evidence.variances, score_range=(low, high))
    return prior.name is not None


def _row(name: str, kind: str, right: Sequence[tuple[bool, ...]]) -> Mapping[str, Any]:
    """Return a row; where the verdict is wrong at the end, one more than all measurements is counted."""
    until = np.array([MOST + 1 - next((n for n, ok in enumerate(each[::-1]) if not ok), MOST) for each in right])
    after = np.mean(right, axis=0)
    return {
        "data": name,
        "source": kind,
        "runs": len(right),
        "until_right_median": float(np.median(until)),
        "until_right_p95": float(np.percentile(until, 95, method="higher")),
        "right_within": float(np.mean([any(each[:WITHIN]) for each in right])),
        "stays_right_from": float(np.mean(until <= WITHIN)),
        "right_after": {n: round(float(after[n - 1]), 3) for n in range(1, MOST + 1)},
    }


def _figures(rows: Sequence[Mapping[str, Any]]) -> list[Figure]:
    return [
        Figure(f"{row['data']}: measurements until a source is "
               f"{'dropped' if row['source'] in MISLEADING else 'trusted'}, {row['source']}",
               row["until_right_median"], float(WITHIN), "lower", "measurements",
               f"median; 95th percentile {row['until_right_p95']:.0f}; for good from within {WITHIN} in "
               f"{row['stays_right_from']:.0%} of {row['runs']}")
        for row in rows
    ]  # fmt: skip
