"""Golden screens at 80, 100 and 160 columns; CIRCINUS_UPDATE_GOLDEN=1 records them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fixed_plan import DIVIDED, INFRASTRUCTURE, MATCHING, METRIC, QUERIES
from printed import printed
from test_narrow_terminals import PLANS, QUERY, REJECTED, SIMULATION

from circinus.reporting.explanation import assignment_explanation, rejection_explanation
from circinus.reporting.plan_table import plan_table
from circinus.reporting.resource_use import use_table
from circinus.reporting.simulation_table import simulation_table
from golden import check_screen


@pytest.mark.parametrize("width", [80, 100, 160])
def test_a_plan_on_a_screen(width: int) -> None:
    metrics = dict.fromkeys(QUERIES, METRIC)
    text = printed(plan_table(MATCHING, QUERIES, metrics), "", use_table(MATCHING, INFRASTRUCTURE), width=width)
    assert max(map(len, text.splitlines())) <= width
    check_screen(f"plan_{width}", text)


@pytest.mark.parametrize("width", [80, 100])
def test_divided_requests_on_a_screen(width: int) -> None:
    plans = plan_table(replace(DIVIDED, rejections=()), QUERIES, dict.fromkeys(QUERIES, METRIC))
    text = printed(plans, "", assignment_explanation(DIVIDED.assignments[0], QUERIES["live-1"], METRIC), width=width)
    assert max(map(len, text.splitlines())) <= width
    check_screen(f"divided_{width}", text)


@pytest.mark.parametrize("width", [80, 100, 160])
def test_an_explanation_on_a_screen(width: int) -> None:
    served = [assignment_explanation(found, QUERIES[found.query], METRIC) for found in MATCHING.assignments[:2]]
    rejected = rejection_explanation(MATCHING.rejections[0], QUERIES["archive"], METRIC)
    text = printed(*served, rejected, width=width)
    assert max(map(len, text.splitlines())) <= width
    check_screen(f"explain_{width}", text)


@pytest.mark.parametrize("width", [80, 100])
def test_a_simulation_on_a_screen(width: int) -> None:
    text = printed(simulation_table(SIMULATION, {QUERY.name: PLANS[0].estimate}, [REJECTED]), width=width)
    assert max(map(len, text.splitlines())) <= width
    check_screen(f"simulation_{width}", text)
