"""Lagrangian matching by dual prices, for any number of queries, with bounds on any other answer."""

from circinus.matching.lagrangian.dual import DualObjective, Prices, dual_bound
from circinus.matching.lagrangian.relaxed_problem import RelaxedProblem
from circinus.matching.lagrangian.solve import RelaxedSolution, solve_relaxed

__all__ = ["DualObjective", "Prices", "RelaxedProblem", "RelaxedSolution", "dual_bound", "solve_relaxed"]
