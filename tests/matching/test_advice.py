"""Advice on rejected queries is true when it is followed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from budget import HANG_LIMIT_S, share_of
from circinus.matching import Matching, MatchSettings, Rejection, plan_all_queries
from circinus.matching.admission import AdmissionPlanner
from circinus.matching.advice import advise, follow_advice, with_nodes
from circinus.specification import Specification
from circinus.testing.random_instances import random_specification

PATIENT = MatchSettings(time_limit_s=HANG_LIMIT_S)
SEEDS = (12, 6, 1, 7, 13, 0, 4, 8, 10, 20, 22, 23)


@pytest.mark.parametrize("seed", SEEDS[: share_of(len(SEEDS))])
def test_advice_that_is_followed_serves_the_query(seed: int) -> None:
    scarce = {} if seed % 2 else {"cpus": 3.0, "nodes": 1}
    specification, profiles = random_specification(seed, queries=6, **scarce)
    followed = list(follow_advice(specification, profiles, settings=PATIENT))
    assert followed
    assert not [advice for advice in followed if not advice.followed]


def test_advice_names_nodes_risks_and_relaxations() -> None:
    specification, profiles = random_specification(12, queries=6, cpus=3.0, nodes=1)
    changes = [advice.change for advice in follow_advice(specification, profiles, settings=PATIENT)]
    assert any(change.startswith("cost") for change in changes)
    assert any(change.startswith("accuracy") for change in changes)
    assert any(change.endswith("+1") for change in changes)


def test_a_query_that_is_admitted_as_it_is_gets_no_other_advice() -> None:
    """As after a rejection whose cause has gone."""
    specification, profiles = random_specification(0, queries=3)
    *others, last = specification.queries
    ran, _ = plan_all_queries(replace(specification, queries=tuple(others)), profiles, settings=PATIENT)
    planner = AdmissionPlanner.of(specification, profiles, ran)
    assert planner.admitted(last) is not None
    advised = advise(planner, Rejection(last.name, "no room", ("pool pool0: CPUs",), None))
    assert advised.relaxation is None
    assert not advised.unrelaxable
    (advice,) = advised.advice
    assert (advice.risk, advice.pool) == (None, None)


def test_more_nodes_are_tried_if_a_plan_of_all_queries_does_not_serve_this_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    specification, profiles = random_specification(12, queries=6, cpus=3.0, nodes=1)
    matching, _ = plan_all_queries(specification, profiles, settings=PATIENT, explain_rejections=())
    planner = AdmissionPlanner.of(specification, profiles, matching)
    tried = []

    def plan(larger: Specification, *_: object, **__: object) -> tuple[Matching, None]:
        """Plan nothing new with the first additional node."""
        tried.append(larger)
        if len(tried) == 1:
            return matching, None
        return replace(matching, assignments=(*matching.assignments, replace(first, query=rejection.query))), None

    first = matching.assignments[0]
    monkeypatch.setattr("circinus.matching.advice.plan_all_queries", plan)
    for rejection in matching.rejections:
        tried.clear()
        nodes = [advice.nodes for advice in advise(planner, rejection).advice if advice.pool is not None]
        assert len(nodes) == (len(tried) > 1)
        if nodes:
            return
    pytest.fail("no query was tried with more nodes twice")


def test_nodes_are_added_to_one_pool() -> None:
    specification, _ = random_specification(1)
    before = {pool.name: pool.nodes for pool in specification.required_infrastructure.pools}
    larger = with_nodes(specification, "pool1", 2)
    after = {pool.name: pool.nodes for pool in larger.required_infrastructure.pools}
    assert after == before | {"pool1": before["pool1"] + 2}
