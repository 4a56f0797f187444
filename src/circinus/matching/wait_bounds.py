"""By how much requests wait longer when loads grow: whose objective leaves room for it need not be estimated again."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import combinations

from circinus.estimation import MergedLoad, PlanCandidate
from circinus.estimation.scenarios import ScenarioGrid
from circinus.estimation.stage_latency import deployment_station as deployment_station
from circinus.estimation.stage_latency import operator_queue_key as operator_queue
from circinus.estimation.transfer import FloatArray, link_wait_s
from circinus.estimation.transfer import link_queue_key as link_queue
from circinus.estimation.transfer import link_station_under_load as link_station
from circinus.queueing.station_model import LoadedStation
from circinus.specification import Deployment, DirectedLink

Queue = Deployment | DirectedLink
"""What requests wait for."""

_ROUNDING = 1e-5
"""Share of a latency that the estimate's precision may be off."""


def queues_of(plan: PlanCandidate) -> tuple[Queue, ...]:
    """What requests wait for under a plan."""
    return (*(use.deployment for use in plan.deployments), *(crossing.link for crossing in plan.links))


class WaitIncreaseBound:
    """The most by which the waits of any scenario grow from one load to another."""

    def __init__(self, touched: Iterable[Queue], before: MergedLoad, now: MergedLoad) -> None:
        """Between two loads that differ at the queues `touched`."""
        self._before = before
        self._stations = {
            queue: (_station(queue, before), _station(queue, now)) for queue in touched if _known(queue, before)
        }
        self._longer_s: dict[tuple[ScenarioGrid, Queue], float] = {}

    def latency_s(self, plan: PlanCandidate, upper_s: float, risk: float) -> float:
        """An upper bound of the latency of a plan now.

        No scenario's latency grows by more than its waits do, and percentiles not by more than all scenarios. An
        operator is waited for once, a link at most once by every value that is sent.

        Args:
            plan: of a query that ran before.
            upper_s: the upper bound of its latency under the load before.
            risk: of its query.
        """
        if self._may_wait_elsewhere(plan):
            return math.inf
        grid = ScenarioGrid.for_risk(risk, plan.estimate.percentile)
        sent = len(plan.deployments) + 1
        longer_s = sum(
            self._most_s(grid, queue) * (1 if isinstance(queue, Deployment) else sent)
            for queue in queues_of(plan)
            if queue in self._stations
        )
        return upper_s + longer_s + (upper_s * _ROUNDING if longer_s else 0.0)

    def _may_wait_elsewhere(self, plan: PlanCandidate) -> bool:
        """Whether values may come to wait at a link where they did not: of several with the same traffic they wait at
        the narrowest only, and one that is touched has the same traffic no more."""
        links = [crossing.link for crossing in plan.links]
        if len(links) < 2 or not any(link in self._stations for link in links):
            return False
        rates = [self._before.links[link].rate_per_s for link in links if link in self._before.links]
        return any(math.isclose(a, b) for a, b in combinations(rates, 2))

    def _most_s(self, grid: ScenarioGrid, queue: Queue) -> float:
        """By how much waits grow at a queue, whether servers take as long as they seem to or as they may."""
        key = (grid, queue)
        if key not in self._longer_s:
            name = operator_queue(queue.operator) if isinstance(queue, Deployment) else link_queue(queue)
            draws, (before, now) = grid.exponentials(name), self._stations[queue]
            slower_s = _longer_s(before.pessimistic(), now.pessimistic(), draws)
            self._longer_s[key] = max(slower_s, _longer_s(before, now, draws))
        return self._longer_s[key]


def _longer_s(before: LoadedStation | None, now: LoadedStation | None, draws: FloatArray) -> float:
    """The most by which a wait is longer at any of the draws (n,).

    How long batches take depends on the load, too, and that is not bounded here: infinite, as where nothing is.
    """
    if before is None or now is None or len(now.fill_ratios) > 1:
        return math.inf
    return float((link_wait_s(now, draws) - link_wait_s(before, draws)).max())


def _known(queue: Queue, conditions: MergedLoad) -> bool:
    return queue in conditions.deployments if isinstance(queue, Deployment) else queue in conditions.links


def _station(queue: Queue, conditions: MergedLoad) -> LoadedStation:
    return deployment_station(queue, conditions) if isinstance(queue, Deployment) else link_station(queue, conditions)
