"""Answering all queries together, once: candidates, what runs, the passes, and plans on running deployments."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from circinus.estimation.estimator import USABLE_LINK_SHARE
from circinus.matching.choice import Solver
from circinus.matching.columns import Promise, with_priced
from circinus.matching.compilation import compile_problem
from circinus.matching.passes import State, run_passes
from circinus.matching.problem import IntArray, Problem
from circinus.matching.reuse import Candidates, Compose, solve_with_reuse
from circinus.matching.running import Running, no_worse
from circinus.matching.sizing import Reestimate
from circinus.planning import Frontier
from circinus.spec import Infrastructure, Query


@dataclass(frozen=True)
class MatchSettings:
    """Choices of the matching that are not part of a query."""

    time_limit_s: float = 5.0
    """Time for choosing; then the best found is taken, with its bounds. Promises to tenants may take several times."""
    usable_link_share: float = USABLE_LINK_SHARE
    """Share of a link's bandwidth that plans may take together."""
    seed: int = 0
    """Of the solver."""


EXACT_UP_TO = 40
"""Queries that the exact solver chooses for by itself, mostly within a second."""

_PRICED_SHARE = 0.2
"""Of the time, until when plans may enter at prices."""

DEFAULT_MATCH_SETTINGS = MatchSettings()


@dataclass(frozen=True)
class Answering:
    """Answers the same queries again and again, each time with others coming first."""

    frontiers: Mapping[str, Frontier]
    infrastructure: Infrastructure
    reestimate: Reestimate
    compose: Compose | None
    promise: Promise | None
    solver: Solver
    settings: MatchSettings
    clock: Callable[[], float]
    running: Running | None

    @property
    def queries(self) -> tuple[Query, ...]:
        """All of them."""
        return tuple(frontier.query for frontier in self.frontiers.values())

    def __call__(
        self, *, held: Collection[str] = (), raised: Collection[str] = (), only: Collection[str] | None = None
    ) -> State:
        """An answer within the time limit.

        Args:
            held: names of queries that come first (see `Ranks`).
            raised: names of those that come next.
            only: names of the queries that may be served, as if nothing ran; None: all.
        """
        queries, deadline_s = self.queries, self.clock() + self.settings.time_limit_s
        running = self.running if only is None else None

        def compile_candidates(candidates: Candidates) -> Problem:
            problem = compile_problem(
                queries,
                candidates,
                self.infrastructure,
                usable_link_share=self.settings.usable_link_share,
                held=held,
                raised=raised,
            )
            return problem if running is None else running.marked(problem)

        def solve(problem: Problem, start: IntArray | None = None) -> State:
            state = State(
                problem=problem,
                queries=queries,
                infrastructure=self.infrastructure,
                usable_link_share=self.settings.usable_link_share,
                reestimate=self.reestimate,
                solver=self.solver,
                deadline_s=self.clock() + max(deadline_s - self.clock(), 0.0) * (1.0 if self.compose is None else 0.5),
                attempted=start,
                many=len(queries) > EXACT_UP_TO,
            )
            if running is None:
                return run_passes(state, clock=self.clock)
            begun, kept = running.begun(state)
            return no_worse(run_passes(begun, clock=self.clock), kept)

        candidates: Candidates = {
            name: frontier.candidates if only is None or name in only else ()
            for name, frontier in self.frontiers.items()
        }
        if running is not None:
            candidates = running.offered(candidates, queries, self.compose)
        if self.promise is not None:
            candidates = with_priced(
                candidates,
                self.frontiers,
                self.promise,
                compile_candidates,
                enough=lambda: self.clock() > deadline_s - (1.0 - _PRICED_SHARE) * self.settings.time_limit_s,
                seed=self.settings.seed,
            )
        if self.compose is None:
            return solve(compile_candidates(candidates))
        return solve_with_reuse(candidates, queries, self._composed_for(only), compile_candidates, solve)

    def _composed_for(self, only: Collection[str] | None) -> Compose:
        """How queries are planned on given deployments; only some of them, if any."""
        assert self.compose is not None
        compose = self.compose
        return lambda query, running: () if only is not None and query.name not in only else compose(query, running)
