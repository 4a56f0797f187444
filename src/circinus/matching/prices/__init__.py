"""Matching by prices: any number of queries, with a bound on what any other answer could do better."""

from circinus.matching.prices.dual import Objective, Prices, bound
from circinus.matching.prices.fluid import FluidProblem
from circinus.matching.prices.solve import FluidAnswer, solve_fluid

__all__ = ["FluidAnswer", "FluidProblem", "Objective", "Prices", "bound", "solve_fluid"]
