from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from printed import printed

from circinus.estimation import learn_corrections
from circinus.profiling import Machine, ServiceTimeObservation
from circinus.reporting.load_table import service_time_text
from circinus.reporting.profile_table import correction_table, corrections_in_force
from circinus.serving.loadtest.load_report import ServiceTimeReport, SkippedDeployment
from circinus.specification import Allocation, Deployment, KnobValues

KNOBS = KnobValues.of({"size": 2})
SEEN = ServiceTimeObservation(
    at="2025-06-01T00:00:00+00:00",
    mode="real",
    plan="",
    pipeline="p",
    operator="op",
    uses="m:op",
    version="v",
    knobs=KNOBS,
    hardware_class="edge",
    speed=0.5,
    profiled_on=Machine("CPU", 4),
    cpus=1.0,
    batch_size=1,
    log_ratio=0.2,
    standard_error=0.02,
    requests=100,
    items=16,
)
REFUSED = SkippedDeployment(Deployment("p", "other", KNOBS, "far", Allocation(1.0, 1, 0.5)), "it was cold")


def test_what_is_learnt_and_what_is_not_is_said() -> None:
    text = printed(service_time_text(ServiceTimeReport((SEEN,), (REFUSED,))))
    assert "p/op(size=2) on edge: service times are 1.22 times the prediction of the profile" in text
    assert "standard error 2.0%, 100 requests, 16 items" in text
    assert "the observations correct later plans" in text
    assert f"no observation of {REFUSED.deployment.name}: it was cold" in text


def test_where_nothing_is_learnt_there_is_one_line_with_the_reason() -> None:
    other = replace(REFUSED, deployment=replace(REFUSED.deployment, pool="near"))
    for learning in (None, ServiceTimeReport((), (REFUSED, other))):
        (line,) = printed(service_time_text(learning, "it was a replay")).splitlines()
        assert ("it was a replay" in line) == (learning is None)
        assert line.count("it was cold") == (learning is not None)


def test_what_is_not_used_is_said_to_be_so() -> None:
    text = printed(service_time_text(ServiceTimeReport((SEEN,), ()), "--no-keep-observations"))
    assert "not stored: --no-keep-observations" in text
    assert "correct later plans" not in text


def test_corrections_are_listed_with_bounds_and_what_they_stand_on() -> None:
    corrections = learn_corrections([SEEN], datetime(2025, 6, 1, tzinfo=UTC))
    specific, rest = corrections.entries
    text = printed(correction_table(corrections.entries))
    for entry in (specific, rest):
        factor = entry.factor
        assert f"{factor.value:.3g} ({factor.lower:.3g} to {factor.upper:.3g})" in text
    assert "size=2" in text
    assert "(all others)" in text
    assert "edge (speed 0.5)" in text
    line = corrections_in_force(corrections)
    assert "service times of 1 operator on edge" in line
    assert f"{rest.factor.value:.3g} to {specific.factor.value:.3g} times" in line
