"""Why the pools of an infrastructure are closed to a query, or to one of its operators, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from circinus.planning.dominance import DOMINANCE_TOLERANCE
from circinus.planning.frontier import Frontier
from circinus.planning.profile_arrays import OperatorRows
from circinus.planning.search_space import SearchSpace
from circinus.profiling import PipelineProfile
from circinus.specification import Configuration, Network, Pool, Query
from circinus.specification.formatting import format_amount


def matches_pins(query: Query, configuration: Configuration) -> bool:
    """Whether a configuration has the values that the query's knobs are pinned to; a knob that it lacks has none."""
    return all((knob, value) in configuration[operator].values for operator, knob, value in query.pinned_knobs)


def pin_mask(query: Query, listed: Sequence[Configuration]) -> NDArray[np.bool_]:
    """(k,) which of k configurations have them."""
    if not query.pinned_knobs:
        return np.ones(len(listed), dtype=bool)
    return np.array([matches_pins(query, configuration) for configuration in listed], dtype=bool)


def pinned_profile(query: Query, profile: PipelineProfile) -> PipelineProfile:
    """What was measured of the configurations that the query's pins leave."""
    if not query.pinned_knobs:
        return profile
    left = tuple(found for found in profile.configurations if matches_pins(query, found.configuration))
    return replace(profile, configurations=left)


def no_profile_matches_pins(query: Query, profile: PipelineProfile) -> Frontier:
    """A frontier without candidates: no configuration that the pins leave was measured on enough items."""
    pins = " ".join(f"{operator}.{knob}={value}" for operator, knob, value in query.pinned_knobs)
    reason = (
        f"pinned to {pins}, and none of the {len(profile.usable)} configurations of pipeline {profile.pipeline} that "
        "were measured on enough items has that; measure them (circinus profile)"
    )
    return Frontier(query, (), {}, (), (), reason, measured=False)


_RESOURCES = ("cpus", "memory", "gpus", "gpu memory")
"""The amounts of a node, in the order of `AMOUNTS`, in words."""

_MOST_NAMED = 4
"""Pools that are named; what more there is, is counted."""


def explain_ineligible_pools(query: Query, network: Network) -> str:
    """Why the query may use none of the pools, whatever its operators."""
    reasons = [_closed(pool, query, network) for pool in network.infrastructure.pools]
    return _listed([reason for reason in reasons if reason])


def explain_operator_ineligible(rows: OperatorRows, query: Query, network: Network) -> str:
    """Why an operator has no option in any of the pools; those that are open to the query come first."""
    open_pools = network.pools_for(query.source)
    others = [pool for pool in network.infrastructure.pools if pool not in open_pools]
    reasons = [_pinned(rows, pool) or _too_small(rows, pool, query) for pool in open_pools]
    return _listed(reasons + [_closed(pool, query, network) for pool in others])


def explain_missing_capacity(space: SearchSpace) -> str:
    """An amount that all operators together need more of than all open pools have; empty where there is none."""
    all_columns = np.arange(space.columns.count)
    for index, resource in enumerate(_RESOURCES):
        here = [all_columns[space.columns.alone(pool)][index] for pool in range(len(space.columns.pools))]
        least = sum(
            min(
                float(table.least[table.usable[:, pool], pool, column].min(initial=np.inf))
                for pool, column in enumerate(here)
            )
            for table in space.options
        )
        there = float(space.columns.capacity[here].sum())
        if least > there * (1 + DOMINANCE_TOLERANCE):
            need, present = format_amount(resource, least), format_amount(resource, there)
            return f"its operators need at least {need}, and there are {present}"
    return ""


def _listed(reasons: list[str]) -> str:
    more = len(reasons) - _MOST_NAMED
    named = "; ".join(reasons[:_MOST_NAMED])
    return f"{named}; and {more} more pools" if more > 0 else named or "the infrastructure has no pools"


def _closed(pool: Pool, query: Query, network: Network) -> str:
    """Empty where the pool is open to the query."""
    if pool.is_private() and pool.site != query.source:
        return f"pool {pool.name} is private to queries from site {pool.site}"
    if pool.nodes == 0:
        return f"pool {pool.name} has no nodes"
    if pool not in network.accessible_pools(query.source):
        return f"pool {pool.name} cannot be reached from site {query.source} and back"
    return ""


def _pinned(rows: OperatorRows, pool: Pool) -> str:
    """Empty where the operator may run on the pool's tier."""
    tiers = rows.spec.allowed_tiers
    if tiers is None or pool.tier in tiers:
        return ""
    return f"pool {pool.name} is on tier {pool.tier} and its allowed_tiers are {', '.join(tiers)}"


def _too_small(rows: OperatorRows, pool: Pool, query: Query) -> str:
    """What a node lacks for the smallest replica; where it lacks nothing there are too few of them for the rate."""
    least_cpus, least_bytes = min(cpus for cpus, _ in rows.sizes), float(rows.memory_bytes.min())
    replica = (least_cpus, least_bytes, rows.spec.gpus, rows.spec.gpu_memory_bytes)
    node = (pool.cpus, pool.memory_bytes, pool.gpus, pool.gpu_memory_bytes)
    for resource, least, there in zip(_RESOURCES, replica, node, strict=True):
        if least > there:
            has, needs = format_amount(resource, there), format_amount(resource, least)
            return f"a node of pool {pool.name} has {has} and a replica needs {needs}"
    return f"pool {pool.name} has too few nodes for the replicas that {query.rate_per_s:g}/s need"
