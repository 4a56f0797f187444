"""The cheapest machines: against enumeration, on a monotone curve, and confirmed by a plan on the written file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from benchmarks.possible.sizes import SETTINGS, Enumeration, compared, instance

from budget import seeds
from circinus import PlanningError, Pool, Specification
from circinus.matching import plan_all_queries
from circinus.matching.candidate_machines import candidate_machines, cheaper_machines, chosen_machines
from circinus.matching.machine_sizing import MachineSizing, size_machines
from circinus.profiling import PipelineProfile
from circinus.specification import Infrastructure, load_specification
from circinus.specification.infrastructure import Billing
from circinus.specification.infrastructure_file import infrastructure_text

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


@pytest.mark.parametrize("number", seeds(30))
def test_sizes_without_latency_slos_are_the_enumerated_ones(number: int) -> None:
    specification, profiles, sizing = _sized(2 * number, explains=number % 4 == 0)
    row = compared(sizing, Enumeration(specification, profiles))
    assert {key: row[key] for key in ("equal", "bounded", "added", "curve")} == dict.fromkeys(
        ("equal", "bounded", "added", "curve"), True
    )
    assert row["cost"] == pytest.approx(row["cost_possible"])
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
    assert text.startswith("# Two kinds of machines.")
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
