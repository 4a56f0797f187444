"""One more query beside plans that run and stay: prepared once, then asked in milliseconds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from circinus.arrays import FloatArray
from circinus.estimation import DeploymentLoad, DeploymentUse, MergedLoad, PlanCandidate, RequestStream, merge_loads
from circinus.estimation.merged_load import propagate_departures
from circinus.matching.bin_packing import pack
from circinus.matching.explanation.feasibility import Infeasibility, capacity_violation
from circinus.matching.plan_set import SizedDeployment
from circinus.matching.problem import Problem, Usage, meets_cost_slo, round_up_replicas
from circinus.matching.problem_builder import build_problem
from circinus.matching.sizing import Reestimate, violations, with_cost
from circinus.matching.solvers.greedy import MarginalCosts, marginal_costs
from circinus.matching.wait_bounds import WaitIncreaseBound, queues_of
from circinus.specification import Deployment, Infrastructure, Query, Slos

_NOTHING = 1e-12
"""A capacity that is none, where one divides by it."""


@dataclass(frozen=True, eq=False)
class AdmissionProblem:
    """One more query, laid beside what runs."""

    problem: Problem
    """Of this query alone, over the deployments of all."""
    usage: Usage
    """Of what runs."""
    marginal_costs: MarginalCosts

    @property
    def cheapest_first(self) -> list[int]:
        """Candidates that fit by their capacities; of equal ones that which leaves the fullest resource emptier."""
        fullest = (self.marginal_costs.rows / self.problem.rows.limit).max(axis=1, initial=0.0)
        return [
            one
            for one in np.lexsort((fullest, self.marginal_costs.added_usd_per_h)).tolist()
            if self.marginal_costs.fits[one]
        ]

    def with_candidate(self, candidate: int) -> Usage:
        """What runs and a candidate together."""
        columns, fluid = self.problem.fractional_load.row(candidate)
        links, volume = self.problem.traffic.row(candidate)
        load, used = self.usage.fractional_load.copy(), self.usage.used.copy()
        traffic = self.usage.traffic_bytes_per_s.copy()
        load[columns] += fluid
        used[columns] = True
        traffic[links] += volume
        replicas = np.maximum(round_up_replicas(load, used), self.usage.replicas)
        cost = self.usage.cost_usd_per_h + float(self.problem.price_usd_per_h @ (replicas - self.usage.replicas))
        return Usage(
            fractional_load=load,
            used=used,
            replicas=replicas,
            traffic_bytes_per_s=traffic,
            rows=self.problem.rows.coefficients @ replicas,
            cost_usd_per_h=cost + float(self.problem.transfer_cost_usd_per_h[candidate]),
        )


@dataclass(frozen=True, eq=False)
class AdmissionFit:
    """A plan that fits beside those that run, with what becomes of these."""

    plan: PlanCandidate
    """As promised."""
    final: PlanCandidate
    """As it would run."""
    affected_queries: tuple[str, ...]
    """Queries that meet another load than before, and keep their objectives under it."""
    conditions: MergedLoad
    """The load of all."""
    unit_usd_per_h: Mapping[Deployment, float]
    """What a deployment costs for each unit of its load."""
    deployments: tuple[SizedDeployment, ...]
    """All of them."""
    cost_usd_per_h: float
    """Of all."""
    rows: FloatArray
    """(rows,) left side of each capacity row."""
    traffic_bytes_per_s: FloatArray
    """(L,)"""


class AdmissionControl:
    """The plans that run, their sizes and their load."""

    def __init__(
        self,
        queries: Sequence[Query],
        plans: Mapping[str, PlanCandidate],
        deployments: Sequence[SizedDeployment],
        infrastructure: Infrastructure,
        reestimate: Reestimate,
        usable_link_share: float,
        latency_s: Mapping[str, float] | None = None,
    ) -> None:
        """Add up what runs.

        Args:
            queries: those that are served.
            plans: by query name, as promised before all were matched.
            deployments: as sized.
            infrastructure: the pools and links.
            reestimate: how a plan is estimated under the merged load.
            usable_link_share: share of each link's bandwidth that may be filled.
            latency_s: by query name, the upper bound of its latency under the load there is, where `reestimate` is as
                of `Estimator`. Whose objective leaves room for longer waits need not be estimated again then; without
                it, all who meet another load are.
        """
        self._slos = {query.name: query.slos for query in queries}
        self._plans = {query.name: plans[query.name] for query in queries}
        self._sized = {sized.deployment: sized for sized in deployments}
        self._demands = {sized.deployment: sized.demand for sized in deployments}
        self.infrastructure, self._reestimate, self._link_share = infrastructure, reestimate, usable_link_share
        self.conditions = merge_loads(self._plans.values(), {d: sized.replicas for d, sized in self._sized.items()})
        self._latency_s, self._risk = latency_s, {query.name: query.risk for query in queries}
        self._users: dict[object, list[str]] = defaultdict(list)
        self._uses: dict[Deployment, list[DeploymentUse]] = defaultdict(list)
        self._fluid: dict[Deployment, float] = defaultdict(float)
        self._bytes_per_s: dict[str, float] = defaultdict(float)
        for name, plan in self._plans.items():
            for use in plan.deployments:
                self._users[use.deployment].append(name)
                self._uses[use.deployment].append(use)
                self._fluid[use.deployment] += use.fractional_replicas
            for crossing in plan.links:
                self._users[crossing.link].append(name)
                self._bytes_per_s[crossing.link.name] += crossing.bytes_per_s
        self._transfers_usd_per_h = sum(plan.transfer_cost_usd_per_h for plan in self._plans.values())

    @property
    def deployments(self) -> tuple[Deployment, ...]:
        """Those that run."""
        return tuple(self._sized)

    def prepare(self, query: Query, candidates: Sequence[PlanCandidate]) -> AdmissionProblem:
        """Lay the candidates of a query beside what runs."""
        problem = build_problem(
            [query],
            {query.name: candidates},
            self.infrastructure,
            usable_link_share=self._link_share,
            running=self._demands,
        )
        replicas = np.array([s.replicas if (s := self._sized.get(d)) else 0 for d in problem.deployments], np.int64)
        usage = Usage(
            fractional_load=np.array([self._fluid.get(d, 0.0) for d in problem.deployments]),
            used=replicas > 0,
            replicas=replicas,
            traffic_bytes_per_s=np.array([self._bytes_per_s.get(name, 0.0) for name in problem.links]),
            rows=problem.rows.coefficients @ replicas,
            cost_usd_per_h=float(problem.price_usd_per_h @ replicas) + self._transfers_usd_per_h,
        )
        return AdmissionProblem(problem, usage, marginal_costs(problem, 0, usage))

    def try_candidate(self, laid: AdmissionProblem, candidate: int, slos: Slos) -> AdmissionFit | Infeasibility:
        """Look at capacities, then at nodes, then at the objectives of all whose load changes.

        Args:
            laid: the query.
            candidate: which of its plans.
            slos: the query's objectives.
        """
        problem, usage, plan = laid.problem, laid.with_candidate(candidate), laid.problem.candidates[candidate]
        shortage = capacity_violation(problem, usage)
        if shortage is not None:
            return shortage
        nodes: dict[Deployment, tuple[int, ...]] = {}
        for pool in np.unique(problem.pool_of[usage.replicas > 0]).tolist():
            packed = self._packed(problem, usage, pool)
            if packed is None:
                name = problem.pools[pool]
                reason = f"its replicas do not go on the nodes of pool {name} beside the others"
                return Infeasibility((f"pool {name}: whole replicas on nodes",), reason, 0.0, frozenset({pool}))
            nodes |= packed
        conditions = self._conditions_with(problem, usage, plan)
        unit = problem.price_usd_per_h * usage.replicas / np.where(usage.used, usage.fractional_load, 1.0)
        deployments = [
            SizedDeployment(d, problem.demand_of(column), nodes[d], conditions.deployments[d].utilization)
            for column, d in enumerate(problem.deployments)
            if usage.used[column]
        ]
        # Where a replica takes more than was known, it costs its users more, too.
        dearer = [sized.deployment for sized in deployments if sized.demand != self._demands.get(sized.deployment)]
        met = (*queues_of(plan), *dearer, *self._loaded_otherwise(conditions))
        found = AdmissionFit(
            plan=plan,
            final=plan,
            affected_queries=tuple(dict.fromkeys(name for queue in met for name in self._users.get(queue, ()))),
            conditions=conditions,
            unit_usd_per_h=dict(zip(problem.deployments, unit.tolist(), strict=True)),
            deployments=tuple(deployments),
            cost_usd_per_h=usage.cost_usd_per_h,
            rows=usage.rows,
            traffic_bytes_per_s=usage.traffic_bytes_per_s,
        )
        return self._kept(found, slos)

    def _kept(self, found: AdmissionFit, slos: Slos) -> AdmissionFit | Infeasibility:
        """With the query's final estimate, if all objectives are kept."""
        final = self._final(found.plan, found)
        broken, reason = violations(final, slos)
        if broken:
            return Infeasibility(broken, f"query {found.plan.query}: {reason}", 0.0)
        met = (*queues_of(found.plan), *self._loaded_otherwise(found.conditions))
        longer = WaitIncreaseBound(met, self.conditions, found.conditions)
        for name in found.affected_queries:
            if not self._surely_keeps(name, found, longer):
                broken, reason = violations(self._final(self._plans[name], found), self._slos[name])
                if broken:
                    return Infeasibility(broken, f"query {name}: {reason}", 0.0)
        return replace(found, final=final)

    def _surely_keeps(self, name: str, found: AdmissionFit, longer: WaitIncreaseBound) -> bool:
        """Whether a query keeps its objectives without a look at its latency scenario by scenario."""
        plan, latency, cost = self._plans[name], self._slos[name].latency, self._slos[name].cost
        if cost is not None and not meets_cost_slo(self._share_usd_per_h(plan, found), cost.limit_usd_per_h):
            return False
        if self._latency_s is None:
            return False
        return latency is None or longer.latency_s(plan, self._latency_s[name], self._risk[name]) <= latency.limit_s

    def affected_plans(self, found: AdmissionFit) -> dict[str, PlanCandidate]:
        """By query name, the plans that meet another load than before as they will run."""
        return {name: self._final(self._plans[name], found) for name in found.affected_queries}

    def _final(self, plan: PlanCandidate, found: AdmissionFit) -> PlanCandidate:
        return with_cost(self._reestimate(plan, found.conditions), self._share_usd_per_h(plan, found))

    @staticmethod
    def _share_usd_per_h(plan: PlanCandidate, found: AdmissionFit) -> float:
        shares = (found.unit_usd_per_h[use.deployment] * use.fractional_replicas for use in plan.deployments)
        return plan.transfer_cost_usd_per_h + sum(shares)

    def _packed(self, problem: Problem, usage: Usage, pool: int) -> dict[Deployment, tuple[int, ...]] | None:
        """Nodes of a pool's replicas: those that run stay where they are if the others go beside them."""
        members = np.flatnonzero((problem.pool_of == pool) & (usage.replicas > 0))
        capacity = problem.node_capacity[pool] * (1 + 1e-9)
        load, placed = np.zeros((int(problem.nodes[pool]), len(capacity))), {}
        for column in members.tolist():
            sized = self._sized.get(problem.deployments[column])
            placed[column] = list(sized.nodes) if sized else []
            np.add.at(load, placed[column], problem.demand[column])
        stays = bool(np.all(load <= capacity))
        for column in sorted(
            members.tolist(), key=lambda column: -float((problem.demand[column] / np.maximum(capacity, _NOTHING)).max())
        ):
            while stays and len(placed[column]) < usage.replicas[column]:
                room = np.flatnonzero(np.all(load + problem.demand[column] <= capacity, axis=1))
                stays = len(room) > 0
                if stays:
                    placed[column].append(int(room[0]))
                    load[room[0]] += problem.demand[column]
        if stays:
            return {problem.deployments[column]: tuple(sorted(nodes)) for column, nodes in placed.items()}
        anew = pack(
            problem.demand[members], usage.replicas[members], problem.node_capacity[pool], int(problem.nodes[pool])
        )
        if anew.nodes is None:
            return None
        return {problem.deployments[column]: found for column, found in zip(members.tolist(), anew.nodes, strict=True)}

    def _conditions_with(self, problem: Problem, usage: Usage, plan: PlanCandidate) -> MergedLoad:
        """The load of all with one more plan."""
        column_of = {deployment: column for column, deployment in enumerate(problem.deployments)}
        deployments, links = dict(self.conditions.deployments), dict(self.conditions.links)
        for use in plan.deployments:
            known, deployment = deployments.get(use.deployment), use.deployment
            traffic = use.traffic if known is None else RequestStream.merged((known.traffic, use.traffic))
            replicas = int(usage.replicas[column_of[deployment]])
            first = self._uses[deployment][0] if known is not None else use
            deployments[deployment] = DeploymentLoad(replicas, traffic, first.fill_ratios, first.batch_wait_s)
        requests = self._uses | {use.deployment: [*self._uses.get(use.deployment, ()), use] for use in plan.deployments}
        for crossing in plan.links:
            link = crossing.link
            links[link] = RequestStream.merged((links[link], crossing.traffic)) if link in links else crossing.traffic
        return MergedLoad(propagate_departures(deployments, requests), links)

    def _loaded_otherwise(self, conditions: MergedLoad) -> list[Deployment]:
        """Deployments that run and meet another load: also those behind batches that are fuller than before."""
        before = self.conditions.deployments
        return [one for one, load in conditions.deployments.items() if one in before and load != before[one]]
