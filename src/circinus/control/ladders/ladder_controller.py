"""Ladder policy applied to all queries of a set of plans."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from circinus.control.ladders.policy import LadderState, decide_step
from circinus.control.ladders.rung_loads import RECENT_S, DeploymentLoads, QueryLoad, RateBounds, RateEstimator
from circinus.control.managed_plans import ManagedPlans
from circinus.control.state_store import STEP, Event
from circinus.queueing.arrivals import arrival_process
from circinus.serving import EngineStatus
from circinus.specification import Query

_BUSY_RATE_RATIO = 1.2
"""Minimum ratio to the planned rate at which a query counts as above its planned rate."""


class LadderController:
    """Selector of every query's rung. Its only state are the request counters."""

    def __init__(self, controlled: ManagedPlans, previous: LadderController | None = None) -> None:
        """Start with the given plans.

        Args:
            controlled: plans.
            previous: controller of the previous plans, whose rate estimates are reused.
        """
        self._controlled = controlled
        estimators: Mapping[str, RateEstimator] = {} if previous is None else previous._rate_estimators
        self._rate_estimators: dict[str, RateEstimator] = {
            name: estimators.get(name) or RateEstimator() for name in controlled.queries
        }
        self._rates: dict[str, RateBounds] = {}
        planned = (
            {} if previous is None else {q: previous._dispersions[n] for n, q in previous._controlled.queries.items()}
        )
        self._dispersions: dict[str, float] = {
            name: planned[query] if query in planned else planned_idc(query)
            for name, query in controlled.queries.items()
        }

    @property
    def above_planned_rate(self) -> frozenset[str]:
        """Queries whose request rate is clearly above the planned rate."""
        queries = self._controlled.queries
        return frozenset(
            n for n, rate in self._rates.items() if rate.expected_per_s > _BUSY_RATE_RATIO * queries[n].rate_per_s
        )

    def observe(self, now_s: float, status: EngineStatus, began_s: float | None = None) -> None:
        """Read the request counters of a status; `began_s` is the time at which the status request was sent."""
        counts = {query.query: query.received for query in status.queries}
        self._rates = {}
        for name in counts.keys() & self._rate_estimators.keys():
            rate = self._rate_estimators[name].read(now_s, counts[name], began_s)
            if rate is not None:
                self._rates[name] = rate

    def decide(
        self, now_s: float, time_s: float, ladders: Mapping[str, LadderState], status: EngineStatus
    ) -> tuple[dict[str, LadderState], list[Event]]:
        """Return the next ladder states of all queries, and the steps as events; call `observe` first.

        Args:
            now_s: monotonic time.
            time_s: seconds since 1970, for the events.
            ladders: current ladder states.
            status: status of the engine.
        """
        rungs = self._controlled.rungs
        query_loads = {
            name: QueryLoad(rungs[name][ladders[name].rung], rate, self._dispersions[name])
            for name, rate in self._rates.items()
        }
        loads = DeploymentLoads(query_loads, {entry.deployment: entry for entry in status.deployments})
        states, events = dict(ladders), []
        for name, settings in self._controlled.ladder_settings.items():
            if name not in loads:
                continue
            step = decide_step(now_s, states[name], loads.rung_loads(name, rungs[name]), settings)
            if step.reason:
                rate_per_s = loads.rate(name).expected_per_s
                details = {"from": states[name].rung, "to": step.state.rung, "rate_per_s": rate_per_s}
                events.append(Event(time_s, STEP, name, step.reason, details))
                loads.move(name, rungs[name][step.state.rung])
            states[name] = step.state
        return states, events


def planned_idc(query: Query) -> float:
    """Return the index of dispersion of planned arrivals over `RECENT_S`, at least 1 as for a Poisson process."""
    return max(1.0, float(arrival_process(query).index_of_dispersion(np.array([RECENT_S]))[0]))
