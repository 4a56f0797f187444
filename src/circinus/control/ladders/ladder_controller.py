"""The policy of ladders for all queries of some plans, beside each other."""

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

_BUSIER = 1.2
"""Times the planned rate."""


class LadderController:
    """Which rung every query should be on. Keeps nothing but counters that it read."""

    def __init__(self, controlled: ManagedPlans, before: LadderController | None = None) -> None:
        """For some plans.

        Args:
            controlled: the plans.
            before: of the plans that these follow: how often requests come is known already.
        """
        self._controlled = controlled
        known: Mapping[str, RateEstimator] = {} if before is None else before._meters
        self._meters: dict[str, RateEstimator] = {
            name: known.get(name) or RateEstimator() for name in controlled.queries
        }
        self._rates: dict[str, RateBounds] = {}
        planned = {} if before is None else {q: before._dispersions[n] for n, q in before._controlled.queries.items()}
        self._dispersions: dict[str, float] = {
            name: planned[query] if query in planned else planned_idc(query)
            for name, query in controlled.queries.items()
        }

    @property
    def above_planned_rate(self) -> frozenset[str]:
        """Queries whose requests come clearly more often than was planned for."""
        queries = self._controlled.queries
        return frozenset(n for n, rate in self._rates.items() if rate.likely_per_s > _BUSIER * queries[n].rate_per_s)

    def observe(self, now_s: float, status: EngineStatus, began_s: float | None = None) -> None:
        """Counters, at a time that never goes back; `began_s`: when the look at them began."""
        counts = {query.query: query.received for query in status.queries}
        self._rates = {}
        for name in counts.keys() & self._meters.keys():
            rate = self._meters[name].read(now_s, counts[name], began_s)
            if rate is not None:
                self._rates[name] = rate

    def decide(
        self, now_s: float, time_s: float, ladders: Mapping[str, LadderState], status: EngineStatus
    ) -> tuple[dict[str, LadderState], list[Event]]:
        """The next states of all queries, and the steps among them; counters were read just before.

        Args:
            now_s: by a clock that never goes back.
            time_s: seconds since 1970, for the events.
            ladders: where queries stand.
            status: of the engine.
        """
        rungs = self._controlled.rungs
        known = {
            name: QueryLoad(rungs[name][ladders[name].rung], rate, self._dispersions[name])
            for name, rate in self._rates.items()
        }
        loads = DeploymentLoads(known, {found.deployment: found for found in status.deployments})
        found, events = dict(ladders), []
        for name, settings in self._controlled.ladder_settings.items():
            if name not in loads:
                continue
            step = decide_step(now_s, found[name], loads.rung_loads(name, rungs[name]), settings)
            if step.reason:
                rate_per_s = loads.rate(name).likely_per_s
                details = {"from": found[name].rung, "to": step.state.rung, "rate_per_s": rate_per_s}
                events.append(Event(time_s, STEP, name, step.reason, details))
                loads.move(name, rungs[name][step.state.rung])
            found[name] = step.state
        return found, events


def planned_idc(query: Query) -> float:
    """Of planned arrivals over the last moments; what comes more evenly than by chance counts as by chance."""
    return max(1.0, float(arrival_process(query).index_of_dispersion(np.array([RECENT_S]))[0]))
