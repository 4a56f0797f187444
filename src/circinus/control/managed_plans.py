"""Plans of a plan file with their fallback ladders, and the engine states that they can lead to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path

from circinus.control.ladders.policy import LadderSettings, LadderState
from circinus.control.ladders.rung_loads import RungDemand, planned_idc
from circinus.estimation import NO_CORRECTIONS, Corrections, PlanCandidate
from circinus.matching import Matching, SizedDeployment
from circinus.serving import DesiredState, Mode
from circinus.serving.desired_state import build_desired_state
from circinus.serving.state_serialization import state_fingerprint
from circinus.specification import Query, QueryPlan, Specification


@dataclass(frozen=True, eq=False)
class ManagedPlans:
    """Plans and the options of their deployment."""

    matching: Matching
    specification: Specification
    deployments: tuple[SizedDeployment, ...]
    """Deployments that run on every rung: those of the matching, and standby replicas."""
    mode: Mode
    recordings: Path | None
    code_versions: Mapping[str, str]
    dwell_s: float = LadderSettings.dwell_s
    peak: float = 1.0
    """Multiple of a query's rate for which standby replicas are kept and requests are admitted."""
    standby_pools: frozenset[str] | None = None
    """Pools in which standby replicas may run; None for all pools."""
    audited_share: float = 0.0
    """Fraction of answered requests that are recorded for audits."""
    node_overrides: Mapping[str, int] = field(default_factory=dict)
    """Pool -> number of nodes that was planned for, where it differs from the specification."""
    corrections: Corrections = NO_CORRECTIONS
    """Corrections of profiles that were used in planning."""

    @cached_property
    def nodes(self) -> Mapping[str, int]:
        """Number of nodes per pool that was planned for."""
        return {pool: self.node_overrides.get(pool, nodes) for pool, nodes in self.specified_nodes.items()}

    @property
    def specified_nodes(self) -> Mapping[str, int]:
        """Number of nodes per pool according to the specification."""
        return {pool.name: pool.nodes for pool in self.specification.required_infrastructure.pools}

    def available_nodes(self, live: Mapping[str, int]) -> Mapping[str, int]:
        """Return the nodes per pool that may be used, of those that live: elastic and spot pools start others."""
        pools = self.specification.required_infrastructure.pools
        return {**live, **{pool.name: pool.nodes for pool in pools if pool.is_elastic or pool.spot}}

    def fits_nodes(self, nodes: Mapping[str, int]) -> bool:
        """Return whether the given number of nodes per pool suffices for these plans."""
        used = {sized.deployment.pool for sized in self.deployments}
        return all(nodes.get(pool, 0) >= self.nodes[pool] for pool in used)

    @cached_property
    def queries(self) -> Mapping[str, Query]:
        """Served queries by name, least important first."""
        served = self.matching.served
        queries = [query for query in self.specification.queries if query.name in served]
        return {
            query.name: query for query in sorted(queries, key=lambda query: (query.priority, query.weight, query.name))
        }

    @cached_property
    def rungs(self) -> Mapping[str, tuple[RungDemand, ...]]:
        """Configurations of each query's ladder, from the top down; a query without a ladder has one."""
        result = {}
        for assignment in self.matching.assignments:
            ladder = assignment.ladder
            candidates = [assignment.chosen] if ladder is None else [rung.candidate for rung in ladder.rungs]
            query = self.queries[assignment.query]
            result[assignment.query] = tuple(RungDemand.of(candidate, query) for candidate in candidates)
        return result

    @property
    def unsplit_plans(self) -> Mapping[str, list[QueryPlan]]:
        """Query -> the plans of its rungs, and the parts of split ones in place of these."""
        return {
            name: [part.plan for rung in rungs for part in rung.candidate.plan.parts]
            for name, rungs in self.rungs.items()
        }

    def reachable_plans(self) -> list[QueryPlan]:
        """Return the plans, parts of split ones, of all rungs whose deployments run."""
        running = {sized.deployment for sized in self.deployments}
        rungs = [rung for ladder in self.rungs.values() for rung in ladder if running >= rung.busy.keys()]
        return [part.plan for rung in rungs for part in rung.candidate.plan.parts]

    @cached_property
    def ladder_settings(self) -> Mapping[str, LadderSettings]:
        """Policy settings of each query's ladder."""
        return {name: LadderSettings(query.slos.latency, self.dwell_s) for name, query in self.queries.items()}

    @cached_property
    def dispersions(self) -> Mapping[str, float]:
        """Planned index of dispersion of each query's arrivals (`planned_idc`)."""
        return {name: planned_idc(query) for name, query in self.queries.items()}

    def initial_ladder_states(self) -> dict[str, LadderState]:
        """Return ladder states with every query on its selected plan."""
        chosen = {a.query: 0 if a.ladder is None else a.ladder.chosen for a in self.matching.assignments}
        return {name: LadderState(rung, rung) for name, rung in chosen.items()}

    def migrate_ladder_states(self, ladders: Mapping[str, LadderState], before: ManagedPlans) -> dict[str, LadderState]:
        """Return ladder states after a change of plans.

        A query keeps its current plan if its new ladder contains the plan and all deployments of the plan run.
        """
        result, running = self.initial_ladder_states(), {sized.deployment for sized in self.deployments}
        for name, initial in result.items():
            if name not in ladders:
                continue
            current_plan, rungs = before.rungs[name][ladders[name].rung].candidate.plan, self.rungs[name]
            matching_rungs = (n for n in range(initial.chosen, len(rungs)) if rungs[n].candidate.plan == current_plan)
            rung = next((n for n in matching_rungs if running >= rungs[n].busy.keys()), None)
            if rung is not None:
                state = ladders[name]
                result[name] = LadderState(rung, initial.chosen, state.changed_s, failed_step_ups=state.failed_step_ups)
        return result

    def plans(self, ladders: Mapping[str, LadderState]) -> dict[str, PlanCandidate]:
        return {name: self.rungs[name][state.rung].candidate for name, state in ladders.items()}

    def desired_state(self, ladders: Mapping[str, LadderState]) -> DesiredState:
        """Return the desired state of the engine. Only its routes depend on the ladder states."""
        return build_desired_state(
            self.matching,
            self.specification,
            self.mode,
            self.recordings,
            self.code_versions,
            deployments=self.deployments,
            plans=self.plans(ladders),
            peak=self.peak,
            audited_share=self.audited_share,
        )

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the plans, their ladders and options; where it is equal, rung indices have equal meanings.

        It begins with `ladders_fingerprint`, by which others recognize the plans without knowing the options.
        """
        desired = state_fingerprint(self.desired_state(self.initial_ladder_states()))
        return f"{ladders_fingerprint(self.matching)}-{desired}"


def ladders_fingerprint(matching: Matching) -> str:
    """Return the hash of the plans of a matching and their ladders."""
    rungs = {a.query: () if a.ladder is None else a.ladder.rungs for a in matching.assignments}
    ladders = {
        a.query: [_plan_text(plan) for plan in (a.chosen.plan, *(rung.candidate.plan for rung in rungs[a.query]))]
        for a in matching.assignments
    }
    chosen = {a.query: 0 if a.ladder is None else a.ladder.chosen for a in matching.assignments}
    return hashlib.sha256(json.dumps([ladders, chosen], sort_keys=True).encode()).hexdigest()


def _plan_text(plan: QueryPlan) -> str:
    """Return a plan as text. That of an unsplit plan has no other parts, so that states of earlier versions match."""
    values = {field.name: getattr(plan, field.name) for field in fields(plan)}
    named = (f"{name}={value!r}" for name, value in values.items() if name != "others" or plan.is_split)
    return f"QueryPlan({', '.join(named)})"
