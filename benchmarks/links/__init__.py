"""Benchmark over shaped links between three sites."""
