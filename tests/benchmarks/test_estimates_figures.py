"""Figures of prediction errors, the scatter plot, and simulated traces."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.estimates.error_figures import LIMITS, ratio, real_figures, replay_figures, right_verdicts, share_near
from benchmarks.estimates.predictions import planned_query
from benchmarks.estimates.real_plans import Choice, real_plan
from benchmarks.estimates.scatter_plot import draw_scatter
from benchmarks.estimates.trace_simulation import Sent, sent, traced_s
from hypothesis import given
from hypothesis import strategies as st
from measured_examples import ITEMS, measured_example

from circinus.serving.loadtest.load_test import LoadSpec, run_load_test
from serving.served_scenario import ITEMS as SENT_ITEMS
from serving.served_scenario import ObedientEngine, matching, query, specification
from virtual_time import run

SECONDS = st.one_of(st.none(), st.floats(0.01, 10.0))


@given(SECONDS, SECONDS, st.floats(0.05, 2.0))
def test_a_verdict_is_wrong_about_limits_between(
    predicted_s: float | None, measured_s: float | None, unit_s: float
) -> None:
    ends = sorted(math.inf if value is None else value for value in (predicted_s, measured_s))
    between = sum(ends[0] <= limit * unit_s < ends[1] for limit in LIMITS)
    assert right_verdicts(predicted_s, measured_s, unit_s) == len(LIMITS) - between


def test_what_has_no_end_is_near_nothing() -> None:
    assert ratio(None, 1.0) is None
    assert ratio(1.0, None) is None
    rows = [{"r": 1.14}, {"r": 0.86}, {"r": 1.16}, {"r": None}]
    assert share_near(rows, "r") == 0.5


def _row(part: str, plan: str, level: float, predicted_s: float | None, measured_s: float = 1.0) -> dict[str, Any]:
    base_s = 0.5
    return {
        "part": part,
        "plan": plan,
        "level": level,
        "predicted_p95_s": predicted_s,
        "without_queueing_p95_s": base_s,
        "measured_p95_s": measured_s,
        "predicted_over_measured": ratio(predicted_s, measured_s),
        "without_queueing_over_measured": base_s / measured_s,
        "verdicts_right": right_verdicts(predicted_s, measured_s, base_s),
        "verdicts_right_without_queueing": right_verdicts(base_s, measured_s, base_s),
        "verdicts": len(LIMITS),
        "promised_p95_s": 1.2,
        "same_items_p95_s": measured_s,
        "same_items_over_measured": 1.0,
        "verdicts_right_same_items": len(LIMITS),
        "same_requests_p95_s": measured_s,
        "service_over_profiled": 1.0,
        "verdicts_right_corrected": len(LIMITS),
        "corrected_p95_s": measured_s,
        "corrected_over_measured": 1.0,
    }


def test_figures_count_runs_and_verdicts() -> None:
    rows = [_row("replay", "a", 0.3, 1.1), _row("replay", "a", 0.8, 1.5), _row("replay", "b", 0.3, 1.0)]
    rows.append(_row("replay", "b", 0.8, None))
    figures = {figure.name: figure for figure in replay_figures(rows)}
    assert figures["engine, held-out items: p95 predicted to 15%"].value == 0.5
    assert figures["engine, held-out items: p95 predicted to 15%"].met is False
    wrong = 0 + sum(1.0 <= limit * 0.5 < 1.5 for limit in LIMITS) + 0 + sum(limit * 0.5 >= 1.0 for limit in LIMITS)
    wrong += sum(1.0 <= limit * 0.5 < 1.1 for limit in LIMITS)
    assert figures["engine, held-out items: right verdicts"].value == pytest.approx(1 - wrong / (4 * len(LIMITS)))
    assert figures["engine, without queueing: p95 predicted to 15%"].value == 0.0
    assert figures["engine, profiled items: right verdicts"].value == 1.0
    few = [_row("computing", "a", 0.3, 1.3), _row("computing", "a", 0.8, 1.3)]
    of_computing = {figure.name: figure.value for figure in real_figures(few)}
    assert of_computing["computing, not corrected: p95 predicted to 15%"] == 0.0
    assert of_computing["computing, corrected: p95 predicted to 15%"] == 1.0


def test_the_picture_is_whole_and_always_the_same(tmp_path: Path) -> None:
    kinds = (("replay", "a"), ("computing", "b"))
    rows = [_row(part, plan, 0.3, 0.9, s) for (part, plan), s in itertools.product(kinds, (0.6, 1.0, 2.0))]
    rows.append({**_row("replay", "c", 0.3, 1.0), "measured_p95_s": None})
    first, second = tmp_path / "first.svg", tmp_path / "second.svg"
    draw_scatter(rows, first)
    draw_scatter(rows, second)
    assert first.read_text(encoding="utf-8").rstrip().endswith("</svg>")
    assert first.read_bytes() == second.read_bytes()
    assert sorted(tmp_path.iterdir()) == [first, second]


def test_the_same_requests_are_simulated_that_traffic_sends() -> None:
    engine, asked = ObedientEngine(("q",)), query("q", rate_per_s=7.0)
    traffic = LoadSpec(duration_s=20.0, warm_up_s=3.0, seed=5)
    run(run_load_test(engine, specification(asked), matching(["q"]), {"p": SENT_ITEMS}, traffic))
    found = sent(asked, len(SENT_ITEMS), traffic)
    assert len(found.items) > 2 * len(SENT_ITEMS)
    np.testing.assert_allclose([time_s for time_s, _ in engine.received], found.time_s, atol=1e-9)
    assert [request.item_key for _, request in engine.received] == [SENT_ITEMS[i].key for i in found.items]


def test_simulated_requests_wait_for_those_before_them() -> None:
    measured = measured_example(
        "meeting",
        lambda operator, rng: np.linspace(1.0, 2.0, ITEMS) if operator == "speech_to_text" else np.zeros(ITEMS),
    )
    real = real_plan(Choice("meeting", 0, "dddd", (1, 1, 1, 1)), measured, 50.0)
    asked = real.query(0.8)
    requests = sent(asked, ITEMS, LoadSpec(duration_s=4.0, seed=1))
    profile = measured.of(real.plan.configuration)
    found = traced_s(planned_query(real, asked, profile), real.replicas, real.network, requests, 1.0)
    service_s = profile.operators["speech_to_text"].service_s / real.infrastructure.pool("device").hardware.speed
    free_s, expected = 0.0, []
    for time_s, item in zip(requests.time_s, requests.items, strict=True):
        free_s = max(free_s, time_s) + service_s[item]
        if time_s >= 1.0:
            expected.append(free_s - time_s)
    assert len(expected) > 50
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_nobody_sends_no_items() -> None:
    nothing = sent(query("q", rate_per_s=0.001), 3, LoadSpec(duration_s=0.01))
    assert isinstance(nothing, Sent)
    assert len(nothing.time_s) == len(nothing.items) == 0
