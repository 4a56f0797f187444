"""What a solver is asked and what it answers; the exact one is the first of its kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from circinus.arrays import IntArray
from circinus.matching.cuts import Cut
from circinus.matching.problem import Problem


@dataclass(frozen=True, eq=False)
class Solution:
    """At most one candidate a query, with proofs of how good the choice is."""

    chosen: IntArray
    """(Q,) candidate of each query, -1 for none."""
    feasible_incumbent: IntArray
    """(Q,) the best choice known that surely keeps every cost objective, too; may be the same."""
    weight_bound: float
    """No choice that keeps capacities, cost objectives and cuts satisfies more weight."""
    cost_bound_usd_per_h: float
    """No such choice of the same weight costs less, with what changes of plan count."""
    optimal: bool
    """Whether both bounds are reached."""


class Solver(Protocol):
    """Chooses: satisfied weight first, total cost and what changes of plan count second."""

    def solve(
        self, problem: Problem, cuts: Sequence[Cut], time_limit_s: float, warm_starts: Sequence[IntArray] = ()
    ) -> Solution:
        """The best choice found within about `time_limit_s` seconds, keeping capacities and cuts.

        Cost objectives are kept as far as the solver can express them; the caller checks and cuts.

        Args:
            problem: what to choose from.
            cuts: what was learnt from earlier choices.
            time_limit_s: when to stop.
            warm_starts: earlier or quick choices to begin from; they may break cuts.
        """
        ...
