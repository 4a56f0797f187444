"""Which configuration to measure on more items: a function of what is known, and of nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from circinus.profiling.profile import FloatArray
from circinus.profiling.verdicts import Decisions, Standing

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Evidence:
    """What scores say besides what is sure, for k configurations and q objectives."""

    variances: FloatArray
    """(k,) of single scores, at least a little."""
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
class Step:
    """Measure a configuration on more items."""

    configuration: int
    target: int
    """Items on which it is then known."""


def next_step(
    standing: Standing,
    decisions: Decisions,
    evidence: Evidence,
    total_cpu_s: FloatArray,
    looks: Sequence[int],
    seconds: Callable[[int, int], float],
    within_s: float,
) -> Step | None:
    """The step that is expected to settle the greatest weight of objectives per second.

    For each objective one configuration is looked at first: of those that may matter and whose estimate keeps it the
    one with the fewest CPU seconds, since once it surely keeps the objective all that take more are out; where no
    estimate keeps it, the one that is expected to be out soonest. The step goes to the next look only, and then
    everything is weighed anew.

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
        if len(open_):
            chosen, items = _pursued(open_, q, standing, evidence, total_cpu_s, seconds)
            _add(worth, chosen, float(evidence.weights[q]), seconds(chosen, items))
    for k in np.flatnonzero(decisions.short):
        weight = float(evidence.weights[decisions.kept[k]].sum()) if decisions.kept.shape[1] else 1.0
        _add(worth, int(k), weight, seconds(int(k), standing.latency_items))
    if not worth:
        return None
    chosen = max(worth, key=lambda k: (worth[k][1] <= within_s, worth[k][0] / max(worth[k][1], 1e-9), -k))
    return Step(chosen, next(look for look in looks if look > standing.items[chosen]))


def _add(worth: dict[int, tuple[float, float]], configuration: int, weight: float, seconds: float) -> None:
    """Several objectives that wait for the same configuration add up; the longest wait counts."""
    known, longest_s = worth.get(configuration, (0.0, 0.0))
    worth[configuration] = known + weight, max(longest_s, seconds)


def _pursued(
    open_: IntArray,
    objective: int,
    standing: Standing,
    evidence: Evidence,
    total_cpu_s: FloatArray,
    seconds: Callable[[int, int], float],
) -> tuple[int, int]:
    """(configuration, items that are expected to decide it) for one objective."""
    hopeful = open_[evidence.keeps[open_, objective]]
    if len(hopeful):
        chosen = int(hopeful[np.lexsort((hopeful, total_cpu_s[hopeful]))[0]])
        return chosen, expected_items(chosen, objective, standing, evidence)
    expected = {int(k): expected_items(int(k), objective, standing, evidence) for k in open_}
    chosen = min(expected, key=lambda k: (seconds(k, expected[k]), k))
    return chosen, expected[chosen]


def expected_items(configuration: int, objective: int, standing: Standing, evidence: Evidence) -> int:
    """On how many items an objective will be decided if the estimates are right, by Bernstein's inequality.

    With the correction for a finite population. Only a guide for the order of steps: no promise rests on it.
    """
    margin = max(float(evidence.margins[configuration, objective]), evidence.score_range / (2 * standing.all_items))
    variance = float(evidence.variances[configuration])
    needed = math.log(1 / evidence.side_risk) * (2 * variance / margin**2 + 2 / 3 * evidence.score_range / margin)
    finite = needed / (1 + needed / standing.all_items)
    return int(min(max(math.ceil(finite), int(standing.items[configuration]) + 1), standing.all_items))
