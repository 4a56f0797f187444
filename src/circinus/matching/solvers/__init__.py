"""Solvers of the matching problem: an exact MILP solver, a Lagrangian one for many queries, greedy first choices."""
