"""Spare replicas for nodes that are interrupted: against all cases, and simulated with interruptions."""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import replace
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budget import examples
from circinus.estimation import Estimator, replicas_for
from circinus.estimation.interruptions import late_scenarios, spare_replicas
from circinus.estimation.percentiles import ScenarioGrid
from circinus.matching import plan_all_queries
from circinus.reporting.plan_table import spare_replicas_text
from circinus.specification import HardwareClass, Infrastructure, LatencySlo, Network, PoissonArrivals, Pool, Site, Slos
from circinus.specification.infrastructure import Spot
from circinus.testing.random_instances import random_specification
from planning_instances import all_plans, random_instance

GIB = 2.0**30


def _pool(nodes: int, spot: Spot | None, **fields: object) -> Pool:
    pool = Pool(name="vms", site="here", tier="edge", nodes=nodes, cpus=8, memory_bytes=64 * GIB, hardware=_LOCAL)
    return pool.model_copy(update={"spot": spot, "node_startup_s": 90.0, **fields})


_LOCAL = HardwareClass(name="local")


@settings(max_examples=examples(60))
@given(
    st.integers(1, 12),
    st.floats(1e-3, 20.0),
    st.floats(1.0, 300.0),
    st.floats(1e-4, 0.2),
    st.sampled_from([0.4, 0.7, 0.8]),
)
def test_the_fewest_spare_replicas_keep_the_allowed_shortage(
    nodes: int, per_h: float, startup_s: float, allowed: float, utilization: float
) -> None:
    spot = Spot(price_usd_per_h=0.1, interruptions_per_h=per_h, allowed_shortage=allowed)
    spare, late_share = spare_replicas(_pool(nodes, spot), startup_s, 0.5, utilization)
    up_s, down_s = 3600 / per_h, 90.0 + startup_s
    gone = down_s / (up_s + down_s)

    def short(more_than: int) -> float:
        counts = range(more_than + 1, nodes + 1)
        return sum(comb(nodes, k) * gone**k * (1 - gone) ** (nodes - k) for k in counts) / (1 - utilization)

    assert short(spare) <= allowed * (1 + 1e-9) + 1e-12
    assert spare == 0 or short(spare - 1) > allowed * (1 - 1e-9) - 1e-12
    assert late_share == pytest.approx(min(short(spare) + per_h / 3600 * 0.5, 1.0), abs=1e-9)
    assert spare_replicas(_pool(nodes, None), startup_s, 0.5, utilization) == (0, 0.0)


@pytest.mark.parametrize(("share", "count"), [(1e-9, 1), (0.01, 4), (0.0125, 4), (1.0, 320)])
def test_late_scenarios_are_at_least_their_share(share: float, count: int) -> None:
    late = late_scenarios(ScenarioGrid.for_risk(0.05), "a", share)
    assert len(set(late.tolist())) == count


def _simulated_s(
    arrivals_s: np.ndarray, services_s: np.ndarray, replicas: int, up_s: float, recovery_s: float, seed: int
) -> np.ndarray:
    """Return latencies of a first-come-first-served queue whose replicas are interrupted, each on its own node.

    A request whose replica is interrupted starts again, before all that wait.
    """
    rng, done_s = np.random.default_rng(seed), np.zeros(len(arrivals_s))
    events = [(arrival_s, 0, request) for request, arrival_s in enumerate(arrivals_s.tolist())]
    events += [(float(rng.exponential(up_s)), 1, replica) for replica in range(replicas)]
    heapq.heapify(events)
    waiting, free, serves, left = deque[int](), set(range(replicas)), dict[int, tuple[int, float]](), len(arrivals_s)
    while left:
        now_s, kind, index = heapq.heappop(events)
        if kind == 0:
            waiting.append(index)
        elif kind == 1:
            free.discard(index)
            if index in serves:
                waiting.appendleft(serves.pop(index)[0])
            heapq.heappush(events, (now_s + recovery_s, 2, index))
        elif kind == 2:
            free.add(index)
            heapq.heappush(events, (now_s + float(rng.exponential(up_s)), 1, index))
        elif index in serves and serves[index][1] == now_s:
            done_s[serves.pop(index)[0]], left = now_s, left - 1
            free.add(index)
        while waiting and free:
            request, replica = waiting.popleft(), free.pop()
            serves[replica] = request, now_s + float(services_s[request])
            heapq.heappush(events, (serves[replica][1], 3, replica))
    return done_s - arrivals_s


