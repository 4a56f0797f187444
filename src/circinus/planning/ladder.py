"""The ladder of a plan: neighbours on its query's frontier to step down to under a burst, and up again when calm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.estimation import PlanCandidate
from circinus.planning.dominance import DOMINANCE_TOLERANCE, nondominated
from circinus.specification import Deployment, Query

_CHANGE_WEIGHT = 0.1
"""What a step that changes every deployment weighs beside one that loses all the margin there is."""

_LEAST = 1e-12


Change = Literal["knobs", "pool", "allocation"]
_CHANGES: tuple[Change, ...] = ("knobs", "pool", "allocation")


@dataclass(frozen=True)
class OperatorChange:
    """What a step changes of one operator."""

    operator: str
    changed: tuple[Change, ...]


@dataclass(frozen=True, eq=False)
class LadderSteps:
    """n plans and all steps between them."""

    busy: FloatArray
    """(n,) CPU seconds that a request keeps replicas busy."""
    cost: FloatArray
    """(n,) US dollars per hour, fully shared."""
    accuracy: FloatArray
    """(n,) expected margin of accuracy in scores; 0 without an objective. Not that of the bounds: those tell how long a
    configuration was measured as much as how good it is, and every rung keeps the objective at its bound."""
    latency: FloatArray
    """(n,) expected margin of latency in seconds; 0 without an objective."""
    efficient: BoolArray
    """(n,) whether no other plan takes no more and keeps no less margin; of equal ones the first."""
    down: BoolArray
    """(n, n) whether from the first to the second is a step down: no more of CPU seconds and cost, less of one, and
    not more accurate."""
    step_size: FloatArray
    """(n, n) how large a step down is; infinite where there is none. The squares of what it loses of the accuracy
    margin, of the latency margin, and of what it saves of CPU seconds and cost (as logarithms), each as a share of the
    range among the plans, and a tenth of the square of the share of deployments that it changes. Squares make a way of
    several small steps better than one large step, and steps that are much alike."""

    @classmethod
    def of(cls, query: Query, plans: Sequence[PlanCandidate]) -> LadderSteps:
        """Between promised plans of one query."""
        busy = np.array([_busy_cpu_s(plan, query.rate_per_s) for plan in plans])
        cost = np.array([plan.estimate.cost_usd_per_h.lower for plan in plans])
        accuracy = np.array([_accuracy_margin(plan, query) for plan in plans])
        latency = np.array([_latency_margin_s(plan, query) for plan in plans])
        no_more = _no_more(busy) & _no_more(cost)
        down = no_more & ~no_more.T & (accuracy[:, None] >= accuracy[None, :])
        losses = [np.maximum(_differences(values), 0.0) for values in (accuracy, latency)]
        savings = [_differences(np.log(np.maximum(values, _LEAST))) for values in (busy, cost)]
        size = sum(part**2 for part in (*losses, *savings)) + _CHANGE_WEIGHT * _changed_share(plans) ** 2
        efficient = np.zeros(len(plans), dtype=np.bool_)
        lacking = (accuracy.max() - accuracy, latency.max() - latency)
        efficient[nondominated(np.column_stack([busy, cost, *lacking]))] = True
        return cls(busy, cost, accuracy, latency, efficient, down, np.where(down, size, np.inf))

    def among(self, which: BoolArray) -> LadderSteps:
        """The same plans with steps between some of them only."""
        both = which[:, None] & which[None, :]
        return replace(self, down=self.down & both, step_size=np.where(both, self.step_size, np.inf))


def plan_changes(upper: PlanCandidate, lower: PlanCandidate) -> tuple[OperatorChange, ...]:
    """What two plans of a query have different, operator by operator in topological order."""
    before = {use.deployment.operator: use.deployment for use in upper.deployments}
    found = []
    for use in lower.deployments:
        one, other = before.get(use.deployment.operator), use.deployment
        what = tuple(name for name in _CHANGES if getattr(one, name, None) != getattr(other, name))
        if what:
            found.append(OperatorChange(other.operator, what))
    return tuple(found)


def _busy_cpu_s(plan: PlanCandidate, rate_per_s: float) -> float:
    return sum(use.busy_replicas * use.deployment.allocation.cpus for use in plan.deployments) / rate_per_s


def _accuracy_margin(plan: PlanCandidate, query: Query) -> float:
    slo, accuracy = query.slos.accuracy, plan.estimate.accuracy
    if slo is None:
        return 0.0
    return accuracy.value - slo.threshold if slo.comparison == ">=" else slo.threshold - accuracy.value


def _latency_margin_s(plan: PlanCandidate, query: Query) -> float:
    slo = query.slos.latency
    return 0.0 if slo is None else slo.limit_s - plan.estimate.latency_s.value


def _no_more(values: FloatArray) -> BoolArray:
    """(n, n) whether the second takes no more than the first; amounts that differ by rounding are the same."""
    return np.asarray(values[None, :] <= values[:, None] * (1 + DOMINANCE_TOLERANCE))


def _differences(values: FloatArray) -> FloatArray:
    """(n, n) by how much the first is greater, as a share of the range of all."""
    width = float(np.ptp(values))
    return np.asarray((values[:, None] - values[None, :]) / (width if width > 0 else 1.0))


def _changed_share(plans: Sequence[PlanCandidate]) -> FloatArray:
    """(n, n) the share of deployments that two plans do not have in common."""
    numbers: dict[Deployment, int] = {}
    uses = [[numbers.setdefault(use.deployment, len(numbers)) for use in plan.deployments] for plan in plans]
    incidence = np.zeros((len(plans), len(numbers)))
    for row, columns in enumerate(uses):
        incidence[row, columns] = 1.0
    count = incidence.sum(axis=1)
    return np.asarray(1.0 - incidence @ incidence.T / np.maximum(count[:, None], count[None, :]))


MAX_RUNGS = 8
"""Most rungs of a ladder."""


@dataclass(frozen=True)
class Rung:
    """One plan of a ladder. It promises its query's objectives at the query's rate by itself."""

    candidate: PlanCandidate
    """As estimated for this query alone with deployments as busy as they may get."""
    cpu_s_per_request: float
    """CPU seconds that a request keeps its replicas busy, over all operators."""
    shared_usd_per_h: float
    """What it costs where others fill its replicas, transfers included."""
    changes: tuple[OperatorChange, ...]
    """What differs from the rung above, in topological order; empty at the top."""


@dataclass(frozen=True)
class Ladder:
    """Rungs from the one with most margin down to the one that takes least.

    A step down never takes more CPU seconds a request and never costs more fully shared, and takes less of one of them;
    and it is never more accurate.
    """

    rungs: tuple[Rung, ...]
    chosen: int
    """Index of the plan that the query got."""


def ladder(query: Query, plans: Sequence[PlanCandidate], chosen: PlanCandidate, most: int = MAX_RUNGS) -> Ladder:
    """The ladder of a chosen plan.

    The top is the most accurate plan, and of equally accurate ones the one with most latency margin, of all that the
    chosen plan is a step down from; the bottom is the cheapest, then that with fewest CPU seconds, of all that are a
    step down from it. From the top over the chosen plan to the bottom the rungs are those with the smallest steps: the
    sum of `Steps.jolt` over all steps is least. Plans that others beat in all that counts are no rungs.

    Args:
        query: whose plans these are.
        plans: different promised plans, such as a frontier's.
        chosen: one of them, or another promised plan of the query; with its promise, as all of them.
        most: most rungs.

    Raises:
        ValueError: `most` is below 3, which top, chosen plan and bottom may take.
    """
    if most < 3:
        raise ValueError(f"found {most} rungs, expected at least 3")
    known = [chosen, *(candidate for candidate in plans if candidate.plan != chosen.plan)]
    steps = LadderSteps.of(query, known)
    which = steps.efficient.copy()
    which[0] = True
    steps = steps.among(which)
    up, down = _ways(steps, _top(steps, 0), 0, most), _ways(steps, 0, _bottom(steps, 0), most)
    pairs = [(a[0] + b[0], a[1], b[1]) for a in up for b in down if len(a[1]) + len(b[1]) - 1 <= most]
    _, upper, lower = min(pairs)
    indexes = [*upper, *lower[1:]]
    rungs = tuple(
        Rung(
            candidate=known[index],
            cpu_s_per_request=float(steps.busy[index]),
            shared_usd_per_h=float(steps.cost[index]),
            changes=plan_changes(known[indexes[position - 1]], known[index]) if position else (),
        )
        for position, index in enumerate(indexes)
    )
    return Ladder(rungs, len(upper) - 1)


def _top(steps: LadderSteps, chosen: int) -> int:
    """The plan with most margin of all that `chosen` is a step down from."""
    above = np.flatnonzero(steps.down[:, chosen])
    order = np.lexsort((above, steps.cost[above], -steps.latency[above], -steps.accuracy[above]))
    return int(above[order[0]]) if len(above) else chosen


def _bottom(steps: LadderSteps, chosen: int) -> int:
    """The plan that takes least of all that are a step down from `chosen`."""
    below = np.flatnonzero(steps.down[chosen])
    order = np.lexsort((below, steps.busy[below], steps.cost[below]))
    return int(below[order[0]]) if len(below) else chosen


def _ways(steps: LadderSteps, start: int, end: int, most: int) -> list[tuple[float, list[int]]]:
    """For each number of rungs up to `most` the way down from `start` to `end` with the smallest steps, if any."""
    if start == end:
        return [(0.0, [start])]
    found: list[tuple[float, list[int]]] = []
    count = len(steps.busy)
    best = np.full(count, np.inf)
    best[start] = 0.0
    came: list[IntArray] = []
    for _ in range(most - 1):
        through = best[:, None] + steps.step_size
        came.append(through.argmin(axis=0))
        best = through.min(axis=0)
        if np.isfinite(best[end]):
            way = [end]
            for sources in reversed(came):
                way.append(int(sources[way[-1]]))
            found.append((float(best[end]), way[::-1]))
    return found
