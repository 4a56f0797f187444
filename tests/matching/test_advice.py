"""Advice on rejected queries is true when it is followed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from types import MappingProxyType

import pytest

from budget import share_of
from circinus.errors import PlanningError
from circinus.matching import Matching, Rejection, admit_query, plan_all_queries
from circinus.matching.admission import AdmissionPlanner
from circinus.matching.advice import advise, with_nodes
from circinus.matching.explanation.slo_relaxation import changed_slos, relative_change, relax_slo, with_slos
from circinus.matching.incumbent import Incumbent
from circinus.profiling import PipelineProfile
from circinus.specification import Query, Slos, Specification
from circinus.specification.infrastructure import Spot
from circinus.testing.random_instances import random_specification
from planning_instances import SIMPLE, UNFITTED

UNDIVIDED = replace(UNFITTED, fits_targets=True)
SEEDS = (33, 48, 12, 1, 7, 13, 6, 15, 10, 46, 0, 4)
"""Instances that reject some queries, even ones with few nodes. The first have all kinds of advice."""
FEW_NODES = MappingProxyType({"cpus": 2.0, "nodes": 1})

FOLLOWED_CHANGES = (0.5, 9.0, 0.1, 2.0)[: 2 * share_of(2)]
"""Relative changes of an SLO under which "no relaxation of a single SLO" has to hold, other ones than were searched."""


@dataclass(frozen=True)
class FollowedAdvice:
    """A sentence about a change, and whether it was true when the change was made."""

    query: str
    sentence: str
    change: str
    followed: bool


@cache
def _planned(seed: int) -> tuple[Specification, Mapping[str, PipelineProfile], Matching]:
    specification, profiles = random_specification(seed, queries=6, **{} if seed % 2 else FEW_NODES)
    matching, _ = plan_all_queries(specification, profiles, settings=UNFITTED, explain_rejections=())
    return specification, profiles, matching


def _follow_advice(
    specification: Specification, profiles: Mapping[str, PipelineProfile], matching: Matching
) -> Iterator[FollowedAdvice]:
    """Yield each sentence of advice on rejected ones with the result of following it.

    A relaxation or a risk is followed by an admission with a changed specification, nodes by a plan of all queries.
    "No relaxation of a single SLO" is followed by admissions under single changes of each SLO.
    """
    planner = AdmissionPlanner.of(specification, profiles, matching)
    queries = {query.name: query for query in specification.queries}
    for rejection in matching.rejections:
        query, advised = queries[rejection.query], advise(planner, rejection, UNFITTED)
        if advised.relaxation is not None:
            relaxed = with_slos(query, advised.relaxation.slos)
            change = advised.relaxation.change
            admitted = _follow_admission(specification, profiles, matching, relaxed)
            yield FollowedAdvice(query.name, f"it would be admitted with {change}", change, admitted)
        if advised.unrelaxable:
            changes = [(kind, change) for kind in query.slos.by_kind for change in FOLLOWED_CHANGES]
            admitted = any(
                _follow_admission(
                    specification, profiles, matching, with_slos(query, relax_slo(query.slos, kind, change))
                )
                for kind, change in changes
            )
            yield FollowedAdvice(query.name, "no relaxation of a single SLO would admit it", "any", not admitted)
        for advice in advised.advice:
            if advice.slos is not None:
                asked = tuple(with_slos(q, advice.slos) if q.name == query.name else q for q in specification.queries)
                relaxed = replace(specification, queries=asked)
                after, _ = plan_all_queries(
                    relaxed, profiles, settings=UNFITTED, incumbent=Incumbent.of(matching), explain_rejections=()
                )
                kept = after.served >= {query.name, *matching.served}
                yield FollowedAdvice(query.name, advice.sentence, "other plans", kept)
            elif advice.risk is None and advice.pool is None:
                admitted = _follow_admission(specification, profiles, matching, query)
                yield FollowedAdvice(query.name, advice.sentence, "none", admitted)
            if advice.risk is not None:
                at_risk = query.model_copy(update={"risk": advice.risk})
                admitted = _follow_admission(specification, profiles, matching, at_risk)
                yield FollowedAdvice(query.name, advice.sentence, f"risk {advice.risk:g}", admitted)
            if advice.pool is not None:
                larger = with_nodes(specification, advice.pool, advice.nodes)
                after, _ = plan_all_queries(
                    larger, profiles, settings=UNFITTED, incumbent=Incumbent.of(matching), explain_rejections=()
                )
                served = {assignment.query for assignment in after.assignments}
                kept = served >= {query.name, *(assignment.query for assignment in matching.assignments)}
                yield FollowedAdvice(query.name, advice.sentence, f"{advice.pool} +{advice.nodes}", kept)


def _follow_admission(
    specification: Specification, profiles: Mapping[str, PipelineProfile], matching: Matching, query: Query
) -> bool:
    """Return whether a query with other fields is admitted, with everything prepared again."""
    queries = tuple(query if other.name == query.name else other for other in specification.queries)
    planner = AdmissionPlanner.of(replace(specification, queries=queries), profiles, matching)
    return planner.admitted(query) is not None


@cache
def _followed(seed: int) -> tuple[FollowedAdvice, ...]:
    return tuple(_follow_advice(*_planned(seed)))


@pytest.mark.parametrize("seed", SEEDS[: share_of(len(SEEDS))])
def test_advice_that_is_followed_serves_the_query(seed: int) -> None:
    followed = _followed(seed)
    assert followed
    assert not [advice for advice in followed if not advice.followed]


def test_advice_names_nodes_risks_other_plans_and_relaxations() -> None:
    changes = [advice.change for seed in SEEDS[:3] for advice in _followed(seed)]
    assert any(change.startswith("latency") for change in changes)
    assert any(change.startswith("cost") for change in changes)
    assert any(change.startswith("accuracy") for change in changes)
    assert any(change.startswith("risk") for change in changes)
    assert any(change.endswith("+1") for change in changes)
    assert "other plans" in changes


def test_a_query_that_is_admitted_as_it_is_gets_no_other_advice() -> None:
    """As after a rejection whose cause has gone."""
    specification, profiles = random_specification(0, queries=3)
    *others, last = specification.queries
    few = replace(specification, queries=tuple(others))
    ran, _ = plan_all_queries(few, profiles, settings=SIMPLE, explain_rejections=())
    planner = AdmissionPlanner.of(specification, profiles, ran)
    assert planner.admitted(last) is not None
    rejection = Rejection(last.name, "no room", ("pool pool0: CPUs",), None)
    advised = advise(planner, rejection)
    assert advised.relaxation is None
    assert not advised.unrelaxable
    (advice,) = advised.advice
    assert (advice.risk, advice.pool) == (None, None)

    def out_of_time() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        advise(replace(planner, check_time=out_of_time), rejection)


@pytest.mark.parametrize(("seed", "name"), [(17, "q1"), (20, "q2")][: share_of(4)])
@pytest.mark.thorough
def test_a_rejected_admission_says_how_a_plan_of_all_queries_would_serve_it(seed: int, name: str) -> None:
    """As it is, or with another limit."""
    scarce = {} if seed % 2 else {"cpus": 3.0, "nodes": 1}
    specification, profiles = random_specification(seed, queries=5, **scarce)
    others = tuple(query for query in specification.queries if query.name != name)
    ran, _ = plan_all_queries(
        replace(specification, queries=others), profiles, settings=UNDIVIDED, explain_rejections=()
    )
    admission, _ = admit_query(specification, profiles, ran, name)
    assert admission.rejection is not None
    (advice,) = admission.rejection.advice
    assert advice.slos is not None
    assert (advice.slos == admission.query.slos) == (seed == 17)
    queries = tuple(with_slos(q, advice.slos) if q.name == name else q for q in specification.queries)
    changed = replace(specification, queries=queries)
    after, _ = plan_all_queries(
        changed, profiles, settings=UNFITTED, incumbent=Incumbent.of(ran), explain_rejections=()
    )
    assert after.served >= {name, *ran.served}


def test_a_relaxation_outlives_a_search_for_other_changes_that_times_out() -> None:
    matching = _planned(48)[2]
    planner = AdmissionPlanner.of(*_planned(48))
    checks = list[int]()

    def check_time(limit: float = math.inf) -> None:
        checks.append(len(checks))
        if len(checks) > limit:
            raise TimeoutError

    for rejection in matching.rejections:
        checks.clear()
        relaxed = replace(planner, check_time=check_time).with_relaxation(rejection)
        if relaxed.relaxation is not None:
            break
    limit = len(checks)
    checks.clear()
    assert advise(replace(planner, check_time=partial(check_time, limit)), rejection) == relaxed
    assert relaxed.relaxation is not None
    assert len(checks) == limit + 1


def test_nodes_are_advised_whatever_a_query_was_rejected_for() -> None:
    matching = _planned(12)[2]
    planner = AdmissionPlanner.of(*_planned(12))
    advised = (advise(planner, replace(rejection, binding=("cost",)), UNFITTED) for rejection in matching.rejections)
    assert any(advice.pool is not None for rejection in advised for advice in rejection.advice)


def test_nodes_are_advised_on_which_running_plans_need_more_spare_replicas() -> None:
    specification, profiles = random_specification(0, queries=1, operators=1)
    pool, query = specification.required_infrastructure.pools[0], specification.queries[0]
    spot = Spot(price_usd_per_h=0.01, interruptions_per_h=0.1, allowed_shortage=0.001)
    pool = pool.model_copy(update={"nodes": 9, "node_startup_s": 90.0, "spot": spot, "private": False})
    update = {"pools": (pool,), "utilization_targets": (0.7,), "max_utilization": 0.7}
    infrastructure = specification.required_infrastructure.model_copy(update=update)
    light = query.model_copy(update={"slos": Slos(accuracy=query.slos.accuracy)})
    heavy = light.model_copy(update={"name": "heavy", "rate_per_s": 40 * query.rate_per_s})
    specification = replace(specification, infrastructure=infrastructure, queries=(light, heavy))
    matching, _ = plan_all_queries(specification, profiles, settings=UNFITTED, explain_rejections=())
    planner, (rejection,) = AdmissionPlanner.of(specification, profiles, matching), matching.rejections
    with pytest.raises(PlanningError):
        AdmissionPlanner.of(with_nodes(specification, pool.name, 3), profiles, matching)
    assert [advice.nodes for advice in advise(planner, rejection, UNFITTED).advice] == [1]


def test_nodes_are_added_to_one_pool() -> None:
    specification, _ = random_specification(1)
    before = {pool.name: pool.nodes for pool in specification.required_infrastructure.pools}
    larger = with_nodes(specification, "pool1", 2)
    after = {pool.name: pool.nodes for pool in larger.required_infrastructure.pools}
    assert after == before | {"pool1": before["pool1"] + 2}


def test_a_smaller_relaxation_is_named_if_a_plan_of_all_queries_serves_the_query(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    specification, profiles = random_specification(0, queries=6, cpus=3.0, nodes=1)
    matching, _ = plan_all_queries(specification, profiles, settings=UNFITTED, explain_rejections=())
    planner = AdmissionPlanner.of(specification, profiles, matching)
    rejection, served = matching.rejections[0], list[str]()
    (query,) = [query for query in specification.queries if query.name == rejection.query]

    def plan(*_: object, **__: object) -> tuple[Matching, None]:
        more = tuple(replace(matching.assignments[0], query=name) for name in served)
        return replace(matching, assignments=(*matching.assignments, *more)), None

    monkeypatch.setattr("circinus.matching.advice.plan_all_queries", plan)
    assert not [advice for advice in advise(planner, rejection).advice if advice.slos is not None]
    served.append(query.name)
    advised = advise(planner, rejection)
    (slos,) = [advice.slos for advice in advised.advice if advice.slos is not None]
    (changed,) = changed_slos(query.slos, slos)
    if advised.relaxation is not None:
        beside = changed_slos(query.slos, advised.relaxation.slos)
        smaller = relative_change(query.slos, slos, (changed,))
        assert smaller < relative_change(query.slos, advised.relaxation.slos, beside)
