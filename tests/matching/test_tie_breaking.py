"""Ties against enumeration: no plan of equal weight and cost that comes first in their order is left."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest

from budget import HANG_LIMIT_S, half_share_of
from circinus.estimation import LinkUse, PlanCandidate, StageEstimate
from circinus.matching import Incumbent, MatchSettings, match, optimizer
from circinus.planning import Frontier
from circinus.planning.tie_order import TieKey, TieOrder
from circinus.specification import Network, Query
from random_matchings import (
    Instance,
    candidate,
    checked_cost,
    crossing,
    deployment,
    frontiers_of,
    infrastructure,
    random_instance,
    reestimate,
    use,
)
from split_plans import split_candidate

PATIENT = MatchSettings(time_limit_s=HANG_LIMIT_S)
Plans = tuple[PlanCandidate, ...]


def _free(instance: Instance) -> Instance:
    """Return the instance with resources and transfers for nothing, so that all plans cost the same."""
    return replace(
        instance,
        candidates={
            name: tuple(
                replace(
                    plan,
                    transfer_cost_usd_per_h=0.0,
                    deployments=tuple(
                        replace(used, demand=replace(used.demand, cost_usd_per_h=0.0)) for used in plan.deployments
                    ),
                )
                for plan in plans
            )
            for name, plans in instance.candidates.items()
        },
    )


def _chosen(instance: Instance, incumbent: Incumbent | None = None) -> Plans:
    found = match(frontiers_of(instance), instance.infrastructure, reestimate, settings=PATIENT, incumbent=incumbent)
    by_query = {name: {plan.plan: plan for plan in plans} for name, plans in instance.candidates.items()}
    return tuple(by_query[assignment.query][assignment.chosen.plan] for assignment in found.assignments)


def _key(instance: Instance, plans: Plans, changed: PlanCandidate) -> tuple[float, ...]:
    """Return the criteria of a plan beside others, by what they say."""
    network = Network(instance.infrastructure)
    load: dict[object, float] = {}
    for plan in plans:
        for used in plan.deployments:
            load[used.deployment] = load.get(used.deployment, 0.0) + used.fractional_replicas
    sites = [network.site_of(stage.pool) for stage in changed.estimate.stages]
    (slo,) = (query.slos.latency for query in instance.queries if query.name == changed.query)
    assert slo is not None
    return (
        sum(site != following for site, following in pairwise(["home", *sites, "home"])),
        round(sum(crossed.bytes_per_s for crossed in changed.links), 3),
        sum(max(1, math.ceil(amount - 1e-6)) for amount in load.values()),
        -round((slo.limit_s - changed.estimate.latency_s.upper) / slo.limit_s, 6),
    )


def test_no_better_plan_of_equal_cost_is_left() -> None:
    ties = 0
    for seed in range(half_share_of(120)):
        instance = _free(random_instance(seed, queries=4, cost_slos=0.0))
        plans = _chosen(instance)
        cost = checked_cost(instance, plans)
        assert cost is not None
        for index, chosen in enumerate(plans):
            for other in instance.candidates[chosen.query]:
                exchanged = (*plans[:index], other, *plans[index + 1 :])
                paid = None if other is chosen else checked_cost(instance, exchanged)
                if paid is not None and paid <= cost + 1e-10:
                    ties += 1
                    assert _key(instance, plans, chosen) <= _key(instance, exchanged, other), seed
    assert ties


def test_breaking_ties_costs_neither_weight_nor_money(monkeypatch: pytest.MonkeyPatch) -> None:
    changed = 0
    for seed in range(half_share_of(80)):
        instance = _free(random_instance(seed, queries=4)) if seed % 2 else random_instance(seed, queries=4)
        with monkeypatch.context() as without:
            without.setattr(optimizer, "PASSES", tuple(p for p in optimizer.PASSES if p is not optimizer.break_ties))
            before = _chosen(instance)
        after = _chosen(instance)
        weight = {query.name: query.weight for query in instance.queries}
        assert sum(weight[plan.query] for plan in after) == sum(weight[plan.query] for plan in before)
        paid, paid_before = checked_cost(instance, after), checked_cost(instance, before)
        assert paid is not None
        assert paid_before is not None
        assert paid <= paid_before + 1e-8
        changed += after != before
    assert changed


def test_a_running_plan_stays_in_a_tie() -> None:
    infra = infrastructure([("near", 1, 4.0, 16.0, 0.0), ("far", 1, 4.0, 16.0, 0.0)])
    link = next(link for link in Network(infra).links if link.target == "far")
    queries = (Query(name="q", pipeline="p", source="home", rate_per_s=1.0),)
    plans = (
        candidate("q", [use(deployment("a", 0, "far"), 0.3, infra)], [crossing(link, 2e4)]),
        candidate("q", [use(deployment("a", 0, "near"), 0.3, infra)], latency_s=0.6),
    )
    instance = Instance(infra, queries, {"q": plans})
    assert _chosen(instance) == plans[1:]
    assert _chosen(instance, Incumbent({"q": plans[0].plan})) == plans[:1]


def test_an_alternative_names_what_decided() -> None:
    infra = infrastructure([("near", 1, 4.0, 16.0, 0.0), ("far", 1, 4.0, 16.0, 0.0)])
    asked = Query(name="q", pipeline="p", source="home", rate_per_s=1.0)
    plans = (
        candidate("q", [use(deployment("a", 0, "far"), 0.3, infra), use(deployment("b", 0, "near"), 0.3, infra)]),
        candidate("q", [use(deployment("a", 0, "near"), 0.3, infra), use(deployment("b", 0, "near"), 0.3, infra)]),
    )
    frontiers = {"q": Frontier(asked, plans, {}, (), (), "")}
    (assignment,) = match(frontiers, infra, reestimate, settings=PATIENT).assignments
    assert assignment.chosen.plan == plans[1].plan
    (alternative,) = assignment.alternatives
    order = TieOrder([asked], infra)
    reason = order.key(plans[0], 0).reason_after(order.key(plans[1], 0))
    assert alternative.reason == f"costs the same, {reason}"


def test_a_key_counts_the_way_there_and_back() -> None:
    infra = infrastructure([("near", 1, 4.0, 16.0, 0.0)])
    home = infra.pools[0].model_copy(update={"name": "device", "site": "home"})
    infra = infra.model_copy(update={"pools": (*infra.pools, home)})
    asked = Query(name="q", pipeline="p", source="home", rate_per_s=1.0)
    link = Network(infra).links[0]

    def key(*pools: str, links: tuple[LinkUse, ...] = ()) -> TieKey:
        uses = [use(deployment(f"op{index}", 0, pool), 0.3, infra) for index, pool in enumerate(pools)]
        made = candidate("q", uses, list(links))
        stages = tuple(StageEstimate(f"op{index}", pool, 0.0, 0.0, 0.1) for index, pool in enumerate(pools))
        return TieOrder([asked], infra).key(replace(made, estimate=replace(made.estimate, stages=stages)), 1)

    zigzag = key("device", "near", "device", "near", "device", links=(crossing(link, 1.0),))
    assert (zigzag.moves, zigzag.distance, zigzag.millibytes_per_s) == (4, 2, 1000)
    assert key("near", "near").moves == 2
    assert key("device", "device") < key("near", "near") < zigzag
    huge = key("device", "near", links=(replace(crossing(link, 1.0), bytes_per_s=1e308),))
    assert huge.millibytes_per_s > zigzag.millibytes_per_s, "a damaged plan file may have any number"


def test_undivided_requests_come_before_divided_ones() -> None:
    infra = infrastructure([("near", 1, 4.0, 16.0, 0.0)])
    asked = Query(name="q", pipeline="p", source="near", rate_per_s=1.0)
    parts = [candidate("q", [use(deployment("op", knob, "near"), 0.1, infra)]) for knob in range(2)]
    order, divided = TieOrder([asked], infra), split_candidate([(0.7, parts[0]), (0.3, parts[1])])
    assert order.key(parts[0], 5) < order.key(divided, 1)
    assert order.key(divided, 1).reason_after(order.key(parts[0], 1)) == "with requests divided among more plans"
