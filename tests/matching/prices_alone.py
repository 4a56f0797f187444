"""The solver for many queries by prices and whole replicas alone, so that its answer depends on the problem only."""

from __future__ import annotations

import math

from circinus.arrays import FloatArray
from circinus.matching.solvers.highs import LpModel
from circinus.matching.solvers.lagrangian_solver import LagrangianSolver


def prices_alone() -> LagrangianSolver:
    """No time passes, so that no limit ends anything early, and the exact model finds nothing."""
    return LagrangianSolver(clock=lambda: 0.0, minimise=_finds_nothing)


def _finds_nothing(
    programme: LpModel,
    objective: FloatArray,
    start: FloatArray,
    *,
    time_limit_s: float,
    gap: float,
    seed: int,
) -> tuple[FloatArray | None, float]:
    """Neither values nor a bound, as of a solver that had to be ended."""
    return None, -math.inf