@pytest.mark.parametrize(
    ("certain", "recovery_s", "nodes", "allowed", "spare"),
    [(1, 15.0, 1, 0.1, 0), (2, 15.0, 2, 0.2, 0), (2, 60.0, 3, 0.05, 1), (4, 60.0, 6, 0.05, 2)],
)
def test_no_more_requests_are_late_than_counted(
    certain: int, recovery_s: float, nodes: int, allowed: float, spare: int
) -> None:
    """A lone replica is the tightest case: of 150,000 requests 67.25 % take at most four service times, of 67.18 %."""
    service_s, up_s, requests, rng = 0.7 * certain, 1500.0, 12_000, np.random.default_rng(5)
    spot = Spot(price_usd_per_h=0.1, interruptions_per_h=3600 / up_s, allowed_shortage=allowed)
    found, late_share = spare_replicas(_pool(nodes, spot, node_startup_s=recovery_s), None, service_s, 0.7)
    assert found == spare
    work = rng.exponential(1.0, requests).cumsum(), rng.exponential(service_s, requests)
    healthy, interrupted = (
        float((_simulated_s(*work, replicas, mean_s, recovery_s, 2) <= 4 * service_s).mean())
        for replicas, mean_s in ((certain, 1e12), (certain + spare, up_s))
    )
    assert interrupted >= healthy * (1 - 1.3 * late_share)  # of about eight interruptions of each node


def test_no_promise_is_broken_when_nodes_are_interrupted() -> None:
    """A plan of one operator at its utilization target; without the spare replicas the promise is broken."""
    seed, certain = 29, 1
    instance, requests = random_instance(seed), 12_000
    profile = instance.profile.configurations[0]
    ((name, operator),) = profile.operators.items()
    own = next(p for p in instance.network.infrastructure.pools if p.site == instance.query.source)
    plan = next(p for p in all_plans(instance) if (name, own.name) in p.placement)
    plan = replace(plan, configuration=profile.configuration)
    allocation = plan.allocation_of(name)
    services_s = operator.service_s * operator.slowdown(own.hardware)
    rate_per_s = certain * allocation.utilization_target / float(services_s.mean()) * (1 - 1e-9)
    up_s, recovery_s = 1500 / rate_per_s, 60 / rate_per_s
    spot = Spot(price_usd_per_h=0.1, interruptions_per_h=3600 / up_s, allowed_shortage=0.02)
    changes = {"spot": spot, "node_startup_s": recovery_s - (operator.startup_on(own.hardware) or 0.0), "nodes": 7}
    pool = own.model_copy(update=changes)
    infrastructure = instance.network.infrastructure
    pools = tuple(pool if p == own else p for p in infrastructure.pools)
    slos = Slos(latency=LatencySlo(limit_s=1.0, percentile=95.0))
    query = instance.query.model_copy(update={"rate_per_s": rate_per_s, "arrivals": PoissonArrivals(), "slos": slos})
    network = Network(infrastructure.model_copy(update={"pools": pools}))
    estimated = Estimator(query, instance.pipeline, profile, network).candidate(plan)
    (use,) = estimated.deployments
    assert replicas_for(use.busy_replicas, allocation.utilization_target) == certain
    spare, limit_s = use.demand.spare_replicas, estimated.estimate.latency_s.upper
    assert spare > 0
    rng = np.random.default_rng(seed)
    arrivals_s = rng.exponential(1 / rate_per_s, requests).cumsum()
    drawn_s = rng.choice(services_s, requests)
    within = [
        float((_simulated_s(arrivals_s, drawn_s, count, up_s, recovery_s, seed) <= limit_s).mean())
        for count in (certain + spare, certain)
    ]
    assert within[0] >= estimated.estimate.percentile / 100 > within[1]


@pytest.mark.parametrize(
    ("spot_usd_per_h", "interruptions_per_h", "expected"),
    [(0.3, 0.05, "spot"), (0.6, 0.05, "vms"), (0.3, 2000.0, "vms")],
)
def test_spot_nodes_are_used_if_they_are_cheaper_with_the_spare_replicas(
    spot_usd_per_h: float, interruptions_per_h: float, expected: str
) -> None:
    """Each deployment takes two replicas there instead of one."""
    specification, profiles = random_specification(3, queries=1)
    source = specification.queries[0].source
    vms = _pool(4, None, price_usd_per_h=1.0, site=source)
    spot = Spot(price_usd_per_h=spot_usd_per_h, interruptions_per_h=interruptions_per_h)
    both = (vms, vms.model_copy(update={"name": "spot", "spot": spot}))
    infrastructure = Infrastructure(name="both", sites=(Site(name=source),), pools=both)
    (query,) = specification.queries
    slos = query.slos.model_copy(update={"latency": None, "cost": None})
    query = query.model_copy(update={"slos": slos, "rate_per_s": 0.01})
    changed = replace(specification, infrastructure=infrastructure, queries=(query,))
    matching, _ = plan_all_queries(changed, profiles)
    assert {sized.deployment.pool for sized in matching.deployments} == {expected}
    spare = int(expected == "spot")
    assert all(d.demand.spare_replicas == spare and d.replicas == 1 + spare for d in matching.deployments)
    assert all(len(set(d.nodes)) == d.replicas for d in matching.deployments)
    assert bool(spare_replicas_text(matching.deployments, both)) == (expected == "spot")
