"""Plans of random specifications, for tests."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from circinus.control.ladders.standby import plan_standby
from circinus.control.managed_plans import ManagedPlans
from circinus.control.replanning.replan import replan_for_nodes
from circinus.matching import plan_all_queries
from circinus.profiling import PipelineProfile
from circinus.serving import Mode
from random_specifications import random_specification

Profiles = Mapping[str, PipelineProfile]


@cache
def planned(seed: int, peak: float = 1.0, *, queries: int = 4, nodes: int = 4) -> tuple[ManagedPlans, Profiles]:
    """As `circinus serve` makes them of a plan file, with what was measured."""
    specification, profiles = random_specification(seed, queries=queries, cpus=32.0, nodes=nodes)
    matching, _ = plan_all_queries(specification, profiles)
    assert specification.infrastructure is not None
    ready = plan_standby(matching, specification.infrastructure, peak).deployments if peak > 1 else matching.deployments
    return ManagedPlans(matching, specification, ready, Mode.REAL, None, {}, peak=peak), profiles


@cache
def lossy_plans() -> tuple[ManagedPlans, Profiles, str]:
    """Plans that use two of three pools, and one of the two without which some queries can still be served."""
    controlled, profiles = planned(19)
    pool = "pool0"
    used = {found.deployment.pool for found in controlled.deployments}
    assert pool in used
    assert len(used) == 2 < len(controlled.nodes)
    left = replan_for_nodes(controlled, {**controlled.nodes, pool: 0}, profiles).controlled
    assert 1 < len(left.matching.assignments) < len(controlled.matching.assignments)
    return controlled, profiles, pool
