"""How soon the search notices whether what was measured elsewhere is of use: on the published speech data sets.

Configurations are measured one after the other, in random order, on the first few items of a drawn population. After
each measurement a source is used or dropped (`best_prior`). Counted is how many measurements it takes until that is
right and stays so. A source is right to be used where it is the other data set, also at another level or measured on
few items only, and right to be dropped where its scores are dealt out anew or ranked the other way round.
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

ITEMS = 8
"""Of the first look at a configuration."""
FEW_ITEMS = 16
FEW_CONFIGURATIONS = 20
"""That a sparse source was measured on, as a search would have."""
MOST = 15
"""Measurements that are made."""
GOOD, MISLEADING = ("as published", "another level", "sparse"), ("shuffled", "reversed")
WITHIN = 6
"""Measurements within which a misleading source is to be dropped."""


def transfer_figures(arenas: Sequence[Arena], seeds: Iterable[int]) -> tuple[list[Figure], list[Mapping[str, Any]]]:
    """What is aimed at, and a row for each data set and kind of source.

    Args:
        arenas: those of `read_arenas`; only those with similar data count.
        seeds: each draws populations, an order and sources.
    """
    by_name = {arena.space.name: arena for arena in arenas}
    found: dict[tuple[str, str], list[tuple[bool, ...]]] = {}
    for seed in seeds:
        for name, similar in SIMILAR.items():
            for kind, right in _verdicts(by_name[name], by_name[similar], seed).items():
                found.setdefault((name, kind), []).append(right)
    rows = [_row(name, kind, right) for (name, kind), right in found.items()]
    return _figures(rows), rows


def _verdicts(here: Arena, there: Arena, seed: int) -> dict[str, tuple[bool, ...]]:
    """For each kind of source whether it is rightly used or dropped after one, two, ... measurements."""
    rng = np.random.default_rng(seed)
    target, other = here.drawn(rng), there.drawn(rng)
    space = ConfigurationSpace.of(here.space.pipeline)
    codes = space.encode(here.space.configurations)
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
    few = two_way_row_means(other.scores[chosen, :FEW_ITEMS], (high - low) ** 2 / 16)
    every = {
        "as published": means,
        "another level": low + 0.3 * (high - low) + 0.7 * (means - low),
        "shuffled": rng.permutation(means),
        "reversed": means.max() + means.min() - means,
    }
    found = [SourceTask.of(kind, space, configurations, scores, (low, high)) for kind, scores in every.items()]
    sparse = [configurations[row] for row in chosen]
    found.append(SourceTask.of("sparse", space, sparse, few.means, (low, high), variances=few.variances))
    return [source for source in found if source is not None]


def _used(space: ConfigurationSpace, source: SourceTask, target: Arena, codes: IntArray, rows: IntArray) -> bool:
    low, high = target.space.pipeline.metric.range
    scores: list[FloatArray] = [target.scores[row, :ITEMS] for row in rows]
    evidence = estimate_mean_scores(scores, target.space.items, high - low)
    prior = select_prior(
        space, [source], codes[rows], evidence.means, evidence.variances, codes[rows], score_range=(low, high)
    )
    return prior.name is not None


def _row(name: str, kind: str, right: Sequence[tuple[bool, ...]]) -> Mapping[str, Any]:
    """Where the verdict is not right at the end, one more than all measurements is counted."""
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
    figures = []
    for row in rows:
        bad = row["source"] in MISLEADING
        figures.append(
            Figure(
                f"{row['data']}: measurements until a source is {'dropped' if bad else 'trusted'}, {row['source']}",
                row["until_right_median"],
                float(WITHIN),
                "lower",
                "measurements",
                f"median; 95th percentile {row['until_right_p95']:.0f}; for good from within {WITHIN} in "
                f"{row['stays_right_from']:.0%} of {row['runs']}",
            )
        )
    return figures
