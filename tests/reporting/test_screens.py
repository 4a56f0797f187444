"""Golden screens at 80 and 100 columns; CIRCINUS_UPDATE_GOLDEN=1 records them."""

from __future__ import annotations

import pytest
from fixed_plan import INFRASTRUCTURE, MATCHING, METRIC, QUERIES
from printed import printed

from circinus.reporting.plan_table import plan_table
from circinus.reporting.resource_use import use_table
from golden import check_screen


@pytest.mark.parametrize("width", [80, 100, 160])
def test_a_plan_on_a_screen(width: int) -> None:
    metrics = dict.fromkeys(QUERIES, METRIC)
    text = printed(plan_table(MATCHING, QUERIES, metrics), "", use_table(MATCHING, INFRASTRUCTURE), width=width)
    assert max(map(len, text.splitlines())) <= width
    check_screen(f"plan_{width}", text)
