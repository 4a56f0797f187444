"""Matching by prices: any number of queries, with a bound on what any other answer could do better."""

from circinus.matching.prices.dual import DualObjective, Prices, dual_bound
from circinus.matching.prices.fluid import RelaxedProblem
from circinus.matching.prices.solve import RelaxedSolution, solve_relaxed

__all__ = ["DualObjective", "Prices", "RelaxedProblem", "RelaxedSolution", "dual_bound", "solve_relaxed"]
