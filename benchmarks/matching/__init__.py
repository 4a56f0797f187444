"""Benchmarks of the matching of many queries."""
