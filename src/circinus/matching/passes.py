"""The passes of the matching, in order; the result of each is checked before the next one runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from circinus.arrays import IntArray
from circinus.matching.bin_packing import pack_pools
from circinus.matching.cuts import ChurnCut, Cut, share_cut, sizing_cut
from circinus.matching.problem import CAPACITY_TOLERANCE, Problem, Usage, meets_cost_slo
from circinus.matching.repair import RepairedSolution, repair
from circinus.matching.sizing import Reestimate, Sizing, SloViolation, evaluate_sizing
from circinus.matching.solvers.greedy import local_search, objective_key
from circinus.matching.solvers.solver import Solution, Solver
from circinus.specification import Infrastructure, Query, Slos
from circinus.specification.formatting import format_usd_per_h

_EXACT_ROUNDS, _EXACT_ROUNDS_LARGE = 40, 8
"""Rounds that cut off infeasible answers only; later, a plan that violates an SLO is dropped. The second for many
queries."""

_ROUND_SHARE_LARGE = 0.5
"""Share of the remaining time for a round with many queries, as further rounds will follow."""

_MAX_ROUNDS = 80
"""Maximum number of rounds; then queries are dropped from the last choice until it is feasible."""


@dataclass(frozen=True)
class MatchState:
    """State of the matching between passes."""

    problem: Problem
    queries: tuple[Query, ...]
    infrastructure: Infrastructure
    usable_link_share: float
    reestimate: Reestimate
    solver: Solver
    deadline_s: float
    """Deadline on the clock of the run."""
    estimated: bool = False
    """True if `reestimate` is that of `Estimator`, so that increases of waits are bounded without it."""
    is_large: bool = False
    """True if there are too many queries to cut off infeasible answers individually."""
    round: int = 0
    cuts: tuple[Cut, ...] = ()
    choice: Solution | None = None
    last_solution: IntArray | None = None
    """Solver's last choice, before repairs; initially a warm start."""
    feasible_incumbent: IntArray | None = None
    """Best choice so far that meets all cost SLOs."""
    best_repaired: RepairedSolution | None = None
    """Best repaired choice of earlier rounds, with many queries."""
    usage: Usage | None = None
    nodes: Mapping[int, tuple[int, ...]] | None = None
    """Deployment -> the node of each replica."""
    sizing: Sizing | None = None
    weight_bound: float = float("inf")
    cost_bound_usd_per_h: float = 0.0
    optimal: bool = False

    @property
    def slos(self) -> tuple[Slos, ...]:
        """SLOs of each query."""
        return tuple(query.slos for query in self.queries)

    def with_repaired(self, repaired: RepairedSolution) -> MatchState:
        """Return the state with a repaired choice; nothing is proved about its cost."""
        assert self.choice is not None
        return replace(
            self,
            choice=replace(self.choice, chosen=repaired.chosen),
            usage=repaired.usage,
            nodes=repaired.nodes,
            sizing=repaired.sizing,
            optimal=False,
            cost_bound_usd_per_h=0.0,
        )


@dataclass(frozen=True)
class Pass:
    """A step of the matching. If it adds cuts, the passes restart from the first one."""

    name: str
    run: Callable[[MatchState, Callable[[], float]], MatchState]
    check: Callable[[MatchState], None]
    """Raises AssertionError if the pass's postcondition is violated."""


def choose_pass(state: MatchState, clock: Callable[[], float]) -> MatchState:
    """Choose a candidate for as many queries as the linear capacities and the cuts allow."""
    remaining_s = max(state.deadline_s - clock(), 0.1) * (_ROUND_SHARE_LARGE if state.is_large else 1.0)
    starts = [start for start in (state.last_solution, state.feasible_incumbent) if start is not None]
    choice = state.solver.solve(state.problem, state.cuts, remaining_s, starts)
    exact = all(cut.valid for cut in state.cuts)
    return replace(
        state,
        round=state.round + 1,
        choice=choice,
        last_solution=choice.chosen,
        feasible_incumbent=choice.feasible_incumbent,
        usage=state.problem.usage_of(choice.chosen),
        nodes=None,
        sizing=None,
        weight_bound=min(state.weight_bound, choice.weight_bound) if exact else state.weight_bound,
        cost_bound_usd_per_h=choice.cost_bound_usd_per_h if exact else 0.0,  # valid for this weight only
        optimal=choice.optimal and exact,
    )


def pack_pass(state: MatchState, clock: Callable[[], float]) -> MatchState:
    """Put the replicas on nodes, or add a cut for each pool that does not pack."""
    assert state.usage is not None
    nodes, cuts = pack_pools(state.problem, state.usage, widely=state.is_large)
    return replace(state, nodes=nodes, cuts=(*state.cuts, *cuts))


def sizing_pass(state: MatchState, clock: Callable[[], float]) -> MatchState:
    """Estimate every plan under the merged load, and add cuts for plans that violate an SLO."""
    assert state.choice is not None
    assert state.usage is not None
    sizing = evaluate_sizing(state.problem, state.choice.chosen, state.usage, state.slos, state.reestimate)
    cuts = tuple(cut for violation in sizing.violations for cut in _cuts(state, violation))
    return replace(state, sizing=sizing, cuts=(*state.cuts, *cuts))


