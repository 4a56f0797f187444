"""Our search in the arena: what it answers is sure, and what it guesses comes from what is alike."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.search_cases import cases
from benchmarks.search_circinus import Circinus, predicted_rows
from benchmarks.search_meter import Meter, judge

from circinus.planning.exploration.predicted import CAUTION, UNSEEN_SPREAD
from tiny_arenas import tiny_arena


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_answers_hold_and_are_near_the_optimum(direction: str) -> None:
    found = close = feasible = broken = infeasible = recognised = 0
    for seed in range(4):
        rng = np.random.default_rng(seed)
        arena = tiny_arena(rng, items=80, direction=direction).drawn(rng)
        for case in cases(arena, rng, 6):
            meter = Meter(arena, reuse_prefixes=True)
            verdict = judge(case, Circinus().search(case, meter, rng), arena, meter)
            feasible += verdict.feasible
            infeasible += not verdict.feasible
            found += verdict.found
            close += verdict.found and verdict.cost_over_optimum <= 1.05
            broken += verdict.answered and not verdict.found
            recognised += not verdict.feasible and not verdict.answered
    assert broken <= 1  # at a risk of 0.05 a run
    assert recognised == infeasible
    assert found >= 0.9 * feasible
    assert close >= 0.8 * feasible


def test_guesses_are_of_the_same_operator_configuration_where_there_is_one() -> None:
    arena = tiny_arena(np.random.default_rng(0), items=20)
    space = arena.space
    own = np.array([[hash((name, c[name])) for name in c] for c in space.configurations])
    known = np.full(len(arena.service_s), np.nan)
    first = space.rows[0]
    known[first] = arena.service_s[first]
    found = predicted_rows(space, own, known)
    np.testing.assert_allclose(found[0], arena.service_s[first])
    for row in range(1, len(found)):
        for column in range(found.shape[1]):
            if space.rows[row, column] != first[column]:
                expected = arena.service_s[first[column]] * np.exp(-CAUTION * UNSEEN_SPREAD)
                assert found[row, column] == pytest.approx(expected)
    elsewhere = predicted_rows(space, own, known, arena.service_s * 2.0)
    truth = arena.service_s[space.rows]
    assert (elsewhere <= truth * (1 + 1e-9)).all()
