"""A smooth function's minimum nearby: BFGS for a few dozen parameters."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

_SUFFICIENT = 1e-4
_SHORTER = 0.3
_SHORTENINGS = 8


def minimize_bfgs(
    function: Callable[[FloatArray], tuple[float, FloatArray]],
    start: FloatArray,
    spread: FloatArray,
    *,
    iterations: int,
    tolerance: float,
    longest_step: float = 1.5,
) -> tuple[FloatArray, float]:
    """Descend from `start` (Nocedal & Wright 2006, algorithm 6.1, with backtracking).

    Args:
        function: (p,) -> its value (infinite where it cannot be computed) and gradient (p,).
        start: (p,) where the function is finite.
        spread: (p,) how far each parameter is expected to move: the first guess of the inverse curvature.
        iterations: at most.
        tolerance: decrease of the value by one step below which it ends.
        longest_step: in each parameter.

    Returns:
        Where it ended and the value there, never greater than that at `start`.
    """
    at, (value, gradient) = start, function(start)
    inverse = np.diag(spread**2)
    for _ in range(iterations):
        direction = -inverse @ gradient
        slope = float(direction @ gradient)
        if not slope < 0:
            break
        length = min(1.0, longest_step / max(float(abs(direction).max()), 1e-12))
        for _ in range(_SHORTENINGS):
            reached = at + length * direction
            there, gradient_there = function(reached)
            if there <= value + _SUFFICIENT * length * slope:
                break
            length *= _SHORTER
        else:
            break
        step, change = reached - at, gradient_there - gradient
        decrease = value - there
        at, value, gradient = reached, there, gradient_there
        if decrease < tolerance:
            break
        curvature = float(step @ change)
        if curvature > 1e-12:
            turned = inverse @ change
            inverse = (
                inverse
                + (curvature + change @ turned) * np.outer(step, step) / curvature**2
                - (np.outer(turned, step) + np.outer(step, turned)) / curvature
            )
    return at, value
