"""What the queries on a pipeline ask to be known."""

from __future__ import annotations

from sample_application import accuracy_query

from circinus.profiling.objectives import DEFAULT_RISK, Objectives
from circinus.profiling.percentile_items import LEAST_ITEMS, latency_items
from circinus.spec import AccuracySlo, LatencySlo, Query, Slos


def _query(name: str, slos: Slos, weight: float = 1.0) -> Query:
    return Query(name=name, pipeline="sample", source="here", rate_per_s=1.0, slos=slos, weight=weight)


def test_those_of_the_queries_on_the_pipeline() -> None:
    careful = accuracy_query(0.9).model_copy(update={"risk": 0.01})
    other = accuracy_query(0.5, pipeline="other").model_copy(update={"risk": 0.001, "weight": 9.0})
    found = Objectives.of([careful, accuracy_query(0.7), other, accuracy_query(0.7)], "sample")
    assert found.asked == (AccuracySlo(threshold=0.9), AccuracySlo(threshold=0.7))
    assert found.weights == (1.0, 2.0)
    assert found.risk == 0.01
    assert found.latency_items == LEAST_ITEMS


def test_equal_thresholds_of_unlike_comparisons_are_two() -> None:
    slos = [AccuracySlo(threshold=0.3, comparison=comparison) for comparison in ("<=", ">=")]
    found = Objectives.of([_query("mixed", Slos(accuracy=slo)) for slo in slos], "sample")
    assert found.asked == tuple(slos)


def test_queries_without_an_accuracy_objective_are_one_more() -> None:
    free = [_query("one", Slos(), weight=2.0), _query("other", Slos(), weight=0.5)]
    found = Objectives.of([free[0], accuracy_query(0.9), free[1]], "sample")
    assert found.asked == (None, AccuracySlo(threshold=0.9))
    assert found.weights == (2.5, 1.0)


def test_without_queries_nothing_is_asked_and_latency_takes_the_usual_items() -> None:
    found = Objectives.of([accuracy_query(0.5, pipeline="other")], "sample")
    assert (found.asked, found.weights, found.risk) == ((), (), DEFAULT_RISK)
    usual = _query("usual", Slos(latency=LatencySlo(limit=1.0)))
    assert found.latency_items == latency_items(usual)


def test_the_most_demanding_latency_objective_counts() -> None:
    percentiles = [_query(f"p{p}", Slos(latency=LatencySlo(limit=1.0, percentile=p))) for p in (50.0, 99.0, 90.0)]
    found = Objectives.of([*percentiles, accuracy_query(0.9)], "sample")
    assert found.latency_items == latency_items(percentiles[1]) > latency_items(percentiles[2])
