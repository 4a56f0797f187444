"""Eligibility of configurations and pools: knob pins, and reasons why pools are closed to a query or operator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from circinus.arrays import BoolArray
from circinus.planning.dominance import DOMINANCE_TOLERANCE
from circinus.planning.frontier import MEASUREMENTS, Frontier
from circinus.planning.profile_arrays import INPUT_INDEX
from circinus.planning.resource_columns import RESOURCES
from circinus.profiling import PipelineProfile
from circinus.specification import Configuration, Network, Pool, Query
from circinus.specification.formatting import format_amount

if TYPE_CHECKING:
    from circinus.planning.profile_arrays import OperatorRows
    from circinus.planning.search_space import SearchSpace


def matches_pins(query: Query, configuration: Configuration) -> bool:
    """Return whether a configuration has the values that the query's knobs are pinned to."""
    return all((knob, value) in configuration[operator].values for operator, knob, value in query.pinned_knobs)


def pin_mask(query: Query, configurations: Sequence[Configuration]) -> BoolArray:
    """Return (k,) whether each of k configurations matches the query's pins."""
    if not query.pinned_knobs:
        return np.ones(len(configurations), dtype=bool)
    return np.array([matches_pins(query, configuration) for configuration in configurations], dtype=bool)


def pinned_profile(query: Query, profile: PipelineProfile) -> PipelineProfile:
    """Return the profile restricted to configurations that match the query's pins."""
    if not query.pinned_knobs:
        return profile
    matching = tuple(measured for measured in profile.configurations if matches_pins(query, measured.configuration))
    return replace(profile, configurations=matching)


def no_profile_matches_pins(query: Query, profile: PipelineProfile) -> Frontier:
    """Return a frontier without candidates: no configuration that matches the pins has enough measured items."""
    pins = " ".join(f"{operator}.{knob}={value}" for operator, knob, value in query.pinned_knobs)
    reason = (
        f"the query is pinned to {pins}, but none of the {len(profile.usable)} configurations of pipeline "
        f"{profile.pipeline} with enough measured items has these values: run `circinus profile`"
    )
    return Frontier(query, (), {}, (), (), reason, binding=(MEASUREMENTS,))


_MAX_NAMED = 4
"""Maximum number of pools named in a reason; further pools are counted."""


def explain_ineligible_pools(query: Query, network: Network) -> str:
    """Return the reasons why the query may use none of the pools, regardless of its operators."""
    reasons = [_closed_reason(pool, query, network) for pool in network.infrastructure.pools]
    return _joined_reasons([reason for reason in reasons if reason])


def explain_operator_ineligible(rows: OperatorRows, query: Query, network: Network) -> str:
    """Return the reasons why an operator has no option in any pool, pools open to the query first."""
    open_pools = network.pools_for(query.source)
    closed_pools = [pool for pool in network.infrastructure.pools if pool not in open_pools]
    reasons = [_tier_reason(rows, pool) or _capacity_reason(rows, pool, query) for pool in open_pools]
    return _joined_reasons(reasons + [_closed_reason(pool, query, network) for pool in closed_pools])


def explain_missing_capacity(space: SearchSpace) -> str:
    """Return the amount that all operators together need more of than all open pools have, or an empty string."""
    all_columns = np.arange(space.columns.count)
    for index, resource in enumerate(RESOURCES):
        resource_columns = [
            all_columns[space.columns.dedicated(pool)][index] for pool in range(len(space.columns.pools))
        ]
        required = sum(
            min(
                float(table.min_resources[table.usable[:, pool], pool, column].min(initial=np.inf))
                for pool, column in enumerate(resource_columns)
            )
            for table in space.options
        )
        capacity = float(space.columns.capacity[resource_columns].sum())
        if required > capacity * (1 + DOMINANCE_TOLERANCE):
            need, present = format_amount(resource, required), format_amount(resource, capacity)
            return f"the operators need at least {need}, but the pools have {present}"
    return ""


def explain_missing_path(space: SearchSpace) -> str:
    """Return two operators between whose usable pools no links take values, or an empty string."""
    order = [operator.name for operator in space.arrays.order]
    usable = [np.flatnonzero(table.usable.any(axis=0)) for table in space.options]
    names = [", ".join(space.columns.pools[pool].name for pool in pools.tolist()) for pools in usable]
    for operator, parents in enumerate(space.arrays.parents):
        for parent in (producer - 1 for producer in parents if producer != INPUT_INDEX):
            sites = (space.pool_sites[usable[parent]], space.pool_sites[usable[operator]])
            if not space.connected[parent + 1][np.ix_(*sites)].any():
                return (
                    f"no path of links takes values from the pools of operator {order[parent]} ({names[parent]}) "
                    f"to those of operator {order[operator]} ({names[operator]})"
                )
    return ""


def _joined_reasons(reasons: list[str]) -> str:
    unnamed = len(reasons) - _MAX_NAMED
    named = "; ".join(reasons[:_MAX_NAMED])
    return f"{named}; and {unnamed} more pools" if unnamed > 0 else named or "the infrastructure has no pools"


def _closed_reason(pool: Pool, query: Query, network: Network) -> str:
    if pool.is_private() and pool.site != query.source:
        return f"pool {pool.name} is private to queries from site {pool.site}"
    if pool.nodes == 0:
        return f"pool {pool.name} has no nodes"
    if pool not in network.accessible_pools(query.source):
        return f"pool {pool.name} cannot be reached from site {query.source} and back"
    return ""


def _tier_reason(rows: OperatorRows, pool: Pool) -> str:
    tiers = rows.spec.allowed_tiers
    if tiers is None or pool.tier in tiers:
        return ""
    return f"pool {pool.name} is on tier {pool.tier}, but allowed_tiers are {', '.join(tiers)}"


def _capacity_reason(rows: OperatorRows, pool: Pool, query: Query) -> str:
    """Return the resource that a node lacks for the smallest replica, or else that there are too few nodes."""
    min_cpus, min_bytes = min(cpus for cpus, _ in rows.sizes), float(rows.memory_bytes.min())
    replica = (min_cpus, min_bytes, rows.spec.gpus, float(rows.gpu_memory_bytes.min()))
    for resource, required, available in zip(RESOURCES, replica, pool.amounts, strict=True):
        if required > available:
            has, needs = format_amount(resource, available), format_amount(resource, required)
            return f"a node of pool {pool.name} has {has}, but a replica needs {needs}"
    return f"pool {pool.name} has too few nodes for the replicas needed at {query.rate_per_s:g}/s"
