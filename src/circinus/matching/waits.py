"""By how much requests wait longer when loads grow: whose objective leaves room for it need not be estimated again."""

from __future__ import annotations

import math
from collections.abc import Iterable

from circinus.estimation import Candidate, Conditions
from circinus.estimation.scenarios import ScenarioGrid
from circinus.estimation.stages import loaded_wait as deployment_wait
from circinus.estimation.stages import queue_name as operator_queue
from circinus.estimation.transfer import loaded_wait as link_wait
from circinus.estimation.transfer import queue_name as link_queue
from circinus.queueing.formulas import Wait
from circinus.spec import Deployment, DirectedLink

Queue = Deployment | DirectedLink
"""What requests wait for."""

_ROUNDING = 1e-5
"""Share of a latency that the estimate's precision may be off."""


def queues(plan: Candidate) -> tuple[Queue, ...]:
    """What requests wait for under a plan."""
    return (*(use.deployment for use in plan.deployments), *(crossing.link for crossing in plan.links))


class LongerWaits:
    """The most by which the waits of any scenario grow from one load to another."""

    def __init__(self, touched: Iterable[Queue], before: Conditions, now: Conditions) -> None:
        """Between two loads that differ at the queues `touched`."""
        self._waits = {queue: (_wait(queue, before), _wait(queue, now)) for queue in touched if _known(queue, before)}
        self._longer_s: dict[tuple[ScenarioGrid, Queue], float] = {}

    def latency_s(self, plan: Candidate, upper_s: float, risk: float) -> float:
        """An upper bound of the latency of a plan now.

        No scenario's latency grows by more than its waits do, and percentiles not by more than all scenarios. An
        operator is waited for once, a link at most once by every value that is sent.

        Args:
            plan: of a query that ran before.
            upper_s: the upper bound of its latency under the load before.
            risk: of its query.
        """
        grid = ScenarioGrid.for_risk(risk)
        sent = len(plan.deployments) + 1
        longer_s = sum(
            self._most_s(grid, queue) * (1 if isinstance(queue, Deployment) else sent)
            for queue in queues(plan)
            if queue in self._waits
        )
        return upper_s + longer_s + (upper_s * _ROUNDING if longer_s else 0.0)

    def _most_s(self, grid: ScenarioGrid, queue: Queue) -> float:
        key = (grid, queue)
        if key not in self._longer_s:
            name = operator_queue(queue.operator) if isinstance(queue, Deployment) else link_queue(queue)
            self._longer_s[key] = _longer_s(*self._waits[queue], float(grid.exponentials(name).max()))
        return self._longer_s[key]


def _longer_s(before: Wait, now: Wait, most: float) -> float:
    """The most by which a wait is longer at any draw from 0 to `most`: both are linear but for where they begin."""
    begins = [-math.log(p) for wait in (before, now) if (p := float(wait.probability)) > 0]
    draws = [draw for draw in (0.0, *begins, most) if draw <= most]
    return max(_at(now, draw) - _at(before, draw) for draw in draws)


def _at(wait: Wait, draw: float) -> float:
    """See `Wait.at`."""
    probability = float(wait.probability)
    return max(0.0, draw + math.log(probability)) * float(wait.conditional_mean_s) if probability > 0 else 0.0


def _known(queue: Queue, conditions: Conditions) -> bool:
    return queue in conditions.deployments if isinstance(queue, Deployment) else queue in conditions.links


def _wait(queue: Queue, conditions: Conditions) -> Wait:
    return deployment_wait(queue, conditions) if isinstance(queue, Deployment) else link_wait(queue, conditions)
