"""Which configuration to measure on more items: a function of what is known, and of nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.profiling.race.verdicts import OpenQuestions, RaceSnapshot

LEAST_SHARE = 0.02
"""Of an objective's weight, that any open question is worth."""


@dataclass(frozen=True, eq=False)
class ScoreEvidence:
    """What scores say besides what is sure, for k configurations and q objectives."""

    variances: FloatArray
    """(k,) of single scores about what is predicted of them, at least a little."""
    keeps: BoolArray
    """(k, q) whether the estimate keeps the objective."""
    margins: FloatArray
    """(k, q) distance of the estimate from the threshold."""
    score_range: float
    """Greatest score less the least."""
    side_risk: float
    """Of each side of each sequence."""
    weights: FloatArray
    """(q,) of the queries behind each objective."""


@dataclass(frozen=True)
class MeasurementStep:
    """Measure a configuration on more items."""

    configuration: int
    target: int
    """Items on which it is then known."""
    worth_per_s: float = field(default=0.0, compare=False)
    """Weight of the queries that it is expected to settle, or the share of it that they save, over the seconds until
    then."""


def next_measurement(
    standing: RaceSnapshot,
    decisions: OpenQuestions,
    evidence: ScoreEvidence,
    total_cpu_s: FloatArray,
    looks: Sequence[int],
    seconds: Callable[[int, int], float],
    within_s: float,
) -> MeasurementStep | None:
    """The step that is expected to bring most per second.

    An objective that no configuration surely keeps yet waits for the one that is expected to do so soonest: that is
    worth the weight of its queries. Then for a cheaper one: of all that are no costlier than the cheapest whose
    estimate keeps the objective, as each of these has to be decided anyway, the one that is expected to be decided
    soonest; that is worth the share of the CPU seconds that might be saved. Where no estimate keeps it, the one that is
    expected to be out soonest. A step goes to the next look only, and then everything is weighed anew.

    Args:
        standing: what is sure.
        decisions: which questions are open.
        evidence: what scores make likely.
        total_cpu_s: (k,) of one item.
        looks: numbers of items after which to look again, ascending.
        seconds: (configuration, items) -> seconds until it is known on so many items.
        within_s: seconds left; what is expected to be settled within them comes before all else.

    Returns:
        None where nothing is open.
    """
    worth: dict[int, tuple[float, float]] = {}
    for q in range(decisions.open.shape[1]):
        open_ = np.flatnonzero(decisions.open[:, q])
        if not len(open_):
            continue
        candidates, share = _pursued(open_, q, standing, evidence, total_cpu_s)
        expected_s = {
            int(k): seconds(int(k), expected_items_to_decide(int(k), q, standing, evidence)) for k in candidates
        }
        soonest = min(expected_s, key=lambda k: (expected_s[k], k))
        _add(worth, soonest, share * float(evidence.weights[q]), expected_s[soonest])
    for k in np.flatnonzero(decisions.needs_latency_items):
        weight = float(evidence.weights[decisions.surely_met[k]].sum()) if decisions.surely_met.shape[1] else 1.0
        _add(worth, int(k), weight, seconds(int(k), int(standing.latency_items[k])))
    if not worth:
        return None
    chosen = max(worth, key=lambda k: (worth[k][1] <= within_s, worth[k][0] / max(worth[k][1], 1e-9), -k))
    weight, longest_s = worth[chosen]
    target = next(look for look in looks if look > standing.items[chosen])
    return MeasurementStep(chosen, target, weight / max(longest_s, 1e-9))


def _add(worth: dict[int, tuple[float, float]], configuration: int, weight: float, seconds: float) -> None:
    """Several objectives that wait for the same configuration add up; the longest wait counts."""
    known, longest_s = worth.get(configuration, (0.0, 0.0))
    worth[configuration] = known + weight, max(longest_s, seconds)


def _pursued(
    open_: IntArray, objective: int, standing: RaceSnapshot, evidence: ScoreEvidence, total_cpu_s: FloatArray
) -> tuple[IntArray, float]:
    """(configurations one of which comes next, what deciding it is worth as a share of the objective's weight)"""
    hopeful = open_[evidence.keeps[open_, objective]]
    sure = np.flatnonzero(standing.meets[:, objective])
    if not len(hopeful):
        return open_, LEAST_SHARE
    if not len(sure):
        return hopeful, 1.0
    cheapest_s = float(total_cpu_s[hopeful].min())
    saved = 1.0 - cheapest_s / max(float(total_cpu_s[sure].min()), 1e-12)
    return open_[total_cpu_s[open_] <= cheapest_s], max(saved, LEAST_SHARE)


def expected_items_to_decide(
    configuration: int, objective: int, standing: RaceSnapshot, evidence: ScoreEvidence
) -> int:
    """On how many items an objective will be decided if the estimates are right, by Bernstein's inequality.

    With the correction for a finite population. Only a guide for the order of steps: no promise rests on it.
    """
    margin = max(float(evidence.margins[configuration, objective]), evidence.score_range / (2 * standing.all_items))
    variance = float(evidence.variances[configuration])
    needed = math.log(1 / evidence.side_risk) * (2 * variance / margin**2 + 2 / 3 * evidence.score_range / margin)
    finite = needed / (1 + needed / standing.all_items)
    return int(min(max(math.ceil(finite), int(standing.items[configuration]) + 1), standing.all_items))
