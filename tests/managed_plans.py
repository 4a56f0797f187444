"""Plans of random specifications, for tests."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache, partial
from threading import Lock
from typing import Any
from unittest.mock import patch

from budget import LEVEL
from circinus.control.ladders.standby import plan_standby
from circinus.control.managed_plans import ManagedPlans
from circinus.control.replanning import replan
from circinus.control.replanning.replan import ReplanResult, replan_for_nodes
from circinus.matching import plan_all_queries
from circinus.matching.settings import DEFAULT_MATCH_SETTINGS
from circinus.profiling import PipelineProfile
from circinus.serving import Mode
from circinus.testing.random_instances import random_specification
from planning_instances import SIMPLE

Profiles = Mapping[str, PipelineProfile]


@cache
def planned(seed: int, peak: float = 1.0, *, queries: int = 4, nodes: int = 4) -> tuple[ManagedPlans, Profiles]:
    """Return the managed plans of a random specification, as in `circinus serve`, and its profiles."""
    specification, profiles = random_specification(seed, queries=queries, cpus=32.0, nodes=nodes)
    matching, _ = plan_all_queries(specification, profiles, settings=SIMPLE, explain_rejections=())
    assert specification.infrastructure is not None
    ready = plan_standby(matching, specification.infrastructure, peak).deployments if peak > 1 else matching.deployments
    return ManagedPlans(matching, specification, ready, Mode.REAL, None, {}, peak=peak), profiles


_replanning = Lock()
"""Lock of the function that is patched, as controllers replan in a thread."""


def replan_simply(
    controlled: ManagedPlans, nodes: Mapping[str, int], profiles: Profiles, *, relax: Collection[str] = ()
) -> ReplanResult:
    """Return the result of `replan_for_nodes` with plans that need not be the cheapest, unless the run is thorough."""
    settings = DEFAULT_MATCH_SETTINGS if LEVEL == "thorough" else SIMPLE
    with _replanning, patch.object(replan, "plan_all_queries", partial(plan_all_queries, settings=settings)):
        return replan_for_nodes(controlled, nodes, profiles, relax=relax)


_replanned: dict[Any, tuple[Profiles, ReplanResult]] = {}


def replanned_once(
    controlled: ManagedPlans, nodes: Mapping[str, int], profiles: Profiles, *, relax: Collection[str] = ()
) -> ReplanResult:
    """Return the result of `replan_simply`, which is deterministic, from an earlier call with equal arguments."""
    measured = tuple((name, id(profile)) for name, profile in sorted(profiles.items()))
    fingerprints = controlled.fingerprint, controlled.specification.fingerprint()
    key = *fingerprints, tuple(sorted(controlled.nodes.items())), tuple(sorted(nodes.items())), measured, tuple(relax)
    if key not in _replanned:  # with the profiles, so that their ids stay unique
        _replanned[key] = dict(profiles), replan_simply(controlled, nodes, profiles, relax=relax)
    return _replanned[key][1]


@cache
def lossy_plans() -> tuple[ManagedPlans, Profiles, str]:
    """Return plans on two of three pools, their profiles, and a used pool whose loss leaves some queries feasible."""
    controlled, profiles = planned(0)
    pool = "pool0"
    used_pools = {sized.deployment.pool for sized in controlled.deployments}
    assert pool in used_pools
    assert len(used_pools) == 2 < len(controlled.nodes)
    replanned = replanned_once(controlled, {**controlled.nodes, pool: 0}, profiles).controlled
    assert 1 < len(replanned.matching.assignments) < len(controlled.matching.assignments)
    return controlled, profiles, pool
