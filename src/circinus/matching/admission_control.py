"""Admission control: checks whether one more query fits next to running plans, which stay, in milliseconds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, compress

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.estimation import DeploymentLoad, DeploymentUse, MergedLoad, PlanCandidate, RequestStream, merge_loads
from circinus.estimation.merged_load import propagate_departures
from circinus.matching.feasibility import Infeasibility, capacity_violation
from circinus.matching.plan_set import SizedDeployment
from circinus.matching.problem import Problem, Usage, round_up_replicas
from circinus.matching.problem_builder import build_problem
from circinus.matching.sizing import Reestimate, is_doubtful, violations, with_cost
from circinus.matching.solvers.greedy import MarginalCosts, marginal_costs
from circinus.matching.tolerances import EQUAL_USD_PER_H
from circinus.planning.bin_packing import pack
from circinus.planning.resource_columns import RESOURCES
from circinus.planning.settings import RunningLoad
from circinus.planning.tie_order import TieKey, TieOrder
from circinus.specification import Deployment, DirectedLink, Infrastructure, Query, Slos

_MIN_CAPACITY = 1e-12
"""Lower limit of a divisor, for capacities that are 0."""


@dataclass(frozen=True, eq=False)
class AdmissionProblem:
    """An additional query, prepared against the running plans."""

    query: Query
    problem: Problem
    """Problem of this query alone, over all deployments."""
    usage: Usage
    """Usage of the running plans."""
    marginal_costs: MarginalCosts

    tie_order: TieOrder

    @cached_property
    def cheapest_first(self) -> tuple[int, ...]:
        """Candidates within the linear capacities, by added cost, then in the order of ties."""
        cost = np.round(self.marginal_costs.added_usd_per_h / EQUAL_USD_PER_H)
        fitting = np.flatnonzero(self.marginal_costs.fits).tolist()
        return tuple(sorted(fitting, key=lambda candidate: (cost[candidate], self.tie_key(candidate))))

    def tie_key(self, candidate: int) -> TieKey:
        """Return the key of a candidate, with the replicas that it adds."""
        return self.tie_order.key(
            self.problem.candidates[candidate], int(self.marginal_costs.added_replicas[candidate])
        )

    def doubtful_order(
        self, late: Mapping[int, float], limit_s: float, confirmed: PlanCandidate | None, *, cheaper: bool
    ) -> list[int]:
        """Return the candidates that a simulation is to decide on, in the order of trials.

        The nearest to its limit comes first. Once a plan is confirmed, only cheaper ones come before it: the cheapest
        of those that would be confirmed at its ratio of simulation and formula, then the nearest.

        Args:
            late: candidate that misses the latency SLO alone -> its relative excess by formula.
            limit_s: of the latency SLO.
            confirmed: plan as confirmed by a simulation.
            cheaper: whether to try cheaper plans than the confirmed one.
        """
        if confirmed is None:
            return sorted(late, key=late.__getitem__)
        own = next(position for position in late if self.problem.candidates[position].plan == confirmed.plan)
        added = self.marginal_costs.added_usd_per_h
        excess = (1 + late[own]) * limit_s / confirmed.estimate.latency_s.upper - 1
        below = [position for position in late if cheaper and added[position] < added[own] - EQUAL_USD_PER_H]

        def key(position: int) -> tuple[bool, float, float]:
            is_likely = late[position] <= excess
            return not is_likely, round(added.item(position), 9) if is_likely else 0.0, late[position]

        return [*sorted(below, key=key), own]

    def outcome_key(self, candidate: int) -> object:
        """Return a key of a query's plan that is equal beside the same running plans, if replicas take the same."""
        taken = self.usage.used.copy()
        taken[self.problem.fractional_load.row(candidate)[0]] = True
        demands = tuple(compress(self.problem.replica_demands, taken.tolist()))
        return self.query, self.problem.candidates[candidate].plan, demands

    def with_candidate(self, candidate: int) -> Usage:
        """Return the joint usage of the running plans and a candidate."""
        columns, fractional = self.problem.fractional_load.row(candidate)
        links, volume = self.problem.traffic.row(candidate)
        load, used = self.usage.fractional_load.copy(), self.usage.used.copy()
        traffic = self.usage.traffic_bytes_per_s.copy()
        load[columns] += fractional
        used[columns] = True
        traffic[links] += volume
        replicas = np.maximum(round_up_replicas(load, used, self.problem.spare_replicas), self.usage.replicas)
        rows = self.problem.rows.coefficients @ replicas
        nodes = np.maximum(self.usage.nodes, self.problem.needed_nodes(rows))
        added = self.problem.cost_usd_per_h(replicas - self.usage.replicas, nodes - self.usage.nodes)
        return Usage(
            fractional_load=load,
            used=used,
            replicas=replicas,
            traffic_bytes_per_s=traffic,
            rows=rows,
            nodes=nodes,
            cost_usd_per_h=self.usage.cost_usd_per_h + added + float(self.problem.transfer_cost_usd_per_h[candidate]),
        )


