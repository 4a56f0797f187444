"""Consolidation of deployments: as few as all SLOs take, by formula or by a simulation of all queries together.

A deployment costs a replica, however little of it is used. If many queries share it, no exchange of a single plan
closes it, and relaxations of large matchings pay for the used part only: so all its queries move at once, as in local
search for facility location, to others or to new ones. By formula a query may be late on a new one as its first user:
requests wait longer for one replica than for one of several that are utilized as much. Formulas bound latencies from
above, by up to half: where they miss an SLO narrowly, a simulation decides. 66 queries on recorded video pipelines cost
$14.1 an hour instead of $18.0.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from circinus.arrays import IntArray
from circinus.estimation import PlanCandidate
from circinus.matching.admission import AdmissionPlanner
from circinus.matching.backfill import sized_deployments
from circinus.matching.feasibility import FeasibleSolution, Infeasibility, check_feasibility
from circinus.matching.incumbent import Incumbent
from circinus.matching.phases import phase
from circinus.matching.plan_set import Alternative, Assignment, Matching
from circinus.matching.problem import Problem
from circinus.matching.problem_builder import build_problem
from circinus.matching.settings import MATCHING, MatchSettings
from circinus.matching.simulation_check import SimulationCheck, check_by_simulation, simulation_inputs
from circinus.matching.solvers.greedy import IncrementalSolution, marginal_costs
from circinus.matching.target_fitting import at_target, fitted_target, retargeted
from circinus.matching.tolerances import EQUAL_USD_PER_H
from circinus.planning import Frontier
from circinus.planning.frontier import query_kind
from circinus.planning.ladder import ladder
from circinus.specification import Deployment, Network, Query, QueryPlan
from circinus.specification.formatting import format_usd_per_h


def consolidate(
    planner: AdmissionPlanner,
    frontiers: Mapping[str, Frontier],
    settings: MatchSettings,
    incumbent: Incumbent | None = None,
    *,
    opens: bool,
    clock: Callable[[], float] = time.monotonic,
) -> AdmissionPlanner:
    """Return the planner with a cheaper matching of the queries that are served, if there is one.

    At first, all queries of a deployment move to others, the dearest first, or all queries of a kind to another plan,
    wherever that costs less. Then each round takes a replica from every family of deployments that can spare one,
    and returns it to the slowest one of each query that is late. As a choice among many simulations favours lucky ones,
    a seed that chose nothing has to confirm the result.

    Args:
        planner: with the matching.
        frontiers: query -> its plans, for ladders.
        settings: of the matching.
        incumbent: running plans, which stay where a change saves less than its price; without a limit on changes.
        opens: whether queries may move to deployments that are not in use, if they are at most 500. They take what is
            cheapest of the pools, so that rejected queries should be looked at first.
        clock: for the time limit.
    """
    if not settings.fits_targets or (incumbent is not None and incumbent.max_changes is not None):
        return planner
    with phase("took spare replicas away"):
        run = _Consolidation(planner, frontiers, settings, incumbent or Incumbent({}), clock, opens=opens)
        matching = run.consolidated()
    return planner if matching is planner.matching else planner.with_matching(matching)


@dataclass(frozen=True)
class _Sized:
    """Plans in isolation, and as sized together."""

    plans: Mapping[str, PlanCandidate]
    problem: Problem
    solution: FeasibleSolution

    @property
    def plans_by_name(self) -> dict[str, QueryPlan]:
        return {name: candidate.plan for name, candidate in self.plans.items()}

    @property
    def families(self) -> dict[Deployment, list[int]]:
        """Deployment at target 0 -> columns of those in use that differ from it in their targets only."""
        families = defaultdict[Deployment, list[int]](list)
        for column in np.flatnonzero(self.solution.usage.used).tolist():
            families[at_target(self.problem.deployments[column], 0.0)].append(column)
        return families


class _Consolidation:
    def __init__(
        self,
        planner: AdmissionPlanner,
        frontiers: Mapping[str, Frontier],
        settings: MatchSettings,
        incumbent: Incumbent,
        clock: Callable[[], float],
        *,
        opens: bool,
    ) -> None:
        self._planner, self._frontiers, self._incumbent, self._clock = planner, frontiers, incumbent, clock
        self._matching, self._estimates, self._seed = planner.matching, planner.plans, settings.seed
        queries = planner.specification.queries
        limit_s = MATCHING.consolidation_time_share * settings.limit_s(len(queries))
        self._deadline_s, self._moving_deadline_s = clock() + limit_s, clock() + limit_s / 2
        self._queries = {query.name: query for query in queries if query.name in self._matching.served}
        self._infrastructure = planner.specification.required_infrastructure
        self._slos = [query.slos for query in self._queries.values()]
        self._kinds = defaultdict[Query, list[str]](list)
        """Kind -> its queries, which may move to deployments that are not in use."""
        for name, query in self._queries.items() if opens and can_open(self._matching) else ():
            self._kinds[query_kind(query)].append(name)
        self._needed: set[Deployment] = set()
        """Deployments that cannot be closed."""
        self._cheapest = dict[Query, Sequence[QueryPlan]]()
        self._dearer: set[tuple[Query, QueryPlan]] = set()
        """Kinds of queries with plans that were no gain for all of the kind."""
        self._settled: set[Deployment] = set()
        """Families that can spare no replica."""

    def consolidated(self) -> Matching:
        """Return the matching with fewer replicas, or as it was."""
        chosen = {assignment.query: assignment.chosen.plan for assignment in self._matching.assignments}
        first = self._sized(chosen)
        if not isinstance(first, _Sized):
            return self._matching
        running, accepted = self._sized(self._with_running(chosen)), [first]
        if (
            isinstance(running, _Sized)
            and self._is_better(running, first)
            and not self._simulated(running, self._seed + 1).violated
        ):
            accepted.append(running)
        while (cheaper := self._with_one_closed(accepted[-1]) or self._with_one_moved(accepted[-1])) is not None:
            accepted.append(cheaper)
        while (smaller := self._round(accepted[-1])) is not None:
            accepted.append(smaller)
        for result in reversed(accepted):
            if result.plans_by_name == chosen:
                break
            simulated = self._simulated(result, self._seed + 2)
            if not simulated.violated:
                return self._with_result(simulated.matching)
        return self._matching

    def _cheapest_of(self, kind: Query) -> Sequence[QueryPlan]:
        """Return the cheapest plans of a kind that may be fast enough if all its queries share them."""
        names = self._kinds[kind]

        def cost_usd_per_h(candidate: PlanCandidate) -> float:
            own = candidate.estimate.cost_usd_per_h
            return max(own.value, len(names) * own.lower)

        if kind not in self._cheapest:
            found = sorted(self._planner.isolated_plans(self._queries[names[0]]), key=cost_usd_per_h)
            self._cheapest[kind] = [candidate.plan for candidate in found[: MATCHING.max_opened_plans]]
        return self._cheapest[kind]

    def _with_one_moved(self, before: _Sized) -> _Sized | None:
        """Return the plans after all queries of a kind moved to one of their cheapest plans, if that costs less."""
        running = {family: before.problem.deployments[columns[0]] for family, columns in before.families.items()}
        for kind, names in self._kinds.items():
            for plan in self._cheapest_of(kind) if self._clock() < self._moving_deadline_s else ():
                if (kind, plan) in self._dearer or self._clock() >= self._moving_deadline_s:
                    continue
                joined = plan
                for deployment in plan.deployments:
                    other = running.get(at_target(deployment, 0.0), deployment)
                    joined = retargeted(joined, [deployment], other.allocation.utilization_target)
                moved = self._sized({**before.plans_by_name, **dict.fromkeys(names, joined)})
                if isinstance(moved, _Sized) and self._is_better(moved, before) and self._is_confirmed(moved):
                    return moved
                self._dearer.add((kind, plan))
        return None

    def _is_confirmed(self, sized: _Sized) -> bool:
        """Return whether no query is late in two simulations."""
        return not self._late(sized) and not self._simulated(sized, self._seed + 1).violated

    def _with_one_closed(self, before: _Sized) -> _Sized | None:
        """Return the plans after all queries of a deployment moved to others, if that costs less; else None."""
        problem, usage = before.problem, before.solution.usage
        cost_usd_per_h = problem.price_usd_per_h * usage.replicas
        for column in sorted(np.flatnonzero(usage.used).tolist(), key=lambda column: -cost_usd_per_h[column]):
            if problem.deployments[column] not in self._needed and self._clock() < self._deadline_s:
                closed = self._confirmed_closed(before, problem.deployments[column])
                if closed is not None:
                    return closed
                self._needed.add(problem.deployments[column])
        return None

    def _confirmed_closed(self, before: _Sized, deployment: Deployment) -> _Sized | None:
        """Return the plans without a deployment, instead of any that a simulation refutes; None if that fails."""
        refuted = set[tuple[str, QueryPlan]]()
        for trial in range(MATCHING.max_simulated_plans + 1):
            if self._clock() >= self._deadline_s:
                return None
            closed = self._closed(before, deployment, refuted, doubtful=trial > 0)
            if closed is not None and self._is_better(closed, before):
                late = self._late(closed)
                if not late:
                    return closed
                refuted |= {(candidate.query, candidate.plan) for candidate in late}
            elif trial > 0:
                return None
        return None

    def _closed(
        self, before: _Sized, closed: Deployment, refuted: Collection[tuple[str, QueryPlan]], *, doubtful: bool
    ) -> _Sized | None:
        """Return the plans without a deployment, or None if its queries fit nowhere else or cost more there."""
        used = [before.problem.deployments[c] for c in np.flatnonzero(before.solution.usage.used).tolist()]
        remaining = [deployment for deployment in used if deployment != closed]
        busy, candidates = dict[str, float](), dict[str, list[PlanCandidate]]()
        for name, own in before.plans.items():
            candidates[name] = [own]
            if closed in own.plan.deployments:
                busy[name] = sum(use.busy_replicas for use in own.deployments if use.deployment == closed)
                user = self._queries[name]
                plans = self._cheapest_of(query_kind(user)) if self._kinds else ()
                opened = (d for plan in plans for d in plan.deployments if at_target(d, 0.0) != at_target(closed, 0.0))
                offered = self._estimates.on_deployments(user, dict.fromkeys((*remaining, *opened)), any_latency=True)
                candidates[name] = [plan for plan in offered if (name, plan.plan) not in refuted]
                if not candidates[name] or self._clock() >= self._deadline_s:
                    return None
        problem = build_problem(tuple(self._queries.values()), candidates, self._infrastructure)
        moving = [problem.queries.index(name) for name in sorted(busy, key=lambda name: (-busy[name], name))]
        start = problem.block[:-1].copy()
        start[moving] = -1
        refused = set[int]()
        for _ in range(MATCHING.max_closing_trials):
            solution = IncrementalSolution(problem, start)
            for query in moving:
                costs, first = marginal_costs(problem, query, solution.usage), int(problem.block[query])
                allowed = [p for p in np.flatnonzero(costs.fits).tolist() if first + p not in refused]
                if not allowed:
                    return None
                solution.move(query, first + min(allowed, key=lambda p: (costs.added_usd_per_h[p], p)))
            if solution.usage.cost_usd_per_h > before.solution.usage.cost_usd_per_h - EQUAL_USD_PER_H:
                return None
            outcome = self._outcome(problem, solution.chosen, doubtful=doubtful)
            if isinstance(outcome, FeasibleSolution):
                chosen = {problem.queries[q]: problem.candidates[c] for q, c in problem.served(outcome.chosen)}
                sized = self._sized({name: candidate.plan for name, candidate in chosen.items()})
                return sized if isinstance(sized, _Sized) else None
            late = [violation.candidate for violation in outcome.violations]
            crowded = {deployment for c in late for deployment in problem.candidates[c].plan.deployments}
            moved = {int(solution.chosen[query]) for query in moving}
            blamed = moved.intersection(late) or {
                c for c in moved if crowded & set(problem.candidates[c].plan.deployments)
            }
            if not blamed:
                return None
            refused |= blamed
        return None

    def _outcome(
        self, problem: Problem, chosen: IntArray, *, doubtful: bool = True
    ) -> Infeasibility | FeasibleSolution:
        reestimate = self._estimates.reestimate
        return check_feasibility(problem, chosen, self._slos, reestimate, doubtful=doubtful, widely=True)

    def _round(self, before: _Sized) -> _Sized | None:
        """Return the plans with fewer replicas of all families that can spare one, or None if there is none."""
        counts = self._fewer(before)
        while counts and self._clock() < self._deadline_s:
            outcome = self._sized(self._retargeted(before, counts))
            if isinstance(outcome, _Sized):
                if not self._is_better(outcome, before):
                    return None
                late = self._late(outcome)
                if not late:
                    return outcome
            else:
                late = outcome
            found = [self._slowest(candidate, counts) for candidate in late]
            slowest = {family for family in found if family is not None} or set(counts)
            self._settled |= slowest
            counts = {family: count for family, count in counts.items() if family not in slowest}
        return None

    def _with_running(self, plans: Mapping[str, QueryPlan]) -> dict[str, QueryPlan]:
        """Return the plans with running ones in place of those of all queries that may keep theirs.

        A running plan that misses its SLO by formula is no candidate of a search, though a simulation confirmed it.
        """
        running, estimates = self._incumbent.plans, self._estimates
        common = [query for name, query in self._queries.items() if name in running]
        kept = {q.name: running[q.name] for q in common if estimates.running_plan(q, running[q.name]) is not None}
        return {**plans, **kept}

    def _is_better(self, sized: _Sized, other: _Sized) -> bool:
        """Return whether the cost is less, with the price of changes of running plans."""
        return self._cost_usd_per_h(sized) < self._cost_usd_per_h(other) - EQUAL_USD_PER_H

    def _cost_usd_per_h(self, sized: _Sized) -> float:
        plans = sized.plans_by_name
        changes = sum(plans[name] != plan for name, plan in self._incumbent.plans.items() if name in plans)
        return sized.solution.usage.cost_usd_per_h + self._incumbent.change_usd_per_h * changes

    def _fewer(self, sized: _Sized) -> dict[Deployment, float]:
        """Return the target at which each family that may have one replica fewer takes that many."""
        problem, usage, limit = sized.problem, sized.solution.usage, self._infrastructure.utilization_limit
        targets = {}
        for family, columns in sized.families.items():
            own = [problem.deployments[column].allocation.utilization_target for column in columns]
            busy = float(usage.fractional_load[columns] @ np.array(own))
            count = int(usage.replicas[columns].sum() - problem.spare_replicas[columns].sum()) - 1
            if family not in self._settled and count >= 1 and busy <= count * limit:
                targets[family] = fitted_target(busy / count, limit)
        return targets

    @staticmethod
    def _slowest(candidate: PlanCandidate, families: Collection[Deployment]) -> Deployment | None:
        """Return the family among some on which the requests of a plan wait longest, or None if it uses none."""
        waits_s = dict[Deployment, float]()
        for part in candidate.unsplit:
            for stage in part.estimate.stages:
                family = at_target(part.plan.deployment_of(stage.operator), 0.0)
                if family in families:
                    waits_s[family] = max(waits_s.get(family, 0.0), stage.wait_s)
        return max(waits_s, key=waits_s.__getitem__, default=None)

    def _retargeted(self, sized: _Sized, targets: Mapping[Deployment, float]) -> dict[str, QueryPlan]:
        """Return the plans with other targets of families."""
        plans = sized.plans_by_name
        for family, target in targets.items():
            deployments = [sized.problem.deployments[column] for column in sized.families[family]]
            plans = {name: retargeted(plan, deployments, target) for name, plan in plans.items()}
        return plans

    def _sized(self, plans: Mapping[str, QueryPlan]) -> _Sized | list[PlanCandidate]:
        """Return the plans as sized, or those that miss SLOs so clearly that no simulation is needed."""
        queries = tuple(self._queries.values())
        estimates = self._estimates
        listed = {name: estimates.sized_candidate(self._queries[name], plan) for name, plan in plans.items()}
        isolated = {name: candidate for name, candidate in listed.items() if candidate is not None}
        if len(isolated) < len(listed):
            return []
        candidates = {name: (candidate,) for name, candidate in isolated.items()}
        problem = build_problem(queries, candidates, self._infrastructure)
        outcome = self._outcome(problem, np.arange(len(queries)))
        if isinstance(outcome, FeasibleSolution):
            return _Sized(isolated, problem, outcome)
        return [violation.sized for violation in outcome.violations]

    def _late(self, sized: _Sized) -> list[PlanCandidate]:
        """Return the plans that miss a latency SLO in a simulation."""
        return list(self._simulated(sized, self._seed).violated.values())

    def _simulated(self, sized: _Sized, seed: int) -> SimulationCheck:
        """Return the matching of plans as sized, as simulated."""
        problem, final = sized.problem, sized.solution.sizing.final
        position = {name: index for index, name in enumerate(problem.queries)}
        matching = replace(
            self._matching,
            assignments=tuple(replace(a, chosen=final[position[a.query]]) for a in self._matching.assignments),
            deployments=sized_deployments(problem, sized.solution),
            nodes=problem.chosen_nodes(sized.solution.usage.nodes),
            cost_usd_per_h=sized.solution.usage.cost_usd_per_h,
        )
        planned = simulation_inputs(self._planner.specification, self._planner.profiles, matching)
        doubtful = [problem.queries[violation.query] for violation in sized.solution.sizing.violations]
        return check_by_simulation(
            matching,
            planned,
            Network(self._infrastructure),
            seed=seed,
            unconfirmed=doubtful,
            executions=MATCHING.short_executions,
            requests=MATCHING.consolidation_requests,
        )

    def _with_result(self, result: Matching) -> Matching:
        """Return the result with what explains its plans, and with the bounds that hold for it."""
        before, bound_usd_per_h = self._matching, self._matching.cost_bound_usd_per_h
        at_targets_usd_per_h = before.cost_at_targets_usd_per_h
        if at_targets_usd_per_h is None and result.cost_usd_per_h < bound_usd_per_h:
            at_targets_usd_per_h = bound_usd_per_h
        saved_usd_per_h = before.cost_usd_per_h - result.cost_usd_per_h
        assignments = zip(result.assignments, before.assignments, strict=True)
        return replace(
            result,
            assignments=tuple(self._explained(now, then, saved_usd_per_h) for now, then in assignments),
            optimal=False,
            cost_bound_usd_per_h=min(bound_usd_per_h, result.cost_usd_per_h),
            cost_at_targets_usd_per_h=at_targets_usd_per_h,
        )

    def _explained(self, now: Assignment, then: Assignment, saved_usd_per_h: float) -> Assignment:
        """Return an assignment with the plan before as an alternative, and with a ladder around the new one."""
        if now.chosen.plan == then.chosen.plan:
            return now
        frontier, candidate = self._frontiers[now.query], self._estimates.estimate_of(now.query, now.chosen.plan)
        steps = ladder(frontier.query, frontier.plans, candidate)
        if (
            now.chosen.plan.configuration == then.chosen.plan.configuration
            and now.chosen.plan.placement == then.chosen.plan.placement
        ):
            return replace(now, ladder=steps)
        saving = f"all plans together cost {format_usd_per_h(saved_usd_per_h)} less"
        previous = Alternative(then.chosen.plan, then.chosen.estimate, f"{saving} without it", "cost", is_sized=True)
        return replace(
            now,
            ladder=steps,
            reason=f"{saving} with it; confirmed by a simulation",
            alternatives=(previous,),
        )


def can_open(matching: Matching) -> bool:
    """Return whether the queries of a matching are few enough to move to deployments that are not in use."""
    return len(matching.served) <= MATCHING.max_fitted_queries
