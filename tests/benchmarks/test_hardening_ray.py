"""Outcomes of faults over Ray: each request counts once, and only by what was struck."""

from __future__ import annotations

import io
import math

import pytest
from benchmarks.hardening.http_load import HttpOutcome
from benchmarks.hardening.ray_fault_outcomes import ray_fault, ray_result
from benchmarks.testbeds.delay_relay import DelayLine
from rich.console import Console

STRUCK_S, HEALED_S, UNTIL_S = 2.0, 22.0, 32.0


def outcomes(*others: HttpOutcome) -> list[HttpOutcome]:
    """Return answers in time, ten a second, of which others take the place of those scheduled alike."""
    scheduled = {number / 10: HttpOutcome(number / 10, 0.0, 0.1, 200) for number in range(int(UNTIL_S * 10))}
    return list((scheduled | {other.scheduled_s: other for other in others}).values())


def test_requests_are_answered_failed_cut_off_or_silent() -> None:
    fault = ray_fault(
        "apart",
        outcomes(
            HttpOutcome(2.0, 0.0, 5.0, 504, text="the deadline of 4.9 s passed"),
            HttpOutcome(2.1, 0.0, 5.0, 504, text="the deadline of 5.1 s passed"),
            HttpOutcome(3.0, 0.0, 0.0, 0, text="refused"),
            HttpOutcome(4.0, 0.0, 30.0, -1),
            HttpOutcome(5.0, 0.0, 8.5, 200),
        ),
        STRUCK_S, HEALED_S, UNTIL_S,
    )  # fmt: skip
    assert (fault.requests, fault.failed, fault.cut_off, fault.silent) == (320, 2, 1, 2)
    assert fault.statuses == {"200": 316, "504": 2, "0": 1, "-1": 1}
    assert fault.reasons == ["the deadline of _._ s passed", "refused", ""]
    assert fault.lasted_s == HEALED_S - STRUCK_S


def test_the_rest_serves_before_the_healing_and_recovery_counts_from_there() -> None:
    apart = [HttpOutcome(number / 10, 0.0, 5.0, 504) for number in range(20, 65)]
    restarting = [HttpOutcome(number / 10, 0.0, 2.0, 200) for number in range(240, 250)]
    fault = ray_fault("apart", outcomes(*apart, *restarting), STRUCK_S, HEALED_S, UNTIL_S)
    assert fault.rest_s == pytest.approx(4.5)
    assert fault.recovery_s == pytest.approx(3.0)
    assert fault.failed_after == 0


def test_failures_after_the_recovery_are_told_from_those_before() -> None:
    fault = ray_fault(
        "apart",
        outcomes(*(HttpOutcome(number / 10, 0.0, 1.0, 500) for number in (*range(220, 230), 280))),
        STRUCK_S, HEALED_S, UNTIL_S,
    )  # fmt: skip
    assert fault.recovery_s == pytest.approx(1.0)
    assert (fault.failed, fault.failed_after) == (11, 1)


def test_only_faults_that_last_longer_than_the_aim_leave_the_rest_to_serve() -> None:
    long = ray_fault("long", outcomes(HttpOutcome(4.0, 0.0, 30.0, -1)), STRUCK_S, HEALED_S, UNTIL_S)
    short = ray_fault("short", outcomes(), STRUCK_S, STRUCK_S + 3.0, UNTIL_S)
    figures, rows = ray_result([long, short, long], 1, Console(file=io.StringIO()))
    met = {figure.name: (figure.value, figure.met) for figure in figures}
    assert met["ray: struck"] == (3.0, None)
    assert met["ray: silent requests"] == (2.0, False)
    assert met["ray: processes left at the end"] == (1.0, False)
    assert met["ray: long: until the rest serves"] == (0.0, True)
    assert met["ray: short: recovery"] == (0.0, True)
    assert "ray: short: until the rest serves" not in met
    assert [row["fault"] for row in rows] == ["long", "short", "long"]


def test_a_delay_without_end_loses_packets_until_it_is_lifted() -> None:
    line = DelayLine(1.0)
    line.put(0.0, b"before")
    line.delay_s = math.inf
    line.put(0.5, b"lost")
    line.delay_s = 0.0
    line.put(2.0, b"after")
    assert line.due(5.0) == [b"before", b"after"]
