"""Selection of the configuration to measure on more items: a pure function of the measurements."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from circinus.arrays import IntArray
from circinus.profiling.race.race_state import RaceState
from circinus.profiling.settings import PROFILING
from circinus.statistics.mean_decision import items_until_decided


@dataclass(frozen=True)
class MeasurementStep:
    """Step that measures a configuration on more items."""

    configuration: int
    target: int
    """Number of measured items after the step."""
    value_per_s: float = field(default=0.0, compare=False)
    """Value per second: weight of the queries that the step is expected to decide, or the share of it that they
    save, over its duration."""


def next_measurement(
    state: RaceState,
    checkpoints: Sequence[int],
    seconds: Callable[[int, int], float],
    within_s: float,
    without: Collection[int] = (),
    *,
    latency_only: bool = False,
) -> MeasurementStep | None:
    """Return the step with the highest expected value per second, or None if nothing is open.

    A requirement that no configuration certainly meets yet waits for the configuration that is expected to do so
    soonest, which is worth the weight of its queries. After that a cheaper configuration is searched: among all that
    cost no more than the cheapest whose estimate meets the SLO, which all have to be decided anyway, the one that is
    expected to be decided soonest; it is worth the share of the CPU seconds that might be saved. If no estimate meets
    the SLO, it is the configuration that is expected to be eliminated soonest. A step goes to the next interim analysis
    only, and then everything is evaluated again.

    Args:
        state: state of the race; configurations without an item are skipped.
        checkpoints: sample sizes of the interim analyses, ascending.
        seconds: (configuration, items) -> seconds until it is measured on this many items.
        within_s: remaining seconds; steps expected to be decided within them come first.
        without: configurations to skip now.
        latency_only: whether a sampler decides about SLOs, so that only latencies are pursued.
    """
    eligible = state.decisive_items > 0
    eligible[list(without)] = False
    weights = np.array(state.slos.weights, dtype=np.float64)
    values: dict[int, tuple[float, float]] = {}
    for q in range(0 if latency_only else len(weights)):
        open_ = np.flatnonzero(state.open[:, q] & eligible)
        if not len(open_):
            continue
        candidates, share = _candidates(open_, q, state)
        expected_s = {int(k): seconds(int(k), expected_items_to_decide(int(k), q, state)) for k in candidates}
        soonest = min(expected_s, key=lambda k: (expected_s[k], k))
        _add(values, soonest, share * float(weights[q]), expected_s[soonest])
    for k in np.flatnonzero(state.needs_latency_items & eligible):
        weight = float(weights[state.certainly_met[k]].sum()) if len(weights) else 1.0
        _add(values, int(k), weight, seconds(int(k), int(state.latency_items[k])))
    if not values:
        return None
    selected = max(values, key=lambda k: (values[k][1] <= within_s, values[k][0] / max(values[k][1], 1e-9), -k))
    weight, max_s = values[selected]
    target = next(size for size in checkpoints if size > state.items[selected])
    return MeasurementStep(selected, target, weight / max(max_s, 1e-9))


def _add(values: dict[int, tuple[float, float]], configuration: int, weight: float, seconds: float) -> None:
    """Add the weight of a requirement that waits for the configuration; the longest wait counts."""
    total, max_s = values.get(configuration, (0.0, 0.0))
    values[configuration] = total + weight, max(max_s, seconds)


def _candidates(open_: IntArray, requirement: int, state: RaceState) -> tuple[IntArray, float]:
    """Return the configurations one of which comes next, and its value as a share of the requirement's weight."""
    total_cpu_s = np.nan_to_num(state.usage.total_cpu_s)  # all alike until usages are compared
    promising = open_[state.estimate_meets[open_, requirement]]
    certain = np.flatnonzero(state.meets[:, requirement])
    if not len(promising):
        return open_, PROFILING.min_question_value
    if not len(certain):
        return promising, 1.0
    cheapest_s = float(total_cpu_s[promising].min())
    saved = 1.0 - cheapest_s / max(float(total_cpu_s[certain].min()), 1e-12)
    return open_[total_cpu_s[open_] <= cheapest_s], max(saved, PROFILING.min_question_value)


def expected_items_to_decide(configuration: int, requirement: int, state: RaceState) -> int:
    """Return the number of items at which a requirement is expected to be decided."""
    slo, population = state.slos.requirements[requirement].accuracy, state.confidence.population
    low, high = state.confidence.metric.range
    distance = 0.0 if slo is None else abs(float(state.means[configuration]) - slo.threshold)
    margin = max(distance, (high - low) / (2 * population))
    variance = float(state.variances[configuration])
    items = items_until_decided(margin, variance, high - low, state.confidence.side_risk, population)
    return int(min(max(math.ceil(items), int(state.items[configuration]) + 1), population))
