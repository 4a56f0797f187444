"""The matching as an ordered list of named passes, each checked before the next one runs."""

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

_EXACT_ROUNDS, _FEW_ROUNDS = 40, 8
"""Rounds in which only impossible answers are cut off; after them a plan that breaks an objective is given up.
The second of many queries."""

_SHARE_OF_MANY = 0.5
"""Of the time left that a round may take where there are many queries: others will follow."""

_ROUNDS = 80
"""Rounds after which the last choice is settled by taking queries out."""


@dataclass(frozen=True)
class MatchState:
    """What the passes have found so far."""

    problem: Problem
    queries: tuple[Query, ...]
    infrastructure: Infrastructure
    usable_link_share: float
    reestimate: Reestimate
    solver: Solver
    deadline_s: float
    """On the clock of the run."""
    estimated: bool = False
    """Whether `reestimate` is as of `Estimator`, so that how much waits grow is known without it."""
    is_large: bool = False
    """Whether there are so many queries that impossible answers are not cut off one by one."""
    round: int = 0
    cuts: tuple[Cut, ...] = ()
    choice: Solution | None = None
    last_solution: IntArray | None = None
    """The solver's last choice, before anything was taken out of it; at first one to begin from."""
    feasible_incumbent: IntArray | None = None
    """The best choice known that keeps all cost objectives."""
    best_repaired: RepairedSolution | None = None
    """Of many queries: the best of what earlier choices leave when they are made to hold."""
    usage: Usage | None = None
    nodes: Mapping[int, tuple[int, ...]] | None = None
    """Deployment -> the node of each replica."""
    sizing: Sizing | None = None
    weight_bound: float = float("inf")
    cost_bound_usd_per_h: float = 0.0
    optimal: bool = False

    @property
    def slos(self) -> tuple[Slos, ...]:
        """Of each query."""
        return tuple(query.slos for query in self.queries)

    def with_held(self, held: RepairedSolution) -> MatchState:
        """With a choice that was settled on in another way than by the passes; nothing proves it cheap."""
        assert self.choice is not None
        return replace(
            self,
            choice=replace(self.choice, chosen=held.chosen),
            usage=held.usage,
            nodes=held.nodes,
            sizing=held.sizing,
            optimal=False,
            cost_bound_usd_per_h=0.0,
        )


@dataclass(frozen=True)
class Pass:
    """One step. When it adds cuts, the passes start again from the first one."""

    name: str
    run: Callable[[MatchState, Callable[[], float]], MatchState]
    check: Callable[[MatchState], None]
    """Raises AssertionError when what the pass must establish does not hold."""


def choose_pass(state: MatchState, clock: Callable[[], float]) -> MatchState:
    """Choose a candidate for as many queries as the linear capacities and the cuts allow."""
    left_s = max(state.deadline_s - clock(), 0.1) * (_SHARE_OF_MANY if state.is_large else 1.0)
    starts = [start for start in (state.last_solution, state.feasible_incumbent) if start is not None]
    choice = state.solver.solve(state.problem, state.cuts, left_s, starts)
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
        cost_bound_usd_per_h=choice.cost_bound_usd_per_h if exact else 0.0,  # of this choice's weight alone
        optimal=choice.optimal and exact,
    )


def pack_pass(state: MatchState, clock: Callable[[], float]) -> MatchState:
    """Put the replicas on nodes; what does not pack comes back as a cut."""
    assert state.usage is not None
    nodes, cuts = pack_pools(state.problem, state.usage, widely=state.is_large)
    return replace(state, nodes=nodes, cuts=(*state.cuts, *cuts))


def sizing_pass(state: MatchState, clock: Callable[[], float]) -> MatchState:
    """Estimate every plan under the merged load; plans that break an objective come back as cuts."""
    assert state.choice is not None
    assert state.usage is not None
    sizing = evaluate_sizing(state.problem, state.choice.chosen, state.usage, state.slos, state.reestimate)
    cuts = tuple(cut for broken in sizing.broken for cut in _cuts(state, broken))
    return replace(state, sizing=sizing, cuts=(*state.cuts, *cuts))


