"""Interface of matching solvers: `optimizer` selects one by size, `search` solves small subsets exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from circinus.arrays import IntArray
from circinus.matching.cuts import Cut
from circinus.matching.problem import Problem


@dataclass(frozen=True, eq=False)
class Solution:
    """Choice of at most one candidate for every query, with bounds."""

    chosen: IntArray
    """(Q,) candidate of each query, -1 for none."""
    feasible_incumbent: IntArray
    """(Q,) best choice that certainly meets every cost SLO; may equal `chosen`."""
    weight_bounds: tuple[float, ...]
    """Lexicographic upper bound on the weights by level, highest first, of any choice that satisfies capacities, cost
    SLOs and cuts."""
    cost_bound_usd_per_h: float
    """Lower bound on the cost, including churn, of any such choice with this weight."""
    optimal: bool
    """True if both bounds are reached."""


class Solver(Protocol):
    """Solver of a matching problem: maximum satisfied weight first, minimum total cost including churn second."""

    def solve(
        self, problem: Problem, cuts: Sequence[Cut], time_limit_s: float, warm_starts: Sequence[IntArray] = ()
    ) -> Solution:
        """Return the best choice found within about `time_limit_s` seconds, subject to capacities and cuts.

        Cost SLOs are enforced as far as the solver can express them; the caller checks them and adds cuts.

        Args:
            problem: the matching problem.
            cuts: from the checks of previous choices.
            time_limit_s: time limit.
            warm_starts: previous or heuristic choices; they may violate cuts.
        """
        ...
