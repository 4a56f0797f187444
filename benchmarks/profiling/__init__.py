"""Benchmarks of profiling: cost, coverage, crash recovery."""
