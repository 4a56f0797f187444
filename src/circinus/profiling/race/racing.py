"""Selection of the configuration to measure on more items: a pure function of the measurements."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.profiling.race.verdicts import OpenQuestions, RaceSnapshot
from circinus.statistics.mean_decision import items_until_decided

MIN_SHARE = 0.02
"""Minimum value of an open question, as a share of the weight of its SLO requirement."""


@dataclass(frozen=True, eq=False)
class ScoreEvidence:
    """Estimates from the scores of k configurations for q SLO requirements, beyond certain statements."""

    variances: FloatArray
    """(k,) residual variances of single scores, always positive."""
    estimate_meets: BoolArray
    """(k, q) whether the estimate meets the SLO."""
    margins: FloatArray
    """(k, q) distance of the estimate from the threshold."""
    score_range: float
    """Width of the range of scores."""
    side_risk: float
    """Risk of each side of each sequence."""
    weights: FloatArray
    """(q,) total weight of the queries with each requirement."""


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
    snapshot: RaceSnapshot,
    decisions: OpenQuestions,
    evidence: ScoreEvidence,
    total_cpu_s: FloatArray,
    checkpoints: Sequence[int],
    seconds: Callable[[int, int], float],
    within_s: float,
) -> MeasurementStep | None:
    """Return the step with the highest expected value per second, or None if nothing is open.

    A requirement that no configuration certainly meets yet waits for the configuration that is expected to do so
    soonest, which is worth the weight of its queries. After that a cheaper configuration is searched: among all that
    cost no more than the cheapest whose estimate meets the SLO, which all have to be decided anyway, the one that is
    expected to be decided soonest; it is worth the share of the CPU seconds that might be saved. If no estimate meets
    the SLO, it is the configuration that is expected to be eliminated soonest. A step goes to the next interim analysis
    only, and then everything is evaluated again.

    Args:
        snapshot: certain statements.
        decisions: open questions.
        evidence: estimates.
        total_cpu_s: (k,) CPU seconds of one item.
        checkpoints: sample sizes of the interim analyses, ascending.
        seconds: (configuration, items) -> seconds until it is measured on this many items.
        within_s: remaining seconds; steps expected to be decided within them come first.
    """
    values: dict[int, tuple[float, float]] = {}
    for q in range(decisions.open.shape[1]):
        open_ = np.flatnonzero(decisions.open[:, q])
        if not len(open_):
            continue
        candidates, share = _candidates(open_, q, snapshot, evidence, total_cpu_s)
        expected_s = {
            int(k): seconds(int(k), expected_items_to_decide(int(k), q, snapshot, evidence)) for k in candidates
        }
        soonest = min(expected_s, key=lambda k: (expected_s[k], k))
        _add(values, soonest, share * float(evidence.weights[q]), expected_s[soonest])
    for k in np.flatnonzero(decisions.needs_latency_items):
        weight = float(evidence.weights[decisions.certainly_met[k]].sum()) if decisions.certainly_met.shape[1] else 1.0
        _add(values, int(k), weight, seconds(int(k), int(snapshot.latency_items[k])))
    if not values:
        return None
    selected = max(values, key=lambda k: (values[k][1] <= within_s, values[k][0] / max(values[k][1], 1e-9), -k))
    weight, max_s = values[selected]
    target = next(size for size in checkpoints if size > snapshot.items[selected])
    return MeasurementStep(selected, target, weight / max(max_s, 1e-9))


def _add(values: dict[int, tuple[float, float]], configuration: int, weight: float, seconds: float) -> None:
    """Add the weight of a requirement that waits for the configuration; the longest wait counts."""
    total, max_s = values.get(configuration, (0.0, 0.0))
    values[configuration] = total + weight, max(max_s, seconds)


def _candidates(
    open_: IntArray, requirement: int, snapshot: RaceSnapshot, evidence: ScoreEvidence, total_cpu_s: FloatArray
) -> tuple[IntArray, float]:
    """Return the configurations one of which comes next, and its value as a share of the requirement's weight."""
    promising = open_[evidence.estimate_meets[open_, requirement]]
    certain = np.flatnonzero(snapshot.meets[:, requirement])
    if not len(promising):
        return open_, MIN_SHARE
    if not len(certain):
        return promising, 1.0
    cheapest_s = float(total_cpu_s[promising].min())
    saved = 1.0 - cheapest_s / max(float(total_cpu_s[certain].min()), 1e-12)
    return open_[total_cpu_s[open_] <= cheapest_s], max(saved, MIN_SHARE)


def expected_items_to_decide(
    configuration: int, requirement: int, snapshot: RaceSnapshot, evidence: ScoreEvidence
) -> int:
    """Return the number of items at which a requirement is expected to be decided."""
    margin = max(float(evidence.margins[configuration, requirement]), evidence.score_range / (2 * snapshot.all_items))
    variance = float(evidence.variances[configuration])
    items = items_until_decided(margin, variance, evidence.score_range, evidence.side_risk, snapshot.all_items)
    return int(min(max(math.ceil(items), int(snapshot.items[configuration]) + 1), snapshot.all_items))
