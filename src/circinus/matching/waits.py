"""By how much requests wait longer when loads grow: whose objective leaves room for it need not be estimated again."""

from __future__ import annotations

import math
from collections.abc import Iterable

from circinus.estimation import Candidate, Conditions
from circinus.estimation.scenarios import ScenarioGrid
from circinus.estimation.stages import loaded_station as deployment_station
from circinus.estimation.stages import queue_name as operator_queue
from circinus.estimation.transfer import FloatArray, wait_at
from circinus.estimation.transfer import loaded_station as link_station
from circinus.estimation.transfer import queue_name as link_queue
from circinus.queueing.load import StationLoad
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
        self._stations = {
            queue: (_station(queue, before), _station(queue, now)) for queue in touched if _known(queue, before)
        }
        self._longer_s: dict[tuple[ScenarioGrid, Queue, float], float] = {}

    def latency_s(self, plan: Candidate, upper_s: float, risk: float) -> float:
        """An upper bound of the latency of a plan now.

        No scenario's latency grows by more than its waits do, and percentiles not by more than all scenarios. An
        operator is waited for once, a link at most once by every value that is sent.

        Args:
            plan: of a query that ran before.
            upper_s: the upper bound of its latency under the load before.
            risk: of its query.
        """
        grid = ScenarioGrid.for_risk(risk, plan.estimate.percentile)
        sent = len(plan.deployments) + 1
        longer_s = sum(self._most_s(grid, use.deployment, use.mean_factor) for use in plan.deployments)
        longer_s += sent * sum(self._most_s(grid, crossing.link, crossing.mean_factor) for crossing in plan.links)
        return upper_s + longer_s + (upper_s * _ROUNDING if longer_s else 0.0)

    def _most_s(self, grid: ScenarioGrid, queue: Queue, mean_factor: float) -> float:
        """By how much waits grow at a queue, whether servers take as long as they seem to or as few items allow."""
        if queue not in self._stations:
            return 0.0
        key = (grid, queue, mean_factor)
        if key not in self._longer_s:
            name = operator_queue(queue.operator) if isinstance(queue, Deployment) else link_queue(queue)
            draws, (before, now) = grid.exponentials(name), self._stations[queue]
            slower_s = _longer_s(before.slower(mean_factor), now.slower(mean_factor), draws)
            self._longer_s[key] = max(slower_s, _longer_s(before, now, draws) if mean_factor > 1 else 0.0)
        return self._longer_s[key]


def _longer_s(before: StationLoad, now: StationLoad, draws: FloatArray) -> float:
    """The most by which a wait is longer at any of the draws (n,).

    How long batches take depends on the load, too, and that is not bounded here: infinite, as where nothing is.
    """
    if len(now.fill_ratios) > 1 or max(before.utilization, now.utilization) >= 1:
        return math.inf
    return float((wait_at(now, draws) - wait_at(before, draws)).max())


def _known(queue: Queue, conditions: Conditions) -> bool:
    return queue in conditions.deployments if isinstance(queue, Deployment) else queue in conditions.links


def _station(queue: Queue, conditions: Conditions) -> StationLoad:
    return deployment_station(queue, conditions) if isinstance(queue, Deployment) else link_station(queue, conditions)
