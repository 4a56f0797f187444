"""Specifications, operators and traffic that benchmarks run."""
