"""The cheapest machines: against enumeration, on a monotone curve, and confirmed by a plan on the written file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from benchmarks.possible.sizes import KEYS, SETTINGS, compared, instance

from budget import half_share_of, seeds
from circinus import Link, PlanningError, Pool, Specification
from circinus.api.sizing import SizingReport
from circinus.matching import plan_all_queries
from circinus.matching.candidate_machines import candidate_machines, cheaper_machines, chosen_machines
from circinus.matching.machine_sizing import MachineSizing, size_machines
from circinus.matching.sufficient_machines import added_nodes, sufficient_machines
from circinus.planning import plan_queries
from circinus.profiling import PipelineProfile
from circinus.specification import HardwareClass, Infrastructure, Query, Site, load_specification
from circinus.specification.infrastructure import Billing, Spot, Tenant
from circinus.specification.infrastructure_file import infrastructure_text
from circinus.testing.random_instances import random_pipeline, random_profile
from raised import raises_code

_TEXT = """\
# Two kinds of machines.
apiVersion: circinus/v1
kind: Infrastructure
metadata: {name: company}
spec:
  sites: [office, phone]
  pools:
    - name: servers  # in the basement
      site: office
      tier: edge
      nodes: {min: 1, max: 3}
      cpus: 4
      memory: 8GiB
      hardware: &local {class: local}
      price: $0.20/h
    - {name: workers, site: office, tier: cloud, nodes: 2, cpus: 2, memory: 4GiB, price: $0.1/h, hardware: *local}
    - {name: phones, site: phone, tier: device, cpus: 2, memory: 4GiB, hardware: {class: local}}
