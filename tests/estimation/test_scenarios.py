from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from circinus.errors import PlanningError
from circinus.estimation.percentiles import ScenarioGrid
from raised import raises_code

GRID = ScenarioGrid(5, 64)


def test_the_usual_risk_takes_five_sections_of_64() -> None:
    assert ScenarioGrid.for_risk(0.05) == GRID
    assert GRID.count == 320


@given(st.floats(1e-6, 0.999))
def test_all_sections_err_to_one_side_less_often_than_the_risk(risk: float) -> None:
    grid = ScenarioGrid.for_risk(risk)
    assert 0.5**grid.sections <= risk * (1 + 1e-12) or grid.sections == 1
    assert grid.size % 64 == 0


@given(st.integers(5, 400))
def test_sections_share_no_item_and_use_each_equally_often(measured: int) -> None:
    items = GRID.items(measured).reshape(5, 64)
    assert items.max() < measured
    sections = [set(section.tolist()) for section in items]
    assert sum(len(section) for section in sections) == len(set.union(*sections))
    for section in items:
        counts = np.unique(section, return_counts=True)[1]
        assert counts.max() - counts.min() <= 1


def test_every_item_is_used_when_there_are_enough_scenarios() -> None:
    assert set(GRID.items(123).tolist()) == set(range(123))


@pytest.mark.parametrize("measured", [1, 2, 4])
def test_fewer_items_than_sections_are_repeated(measured: int) -> None:
    assert set(GRID.items(measured).tolist()) == set(range(measured))


def test_no_items_are_an_error() -> None:
    with raises_code(PlanningError, "profile.no_measurement"):
        GRID.items(0)


def test_draws_are_stratified_within_each_section() -> None:
    uniforms = -np.expm1(-GRID.exponentials("operator detect")).reshape(5, 64)
    strata = np.sort((uniforms * 64).astype(int), axis=1)
    assert (strata == np.arange(64)).all()


def test_draws_depend_on_the_name_alone() -> None:
    np.testing.assert_array_equal(GRID.exponentials("a"), ScenarioGrid(5, 64).exponentials("a"))
    assert abs(np.corrcoef(GRID.exponentials("a"), GRID.exponentials("b"))[0, 1]) < 0.2


def test_cached_draws_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        GRID.exponentials("a")[0] = 1.0
