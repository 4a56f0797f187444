"""Tables on narrow terminals: long cells are folded, and nothing is cut off."""

from __future__ import annotations

from dataclasses import replace

import pytest
from printed import printed
from rich.console import RenderableType

from circinus.matching import match
from circinus.planning import Frontier
from circinus.profiling import Machine, ServiceTimeObservation
from circinus.reporting.explanation import assignment_explanation
from circinus.reporting.load_table import load_table
from circinus.reporting.plan_table import plan_table
from circinus.reporting.profile_table import observation_table, profile_table
from circinus.serving.loadtest.load_report import GeneratorLag, LatencySummary, LoadReport, QueryMeasurement
from circinus.simulation import QueryOutcome, SimulationReport, StationOutcome
from circinus.specification import AccuracySlo, KnobValues, LatencySlo, Query, Slos
from circinus.statistics.interval import Interval
from planning_instances import random_instance
from random_matchings import candidate, deployment, infrastructure, reestimate, use

INFRA = infrastructure([("backroom", 1, 4.0, 16.0, 1.0)])
SLOS = Slos(latency=LatencySlo(limit_s=0.7), accuracy=AccuracySlo(threshold=0.5))
QUERY = Query(name="typing-aid", pipeline="p", source="home", rate="1/s", slos=SLOS)
REJECTED = QUERY.model_copy(update={"name": "archive"})
PLANS = tuple(
    candidate(QUERY.name, [use(deployment("correct", size, "backroom"), 0.5 / (1 + size), INFRA)], latency_s=0.5)
    for size in range(2)
)
MATCHING = match(
    {
        QUERY.name: Frontier(QUERY, PLANS, {}, (), (), ""),
        REJECTED.name: Frontier(REJECTED, (), {}, (), (), "no plan meets all SLOs"),
    },
    INFRA,
    reestimate,
)
LATENCIES = {name: Interval(0.312, 0.301, 0.334) for name in ("p50", "p90", "p95", "p99")}
SIMULATION = SimulationReport(
    seed=0,
    load_factor=2.0,
    duration_s=3600.0,
    warm_up_s=360.0,
    queries=(
        QueryOutcome(QUERY.name, 1.0, SLOS, 36_000, 9, 1.0, LATENCIES, 95.0, 0.875, 0.2, (), {"latency": False}, False),
    ),
    deployments=(StationOutcome("mend/correct(effort=2,method=all)@backroom:c1b1u0.7", 2, 3600, 0.93, 1.02, 0.4, 1.0),),
    links=(StationOutcome("home->backroom", 1, 3600, 0.2, 0.2, 0.001, 1.0),),
    goodput=0.0,
    total_weight=1.0,
    is_shortened=False,
    executions=12_345,
    computed_s=1.2,
)
LOAD = LoadReport(
    mode="replay",
    arrivals="poisson",
    load_factor=2.0,
    seed=0,
    warm_up_s=1.0,
    duration_s=10.0,
    queries=(
        QueryMeasurement(
            query=QUERY.name,
            pipeline="p",
            weight=1.0,
            slos=SLOS,
            served=True,
            requests=36_000,
            latency_s=LatencySummary(0.1, 0.2, 0.3, 0.4, 95.0, 0.3),
            score=0.75,
            cost_usd_per_h=0.5,
            slos_met={"latency": False, "accuracy": True},
            predicted=PLANS[0].estimate,
            unscored=3,
        ),
    ),
    lateness=GeneratorLag(0.0, 0.01, 0.02, late=True),
    deployments_cost_usd_per_h=0.5,
    goodput=0.0,
    total_weight=1.0,
    promises_kept=0,
    promises=1,
)
OBSERVATION = ServiceTimeObservation(
    at="2025-06-01T00:00:00+00:00",
    mode="real",
    plan="",
    pipeline="mend",
    operator="correct",
    uses="m:correct",
    version="v",
    knobs=KnobValues.of({"effort": 2, "method": "all"}),
    hardware_class="server",
    speed=0.5,
    profiled_on=Machine("CPU", 4),
    cpus=1.0,
    batch_size=1,
    log_ratio=0.2,
    standard_error=0.02,
    requests=36_000,
    items=16,
)


_LONG = "boardroom-captions-upper-floors"
_LONG_MATCHING = replace(MATCHING, assignments=(replace(MATCHING.assignments[0], query=_LONG),), rejections=())


@pytest.mark.parametrize("width", [80, 100])
@pytest.mark.parametrize(
    "table",
    [
        plan_table(_LONG_MATCHING, {_LONG: QUERY.model_copy(update={"name": _LONG})}, {_LONG: "word accuracy of all"}),
        assignment_explanation(MATCHING.assignments[0], QUERY),
        load_table(LOAD),
        observation_table([OBSERVATION]),
        profile_table(random_instance(0).profile, "maximize"),
    ],
    ids=["plan", "explanation", "load", "observations", "profile"],
)
def test_nothing_is_cut_off(table: RenderableType, width: int) -> None:
    text = printed(table, width=width)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
