"""Steps from one plan of a query down to another that takes less: which there are, and how large they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from circinus.estimation import PlanCandidate
from circinus.planning.dominance import DOMINANCE_TOLERANCE, nondominated
from circinus.spec import Deployment, Query

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

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