@dataclass(frozen=True, eq=False)
class AdmissionFit:
    """A plan that fits next to the running plans, and its effects on them."""

    plan: PlanCandidate
    """Plan estimated in isolation."""
    final: PlanCandidate
    """Plan estimated under the merged load."""
    affected_queries: tuple[str, ...]
    """Queries whose load changes; they still meet their SLOs."""
    conditions: MergedLoad
    """Merged load of all plans."""
    unit_usd_per_h: Mapping[Deployment, float]
    """Cost per unit of load of each deployment."""
    deployments: tuple[SizedDeployment, ...]
    """All deployments, as sized."""
    nodes: Mapping[str, int]
    """See `Matching.nodes`."""
    cost_usd_per_h: float
    """Total cost."""
    rows: FloatArray
    """(rows,) left side of each capacity row."""
    traffic_bytes_per_s: FloatArray
    """(L,)"""
    unconfirmed: tuple[str, ...] = ()
    """Queries whose latency meets the SLO only if a simulation says so (`is_doubtful`)."""


class AdmissionControl:
    """The running plans with their sizes and their load."""

    def __init__(
        self,
        queries: Sequence[Query],
        plans: Mapping[str, PlanCandidate],
        deployments: Sequence[SizedDeployment],
        infrastructure: Infrastructure,
        reestimate: Reestimate,
    ) -> None:
        """Sum up the running plans.

        Args:
            queries: served queries.
            plans: by query name, as estimated in isolation.
            deployments: as sized.
            infrastructure: the pools and links.
            reestimate: estimates a plan under the merged load.
        """
        self._slos = {query.name: query.slos for query in queries}
        self._plans = {query.name: plans[query.name] for query in queries}
        self._sized = {sized.deployment: sized for sized in deployments}
        self._demands = {sized.deployment: sized.demand for sized in deployments}
        self.infrastructure, self._reestimate = infrastructure, reestimate
        self._refused: dict[object, Infeasibility] = {}
        """Reasons against plans, by SLOs and `outcome_key`: an admission tries most plans several times."""
        self.conditions = merge_loads(self._plans.values(), {d: sized.replicas for d, sized in self._sized.items()})
        self._users: dict[object, list[str]] = defaultdict(list)
        self._uses: dict[Deployment, list[DeploymentUse]] = defaultdict(list)
        self._successors: dict[Deployment, set[Deployment]] = defaultdict(set)
        self._fractional: dict[Deployment, float] = defaultdict(float)
        self._bytes_per_s: dict[str, float] = defaultdict(float)
        for name, plan in self._plans.items():
            for use in plan.deployments:
                self._users[use.deployment].append(name)
                self._uses[use.deployment].append(use)
                for upstream, _ in use.after:
                    self._successors[upstream].add(use.deployment)
                self._fractional[use.deployment] += use.fractional_replicas
            for crossing in plan.links:
                self._users[crossing.link].append(name)
                self._bytes_per_s[crossing.link.name] += crossing.bytes_per_s
        self._transfers_usd_per_h = sum(plan.transfer_cost_usd_per_h for plan in self._plans.values())
        self.load = self._running_load()
        """Load of the running plans, one object for all admissions: search spaces are kept by it."""

    @property
    def deployments(self) -> tuple[Deployment, ...]:
        """Running deployments."""
        return tuple(self._sized)

    def _running_load(self) -> RunningLoad:
        pools: dict[str, FloatArray] = defaultdict(lambda: np.zeros(len(RESOURCES)))
        for deployment, sized in self._sized.items():
            pools[deployment.pool] += np.multiply(sized.demand.amounts, sized.replicas)
        return RunningLoad(
            {
                deployment: (sized.replicas, self._fractional[deployment] * deployment.allocation.utilization_target)
                for deployment, sized in self._sized.items()
            },
            {link: traffic.offered_load for link, traffic in self.conditions.links.items()},
            pools,
        )

    def prepare(self, query: Query, candidates: Sequence[PlanCandidate]) -> AdmissionProblem:
        """Prepare the candidates of a query against the running plans."""
        problem = build_problem([query], {query.name: candidates}, self.infrastructure, running=self._demands)
        replicas = np.array([s.replicas if (s := self._sized.get(d)) else 0 for d in problem.deployments], np.int64)
        nodes = _running_nodes(problem, {d: sized.nodes for d, sized in self._sized.items()})
        usage = Usage(
            fractional_load=np.array([self._fractional.get(d, 0.0) for d in problem.deployments]),
            used=replicas > 0,
            replicas=replicas,
            traffic_bytes_per_s=np.array([self._bytes_per_s.get(name, 0.0) for name in problem.links]),
            rows=problem.rows.coefficients @ replicas,
            nodes=nodes,
            cost_usd_per_h=problem.cost_usd_per_h(replicas, nodes) + self._transfers_usd_per_h,
        )
        costs = marginal_costs(problem, 0, usage)
        return AdmissionProblem(query, problem, usage, costs, TieOrder([query], self.infrastructure))

    def with_reestimate(self, reestimate: Reestimate) -> AdmissionControl:
        """Return the running plans with another function that estimates a plan under the merged load."""
        other = copy(self)
        other._reestimate, other._refused = reestimate, {}
        return other

    def try_candidates(
        self, prepared: AdmissionProblem, slos: Slos
    ) -> Iterator[tuple[int, AdmissionFit | Infeasibility]]:
        """Yield candidates with their outcomes: by added cost, then those beyond the linear capacities."""
        beyond = np.flatnonzero(~prepared.marginal_costs.fits).tolist()
        for candidate in (*prepared.cheapest_first, *beyond):
            yield candidate, self.try_candidate(prepared, candidate, slos)

    def try_candidate(
        self, prepared: AdmissionProblem, candidate: int, slos: Slos, *, doubtful: bool = False
    ) -> AdmissionFit | Infeasibility:
        """Check capacities, then packing on nodes, then the SLOs of all queries whose load changes.

        Args:
            prepared: the query.
            candidate: index of its plan.
            slos: the query's SLOs.
            doubtful: whether to return a fit, with `unconfirmed` queries, if a simulation has to decide.
        """
        key = slos, doubtful, prepared.outcome_key(candidate)
        outcome = self._refused.get(key) or self._outcome(prepared, candidate, slos, doubtful=doubtful)
        if isinstance(outcome, Infeasibility):
            self._refused[key] = outcome
        return outcome

    def _outcome(
        self, prepared: AdmissionProblem, candidate: int, slos: Slos, *, doubtful: bool
    ) -> AdmissionFit | Infeasibility:
        usage = prepared.with_candidate(candidate)
        nodes = self._nodes(prepared.problem, usage)
        if isinstance(nodes, Infeasibility):
            return nodes
        running = _running_nodes(prepared.problem, nodes)
        added = float(prepared.problem.node_price_usd_per_h @ (running - usage.nodes))
        usage = replace(usage, nodes=running, cost_usd_per_h=usage.cost_usd_per_h + added)
        fit = self._fit(prepared.problem, usage, prepared.problem.candidates[candidate], nodes)
        return self._check_slos(fit, slos, doubtful=doubtful)

    def slo_violation(self, prepared: AdmissionProblem, candidate: int, slos: Slos) -> Infeasibility | None:
        """Return the SLOs that a candidate would violate even if its pools had room for all its replicas."""
        usage, plan = prepared.with_candidate(candidate), prepared.problem.candidates[candidate]
        outcome = self._check_slos(self._fit(prepared.problem, usage, plan, {}), slos, doubtful=False)
        return outcome if isinstance(outcome, Infeasibility) else None

    def _nodes(self, problem: Problem, usage: Usage) -> dict[Deployment, tuple[int, ...]] | Infeasibility:
        """Return the node of each replica, or why there is no room for one."""
        shortage = capacity_violation(problem, usage)
        if shortage is not None:
            return shortage
        nodes: dict[Deployment, tuple[int, ...]] = {}
        for pool in np.unique(problem.pool_of[usage.replicas > 0]).tolist():
            packed = self._packed(problem, usage, pool)
            if packed is None:
                name = problem.pools[pool]
                reason = f"the plan's replicas do not fit on the nodes of pool {name} next to running ones"
                return Infeasibility((f"pool {name}: whole replicas on nodes",), reason)
            nodes |= packed
        return nodes

    def _fit(
        self, problem: Problem, usage: Usage, plan: PlanCandidate, nodes: Mapping[Deployment, tuple[int, ...]]
    ) -> AdmissionFit:
        """Return a plan with its effects, and its estimate in isolation as the final one."""
        conditions = self._conditions_with(problem, usage, plan)
        paid_usd_per_h = problem.paid_usd_per_h(usage.replicas, usage.nodes)
        unit = paid_usd_per_h * usage.replicas / np.where(usage.used, usage.fractional_load, 1.0)
        deployments = [
            SizedDeployment(
                d,
                problem.replica_demands[column],
                nodes.get(d, ()),
                conditions.deployments[d].utilization,
                paid_usd_per_h=problem.paid_whole(column, paid_usd_per_h),
            )
            for column, d in enumerate(problem.deployments)
            if usage.used[column]
        ]
        # A replica with a larger demand than before also costs its other users more, as does a further node.
        dearer = [sized.deployment for sized in deployments if self._is_dearer(sized)]
        affected = (*_queues_of(plan), *dearer, *self._reloaded(conditions))
        return AdmissionFit(
            plan=plan,
            final=plan,
            affected_queries=tuple(dict.fromkeys(name for queue in affected for name in self._users.get(queue, ()))),
            conditions=conditions,
            unit_usd_per_h=dict(zip(problem.deployments, unit.tolist(), strict=True)),
            deployments=tuple(deployments),
            nodes=problem.chosen_nodes(usage.nodes),
            cost_usd_per_h=usage.cost_usd_per_h,
            rows=usage.rows,
            traffic_bytes_per_s=usage.traffic_bytes_per_s,
        )

    def _is_dearer(self, sized: SizedDeployment) -> bool:
        """Return whether a replica's demand or price is another than before, or the deployment is new."""
        ran = self._sized.get(sized.deployment)
        if ran is None or ran.demand != sized.demand:
            return True
        return abs((sized.paid_usd_per_h or 0.0) - (ran.paid_usd_per_h or 0.0)) > EQUAL_USD_PER_H

    def _check_slos(self, fit: AdmissionFit, slos: Slos, *, doubtful: bool) -> AdmissionFit | Infeasibility:
        """Return the fit with the query's final estimate if all SLOs are met, else the violation."""
        final, unconfirmed = self._final(fit.plan, fit, slos), []
        affected = ((name, self._final_of(name, fit), self._slos[name]) for name in fit.affected_queries)
        for name, plan, limits in chain([(fit.plan.query, final, slos)], affected):
            violated, reason = violations(plan, limits)
            if violated and not (doubtful and is_doubtful(plan, limits)):
                excess, sized = plan.estimate.excess(limits, sized=True), plan.estimate if plan is final else None
                return Infeasibility(violated, reason, excess, sized=sized, is_sized=True, query=name)
            if violated:
                unconfirmed.append(name)
        return replace(fit, final=final, unconfirmed=tuple(unconfirmed))

    def affected_plans(self, fit: AdmissionFit) -> dict[str, PlanCandidate]:
        """Return the affected plans by query name, as they will run."""
        return {name: self._final_of(name, fit) for name in fit.affected_queries}

    def _final_of(self, name: str, fit: AdmissionFit) -> PlanCandidate:
        return self._final(self._plans[name], fit, self._slos[name])

    def _final(self, plan: PlanCandidate, fit: AdmissionFit, slos: Slos) -> PlanCandidate:
        return with_cost(self._reestimate(plan, fit.conditions), self._share_usd_per_h(plan, fit), slos)

    @staticmethod
    def _share_usd_per_h(plan: PlanCandidate, fit: AdmissionFit) -> float:
        shares = (fit.unit_usd_per_h[use.deployment] * use.fractional_replicas for use in plan.deployments)
        return plan.transfer_cost_usd_per_h + sum(shares)

    def _packed(self, problem: Problem, usage: Usage, pool: int) -> dict[Deployment, tuple[int, ...]] | None:
        """Return the nodes of a pool's replicas; running ones stay on their nodes if the new ones fit."""
        members = np.flatnonzero((problem.pool_of == pool) & (usage.replicas > 0))
        demand, capacity = problem.packed[0], problem.packed[1][pool] * (1 + 1e-9)
        load, nodes_of = np.zeros((int(problem.nodes[pool]), len(capacity))), {}
        for column in members.tolist():
            sized = self._sized.get(problem.deployments[column])
            nodes_of[column] = list(sized.nodes) if sized else []
            np.add.at(load, nodes_of[column], demand[column])
        stays = bool(np.all(load <= capacity))
        for column in sorted(
            members.tolist(),
            key=lambda column: -float((demand[column] / np.maximum(capacity, _MIN_CAPACITY)).max()),
        ):
            while stays and len(nodes_of[column]) < usage.replicas[column]:
                open_nodes = np.flatnonzero(np.all(load + demand[column] <= capacity, axis=1))
                stays = len(open_nodes) > 0
                if stays:
                    runs = load[open_nodes].any(axis=1) if pool in problem.elastic else np.zeros(1)
                    node = int(open_nodes[runs.argmax()])  # a further node of an elastic pool is opened last
                    nodes_of[column].append(node)
                    load[node] += demand[column]
        if stays:
            return {problem.deployments[column]: tuple(sorted(nodes)) for column, nodes in nodes_of.items()}
        if pool in problem.elastic:
            repacked = problem.fewest_nodes(pool, usage.replicas).packing
        else:
            count, nodes = usage.replicas[members], int(problem.nodes[pool])
            repacked = pack(demand[members], count, problem.packed[1][pool], nodes)
        if repacked.nodes is None:
            return None
        return {
            problem.deployments[column]: nodes for column, nodes in zip(members.tolist(), repacked.nodes, strict=True)
        }

    def _conditions_with(self, problem: Problem, usage: Usage, plan: PlanCandidate) -> MergedLoad:
        """Return the merged load with one more plan."""
        column_of = {deployment: column for column, deployment in enumerate(problem.deployments)}
        deployments, links = dict(self.conditions.deployments), dict(self.conditions.links)
        for use in plan.deployments:
            current, deployment = deployments.get(use.deployment), use.deployment
            traffic = use.traffic if current is None else RequestStream.merged((current.traffic, use.traffic))
            column = column_of[deployment]
            replicas, spare = int(usage.replicas[column]), int(problem.spare_replicas[column])
            reference = self._uses[deployment][0] if current is not None else use
            fill = reference.fill_ratios, reference.batch_wait_s
            deployments[deployment] = DeploymentLoad(replicas, traffic, *fill, spare_replicas=spare)
        requests = self._uses | {use.deployment: [*self._uses.get(use.deployment, ()), use] for use in plan.deployments}
        for crossing in plan.links:
            link = crossing.link
            links[link] = RequestStream.merged((links[link], crossing.traffic)) if link in links else crossing.traffic
        changed = self._reachable(use.deployment for use in plan.deployments)
        return MergedLoad(propagate_departures(deployments, requests, changed), links)

    def _reachable(self, deployments: Iterable[Deployment]) -> set[Deployment]:
        """Return deployments and all that are downstream of them: no other load depends on theirs."""
        reached, pending = set[Deployment](), set(deployments)
        while pending:
            reached |= pending
            pending = set[Deployment]().union(*(self._successors.get(d, ()) for d in pending)) - reached
        return reached

    def _reloaded(self, conditions: MergedLoad) -> list[Deployment]:
        """Return running deployments whose load changes, including those downstream of fuller batches."""
        previous = self.conditions.deployments
        return [
            deployment
            for deployment, load in conditions.deployments.items()
            if deployment in previous and load != previous[deployment]
        ]


def _running_nodes(problem: Problem, nodes_of: Mapping[Deployment, tuple[int, ...]]) -> IntArray:
    """Return (K,) nodes that run for the nodes of each deployment's replicas."""
    nodes = problem.nodes.copy()
    for pool in problem.elastic.tolist():
        used = {node for d, places in nodes_of.items() if d.pool == problem.pools[pool] for node in places}
        nodes[pool] = max(int(problem.base_nodes[pool]), len(used))
    return nodes


def _queues_of(plan: PlanCandidate) -> tuple[Deployment | DirectedLink, ...]:
    """Return the queues of a plan's requests."""
    return (*(use.deployment for use in plan.deployments), *(crossing.link for crossing in plan.links))