def _cuts(state: MatchState, violation: SloViolation) -> Iterator[Cut]:
    """Yield the cuts for a violated SLO."""
    assert state.choice is not None
    problem, chosen = state.problem, state.choice.chosen
    exact = state.round <= (_EXACT_ROUNDS_LARGE if state.is_large else _EXACT_ROUNDS)
    if not exact or violation.slos != ("cost",):
        yield sizing_cut(problem, chosen, violation.candidate, violation.reason, exact=exact)
        return
    # With the same neighbours, the query's other plans mostly cost too much as well: cut them off in one round.
    trial = chosen.copy()
    for candidate in problem.candidates_of(violation.query):
        trial[violation.query] = candidate
        usage = problem.usage_of(trial)
        share = problem.cost_share_usd_per_h(candidate, usage)
        if candidate == violation.candidate:
            yield share_cut(problem, usage, candidate, violation.reason)
        elif not meets_cost_slo(share, float(problem.cost_limit_usd_per_h[violation.query])):
            yield share_cut(
                problem, usage, candidate, f"its cost share with the other queries would be {format_usd_per_h(share)}"
            )


def check_choice(state: MatchState) -> None:
    """Check that each query has at most one plan, and that replicas, links and cuts are within their limits."""
    problem, choice, usage = state.problem, state.choice, state.usage
    assert choice is not None
    assert usage is not None
    for query, candidate in problem.served(choice.chosen):
        assert candidate in problem.candidates_of(query), f"{problem.queries[query]} got a plan of another query"
    assert problem.fits(usage), "a pool or link is overfull"
    # With heuristic cuts, the limit on changes may be unreachable; the caller then falls back to the incumbent.
    satisfied = (cut.is_satisfied(problem, choice.chosen, usage) for cut in state.cuts if not isinstance(cut, ChurnCut))
    assert all(satisfied), "a cut is violated"


def check_packing(state: MatchState) -> None:
    """Check that every replica has a node, and that no node is overfull."""
    problem, usage, nodes = state.problem, state.usage, state.nodes
    assert usage is not None
    assert nodes is not None
    load = [np.zeros((int(count), problem.demand.shape[1])) for count in problem.nodes]
    for deployment in np.flatnonzero(usage.replicas):
        replica_nodes = nodes[int(deployment)]
        assert len(replica_nodes) == usage.replicas[deployment], (
            f"{problem.deployments[deployment].name} lacks replicas"
        )
        for node in replica_nodes:
            load[int(problem.pool_of[deployment])][node] += problem.demand[deployment]
    for pool, node_load in enumerate(load):
        assert np.all(node_load <= problem.node_capacity[pool] * (1 + CAPACITY_TOLERANCE)), (
            f"a node of pool {problem.pools[pool]} is overfull"
        )


def check_sizing(state: MatchState) -> None:
    """Check that every plan meets its query's SLOs, and that the shares add up to the total cost."""
    assert state.sizing is not None
    assert state.usage is not None
    assert not state.sizing.violations, state.sizing.violations[0].reason
    shares = sum(candidate.estimate.cost_usd_per_h.value for candidate in state.sizing.final.values())
    assert np.isclose(shares, state.usage.cost_usd_per_h, rtol=1e-6, atol=1e-9), "shares do not add up to the cost"


PASSES = (
    Pass("choose", choose_pass, check_choice),
    Pass("pack", pack_pass, check_packing),
    Pass("size", sizing_pass, check_sizing),
)


def run_passes(
    state: MatchState, passes: Sequence[Pass] = PASSES, *, clock: Callable[[], float] = time.monotonic
) -> MatchState:
    """Run the passes until none adds a cut; if rounds or time run out, drop queries until the rest is feasible."""
    while True:
        restart = False
        for step in passes:
            cuts_before = len(state.cuts)
            state = step.run(state, clock)
            if len(state.cuts) > cuts_before:
                restart = True
                break
            step.check(state)
        if restart and state.is_large:
            state = _with_best_repaired(state)
        if not restart:
            return _best_feasible(state)
        if state.round >= _MAX_ROUNDS or clock() >= state.deadline_s:
            return _best_feasible(_settle(state, passes))


def _with_best_repaired(state: MatchState) -> MatchState:
    """Repair the last choice, and store it if it is the best so far.

    Time allows only a few rounds with many queries, and later choices, among fewer candidates, may be worse.
    """
    problem = state.problem
    repaired = repair(problem, assignment_of(state), state.slos, state.reestimate, aggregate_cuts=True)
    if state.best_repaired is not None and objective_key(problem, repaired.chosen) <= objective_key(
        problem, state.best_repaired.chosen
    ):
        return state
    return replace(state, best_repaired=repaired)


def _best_feasible(state: MatchState) -> MatchState:
    """Return the last choice, or the best repaired one of earlier rounds if it is better."""
    problem, repaired = state.problem, state.best_repaired
    if repaired is None or objective_key(problem, repaired.chosen) <= objective_key(problem, assignment_of(state)):
        return state
    return state.with_repaired(repaired)


def _settle(state: MatchState, passes: Sequence[Pass]) -> MatchState:
    """Improve and repair the last choice, so that it is feasible."""
    assert state.choice is not None
    problem = state.problem
    improved = [
        local_search(problem, start, state.cuts) for start in (state.choice.chosen, state.choice.feasible_incumbent)
    ]
    chosen = max(improved, key=lambda solution: objective_key(problem, solution))
    repaired = repair(problem, chosen, state.slos, state.reestimate, aggregate_cuts=state.is_large)
    settled = state.with_repaired(repaired)
    settled = replace(settled, cuts=())
    for step in passes:
        step.check(settled)
    return replace(settled, cuts=state.cuts)


def assignment_of(state: MatchState) -> IntArray:
    """Return (Q,) the candidate of each query."""
    assert state.choice is not None
    return state.choice.chosen
