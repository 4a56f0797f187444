"""A run of the matching: candidates, incumbent, passes, and plans on running deployments."""

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
"""Maximum number of queries for the exact solver, which mostly takes less than a second."""
_BASE_S, _PER_QUERY_S, _MAX_S = 5.0, 0.1, 60.0


@dataclass(frozen=True)
class MatchSettings:
    """Settings of the matching that are not part of a query."""

    time_limit_s: float | None = None
    """Time limit of a run; then the best answer so far is taken, with its bounds. Tenants' shares may take several
    runs.
    Default: 5 s, plus 0.1 s for each query beyond 40, at most 60 s.
    """
    usable_link_share: float = USABLE_LINK_SHARE
    """Share of a link's bandwidth that plans may use together."""
    seed: int = 0
    """Random seed of the solver."""

    def limit_s(self, queries: int) -> float:
        """Return the time limit for a number of queries."""
        if self.time_limit_s is not None:
            return self.time_limit_s
        return min(_BASE_S + _PER_QUERY_S * max(queries - MAX_EXACT_QUERIES, 0), _MAX_S)


_FIRST_SHARE, _FIRST_SHARE_LARGE = 0.5, 0.8
"""Share of the remaining time for a choice after which plans on its deployments are offered."""
_COLUMN_GENERATION_SHARE = 0.2
"""Share of the time limit for column generation."""

DEFAULT_MATCH_SETTINGS = MatchSettings()


@dataclass(frozen=True)
class MatchRun:
    """Matching of the same queries any number of times, each with other priorities."""

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
        """All queries."""
        return tuple(frontier.query for frontier in self.frontiers.values())

    @property
    def limit_s(self) -> float:
        """Time limit of a run."""
        return self.settings.limit_s(len(self.frontiers))

    def __call__(
        self,
        *,
        guaranteed: Collection[str] = (),
        preferred: Collection[str] = (),
        restrict_to: Collection[str] | None = None,
        limit_s: float | None = None,
    ) -> MatchState:
        """Return an answer within the time limit.

        Args:
            guaranteed: names of queries of the highest priority (see `PriorityLevels.of`).
            preferred: names of queries of the next priority.
            restrict_to: names of the queries that may be served, without an incumbent; None: all.
            limit_s: time limit; None: that of the settings.
        """
        queries = self.queries
        limit_s = self.limit_s if limit_s is None else limit_s
        deadline_s = self.clock() + limit_s
        running = self.running if restrict_to is None else None
        is_large = len(queries if restrict_to is None else restrict_to) > MAX_EXACT_QUERIES
        is_small_subset = restrict_to is not None and not is_large and len(queries) > MAX_EXACT_QUERIES
        solver = MilpSolver(seed=self.settings.seed, clock=self.clock) if is_small_subset else self.solver
        share = 1.0 if self.compose is None else _FIRST_SHARE_LARGE if is_large else _FIRST_SHARE

        def compile_candidates(candidates: Candidates) -> Problem:
            problem = build_problem(
                queries,
                candidates,
                self.infrastructure,
                usable_link_share=self.settings.usable_link_share,
                shared_demands=None if restrict_to is None else self._demands,
                guaranteed=guaranteed,
                preferred=preferred,
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
                is_large=is_large,
            )
            if running is None:
                return run_passes(state, clock=self.clock)
            warm, repaired = running.warm_start(state)
            return keep_incumbent_if_better(run_passes(warm, clock=self.clock), repaired)

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
                should_stop=lambda: self.clock() > deadline_s - (1.0 - _COLUMN_GENERATION_SHARE) * limit_s,
                seed=self.settings.seed,
            )
        if self.compose is None:
            return solve(compile_candidates(candidates))
        compose = self._composed_for(restrict_to)

        def is_late() -> bool:
            return self.clock() >= deadline_s

        return solve_with_reuse(
            candidates, queries, compose, compile_candidates, solve, offer_cheapest=not is_large, should_stop=is_late
        )

    @cached_property
    def _demands(self) -> Mapping[Deployment, ReplicaDemand]:
        """Maximum demand of a replica over all queries, so that queries served in isolation also fit together."""
        plans = (candidate for frontier in self.frontiers.values() for candidate in frontier.candidates)
        return merged_demands((use.deployment, use.demand) for plan in plans for use in plan.deployments)

    def _composed_for(self, restrict_to: Collection[str] | None) -> Compose:
        """Return the planner on given deployments, restricted to some queries."""
        assert self.compose is not None
        compose = self.compose
        return lambda query, running: (
            () if restrict_to is not None and query.name not in restrict_to else compose(query, running)
        )
