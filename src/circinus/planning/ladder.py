"""Fallback ladders: sequences of frontier plans to step down under bursts and to step up again at low load."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.estimation import PlanCandidate
from circinus.planning.dominance import DOMINANCE_TOLERANCE, nondominated
from circinus.planning.rungs import Ladder, Rung, plan_changes
from circinus.specification import Deployment, Query, Slo

_CHANGE_WEIGHT = 0.1
"""Weight of a step that changes every deployment, relative to a step that loses the whole margin."""

_MIN_POSITIVE = 1e-12


@dataclass(frozen=True, eq=False)
class LadderSteps:
    """The n plans and all steps between them."""

    busy: FloatArray
    """(n,) CPU seconds of busy replicas per request."""
    cost: FloatArray
    """(n,) US dollars per hour, fully shared."""
    accuracy: FloatArray
    """(n,) expected accuracy margin in scores; 0 without an SLO. Based on the mean, as bounds depend on the number of
    items as much as on quality, and every rung meets the SLO at its bound."""
    latency: FloatArray
    """(n,) expected latency margin in seconds; 0 without an SLO."""
    efficient: BoolArray
    """(n,) whether the plan is non-dominated in usage and margins; of equal plans the first."""
    down: BoolArray
    """(n, n) whether column is a step down from row: no more CPU seconds and cost, less of one, and not more accurate.
    """
    step_size: FloatArray
    """(n, n) size of a step down, infinite if there is none: the sum of squares of the lost accuracy margin, the lost
    latency margin, and the savings of CPU seconds and of cost (as logarithms), each relative to the range among the
    plans, plus a tenth of the squared share of changed deployments. Squares favour several small, similar steps over a
    large one."""

    @classmethod
    def of(cls, query: Query, plans: Sequence[PlanCandidate]) -> LadderSteps:
        """Return the steps between guaranteed plans of one query."""
        busy = np.array([_busy_cpu_s(plan, query.rate_per_s) for plan in plans])
        cost = np.array([plan.estimate.cost_usd_per_h.lower for plan in plans])
        accuracy = _margins(query.slos.accuracy, [plan.estimate.accuracy.value for plan in plans])
        latency = _margins(query.slos.latency, [plan.estimate.latency_s.value for plan in plans])
        no_more = _no_more(busy) & _no_more(cost)
        down = no_more & ~no_more.T & (accuracy[:, None] >= accuracy[None, :])
        losses = [np.maximum(_differences(values), 0.0) for values in (accuracy, latency)]
        savings = [_differences(np.log(np.maximum(values, _MIN_POSITIVE))) for values in (busy, cost)]
        size = sum(part**2 for part in (*losses, *savings)) + _CHANGE_WEIGHT * _changed_share(plans) ** 2
        efficient = np.zeros(len(plans), dtype=np.bool_)
        missing_margins = (accuracy.max() - accuracy, latency.max() - latency)
        efficient[nondominated(np.column_stack([busy, cost, *missing_margins]))] = True
        return cls(busy, cost, accuracy, latency, efficient, down, np.where(down, size, np.inf))

    def among(self, selected: BoolArray) -> LadderSteps:
        """Return the steps restricted to some of the plans."""
        both = selected[:, None] & selected[None, :]
        return replace(self, down=self.down & both, step_size=np.where(both, self.step_size, np.inf))


def _busy_cpu_s(plan: PlanCandidate, rate_per_s: float) -> float:
    return sum(use.busy_replicas * use.deployment.allocation.cpus for use in plan.deployments) / rate_per_s


def _margins(slo: Slo | None, values: Sequence[float]) -> FloatArray:
    return np.array([0.0 if slo is None else slo.margin(value) for value in values])


def _no_more(values: FloatArray) -> BoolArray:
    """Return (n, n) whether column is no more than row, up to rounding."""
    return np.asarray(values[None, :] <= values[:, None] * (1 + DOMINANCE_TOLERANCE))


def _differences(values: FloatArray) -> FloatArray:
    """Return (n, n) the excess of row over column, relative to the range of all values."""
    width = float(np.ptp(values))
    return np.asarray((values[:, None] - values[None, :]) / (width if width > 0 else 1.0))


def _changed_share(plans: Sequence[PlanCandidate]) -> FloatArray:
    """Return (n, n) the share of deployments in which two plans differ."""
    numbers: dict[Deployment, int] = {}
    uses = [[numbers.setdefault(use.deployment, len(numbers)) for use in plan.deployments] for plan in plans]
    incidence = np.zeros((len(plans), len(numbers)))
    for row, columns in enumerate(uses):
        incidence[row, columns] = 1.0
    count = incidence.sum(axis=1)
    return np.asarray(1.0 - incidence @ incidence.T / np.maximum(count[:, None], count[None, :]))


MAX_RUNGS = 8
"""Maximum number of rungs of a ladder."""


def ladder(query: Query, plans: Sequence[PlanCandidate], chosen: PlanCandidate, max_rungs: int = MAX_RUNGS) -> Ladder:
    """Return the ladder of a selected plan.

    The top is the most accurate plan (then the one with the largest latency margin) from which the selected plan is a
    step down. The bottom is the cheapest (then the one with the fewest CPU seconds) of the steps down from the selected
    plan. The rungs from the top through the selected plan to the bottom minimize the sum of `LadderSteps.step_size`.
    Dominated plans are no rungs.

    Raises:
        ValueError: `max_rungs` is below 3, the number of top, selected plan and bottom.
    """
    if max_rungs < 3:
        raise ValueError(f"a ladder needs at least 3 rungs, got {max_rungs}")
    candidates = [chosen, *(candidate for candidate in plans if candidate.plan != chosen.plan)]
    steps = LadderSteps.of(query, candidates)
    eligible = steps.efficient.copy()
    eligible[0] = True
    steps = steps.among(eligible)
    up, down = _paths(steps, _top(steps), 0, max_rungs), _paths(steps, 0, _bottom(steps), max_rungs)
    pairs = [(a[0] + b[0], a[1], b[1]) for a in up for b in down if len(a[1]) + len(b[1]) - 1 <= max_rungs]
    _, upper, lower = min(pairs)
    indexes = [*upper, *lower[1:]]
    rungs = tuple(
        Rung(
            candidate=candidates[index],
            cpu_s_per_request=float(steps.busy[index]),
            shared_usd_per_h=float(steps.cost[index]),
            changes=plan_changes(candidates[indexes[position - 1]], candidates[index]) if position else (),
        )
        for position, index in enumerate(indexes)
    )
    return Ladder(rungs, len(upper) - 1)


def _top(steps: LadderSteps) -> int:
    """Return the plan with the largest margin from which the selected plan, 0, is a step down."""
    above = np.flatnonzero(steps.down[:, 0])
    order = np.lexsort((above, steps.cost[above], -steps.latency[above], -steps.accuracy[above]))
    return int(above[order[0]]) if len(above) else 0


def _bottom(steps: LadderSteps) -> int:
    """Return the plan with the lowest usage that is a step down from the selected plan, 0."""
    below = np.flatnonzero(steps.down[0])
    order = np.lexsort((below, steps.busy[below], steps.cost[below]))
    return int(below[order[0]]) if len(below) else 0


def _paths(steps: LadderSteps, start: int, end: int, max_rungs: int) -> list[tuple[float, list[int]]]:
    """Return the shortest path of steps from `start` to `end` for each feasible number of rungs up to `max_rungs`."""
    if start == end:
        return [(0.0, [start])]
    paths: list[tuple[float, list[int]]] = []
    count = len(steps.busy)
    best = np.full(count, np.inf)
    best[start] = 0.0
    predecessors: list[IntArray] = []
    for _ in range(max_rungs - 1):
        totals = best[:, None] + steps.step_size
        predecessors.append(totals.argmin(axis=0))
        best = totals.min(axis=0)
        if np.isfinite(best[end]):
            path = [end]
            for sources in reversed(predecessors):
                path.append(int(sources[path[-1]]))
            paths.append((float(best[end]), path[::-1]))
    return paths
