"""Upper bounds on the increase of waiting times with load, which save re-estimates of queries with latency slack."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import combinations

from circinus.arrays import FloatArray
from circinus.estimation import MergedLoad, PlanCandidate
from circinus.estimation.percentiles import ScenarioGrid
from circinus.estimation.stage_latency import deployment_station, operator_queue_key
from circinus.estimation.transfer import link_queue_key, link_station_under_load, link_wait_s
from circinus.matching.tolerances import LATENCY_TOLERANCE
from circinus.queueing.station_model import LoadedStation
from circinus.specification import Deployment, DirectedLink

Queue = Deployment | DirectedLink
"""A queue of requests at a deployment or link."""


def queues_of(plan: PlanCandidate) -> tuple[Queue, ...]:
    """Return the queues of a plan's requests."""
    return (*(use.deployment for use in plan.deployments), *(crossing.link for crossing in plan.links))


class WaitIncreaseBound:
    """Maximum increase of waiting times, over all scenarios, from one load to another."""

    def __init__(self, affected: Iterable[Queue], previous: MergedLoad, current: MergedLoad) -> None:
        """Compare two loads that differ at the affected queues."""
        self._previous = previous
        self._stations = {
            queue: (_station(queue, previous), _station(queue, current))
            for queue in affected
            if _is_loaded(queue, previous)
        }
        self._increase_s: dict[tuple[ScenarioGrid, Queue], float] = {}

    def latency_s(self, plan: PlanCandidate, upper_s: float, risk: float) -> float:
        """Return an upper bound of a plan's latency under the current load.

        No scenario's latency grows by more than its waits, and percentiles by no more than the maximum over scenarios.
        Requests wait once for each operator, and for a link at most once for every value sent.

        Args:
            plan: of a query that ran before.
            upper_s: the upper bound of its latency under the previous load.
            risk: of its query.
        """
        if self._bottleneck_may_move(plan):
            return math.inf
        grid = ScenarioGrid.for_risk(risk, plan.estimate.percentile)
        max_sends = len(plan.deployments) + 1
        increase_s = sum(
            self._max_increase_s(grid, queue) * (1 if isinstance(queue, Deployment) else max_sends)
            for queue in queues_of(plan)
            if queue in self._stations
        )
        return upper_s + increase_s + (upper_s * LATENCY_TOLERANCE if increase_s else 0.0)

    def _bottleneck_may_move(self, plan: PlanCandidate) -> bool:
        """Return whether values may start to wait at a further link.

        Of several links with equal traffic, values wait at the narrowest only; an affected link's traffic is no longer
        equal.
        """
        links = [crossing.link for crossing in plan.links]
        if len(links) < 2 or not any(link in self._stations for link in links):
            return False
        rates = [self._previous.links[link].rate_per_s for link in links if link in self._previous.links]
        return any(math.isclose(a, b) for a, b in combinations(rates, 2))

    def _max_increase_s(self, grid: ScenarioGrid, queue: Queue) -> float:
        """Return the maximum increase of waits at a queue, for expected and for pessimistic service times."""
        key = (grid, queue)
        if key not in self._increase_s:
            name = operator_queue_key(queue.operator) if isinstance(queue, Deployment) else link_queue_key(queue)
            draws, (previous, current) = grid.exponentials(name), self._stations[queue]
            pessimistic_s = _max_increase_s(previous.pessimistic(), current.pessimistic(), draws)
            self._increase_s[key] = max(pessimistic_s, _max_increase_s(previous, current, draws))
        return self._increase_s[key]


def _max_increase_s(previous: LoadedStation | None, current: LoadedStation | None, draws: FloatArray) -> float:
    """Return the maximum increase of a wait over the draws (n,).

    Infinite without a station, and with batches, whose duration also depends on the load and is not bounded here.
    """
    if previous is None or current is None or len(current.fill_ratios) > 1:
        return math.inf
    return float((link_wait_s(current, draws) - link_wait_s(previous, draws)).max())


def _is_loaded(queue: Queue, conditions: MergedLoad) -> bool:
    return queue in conditions.deployments if isinstance(queue, Deployment) else queue in conditions.links


def _station(queue: Queue, conditions: MergedLoad) -> LoadedStation:
    return (
        deployment_station(queue, conditions)
        if isinstance(queue, Deployment)
        else link_station_under_load(queue, conditions)
    )
