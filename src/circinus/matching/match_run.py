"""Answering all queries together, once: candidates, what runs, the passes, and plans on running deployments."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

from circinus.arrays import IntArray
from circinus.estimation import ReplicaDemand
from circinus.estimation.estimator import USABLE_LINK_SHARE
from circinus.matching.column_generation import Candidates, Compose, Promise, generate_columns, solve_with_reuse
from circinus.matching.incumbent import Incumbent, keep_incumbent_if_better
from circinus.matching.passes import MatchState, run_passes
from circinus.matching.problem import Problem
from circinus.matching.problem_builder import build_problem, merged_demands
from circinus.matching.sizing import Reestimate
from circinus.matching.solvers.milp_solver import MilpSolver
from circinus.matching.solvers.solver import Solver
from circinus.planning import Frontier
from circinus.specification import Deployment, Infrastructure, Query

MAX_EXACT_QUERIES = 40
"""Queries that the exact solver chooses for by itself, mostly within a second."""
_LEAST_S, _A_QUERY_S, _MOST_S = 5.0, 0.1, 60.0


@dataclass(frozen=True)
class MatchSettings:
    """Choices of the matching that are not part of a query."""

    time_limit_s: float | None = None
    """Time for choosing; then the best found is taken, with its bounds. Promises to tenants may take several times.
    None: 5 s, and for each query beyond 40 a tenth of a second more, up to a minute."""
    usable_link_share: float = USABLE_LINK_SHARE
    """Share of a link's bandwidth that plans may take together."""
    seed: int = 0
    """Of the solver."""

    def limit_s(self, queries: int) -> float:
        """The time for so many queries."""
        if self.time_limit_s is not None:
            return self.time_limit_s
        return min(_LEAST_S + _A_QUERY_S * max(queries - MAX_EXACT_QUERIES, 0), _MOST_S)


_FIRST, _FIRST_OF_MANY = 0.5, 0.8
"""Of the time left, what a choice may take where further plans on its deployments are offered afterwards."""
_PRICED_SHARE = 0.2
"""Of the time, until when plans may enter at prices."""

DEFAULT_MATCH_SETTINGS = MatchSettings()


@dataclass(frozen=True)
class MatchRun:
    """Answers the same queries again and again, each time with others coming first."""

    frontiers: Mapping[str, Frontier]
    infrastructure: Infrastructure
    reestimate: Reestimate
    compose: Compose | None
    promise: Promise | None
    solver: Solver
    settings: MatchSettings
    clock: Callable[[], float]
    running: Incumbent | None
    estimated: bool = False

    @property
    def queries(self) -> tuple[Query, ...]:
        """All of them."""
        return tuple(frontier.query for frontier in self.frontiers.values())

    @property
    def limit_s(self) -> float:
        """Time for choosing."""
        return self.settings.limit_s(len(self.frontiers))

    def __call__(
        self,
        *,
        guaranteed: Collection[str] = (),
        preferred: Collection[str] = (),
        restrict_to: Collection[str] | None = None,
        limit_s: float | None = None,
    ) -> MatchState:
        """An answer within the time limit.

        Args:
            guaranteed: names of queries that come first (see `Ranks`).
            preferred: names of those that come next.
            restrict_to: names of the queries that may be served, as if nothing ran; None: all.
            limit_s: time for choosing; None: as in the settings.
        """
        queries = self.queries
        limit_s = self.limit_s if limit_s is None else limit_s
        deadline_s = self.clock() + limit_s
        running = self.running if restrict_to is None else None
        many = len(queries if restrict_to is None else restrict_to) > MAX_EXACT_QUERIES
        few = restrict_to is not None and not many and len(queries) > MAX_EXACT_QUERIES
        solver = MilpSolver(seed=self.settings.seed, clock=self.clock) if few else self.solver
        share = 1.0 if self.compose is None else _FIRST_OF_MANY if many else _FIRST

        def compile_candidates(candidates: Candidates) -> Problem:
            problem = build_problem(
                queries,
                candidates,
                self.infrastructure,
                usable_link_share=self.settings.usable_link_share,
                known=None if restrict_to is None else self._demands,
                held=guaranteed,
                raised=preferred,
            )
            return problem if running is None else running.mark(problem)

        def solve(problem: Problem, start: IntArray | None = None) -> MatchState:
            state = MatchState(
                problem=problem,
                queries=queries,
                infrastructure=self.infrastructure,
                usable_link_share=self.settings.usable_link_share,
                reestimate=self.reestimate,
                solver=solver,
                deadline_s=self.clock() + max(deadline_s - self.clock(), 0.0) * share,
                last_solution=start,
                estimated=self.estimated,
                is_large=many,
            )
            if running is None:
                return run_passes(state, clock=self.clock)
            begun, kept = running.warm_start(state)
            return keep_incumbent_if_better(run_passes(begun, clock=self.clock), kept)

        candidates: Candidates = {
            name: frontier.candidates if restrict_to is None or name in restrict_to else ()
            for name, frontier in self.frontiers.items()
        }
        if running is not None:
            candidates = running.add_candidates(candidates, queries, self.compose)
        if self.promise is not None:
            candidates = generate_columns(
                candidates,
                self.frontiers,
                self.promise,
                compile_candidates,
                enough=lambda: self.clock() > deadline_s - (1.0 - _PRICED_SHARE) * limit_s,
                seed=self.settings.seed,
            )
        if self.compose is None:
            return solve(compile_candidates(candidates))
        compose = self._composed_for(restrict_to)

        def late() -> bool:
            return self.clock() >= deadline_s

        return solve_with_reuse(
            candidates, queries, compose, compile_candidates, solve, offer_cheapest=not many, enough=late
        )

    @cached_property
    def _demands(self) -> Mapping[Deployment, ReplicaDemand]:
        """What a replica takes for any query: who is served alone is to fit beside the others, too."""
        plans = (candidate for frontier in self.frontiers.values() for candidate in frontier.candidates)
        return merged_demands((use.deployment, use.demand) for plan in plans for use in plan.deployments)

    def _composed_for(self, restrict_to: Collection[str] | None) -> Compose:
        """How queries are planned on given deployments; only some of them, if any."""
        assert self.compose is not None
        compose = self.compose
        return lambda query, running: (
            () if restrict_to is not None and query.name not in restrict_to else compose(query, running)
        )