"""


def _sized(seed: int, *, explains: bool = False) -> tuple[Specification, Mapping[str, PipelineProfile], MachineSizing]:
    specification, profiles = instance(seed)
    return specification, profiles, size_machines(specification, profiles, settings=SETTINGS, explains=explains)


@pytest.fixture
def company(tmp_path: Path) -> Infrastructure:
    """Infrastructure with an elastic pool, a pool of given size and one of users."""
    (tmp_path / "machines.yaml").write_text(_TEXT, encoding="utf-8")
    return load_specification([tmp_path]).required_infrastructure


# With 11, other queries are half of the weight for less.
@pytest.mark.parametrize("number", [*range(half_share_of(30)), 11])
def test_sizes_without_latency_slos_are_the_enumerated_ones(number: int) -> None:
    _, profiles, sizing = _sized(2 * number, explains=number % 4 == 0 or number == 11)
    row = compared(sizing, profiles)
    assert {key: row[key] for key in KEYS} == dict.fromkeys(KEYS, True)
    assert row["cost"] == pytest.approx(row["cost_possible"])
    pools = sizing.specification.required_infrastructure.pools
    paid_usd_per_h = sum(sizing.matching.nodes.get(pool.name, 0) * pool.paid_usd_per_h for pool in pools)
    assert sizing.cost_usd_per_h == pytest.approx(paid_usd_per_h + sizing.matching.transfer_cost_usd_per_h)
    points = sizing.curve
    assert all(a.cost_usd_per_h > b.cost_usd_per_h for a, b in pairwise(points))


@pytest.mark.parametrize("number", seeds(8))
def test_a_plan_on_the_chosen_machines_confirms_them(number: int) -> None:
    specification, profiles, sizing = _sized(2 * number + 1)
    machines = chosen_machines(specification.required_infrastructure, sizing.matching.nodes)
    fixed = replace(specification, infrastructure=machines)
    planned, _ = plan_all_queries(fixed, profiles, settings=SETTINGS, explain_rejections=())
    assert planned.satisfied_weight >= sizing.matching.satisfied_weight
    assert planned.cost_usd_per_h <= sizing.cost_usd_per_h * (1 + 1e-6)


def test_pools_are_bought_kept_or_of_users(company: Infrastructure) -> None:
    pools = {pool.name: pool for pool in candidate_machines(company, {"workers": 5}).pools}
    assert (pools["servers"].base_nodes, pools["servers"].nodes) == (1, 3)
    assert (pools["workers"].base_nodes, pools["workers"].nodes) == (0, 5)
    assert pools["servers"].bills_nodes
    assert pools["workers"].bills_nodes
    assert pools["phones"] == company.pool("phones")
    kept = candidate_machines(company, {"phones": 4}, ["servers"])
    assert (kept.pool("servers").base_nodes, kept.pool("phones").base_nodes) == (3, 0)


@pytest.mark.parametrize(
    ("limits", "kept", "code"),
    [({"server": 2}, [], "size.unknown_pool"), ({"servers": 2}, ["servers"], "size.kept_and_chosen")],
)
def test_pools_that_cannot_be_meant_are_refused(
    company: Infrastructure, limits: Mapping[str, int], kept: list[str], code: str
) -> None:
    with pytest.raises(PlanningError) as error:
        candidate_machines(company, limits, kept)
    assert error.value.code == code


def test_cheaper_machines_are_the_largest_below_a_price(company: Infrastructure) -> None:
    cheaper = cheaper_machines(candidate_machines(company), 0.5, 10)
    assert cheaper is not None
    assert [(m.pool("servers").nodes, m.pool("workers").nodes) for m in cheaper] == [(2, 0), (1, 2)]
    assert cheaper_machines(candidate_machines(company), 0.5, 1) is None


def test_the_written_file_has_the_nodes_and_the_comments(company: Infrastructure, tmp_path: Path) -> None:
    machines = chosen_machines(candidate_machines(company), {"servers": 2, "workers": 0})
    specification, file = load_specification([tmp_path]), tmp_path / "machines.yaml"
    text = infrastructure_text(specification, machines, file)
    assert "# in the basement" in text
    note, first = text.splitlines()[:2]
    assert note.endswith(": servers had {min: 1, max: 3}."), "workers and phones had fixed numbers before"
    assert first == "# Two kinds of machines."
    file.write_text(text, encoding="utf-8")
    assert load_specification([tmp_path]).infrastructure == machines
    assert machines.pool("workers").nodes == 0
    in_python = replace(specification, locations={})
    file.write_text(infrastructure_text(in_python, machines, file), encoding="utf-8")
    assert load_specification([tmp_path]).infrastructure == machines


def test_nodes_that_are_kept_are_paid_whatever_plans_use(company: Infrastructure) -> None:
    kept: Pool = candidate_machines(company, kept=["servers"]).pool("servers")
    assert kept.billing is Billing.NODE
    assert not kept.is_elastic


def test_cheaper_machines_cost_what_is_paid_for_spot_nodes(company: Infrastructure) -> None:
    spot = Spot.model_validate({"price": "$0.01/h", "interruptions_per_h": 0.1})
    pools = [pool.model_copy(update={"spot": spot} if pool.name == "workers" else {}) for pool in company.pools]
    machines = candidate_machines(company.model_copy(update={"pools": tuple(pools)}))
    cheaper = cheaper_machines(machines, 0.35, 10)
    assert cheaper is not None
    assert [(m.pool("servers").nodes, m.pool("workers").nodes) for m in cheaper] == [(1, 2)]


def test_nothing_is_proved_where_plans_at_targets_cost_more() -> None:
    _, _, sizing = _sized(0)
    assert sizing.is_optimal
    fitted = replace(sizing.matching, cost_at_targets_usd_per_h=2 * sizing.cost_usd_per_h)
    assert not replace(sizing, matching=fitted).is_optimal


def test_other_documents_are_not_overwritten(company: Infrastructure, tmp_path: Path) -> None:
    specification, file = load_specification([tmp_path]), tmp_path / "machines.yaml"
    file.write_text(f"{_TEXT}---\nkind: Query\n", encoding="utf-8")
    changed = company.model_copy(update={"sites": company.sites[::-1]})
    with pytest.raises(PlanningError) as error:
        infrastructure_text(specification, changed, file)
    assert error.value.code == "size.other_documents"


def test_cheaper_machines_keep_what_tenants_are_guaranteed() -> None:
    rng, gib = np.random.default_rng(1), 2.0**30
    pipeline = random_pipeline(rng, operators=2, knobs=(1, 1), chain=True)
    tiers = zip(pipeline.operators, ("edge", "cloud"), strict=True)
    operators = tuple(operator.model_copy(update={"allowed_tiers": (tier,)}) for operator, tier in tiers)
    pipeline = pipeline.model_copy(update={"operators": operators})
    profile = random_profile(rng, pipeline, items=20)
    local, slow = HardwareClass(name="local"), HardwareClass(name="slow", relative_speed=0.25)
    pools = tuple(
        Pool(
            name=name,
            site=site,
            tier=tier,
            cpus=1.0,
            memory_bytes=64 * gib,
            hardware=hardware,
            price_usd_per_h=price_usd_per_h,
            private=tier == "edge",
        )
        for name, site, tier, hardware, price_usd_per_h in (
            ("x", "s1", "edge", local, 2.0),
            ("y", "s2", "edge", local, 1.0),
            ("z", "c", "cloud", slow, 1.0),
        )
    )
    links = tuple(Link(source=s, target="c", bandwidth_bytes_per_s=1e8, round_trip_s=0.001) for s in ("s1", "s2"))
    machines = Infrastructure(
        name="i",
        sites=tuple(Site(name=name) for name in ("s1", "s2", "c")),
        pools=pools,
        links=links,
        tenants=(Tenant(name="ward", at_least=1.0), Tenant(name="other")),
    )
    queries = tuple(
        Query(name=name, pipeline=pipeline.name, source=source, rate_per_s=5.5, tenant=tenant, split=False)
        for name, source, tenant in (("a", "s1", "ward"), ("b", "s2", "other"))
    )
    specification = Specification({pipeline.name: pipeline}, candidate_machines(machines), queries)
    sizing = size_machines(specification, {pipeline.name: profile}, settings=SETTINGS, explains=False)
    assert sizing.matching.served == {"a"}


def _with_spot_nodes(seed: int, nodes: int) -> tuple[Specification, Mapping[str, PipelineProfile]]:
    """Return a random specification with spot nodes in the first pool, and its profiles."""
    specification, profiles = instance(seed)
    machines = specification.required_infrastructure
    spot = Spot.model_construct(price_usd_per_h=0.1, interruptions_per_h=0.5, allowed_shortage=0.001)
    first = machines.pools[0].model_copy(update={"nodes": nodes, "node_startup_s": 90.0, "spot": spot})
    update = {"pools": (first, *machines.pools[1:])}
    return replace(specification, infrastructure=machines.model_copy(update=update)), profiles


def test_smaller_spot_pools_need_fewer_spare_replicas() -> None:
    sizings = [size_machines(*_with_spot_nodes(0, nodes), settings=SETTINGS, explains=False) for nodes in (3, 6)]
    assert not any(sizing.is_optimal for sizing in sizings)
    assert sizings[1].cost_usd_per_h <= sizings[0].cost_usd_per_h


def test_no_weight_is_possible_without_nodes() -> None:
    specification, profiles = _with_spot_nodes(8, 2)
    frontiers, machines = plan_queries(specification, profiles), specification.required_infrastructure
    pools = tuple(pool.model_copy(update={"nodes": 0}) for pool in machines.pools)
    empty = replace(specification, infrastructure=machines.model_copy(update={"pools": pools}))
    matching, _ = plan_all_queries(empty, profiles, settings=SETTINGS, explain_rejections=(), frontiers=frontiers)
    assert all(frontier.candidates for frontier in frontiers.values())
    assert matching.weight_bound == 0


@pytest.mark.parametrize("number", seeds(4))
def test_rejected_queries_are_served_on_the_sufficient_machines(number: int) -> None:
    specification, profiles = instance(2 * number)
    machines = specification.required_infrastructure
    few = candidate_machines(machines, {pool.name: int(pool is machines.pools[0]) for pool in machines.pools})
    queries = tuple(query.model_copy(update={"rate_per_s": 40 * query.rate_per_s}) for query in specification.queries)
    sizing = size_machines(
        replace(specification, infrastructure=few, queries=queries), profiles, settings=SETTINGS, explains=False
    )
    sufficient = sufficient_machines(sizing, profiles, settings=SETTINGS)
    assert sizing.matching.rejections
    assert sufficient is not None
    added = added_nodes(sizing, sufficient)
    assert added
    allowed = replace(sizing.specification, infrastructure=candidate_machines(few, added))
    again = size_machines(allowed, profiles, settings=SETTINGS, explains=False)
    assert again.matching.satisfied_weight == sufficient.matching.satisfied_weight
    assert again.matching.satisfied_weight > sizing.matching.satisfied_weight
    assert again.cost_usd_per_h == pytest.approx(sufficient.cost_usd_per_h)


def test_machines_that_serve_nothing_are_not_written(tmp_path: Path) -> None:
    specification, profiles = instance(0)
    machines = specification.required_infrastructure
    pools = tuple(pool.model_copy(update={"nodes": 0}) for pool in machines.pools)
    empty = replace(specification, infrastructure=machines.model_copy(update={"pools": pools}))
    sizing = SizingReport(specification, size_machines(empty, profiles, settings=SETTINGS))
    assert set(sizing.rejected) == {query.name for query in specification.queries}
    with raises_code(PlanningError, "size.nothing_served"):
        sizing.save(tmp_path / "machines.yaml")
    assert not list(tmp_path.iterdir())
