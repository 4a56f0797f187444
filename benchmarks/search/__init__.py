"""Benchmarks of the search for one query's plan."""
