"""Who is let in beside an answer that was not made well: as much as fits, and all of it holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from test_optimizer import check_everything

from budget import HANG_LIMIT_S, seeds
from circinus.arrays import IntArray
from circinus.matching import MatchSettings, match
from circinus.matching.cuts import Cut
from circinus.matching.problem import Problem
from circinus.matching.solvers.solver import Solution
from random_matchings import Instance, checked_cost, frontiers_of, random_instance, reestimate


@dataclass(frozen=True)
class Careless:
    """Serves only every third query that it can."""

    def solve(
        self, problem: Problem, cuts: Sequence[Cut], time_limit_s: float, starts: Sequence[IntArray] = ()
    ) -> Solution:
        """Whatever else could be served is not."""
        chosen = np.full(len(problem.queries), -1, dtype=np.int64)
        for query in range(0, len(chosen), 3):
            for candidate in problem.candidates_of(query):
                chosen[query] = candidate
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
    for seed in seeds(50):
        instance = random_instance(seed, queries=5)
        found = match(frontiers_of(instance), instance.infrastructure, reestimate, solver=Careless(), settings=PATIENT)
        check_everything(instance, found)
        assert not _could_still_come_in(instance, {a.query: a.chosen.plan for a in found.assignments}), seed
        let_in += sum(a.query not in {q.name for q in instance.queries[::3]} for a in found.assignments)
    assert let_in