def _cuts(state: MatchState, broken: SloViolation) -> Iterator[Cut]:
    """What to cut off for a broken objective."""
    assert state.choice is not None
    problem, chosen = state.problem, state.choice.chosen
    exact = state.round <= (_FEW_ROUNDS if state.is_large else _EXACT_ROUNDS)
    if not exact or broken.objectives != ("cost",):
        yield sizing_cut(problem, chosen, broken.candidate, broken.reason, exact=exact)
        return
    # Beside the same others, the query's next plans would mostly cost too much as well: one round for all of them.
    tried = chosen.copy()
    for candidate in problem.candidates_of(broken.query):
        tried[broken.query] = candidate
        usage = problem.usage_of(tried)
        share = problem.cost_share_usd_per_h(candidate, usage)
        if candidate == broken.candidate:
            yield share_cut(problem, usage, candidate, broken.reason)
        elif not meets_cost_slo(share, float(problem.cost_limit_usd_per_h[broken.query])):
            yield share_cut(
                problem, usage, candidate, f"beside the others its share would cost {format_usd_per_h(share)}"
            )


def check_choice(state: MatchState) -> None:
    """At most one plan a query, capacities kept by whole replicas, links kept, cuts kept."""
    problem, choice, usage = state.problem, state.choice, state.usage
    assert choice is not None
    assert usage is not None
    for query, candidate in problem.served(choice.chosen):
        assert candidate in problem.candidates_of(query), f"{problem.queries[query]} got a plan of another query"
    assert problem.fits(usage), "a pool or link is overfull"
    # Beside cuts that give up what is possible, few changes may be out of reach; who set the bound falls back.
    kept = (cut.is_satisfied(problem, choice.chosen, usage) for cut in state.cuts if not isinstance(cut, ChurnCut))
    assert all(kept), "a cut is not kept"


def check_packing(state: MatchState) -> None:
    """Every replica has a node, and no node is overfull."""
    problem, usage, nodes = state.problem, state.usage, state.nodes
    assert usage is not None
    assert nodes is not None
    load = [np.zeros((int(count), problem.demand.shape[1])) for count in problem.nodes]
    for deployment in np.flatnonzero(usage.replicas):
        placed = nodes[int(deployment)]
        assert len(placed) == usage.replicas[deployment], f"{problem.deployments[deployment].name} lacks replicas"
        for node in placed:
            load[int(problem.pool_of[deployment])][node] += problem.demand[deployment]
    for pool, filled in enumerate(load):
        assert np.all(filled <= problem.node_capacity[pool] * (1 + CAPACITY_TOLERANCE)), (
            f"a node of pool {problem.pools[pool]} is overfull"
        )


def check_sizing(state: MatchState) -> None:
    """Every plan keeps its query's objectives as estimated, and the shares add up to the total cost."""
    assert state.sizing is not None
    assert state.usage is not None
    assert not state.sizing.broken, state.sizing.broken[0].reason
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
    """Run the passes until none of them adds a cut; when rounds or time run out, take out queries until all holds."""
    while True:
        restart = False
        for step in passes:
            known = len(state.cuts)
            state = step.run(state, clock)
            if len(state.cuts) > known:
                restart = True
                break
            step.check(state)
        if restart and state.is_large:
            state = _with_better_held(state)
        if not restart:
            return _best_that_holds(state)
        if state.round >= _ROUNDS or clock() >= state.deadline_s:
            return _best_that_holds(_settle(state, passes))


def _with_better_held(state: MatchState) -> MatchState:
    """Remember what is left of the last choice when it is made to hold, if that is the best so far.

    What time allows of many queries is a few choices, and later ones, among fewer candidates, may be worse.
    """
    problem = state.problem
    found = repair(problem, assignment_of(state), state.slos, state.reestimate, aggregate_cuts=True)
    if state.best_repaired is not None and objective_key(problem, found.chosen) <= objective_key(
        problem, state.best_repaired.chosen
    ):
        return state
    return replace(state, best_repaired=found)


def _best_that_holds(state: MatchState) -> MatchState:
    """The last choice, or what is left of an earlier one where that is better."""
    problem, held = state.problem, state.best_repaired
    if held is None or objective_key(problem, held.chosen) <= objective_key(problem, assignment_of(state)):
        return state
    return state.with_held(held)


def _settle(state: MatchState, passes: Sequence[Pass]) -> MatchState:
    """Repair the last choice, then take out of it what does not pack or breaks an objective, until the rest holds."""
    assert state.choice is not None
    problem = state.problem
    repaired = [
        local_search(problem, start, state.cuts) for start in (state.choice.chosen, state.choice.feasible_incumbent)
    ]
    chosen = max(repaired, key=lambda found: objective_key(problem, found))
    held = repair(problem, chosen, state.slos, state.reestimate, aggregate_cuts=state.is_large)
    settled = state.with_held(held)
    settled = replace(settled, cuts=())
    for step in passes:
        step.check(settled)
    return replace(settled, cuts=state.cuts)


def assignment_of(state: MatchState) -> IntArray:
    """(Q,) the candidate of each query."""
    assert state.choice is not None
    return state.choice.chosen
