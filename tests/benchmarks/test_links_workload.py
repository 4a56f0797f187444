"""Workload of the benchmark of real links."""

from __future__ import annotations

import pytest
from benchmarks.workloads.links import QUERIES, SOURCE, Tempo, specification, with_nothing_held_out, without_links

from circinus.specification import Network


def test_queries_of_both_pipelines_have_equal_rates_and_limits_of_latency_and_accuracy_only() -> None:
    specified = specification(1.5)
    assert [query.name for query in specified.queries] == list(QUERIES)
    assert {query.pipeline for query in specified.queries} == set(specified.pipelines) == {"meeting", "documents"}
    for query in specified.queries:
        assert query.source == SOURCE
        assert query.rate_per_s == 1.5
        assert query.slos.cost is None
        assert query.slos.latency is not None
        assert query.slos.accuracy is not None


def test_twice_the_load_is_two_of_each_with_names_of_their_own() -> None:
    once, twice = specification(0.5), specification(0.5, 2.0)
    assert twice.queries[: len(QUERIES)] == once.queries
    assert len({query.name for query in twice.queries}) == 2 * len(QUERIES)
    rates = [sum(query.rate_per_s for query in specified.queries) for specified in (once, twice)]
    assert rates[1] == pytest.approx(2 * rates[0])
    assert len(specification(copies=1.5, count=4).queries) == 6


def test_truth_has_the_items_of_the_traffic_too() -> None:
    whole = with_nothing_held_out(specification())
    assert whole.queries == specification().queries
    for name, pipeline in specification().pipelines.items():
        assert pipeline.dataset.held_out_items(120) == 60
        assert whole.pipelines[name].dataset.held_out_items(120) == 0
        assert whole.pipelines[name].operators == pipeline.operators


def test_narrowed_knobs_are_still_the_examples() -> None:
    for pipeline in specification().pipelines.values():
        assert all(knob.choices for operator in pipeline.operators for knob in operator.knobs)
        assert all(len(operator.cpus) == 1 for operator in pipeline.operators)


def test_a_planner_that_ignores_links_sees_none_that_takes_time() -> None:
    free = without_links(specification())
    assert free.infrastructure is not None
    path = Network(free.infrastructure).path("device", "cloud")
    assert path is not None
    assert sum(link.one_way_s + 1e6 / link.bandwidth_bytes_per_s for link in path) < 1e-5


def test_in_slow_motion_everything_takes_as_many_times_as_long() -> None:
    usual, slow = specification(0.5), specification(0.25, tempo=Tempo(slower=2.0))
    assert usual.infrastructure is not None
    assert slow.infrastructure is not None
    for once, twice in zip(usual.infrastructure.pools, slow.infrastructure.pools, strict=True):
        assert twice.hardware.relative_speed == pytest.approx(once.hardware.relative_speed / 2)
        assert twice.price_usd_per_h == once.price_usd_per_h
    for link, slower in zip(usual.infrastructure.links, slow.infrastructure.links, strict=True):
        assert slower.bandwidth_bytes_per_s == pytest.approx(link.bandwidth_bytes_per_s / 2)
        assert slower.round_trip_s == pytest.approx(2 * link.round_trip_s)
        # Half the bytes an hour for the same money.
        assert slower.price_usd_per_gb == pytest.approx(2 * link.price_usd_per_gb)
    for query, later in zip(usual.queries, slow.queries, strict=True):
        assert later.rate_per_s == pytest.approx(query.rate_per_s / 2)
        assert query.slos.latency is not None
        assert later.slos.latency is not None
        assert later.slos.latency.limit_s == pytest.approx(2 * query.slos.latency.limit_s)
        assert later.slos.accuracy == query.slos.accuracy
