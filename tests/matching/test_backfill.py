"""Who is let in beside an answer that was not made well: as much as fits, and all of it holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from test_optimizer import check_everything

from budget import HANG_LIMIT_S, seeds
from circinus.arrays import IntArray
from circinus.estimation import MergedLoad, PlanCandidate
from circinus.matching import MatchSettings, match
from circinus.matching.cuts import Cut
from circinus.matching.problem import Problem
from circinus.matching.solvers.solver import Solution
from circinus.specification import LatencySlo, Query, Slos
from circinus.statistics.interval import Interval
from random_matchings import (
    Instance,
    candidate,
    checked_cost,
    deployment,
    frontiers_of,
    infrastructure,
    random_instance,
    reestimate,
    use,
)


@dataclass(frozen=True)
class Careless:
    """Serves only every third query that it can, from a first one on."""

    first: int = 0

    def solve(
        self, problem: Problem, cuts: Sequence[Cut], time_limit_s: float, starts: Sequence[IntArray] = ()
    ) -> Solution:
        """Whatever else could be served is not."""
        chosen = np.full(len(problem.queries), -1, dtype=np.int64)
        for query in range(self.first, len(chosen), 3):
            for position in problem.candidates_of(query):
                chosen[query] = position
                usage = problem.usage_of(chosen)
                if problem.fits(usage) and all(cut.is_satisfied(problem, chosen, usage) for cut in cuts):
                    break
                chosen[query] = -1
        return Solution(
            chosen, np.full(len(chosen), -1), problem.priority_levels.weights_of(chosen * 0), 0.0, optimal=False
        )


def _could_still_come_in(instance: Instance, served: dict[str, object]) -> bool:
    plans = tuple(c for q in instance.queries for c in instance.candidates[q.name] if c.plan == served.get(q.name))
    waiting = [q.name for q in instance.queries if q.name not in served]
    return any(
        checked_cost(instance, (*plans, candidate)) is not None
        for name in waiting
        for candidate in instance.candidates[name]
    )


PATIENT = MatchSettings(time_limit_s=HANG_LIMIT_S)


def test_nobody_is_left_out_who_fits_as_deployed() -> None:
    let_in = 0
    for seed in seeds(30):
        instance = random_instance(seed, queries=5)
        found = match(frontiers_of(instance), instance.infrastructure, reestimate, solver=Careless(), settings=PATIENT)
        check_everything(instance, found)
        assert not _could_still_come_in(instance, {a.query: a.chosen.plan for a in found.assignments}), seed
        let_in += sum(a.query not in {q.name for q in instance.queries[::3]} for a in found.assignments)
    assert let_in


def _slow_beyond_half(made: PlanCandidate, conditions: MergedLoad) -> PlanCandidate:
    loads = [conditions.deployments[use.deployment] for use in made.deployments]
    latency_s = 0.5 if max(load.busy_replicas / load.replicas for load in loads) < 0.45 else 9.0
    return replace(made, estimate=replace(made.estimate, latency_s=Interval.exact(latency_s)))


@pytest.mark.parametrize("plans_of_heavy", [1, 2])
def test_a_refusal_is_of_one_query(plans_of_heavy: int) -> None:
    pools, slos = infrastructure([("edge", 4, 1.0, 16.0, 1.0)]), Slos(latency=LatencySlo(limit_s=0.7))
    heavy, light = (
        Query(name=name, pipeline="p", source="home", rate_per_s=rate_per_s, weight=weight, slos=slos)
        for name, rate_per_s, weight in (("heavy", 5.0, 2.0), ("light", 1.0, 1.0))
    )
    deployments = deployment("a", 1, "edge"), deployment("z", 1, "edge")
    of_heavy = tuple(candidate("heavy", [use(d, 2.95, pools)]) for d in deployments[:plans_of_heavy])
    plans = {"heavy": of_heavy, "light": (candidate("light", [use(deployments[0], 0.5, pools)]),)}
    frontiers = frontiers_of(Instance(pools, (heavy, light), plans))
    found = match(frontiers, pools, _slow_beyond_half, solver=Careless(first=2), settings=PATIENT)
    assert found.served == {"light"}
