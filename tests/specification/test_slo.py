"""SLOs in all accepted notations."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from circinus.specification import AccuracySlo, CostSlo, LatencySlo, Query, Slos

ALL = Slos(
    latency=LatencySlo(percentile=95, limit_s=0.8),
    accuracy=AccuracySlo(threshold=0.9),
    cost=CostSlo(limit_usd_per_h=0.5),
)


@pytest.mark.parametrize(
    "given",
    [
        ["latency p95 <= 800ms", "accuracy >= 0.9", "cost <= $0.50/h"],
        ["latency: p95 <= 800ms", "accuracy: >= 0.9", "cost: <= $0.50/h"],
        ["latency p95≤800ms", "accuracy≥90%", "cost ≤ $12/day"],
        [{"latency": "p95 <= 800ms"}, {"accuracy": ">= 90%"}, {"cost": "<= $0.50/h"}],
        [{"latency": "P95 <= 0.8s", "accuracy": ">= .9"}, "cost <= $365/month"],
        {"latency": "p95 <= 800ms", "accuracy": ">= 0.9", "cost": "<= $0.50/h"},
        {"latency": "<= 800ms", "accuracy": "accuracy >= 0.9", "cost": "cost: <= $0.50/h"},
        {
            "latency": {"percentile": 95, "limit": "800ms"},
            "accuracy": {"threshold": "90%", "comparison": ">="},
            "cost": {"limit": "$0.50/h"},
        },
        [ALL.latency, ALL.accuracy, ALL.cost],
        ALL,
    ],
)
def test_every_form_means_the_same(given: Any) -> None:
    assert Slos.parse(given) == ALL
    query = Query(name="q", pipeline="p", source="s", rate="5/s", slos=given)
    assert query.slos == ALL


def test_one_objective_alone_and_none_at_all() -> None:
    assert Slos.parse("latency p99.9 <= 1s") == Slos(latency=LatencySlo(percentile=99.9, limit_s=1))
    assert Slos.parse([]) == Slos.parse({}) == Slos()
    assert Slos.parse("accuracy <= 5%").accuracy == AccuracySlo(threshold=0.05, comparison="<=")


@given(
    st.floats(0, 100, exclude_min=True, exclude_max=True),
    st.floats(1e-9, 1e9),
    st.floats(-1e6, 1e6),
    st.sampled_from(["<=", ">="]),
    st.floats(0, 1e9),
)
def test_what_is_printed_is_read_back_exactly(
    percentile: float, limit_s: float, threshold: float, comparison: Any, limit_usd_per_h: float
) -> None:
    slos = Slos(
        latency=LatencySlo(percentile=percentile, limit_s=limit_s),
        accuracy=AccuracySlo(threshold=threshold, comparison=comparison),
        cost=CostSlo(limit_usd_per_h=limit_usd_per_h),
    )
    assert Slos.parse(str(slos).split(", ")) == slos
    assert Slos.model_validate(slos.model_dump()) == slos
    assert Slos.model_validate_json(slos.model_dump_json()) == slos


def test_objectives_are_printed_as_people_write_them() -> None:
    assert str(ALL) == "latency p95 <= 800ms, accuracy >= 0.9, cost <= $0.50/h"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("latency p95 < 800ms", ("'p95 < 800ms'", "p95 <= 800ms")),
        ("latency", ("expected a latency SLO",)),
        ("latency p95 <=", ("found ''", "a duration")),
        ("latency p0 <= 1s", ("found 0", "more than 0")),
        ("accuracy 0.9", ("'0.9'", "such as >= 0.9")),
        ("accuracy >= nan", ("'nan'", "a number or a percentage")),
        ("accuracy >= 1e999", ("'1e999'", "a finite number")),
        ("cost <= 5", ("'5'", "a price such as $0.40/h")),
        ("speed >= 3", ("unknown field speed", "latency, accuracy, cost")),
        ([3], ("found 3", "an SLO such as")),
        (["latency p95 <= 1s", {"latency": "p50 <= 1s"}], ("a second SLO for latency",)),
        ({"accuracy": 0.9}, ("found 0.9", "an accuracy SLO such as >= 0.9")),
        (7, ("found 7", "an SLO such as")),
    ],
)
def test_what_is_no_objective_is_said_so(given: Any, words: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError) as raised:
        Slos.parse(given)
    for word in words:
        assert word in str(raised.value)


def test_all_faulty_objectives_are_found_at_once() -> None:
    with pytest.raises(ValidationError) as raised:
        Slos.parse(["latency p95 <= 800", "accuracy >= x", "cost <= 1", "latency p50 <= 1s", "nothing"])
    assert raised.value.error_count() == 5


@pytest.mark.parametrize(
    ("comparison", "score", "holds"), [(">=", 0.9, True), (">=", 0.89, False), ("<=", 0.91, False)]
)
def test_the_threshold_itself_keeps_the_objective(comparison: Any, score: float, holds: bool) -> None:
    assert AccuracySlo(threshold=0.9, comparison=comparison).is_met_by(score) is holds


def test_attained_slos_are_those_met_by_known_values() -> None:
    assert ALL.attained(0.8, 0.9, 0.5) == {"latency": True, "accuracy": True, "cost": True}
    assert ALL.attained(0.81, 0.89, 0.51) == {"latency": False, "accuracy": False, "cost": False}
    assert ALL.attained(None, math.nan, 0.0) == {"latency": False, "accuracy": False, "cost": True}
    assert Slos().attained(None, None, 9.0) == {}
    assert json.loads(json.dumps(Slos(cost=ALL.cost).attained(None, None, 1.0))) == {"cost": False}


def test_rounding_errors_violate_no_slo() -> None:
    for slo in ALL.by_kind.values():
        worse = -1 if slo.is_minimum else 1
        assert slo.margin(slo.limit + 0.9 * worse * slo.tolerance) == 0.0
        assert slo.margin(slo.limit + 1.1 * worse * slo.tolerance) < 0
        assert slo.tolerance <= 1e-5 * slo.limit


@given(st.floats(1e-3, 10), st.sampled_from([">=", "<="]), st.floats(1e-3, 10))
def test_relaxed_slos_are_met_and_no_tighter(limit: float, comparison: Any, value: float) -> None:
    for slo in (LatencySlo(limit_s=limit), AccuracySlo(threshold=limit, comparison=comparison)):
        relaxed = slo.relaxed_to(value)
        assert relaxed.is_met_by(value)
        assert relaxed.is_met_by(slo.limit)
        change = max(-slo.margin(value), 0.0)
        assert -slo.margin(relaxed.limit) == pytest.approx(change, rel=0.1001, abs=1e-4 * value)
        assert slo.relaxed_by(0.5).margin(slo.limit) == pytest.approx(0.5 * limit)


def test_fraction_within_counts_failures_as_late() -> None:
    slo = LatencySlo(limit_s=0.3)
    assert slo.fraction_within([0.1 + 0.2, 0.5]) == 0.5
    assert slo.fraction_within([0.1 + 0.2, 0.5], failed=2) == 0.25
    assert slo.fraction_within([]) == 1.0
