"""A solver in a process of its own, which may be ended."""

from __future__ import annotations

import math
import os

import numpy as np
import pytest

from budget import HANG_LIMIT_S
from circinus.matching.solvers.highs import LpModel, solve_milp
from circinus.matching.solvers.highs_subprocess import HighsSubprocess

pytestmark = pytest.mark.slow


def _knapsack(size: int, seed: int) -> tuple[LpModel, np.ndarray]:
    rng = np.random.default_rng(seed)
    programme = LpModel(upper=[1.0] * size)
    for _ in range(5):
        values = rng.integers(50, 100, size).astype(float)
        programme.add_row(np.arange(size), values, values.sum() // 2, values.sum() // 2)
    return programme, np.zeros(size)


def _easy() -> tuple[LpModel, np.ndarray]:
    programme = LpModel(upper=[1.0] * 4)
    programme.add_row(np.arange(4), np.array([3.0, 2.0, 2.0, 1.0]), -np.inf, 5.0)
    return programme, np.array([-3.0, -2.0, -2.0, -1.5])


def test_it_answers_as_the_solver_does() -> None:
    programme, objective = _easy()
    solver = HighsSubprocess()
    try:
        for _ in range(2):
            values, bound = solver.minimise(
                programme, objective, np.zeros(4), time_limit_s=HANG_LIMIT_S, gap=0.0, seed=0
            )
            expected, least = solve_milp(programme, objective, np.zeros(4), time_limit_s=HANG_LIMIT_S, gap=0.0, seed=0)
            assert values is not None
            assert expected is not None
            np.testing.assert_allclose(values, expected)
            assert bound == least == -5.5
    finally:
        solver.close()


def test_one_that_does_not_come_to_an_end_is_ended_and_the_next_one_answers() -> None:
    # A market split problem of this size takes hours; the patience here ends a moment after it was asked.
    programme, objective = _knapsack(60, seed=0)
    solver = HighsSubprocess(grace_s=-1.25 * 3600 + 1.0)
    try:
        solver.start()
        process = solver._process
        assert process is not None
        values, bound = solver.minimise(programme, objective, np.zeros(60), time_limit_s=3600.0, gap=0.0, seed=0)
        assert values is None
        assert bound == -math.inf
        assert process.poll() is not None
        solver._grace_s = HANG_LIMIT_S
        easy, worth = _easy()
        assert solver.minimise(easy, worth, np.zeros(4), time_limit_s=HANG_LIMIT_S, gap=0.0, seed=0)[0] is not None
    finally:
        solver.close()


def test_a_killed_process_is_no_answer() -> None:
    solver = HighsSubprocess()
    solver.start()
    process = solver._process
    assert process is not None
    os.kill(process.pid, 9)
    process.wait()
    easy, worth = _easy()
    assert solver.minimise(easy, worth, np.zeros(4), time_limit_s=HANG_LIMIT_S, gap=0.0, seed=0)[0] is not None
    solver.close()
    solver.close()
