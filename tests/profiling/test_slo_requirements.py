"""What the queries on a pipeline ask to be known."""

from __future__ import annotations

import pytest
from sample_application import accuracy_query, sample_pipeline

from circinus.profiling.race.slo_requirements import (
    DEFAULT_RISK,
    MIN_ITEMS,
    PipelineSlos,
    latency_sample_size,
)
from circinus.specification import (
    AccuracySlo,
    HardwareClass,
    Infrastructure,
    LatencySlo,
    Pool,
    Query,
    Slos,
    Specification,
)


def _query(name: str, slos: Slos, weight: float = 1.0) -> Query:
    return Query(name=name, pipeline="sample", source="here", rate_per_s=1.0, slos=slos, weight=weight)


def test_those_of_the_queries_on_the_pipeline() -> None:
    careful = accuracy_query(0.9).model_copy(update={"risk": 0.01})
    other = accuracy_query(0.5, pipeline="other").model_copy(update={"risk": 0.001, "weight": 9.0})
    found = PipelineSlos.of_queries([careful, accuracy_query(0.7), other, accuracy_query(0.7)], "sample")
    assert found.requirements == (
        Slos(accuracy=AccuracySlo(threshold=0.9)),
        Slos(accuracy=AccuracySlo(threshold=0.7)),
    )
    assert found.weights == (1.0, 2.0)
    assert found.risk == 0.01
    assert found.latency_items == MIN_ITEMS


def test_equal_thresholds_of_unlike_comparisons_are_two() -> None:
    slos = [AccuracySlo(threshold=0.3, comparison=comparison) for comparison in ("<=", ">=")]
    found = PipelineSlos.of_queries([_query("mixed", Slos(accuracy=slo)) for slo in slos], "sample")
    assert found.requirements == tuple(Slos(accuracy=slo) for slo in slos)


def test_queries_without_an_accuracy_objective_are_one_more() -> None:
    free = [_query("one", Slos(), weight=2.0), _query("other", Slos(), weight=0.5)]
    found = PipelineSlos.of_queries([free[0], accuracy_query(0.9), free[1]], "sample")
    assert found.requirements == (Slos(), Slos(accuracy=AccuracySlo(threshold=0.9)))
    assert found.weights == (2.5, 1.0)


def test_without_queries_nothing_is_asked_and_latency_takes_the_usual_items() -> None:
    found = PipelineSlos.of_queries([accuracy_query(0.5, pipeline="other")], "sample")
    assert (found.requirements, found.weights, found.risk) == ((), (), DEFAULT_RISK)
    usual = _query("usual", Slos(latency=LatencySlo(limit=1.0)))
    assert found.latency_items == latency_sample_size(usual)


def test_the_most_demanding_latency_objective_counts() -> None:
    percentiles = [_query(f"p{p}", Slos(latency=LatencySlo(limit=1.0, percentile=p))) for p in (50.0, 99.0, 90.0)]
    found = PipelineSlos.of_queries([*percentiles, accuracy_query(0.9)], "sample")
    assert found.latency_items == latency_sample_size(percentiles[1]) > latency_sample_size(percentiles[2])


def test_one_threshold_within_two_latencies_is_two_objectives() -> None:
    accuracy = AccuracySlo(threshold=0.9)
    limits = [LatencySlo(limit=limit_s) for limit_s in (1.0, 2.0)]
    queries = [_query(f"q{n}", Slos(accuracy=accuracy, latency=limits[n % 2])) for n in range(4)]
    found = PipelineSlos.of_queries([*queries, _query("free", Slos())], "sample")
    assert found.requirements == (
        Slos(accuracy=accuracy, latency=limits[0]),
        Slos(accuracy=accuracy, latency=limits[1]),
        Slos(),
    )
    assert found.weights == (2.0, 2.0, 1.0)
    assert found.latency_percentiles == 0  # no hardware is known


def test_the_fastest_hardware_that_an_operator_may_run_on() -> None:
    pools = [
        Pool(
            name=tier,
            site="here",
            tier=tier,
            cpus=4,
            memory=2**30,
            hardware=HardwareClass(**{"class": tier}, relative_speed=speed, relative_speed_bounds=bounds),
        )
        for tier, speed, bounds in (("device", 0.5, None), ("edge", 2.0, (1.5, 3.0)), ("cloud", 4.0, None))
    ]
    infrastructure = Infrastructure(name="all", sites=("here",), pools=tuple(pools))
    pipeline = sample_pipeline()
    first, *others = pipeline.operators
    near = first.model_copy(update={"allowed_tiers": ("device", "edge")})
    pipeline = pipeline.model_copy(update={"operators": (near, *others)})
    found = PipelineSlos.of(Specification({pipeline.name: pipeline}, infrastructure, ()), pipeline.name)
    fastest = {name: max(hardware.guaranteed_speed for hardware in classes) for name, classes in found.hardware.items()}
    assert fastest == {near.name: 1.5} | dict.fromkeys((o.name for o in others), 4.0)
    assert not PipelineSlos.of(Specification({pipeline.name: pipeline}, None, ()), pipeline.name).hardware


@pytest.mark.parametrize(("percentile", "risk", "items"), [(95, 0.05, 30), (99, 0.05, 150), (50, 0.05, MIN_ITEMS)])
def test_items_for_the_latency_of_a_query(percentile: float, risk: float, items: int) -> None:
    query = accuracy_query(0.9)
    assert latency_sample_size(query) == MIN_ITEMS
    latency = LatencySlo(percentile=percentile, limit=1.0)
    asked = query.model_copy(update={"risk": risk, "slos": query.slos.model_copy(update={"latency": latency})})
    assert latency_sample_size(asked) == items
