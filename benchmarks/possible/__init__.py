"""Benchmarks of what is possible: plans against optima of the whole problem."""
