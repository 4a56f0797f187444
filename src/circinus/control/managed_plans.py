"""What is controlled: the plans of a plan file with their ladders, and the states of an engine they can lead to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from circinus.control.ladders.policy import LadderSettings, LadderState
from circinus.control.ladders.rung_loads import RungDemand
from circinus.estimation import NO_CORRECTIONS, Corrections
from circinus.matching import Matching, SizedDeployment
from circinus.serving import DesiredState, Mode
from circinus.serving.desired_state import build_desired_state
from circinus.serving.state_serialization import state_fingerprint
from circinus.specification import Query, QueryPlan, Specification


@dataclass(frozen=True, eq=False)
class ManagedPlans:
    """Plans, and how they are deployed."""

    matching: Matching
    specification: Specification
    deployments: tuple[SizedDeployment, ...]
    """What runs whatever rung a query is on: those of the matching, and what is kept ready for bursts."""
    mode: Mode
    recordings: Path | None
    code_versions: Mapping[str, str]
    dwell_s: float = LadderSettings.dwell_s
    peak: float = 1.0
    """Times a query's rate that replicas are kept ready for, and requests are let in."""
    standby_pools: frozenset[str] | None = None
    """Where replicas may be kept ready for that; None: in all pools."""
    audited_share: float = 0.0
    """Of answered requests that are kept to be audited."""
    node_overrides: Mapping[str, int] = field(default_factory=dict)
    """Pools that were planned for with other numbers of nodes than are specified."""
    corrections: Corrections = NO_CORRECTIONS
    """That the profiles were planned on with."""

    @cached_property
    def nodes(self) -> Mapping[str, int]:
        """Pool -> nodes that were planned for."""
        infrastructure = self.specification.infrastructure
        assert infrastructure is not None, "plans are made for one"
        return {pool.name: self.node_overrides.get(pool.name, pool.nodes) for pool in infrastructure.pools}

    def fits_nodes(self, nodes: Mapping[str, int]) -> bool:
        """Whether so many nodes are enough for these plans."""
        used = {found.deployment.pool for found in self.deployments}
        return all(nodes.get(pool, 0) >= self.nodes[pool] for pool in used)

    @cached_property
    def queries(self) -> Mapping[str, Query]:
        """Those that are served, the least important first: they make room for the others."""
        served = {assignment.query for assignment in self.matching.assignments}
        known = [query for query in self.specification.queries if query.name in served]
        return {
            query.name: query for query in sorted(known, key=lambda query: (query.priority, query.weight, query.name))
        }

    @cached_property
    def rungs(self) -> Mapping[str, tuple[RungDemand, ...]]:
        """Query -> the plans of its ladder, from the top down; its plan alone where it has none."""
        found = {}
        for assignment in self.matching.assignments:
            ladder = assignment.ladder
            candidates = [assignment.chosen] if ladder is None else [rung.candidate for rung in ladder.rungs]
            query = self.queries[assignment.query]
            found[assignment.query] = tuple(RungDemand.of(candidate, query) for candidate in candidates)
        return found

    def reachable_plans(self) -> list[QueryPlan]:
        """The plans of all rungs whose deployments run."""
        there = {found.deployment for found in self.deployments}
        rungs = [rung for ladder in self.rungs.values() for rung in ladder if there >= rung.busy.keys()]
        return [rung.candidate.plan for rung in rungs]

    @cached_property
    def ladder_settings(self) -> Mapping[str, LadderSettings]:
        """Query -> the bounds of its ladder's policy."""
        return {
            name: LadderSettings(
                limit_s=None if query.slos.latency is None else query.slos.latency.limit_s, dwell_s=self.dwell_s
            )
            for name, query in self.queries.items()
        }

    def initial_ladder_states(self) -> dict[str, LadderState]:
        """Every query on the plan that it got."""
        chosen = {a.query: 0 if a.ladder is None else a.ladder.chosen for a in self.matching.assignments}
        return {name: LadderState(rung, rung) for name, rung in chosen.items()}

    def migrate_ladder_states(self, ladders: Mapping[str, LadderState], before: ManagedPlans) -> dict[str, LadderState]:
        """Where queries stand when these plans follow others: on the plan that they are on, if their ladder has it and
        its deployments run.

        Args:
            ladders: where they stood.
            before: the plans that these follow.
        """
        found, running = self.initial_ladder_states(), {sized.deployment for sized in self.deployments}
        for name, first in found.items():
            if name not in ladders:
                continue
            there, rungs = before.rungs[name][ladders[name].rung].candidate.plan, self.rungs[name]
            kept = (n for n in range(first.chosen, len(rungs)) if rungs[n].candidate.plan == there)
            rung = next((n for n in kept if running >= rungs[n].busy.keys()), None)
            if rung is not None:
                found[name] = replace(
                    ladders[name], rung=rung, chosen=first.chosen, calm_s=None, late_s=None, on_probation=False
                )
        return found

    def plans(self, ladders: Mapping[str, LadderState]) -> dict[str, QueryPlan]:
        """Query -> the plan in force."""
        return {name: self.rungs[name][state.rung].candidate.plan for name, state in ladders.items()}

    def desired_state(self, ladders: Mapping[str, LadderState]) -> DesiredState:
        """What an engine shall run. Only routes depend on where queries stand."""
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
        """Differs where the same rungs would mean something else."""
        ladders = {name: [repr(rung.candidate.plan) for rung in rungs] for name, rungs in self.rungs.items()}
        first = self.initial_ladder_states()
        told = [
            state_fingerprint(self.desired_state(first)),
            ladders,
            {name: state.chosen for name, state in first.items()},
        ]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
